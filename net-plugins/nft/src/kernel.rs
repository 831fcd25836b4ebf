//! Numbers of nf_tables' and conntrack's netlink interfaces (`linux/netfilter/nfnetlink.h`, `nf_tables.h`,
//! `nfnetlink_conntrack.h`) and the few messages made of them.

use crate::lower::{Entry, Upper};
use crate::schema::{SetDef, TABLE, Table};
use crate::wire::{Attrs, Head, NLM_F_ACK, Writer};

pub(crate) const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
pub(crate) const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFNL_BATCH_GENID: u16 = 1;
pub(crate) const NFNL_SUBSYS_NFTABLES: u16 = 10;

/// `NFT_MSG_*` with the subsystem.
pub(crate) mod msg {
    const fn nft(message: u16) -> u16 {
        (super::NFNL_SUBSYS_NFTABLES << 8) | message
    }
    pub(crate) const NEWTABLE: u16 = nft(0);
    pub(crate) const GETTABLE: u16 = nft(1);
    pub(crate) const DELTABLE: u16 = nft(2);
    pub(crate) const NEWCHAIN: u16 = nft(3);
    pub(crate) const GETCHAIN: u16 = nft(4);
    pub(crate) const DELCHAIN: u16 = nft(5);
    pub(crate) const NEWRULE: u16 = nft(6);
    pub(crate) const GETRULE: u16 = nft(7);
    pub(crate) const DELRULE: u16 = nft(8);
    pub(crate) const NEWSET: u16 = nft(9);
    pub(crate) const GETSET: u16 = nft(10);
    pub(crate) const DELSET: u16 = nft(11);
    pub(crate) const NEWSETELEM: u16 = nft(12);
    pub(crate) const GETSETELEM: u16 = nft(13);
    pub(crate) const DELSETELEM: u16 = nft(14);
    pub(crate) const NEWGEN: u16 = nft(15);
    pub(crate) const GETGEN: u16 = nft(16);
}

/// Attribute types, named after the kernel's `NFTA_*`.
pub(crate) mod nfta {
    pub(crate) const LIST_ELEM: u16 = 1;
    pub(crate) const TABLE_NAME: u16 = 1;
    pub(crate) const TABLE_FLAGS: u16 = 2;
    pub(crate) const CHAIN_TABLE: u16 = 1;
    pub(crate) const CHAIN_NAME: u16 = 3;
    pub(crate) const CHAIN_HOOK: u16 = 4;
    pub(crate) const CHAIN_POLICY: u16 = 5;
    pub(crate) const CHAIN_TYPE: u16 = 7;
    pub(crate) const RULE_TABLE: u16 = 1;
    pub(crate) const RULE_CHAIN: u16 = 2;
    pub(crate) const RULE_EXPRESSIONS: u16 = 4;
    pub(crate) const RULE_USERDATA: u16 = 7;
    pub(crate) const EXPR_NAME: u16 = 1;
    pub(crate) const EXPR_DATA: u16 = 2;
    pub(crate) const SET_TABLE: u16 = 1;
    pub(crate) const SET_NAME: u16 = 2;
    pub(crate) const SET_KEY_TYPE: u16 = 4;
    pub(crate) const SET_KEY_LEN: u16 = 5;
    pub(crate) const SET_ID: u16 = 10;
    pub(crate) const ELEM_LIST_TABLE: u16 = 1;
    pub(crate) const ELEM_LIST_SET: u16 = 2;
    pub(crate) const ELEM_LIST_ELEMENTS: u16 = 3;
    pub(crate) const ELEM_KEY: u16 = 1;
    pub(crate) const ELEM_DATA: u16 = 2;
    pub(crate) const ELEM_FLAGS: u16 = 3;
    pub(crate) const ELEM_KEY_END: u16 = 10;
    pub(crate) const DATA_VALUE: u16 = 1;
    pub(crate) const DATA_VERDICT: u16 = 2;
    pub(crate) const VERDICT_CODE: u16 = 1;
    pub(crate) const LOOKUP_SET: u16 = 1;
    pub(crate) const LOOKUP_SREG: u16 = 2;
    pub(crate) const META_DREG: u16 = 1;
    pub(crate) const META_KEY: u16 = 2;
    pub(crate) const CMP_SREG: u16 = 1;
    pub(crate) const CMP_OP: u16 = 2;
    pub(crate) const CMP_DATA: u16 = 3;
    pub(crate) const RT_DREG: u16 = 1;
    pub(crate) const RT_KEY: u16 = 2;
    pub(crate) const PAYLOAD_DREG: u16 = 1;
    pub(crate) const PAYLOAD_BASE: u16 = 2;
    pub(crate) const PAYLOAD_OFFSET: u16 = 3;
    pub(crate) const PAYLOAD_LEN: u16 = 4;
    pub(crate) const IMMEDIATE_DREG: u16 = 1;
    pub(crate) const IMMEDIATE_DATA: u16 = 2;
    pub(crate) const GEN_ID: u16 = 1;
    pub(crate) const GEN_PROC_PID: u16 = 2;
    pub(crate) const GEN_PROC_NAME: u16 = 3;
}

