//! Many forwarding entries and neighbours with few system calls.
//!
//! The kernel works through the messages of one datagram in their order and answers each that it refuses
//! (`netlink_rcv_skb` in net/netlink/af_netlink.c), so only the last of a datagram asks for an acknowledgement: when that
//! arrives, all before it are done. A datagram has no more messages than refusals fit the socket's queue.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::SocketAddr;
use rustix::io::Errno;

use super::{FdbSpec, FdbTable, NeighSpec, fdb_message, neigh_message, replaced_neigh};
use crate::dump::{DumpSocket, PIECE_MAX};
use crate::error::{NetlinkError, Refusal};
use crate::netlink::{Netlink, refusal};

/// Messages in one datagram. A refusal takes less than 1 KiB of the socket's queue, which holds 208 KiB unless the host was
/// told otherwise (`net.core.rmem_default`).
const DATAGRAM: usize = 128;

/// One change of a forwarding entry or a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryChange {
    /// As [`Netlink::fdb_replace`].
    FdbReplace(FdbSpec),
    /// One more destination of an Ethernet address in a VXLAN device's own table: that of all zeros, to which frames go that
    /// have no entry (head-end replication).
    FdbAppend(FdbSpec),
    /// As [`Netlink::fdb_del`]; absent is success. With a destination, only that one of the link's own table.
    FdbDel(FdbSpec),
    /// As [`Netlink::neigh_replace`].
    NeighReplace(NeighSpec),
    /// As [`Netlink::neigh_del`]; absent is success.
    NeighDel {
        /// Index of the link the neighbour is on.
        index: u32,
        /// The neighbour's IP address.
        addr: IpAddr,
    },
}

/// A change the kernel refused. The others of its batch are not concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryFault {
    /// What was refused.
    pub change: EntryChange,
    /// The kernel's answer.
    pub refusal: Refusal,
}

impl EntryChange {
    fn is_deletion(&self) -> bool {
        matches!(self, Self::FdbDel(_) | Self::NeighDel { .. })
    }

    /// Its messages with their flags.
    fn messages(&self) -> Vec<(RouteNetlinkMessage, u16)> {
        const REPLACE: u16 = NLM_F_CREATE | NLM_F_REPLACE;
        let new = |message, flags| vec![(RouteNetlinkMessage::NewNeighbour(message), flags)];
        match self {
            Self::FdbReplace(spec) => new(fdb_message(spec), REPLACE),
            Self::FdbAppend(spec) => new(fdb_message(spec), NLM_F_CREATE | NLM_F_APPEND),
            Self::NeighReplace(spec) => new(replaced_neigh(spec), REPLACE),
            Self::NeighDel { index, addr } => {
                vec![(RouteNetlinkMessage::DelNeighbour(neigh_message(*index, *addr)), 0)]
            }
            Self::FdbDel(spec) => super::deletions(spec)
                .map(|spec| (RouteNetlinkMessage::DelNeighbour(fdb_message(&spec)), 0))
                .collect(),
        }
    }
}

impl Netlink {
    /// Makes `changes`, in their order. What the kernel refused comes back; the rest is done.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Socket`] if the socket failed: then it is not known what was done.
    pub fn entries_change(&self, changes: &[EntryChange]) -> Result<Vec<EntryFault>, NetlinkError> {
        let mut messages = Vec::new();
        for (number, change) in changes.iter().enumerate() {
            messages.extend(change.messages().into_iter().map(|(message, flags)| (number, message, flags)));
        }
        let mut refused = BTreeMap::new();
        for datagram in messages.chunks(DATAGRAM) {
            let requests = datagram.iter().map(|(_, message, flags)| (message.clone(), *flags));
            for (at, refusal) in self.lists.send_together(requests.collect())? {
                // Of the two halves of a deletion, the first that was refused is told.
                refused.entry(datagram.get(at).map(|(number, ..)| *number)).or_insert(refusal);
            }
        }
        let fault = |(number, refusal): (Option<usize>, Refusal)| {
            let change = *changes.get(number?)?;
            let absent = change.is_deletion() && ABSENT.contains(&refusal.errno);
            (!absent).then_some(EntryFault { change, refusal })
        };
        Ok(refused.into_iter().filter_map(fault).collect())
    }
}

