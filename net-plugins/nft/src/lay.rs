//! Laying the ruleset, and taking it away.
//!
//! Laying is three transactions, each complete in itself: the ruleset by `nft`, the one rule that nft 1.0.6 cannot
//! express, and the marker. Only the marker makes batches succeed, so whoever is interrupted begins again.

use std::io;

use crate::batch::LAID;
use crate::fingerprint::{Laid, observe};
use crate::kernel::{Ack, Script, elements, mark_entry, msg, nfta};
use crate::nft::{self, NftError};
use crate::ruleset::{ADVERTISED, marker_set, script};
use crate::schema::{ALLOWED6, Field, TABLE, Table};
use crate::socket::{NftSocket, SocketError};
use crate::wire::{Attrs, NLM_F_APPEND, NLM_F_CREATE};

/// Part of the ruleset's version: to be changed with [`target_rule`].
pub(crate) const TARGET_RULE_VERSION: &str = "1";
/// Others that lay at the same moment may delete an old marker first.
const TRIES: u32 = 8;

/// Why the ruleset could not be laid or removed.
#[derive(Debug, thiserror::Error)]
pub enum LayError {
    /// `nft` failed.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// The ruleset could not be written as JSON.
    #[error("cannot write the ruleset as JSON")]
    Render {
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The kernel refused a transaction.
    #[error("the kernel refused to {doing}")]
    Refused {
        /// What was to be done.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel could not be talked to.
    #[error(transparent)]
    Socket(#[from] SocketError),
}

/// Lays the ruleset, or lays it again: tables and sets are added and keep their elements, chains are refilled.
///
/// It may be called at any time, by several at once. Isolation is never weaker meanwhile.
/// The calling thread must be in the socket's network namespace, because `nft` inherits it from there.
pub fn lay(socket: &mut NftSocket) -> Result<(), LayError> {
    let script = script().map_err(|source| LayError::Render { source })?;
    nft::run(&["-j", "-f", "-"], &script)?;
    socket.transaction("lay the rule for neighbour advertisements", 4, |script| {
        script.push(Table::Bridge, msg::DELRULE, 0, Ack::Errors, in_advertised);
        script.push(Table::Bridge, msg::NEWRULE, NLM_F_CREATE | NLM_F_APPEND, Ack::Success, target_rule);
    })?;
    let mut tries = 0;
    loop {
        match mark_laid(socket) {
            Err(LayError::Refused { source, .. })
                if source.raw_os_error() == Some(libc::ENOENT) && tries < TRIES =>
            {
                tries += 1;
            }
            result => return result,
        }
    }
}

/// Deletes both tables, with everything in them, in one transaction. It is no error when they are not there.
pub fn remove_tables(socket: &mut NftSocket) -> Result<(), LayError> {
    socket.transaction("remove the tables", 6, |script| {
        for table in Table::ALL {
            for (kind, flags) in [(msg::NEWTABLE, NLM_F_CREATE), (msg::DELTABLE, 0)] {
                script.push(table, kind, flags, Ack::Success, |attrs| attrs.text(nfta::TABLE_NAME, TABLE));
            }
        }
    })
}

/// Writes the marker and what was laid by it, and deletes the markers of other versions: their ruleset is gone.
fn mark_laid(socket: &mut NftSocket) -> Result<(), LayError> {
    let Laid { fingerprint, markers, .. } = observe(socket)?;
    let marker = marker_set();
    let others: Vec<_> = markers.iter().filter(|name| *name != marker.name).collect();
    let count = u32::try_from(others.len()).unwrap_or(u32::MAX).saturating_add(6);
    socket.transaction("mark the ruleset as laid", count, |script| {
        for name in &others {
            script.push(Table::Inet, msg::DELSET, 0, Ack::Errors, |attrs| {
                attrs.text(nfta::SET_TABLE, TABLE);
                attrs.text(nfta::SET_NAME, name);
            });
        }
        script.push(Table::Inet, msg::NEWSET, NLM_F_CREATE, Ack::Errors, |attrs| {
            attrs.text(nfta::SET_TABLE, TABLE);
            attrs.text(nfta::SET_NAME, marker.name);
            attrs.u32(nfta::SET_KEY_TYPE, MARK_TYPE);
            attrs.u32(nfta::SET_KEY_LEN, 4);
            attrs.u32(nfta::SET_ID, 1);
        });
        script.push(Table::Inet, msg::DELSETELEM, 0, Ack::Errors, |attrs| elements(attrs, marker.name, []));
        script.entries(msg::NEWSETELEM, NLM_F_CREATE, marker, [&mark_entry(marker, LAID)]);
        script.push(Table::Inet, msg::NEWSETELEM, NLM_F_CREATE, Ack::Success, |attrs| {
            elements(attrs, marker.name, [&mark_entry(marker, fingerprint)]);
        });
    })
}

/// nft's number of the type `mark`: what it prints the marker's elements as.
const MARK_TYPE: u32 = 19;

fn in_advertised(attrs: &mut Attrs<'_>) {
    attrs.text(nfta::RULE_TABLE, TABLE);
    attrs.text(nfta::RULE_CHAIN, ADVERTISED);
}

/// `iifname . ether saddr . icmpv6 taddr @allowed6 accept`. RFC 4861 section 4.4 puts the target eight bytes after the
/// start of the ICMPv6 header.
fn target_rule(attrs: &mut Attrs<'_>) {
    /// `NFT_REG32_00`: the first of the 32-bit registers a concatenation is built in.
    const FIRST_REGISTER: u32 = 8;
    /// `NFT_META_IIFNAME`, `NFT_PAYLOAD_LL_HEADER`, `NFT_PAYLOAD_TRANSPORT_HEADER`, `NF_ACCEPT`.
    const IIFNAME: u32 = 6;
    const LINK: u32 = 0;
    const TRANSPORT: u32 = 2;
    const ACCEPT: u32 = 1;
    let words = |field: Field| u32::try_from(field.padded() / 4).unwrap_or(0);
    let mac = FIRST_REGISTER + words(Field::IfName);
    let target = mac + words(Field::Mac);
    in_advertised(attrs);
    attrs.nest(nfta::RULE_EXPRESSIONS, |attrs| {
        expression(attrs, "meta", |attrs| {
            attrs.u32(nfta::META_DREG, FIRST_REGISTER);
            attrs.u32(nfta::META_KEY, IIFNAME);
        });
        for (register, base, offset, length) in [(mac, LINK, 6, 6), (target, TRANSPORT, 8, 16)] {
            expression(attrs, "payload", |attrs| {
                attrs.u32(nfta::PAYLOAD_DREG, register);
                attrs.u32(nfta::PAYLOAD_BASE, base);
                attrs.u32(nfta::PAYLOAD_OFFSET, offset);
                attrs.u32(nfta::PAYLOAD_LEN, length);
            });
        }
        expression(attrs, "lookup", |attrs| {
            attrs.text(nfta::LOOKUP_SET, ALLOWED6.name);
            attrs.u32(nfta::LOOKUP_SREG, FIRST_REGISTER);
        });
        expression(attrs, "immediate", |attrs| {
            attrs.u32(nfta::IMMEDIATE_DREG, 0);
            attrs.nest(nfta::IMMEDIATE_DATA, |attrs| {
                attrs.nest(nfta::DATA_VERDICT, |attrs| attrs.u32(nfta::VERDICT_CODE, ACCEPT));
            });
        });
    });
    // A comment as nft writes it: type 0, length, text with its zero.
    attrs.bytes(nfta::RULE_USERDATA, b"\x00\x17own address advertised\x00");
}

fn expression(attrs: &mut Attrs<'_>, name: &str, fill: impl FnOnce(&mut Attrs<'_>)) {
    attrs.nest(nfta::LIST_ELEM, |attrs| {
        attrs.text(nfta::EXPR_NAME, name);
        attrs.nest(nfta::EXPR_DATA, fill);
    });
}

impl NftSocket {
    /// Runs a transaction of at most `count` messages, the frame included; again when the kernel asks for it.
    fn transaction(
        &mut self,
        doing: &'static str,
        count: u32,
        write: impl Fn(&mut Script),
    ) -> Result<(), LayError> {
        let mut last = libc::EBUSY;
        for _ in 0..TRIES {
            let mut script = Script::begin(self.sequence(count), None);
            write(&mut script);
            let script = script.end();
            let answers = self.exchange(&script.writer, script.message_count())?;
            match answers.by_seq.values().copied().find(|errno| *errno != 0) {
                None if answers.by_seq.is_empty() => last = libc::ENOBUFS,
                None => return Ok(()),
                Some(errno) if crate::batch::is_temporary(errno) => last = errno,
                Some(errno) => {
                    return Err(LayError::Refused { doing, source: io::Error::from_raw_os_error(errno) });
                }
            }
        }
        Err(LayError::Refused { doing, source: io::Error::from_raw_os_error(last) })
    }
}