/// `NFT_SET_ELEM_INTERVAL_END`.
pub(crate) const INTERVAL_END: u32 = 1;

/// Whether a message of a batch should be acknowledged. Errors always are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ack {
    Errors,
    Success,
}

/// A batch being written: a transaction of nf_tables.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) writer: Writer,
    first_seq: u32,
    next_seq: u32,
}

impl Script {
    /// Begins the transaction; its messages are numbered from `first_seq`. With a `generation`, the kernel refuses it
    /// (`ERESTART`) when another transaction came since.
    pub(crate) fn begin(first_seq: u32, generation: Option<u32>) -> Self {
        let mut script = Self { writer: Writer::default(), first_seq, next_seq: first_seq };
        script.frame(NFNL_MSG_BATCH_BEGIN, generation);
        script
    }

    /// Ends it.
    pub(crate) fn end(mut self) -> Self {
        self.frame(NFNL_MSG_BATCH_END, None);
        self
    }

    pub(crate) fn message_count(&self) -> usize {
        usize::try_from(self.next_seq - self.first_seq).unwrap_or(usize::MAX)
    }

    fn frame(&mut self, kind: u16, generation: Option<u32>) {
        let head = Head { kind, flags: 0, seq: self.next_seq, family: 0, res_id: NFNL_SUBSYS_NFTABLES };
        self.next_seq += 1;
        self.writer.message(head, |attrs| {
            if let Some(generation) = generation {
                attrs.u32(NFNL_BATCH_GENID, generation);
            }
        });
    }

    /// Appends a message and returns its sequence number.
    pub(crate) fn push(
        &mut self,
        table: Table,
        kind: u16,
        flags: u16,
        ack: Ack,
        fill: impl FnOnce(&mut Attrs<'_>),
    ) -> u32 {
        let seq = self.next_seq;
        self.next_seq += 1;
        let flags = flags | if ack == Ack::Success { NLM_F_ACK } else { 0 };
        self.writer.message(Head { kind, flags, seq, family: table.number(), res_id: 0 }, fill);
        seq
    }

    /// Appends a `NEWSETELEM` or `DELSETELEM` of entries of one set.
    pub(crate) fn entries<'e>(
        &mut self,
        kind: u16,
        flags: u16,
        set: &SetDef,
        entries: impl IntoIterator<Item = &'e Entry>,
    ) -> u32 {
        self.push(set.table, kind, flags, Ack::Errors, |attrs| elements(attrs, set.name, entries))
    }
}

/// The attributes of a message about elements of a set; without an entry it is about all of them.
pub(crate) fn elements<'e>(attrs: &mut Attrs<'_>, set: &str, entries: impl IntoIterator<Item = &'e Entry>) {
    attrs.text(nfta::ELEM_LIST_TABLE, TABLE);
    attrs.text(nfta::ELEM_LIST_SET, set);
    let mut entries = entries.into_iter().peekable();
    if entries.peek().is_none() {
        return;
    }
    attrs.nest(nfta::ELEM_LIST_ELEMENTS, |attrs| entries.for_each(|entry| element(attrs, entry)));
}

fn element(attrs: &mut Attrs<'_>, entry: &Entry) {
    attrs.nest(nfta::LIST_ELEM, |attrs| {
        value(attrs, nfta::ELEM_KEY, &entry.key);
        if let Upper::Last(last) = &entry.upper {
            value(attrs, nfta::ELEM_KEY_END, last);
        }
        if let Some(data) = &entry.data {
            value(attrs, nfta::ELEM_DATA, data);
        }
    });
    if let Upper::Before(next) = &entry.upper {
        attrs.nest(nfta::LIST_ELEM, |attrs| {
            value(attrs, nfta::ELEM_KEY, next);
            attrs.u32(nfta::ELEM_FLAGS, INTERVAL_END);
        });
    }
}

pub(crate) fn value(attrs: &mut Attrs<'_>, kind: u16, bytes: &[u8]) {
    attrs.nest(kind, |attrs| attrs.bytes(nfta::DATA_VALUE, bytes));
}

/// Writes a request to read, outside of any batch.
pub(crate) fn get(
    writer: &mut Writer,
    seq: u32,
    table: Table,
    kind: u16,
    flags: u16,
    fill: impl FnOnce(&mut Attrs<'_>),
) {
    writer.message(Head { kind, flags, seq, family: table.number(), res_id: 0 }, fill);
}

/// An entry of a set that berth makes itself (the marker), keyed by a mark.
pub(crate) fn mark_entry(set: &'static SetDef, mark: u32) -> Entry {
    Entry { set, key: mark.to_ne_bytes().to_vec(), upper: Upper::None, data: None }
}