/// What deleting says where there is nothing to delete.
const ABSENT: [Errno; 3] = [Errno::NOENT, Errno::NODEV, Errno::NXIO];

impl DumpSocket {
    /// Sends requests in one datagram and waits until the last is done. Those refused, by their place.
    fn send_together(
        &self,
        requests: Vec<(RouteNetlinkMessage, u16)>,
    ) -> Result<Vec<(usize, Refusal)>, NetlinkError> {
        let failed = |operation| move |source| NetlinkError::Socket { operation, source };
        let Some(last) = requests.len().checked_sub(1) else { return Ok(Vec::new()) };
        let first = self.sequence.get().wrapping_add(1);
        let mut bytes = Vec::new();
        for (at, (message, flags)) in requests.into_iter().enumerate() {
            let mut request = NetlinkMessage::from(message);
            let ack = if at == last { NLM_F_ACK } else { 0 };
            request.header.flags = NLM_F_REQUEST | ack | flags;
            request.header.sequence_number = self.next_sequence();
            request.finalize();
            let start = bytes.len();
            bytes.resize(start + request.buffer_len().next_multiple_of(4), 0);
            request.serialize(bytes.get_mut(start..).unwrap_or_default());
        }
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0).map_err(failed("write to"))?;

        let mut refusals = Vec::new();
        let mut piece = Vec::with_capacity(PIECE_MAX);
        loop {
            piece.clear();
            match self.socket.recv(&mut piece, 0) {
                Ok(_) => (),
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                Err(err) => return Err(failed("read from")(err)),
            }
            for (sequence, refused) in answers(&piece) {
                let Ok(at) = usize::try_from(sequence.wrapping_sub(first)) else { continue };
                if at > last {
                    continue;
                }
                refusals.extend(refused.map(|refusal| (at, refusal)));
                if at == last {
                    return Ok(refusals);
                }
            }
        }
    }
}

/// The acknowledgements in a datagram: to which request, and what it refuses. What cannot be read is passed over.
fn answers(datagram: &[u8]) -> Vec<(u32, Option<Refusal>)> {
    let mut answers = Vec::new();
    let mut rest = datagram;
    while let Ok(frame) = NetlinkBuffer::new_checked(rest) {
        let length = usize::try_from(frame.length()).unwrap_or(usize::MAX).next_multiple_of(4);
        if let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
            && let NetlinkPayload::Error(error) = &message.payload
        {
            answers.push((message.header.sequence_number, refusal(message.header.flags, error)));
        }
        rest = rest.get(length..).unwrap_or_default();
        if length == 0 {
            break;
        }
    }
    answers
}

impl std::fmt::Display for EntryFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.change {
            EntryChange::FdbReplace(spec) | EntryChange::FdbAppend(spec) => {
                write!(f, "write forwarding entry {spec}: {}", self.refusal)
            }
            EntryChange::FdbDel(spec) => write!(f, "delete forwarding entry {spec}: {}", self.refusal),
            EntryChange::NeighReplace(NeighSpec { index, addr, .. }) => {
                write!(f, "write neighbour {addr} on link number {index}: {}", self.refusal)
            }
            EntryChange::NeighDel { index, addr } => {
                write!(f, "delete neighbour {addr} on link number {index}: {}", self.refusal)
            }
        }
    }
}

/// The tables of `table`, each for itself: with one request for both, the link's own entry stays where the bridge has none
/// (`rtnl_fdb_del` in net/core/rtnetlink.c).
pub(super) fn tables(table: FdbTable) -> &'static [FdbTable] {
    match table {
        FdbTable::Bridge => &[FdbTable::Bridge],
        FdbTable::Link => &[FdbTable::Link],
        FdbTable::Both => &[FdbTable::Bridge, FdbTable::Link],
    }
}
