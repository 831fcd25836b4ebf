//! Flushing connection tracking entries of a changed mapping.
//!
//! Only a flow's first packet is looked up in the nat maps. A UDP client that keeps its port keeps its entry, and with
//! it the old container, or none (moby#44742, CNI plugins#123). Entries are read, compared here, and deleted one by one
//! by their whole tuple and their identity, so a flow that does not match, or that began meanwhile, is never touched.

use std::io;
use std::net::IpAddr;

use berth_types::Family;

use crate::socket::{NftSocket, SocketError};
use crate::wire::{AttrSet, Attrs, Head, Message, NLM_F_ACK, NLM_F_DUMP, Writer};

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_*`.
const CT_GET: u16 = (1 << 8) | 1;
const CT_DELETE: u16 = (1 << 8) | 2;

/// `CTA_*` of `linux/netfilter/nfnetlink_conntrack.h`.
mod cta {
    pub(super) const TUPLE_ORIG: u16 = 1;
    pub(super) const TUPLE_REPLY: u16 = 2;
    pub(super) const ID: u16 = 12;
    pub(super) const ZONE: u16 = 18;
    pub(super) const FILTER: u16 = 25;
    pub(super) const FILTER_ORIG_FLAGS: u16 = 1;
    pub(super) const FILTER_REPLY_FLAGS: u16 = 2;
    pub(super) const TUPLE_IP: u16 = 1;
    pub(super) const TUPLE_PROTO: u16 = 2;
    pub(super) const IP_V4_SRC: u16 = 1;
    pub(super) const IP_V4_DST: u16 = 2;
    pub(super) const IP_V6_SRC: u16 = 3;
    pub(super) const IP_V6_DST: u16 = 4;
    pub(super) const PROTO_NUM: u16 = 1;
    pub(super) const PROTO_SRC_PORT: u16 = 2;
    pub(super) const PROTO_DST_PORT: u16 = 3;
}

/// `CTA_FILTER_FLAG_CTA_PROTO_NUM`.
const FILTER_PROTO_NUM: u32 = 1 << 3;
/// Deletions in one send: their acknowledgements fit the receive buffer.
const DELETE_CHUNK: usize = 512;

/// Which tracked flows to forget. Every condition that is given must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowMatch {
    /// The IP protocol number; 17 is UDP.
    pub proto: u8,
    /// The family of the flow, before and after translation.
    pub family: Family,
    /// The ports it was sent to, before translation: first and last.
    pub dst_ports: (u16, u16),
    /// The address it was sent to, before translation.
    pub dst: Option<IpAddr>,
    /// The address that answers: the container's, where the flow was led to one.
    pub reply_src: Option<IpAddr>,
    /// The port that answers.
    pub reply_src_port: Option<u16>,
    /// Leave flows alone that are answered by this address already: they follow the new mapping.
    pub keep_reply_src: Option<IpAddr>,
}

impl FlowMatch {
    /// UDP flows of a family to a range of ports, wherever they lead.
    pub fn udp(family: Family, dst_ports: (u16, u16)) -> Self {
        Self {
            proto: 17,
            family,
            dst_ports,
            dst: None,
            reply_src: None,
            reply_src_port: None,
            keep_reply_src: None,
        }
    }

    fn matches(&self, family: Family, flow: &Flow) -> bool {
        let Self {
            proto,
            family: of,
            dst_ports: (first, last),
            dst,
            reply_src,
            reply_src_port,
            keep_reply_src,
        } = self;
        *of == family
            && *proto == flow.proto
            && (*first..=*last).contains(&flow.dst_port)
            && dst.is_none_or(|dst| dst == flow.dst)
            && reply_src.is_none_or(|src| src == flow.reply_src)
            && reply_src_port.is_none_or(|port| port == flow.reply_src_port)
            && keep_reply_src.is_none_or(|src| src != flow.reply_src)
    }
}

/// What is compared of a tracked flow, and what it is deleted by.
#[derive(Debug, PartialEq, Eq)]
struct Flow {
    proto: u8,
    dst: IpAddr,
    dst_port: u16,
    reply_src: IpAddr,
    reply_src_port: u16,
    tuple: Vec<u8>,
    zone: Option<Vec<u8>>,
    id: Vec<u8>,
}

/// Deletes the tracked flows of this network namespace that one of `matches` describes, and returns how many.
///
/// The whole table of a family is read when there is something to find in it. A flow that ends meanwhile is no error.
pub fn flush_flows(socket: &mut NftSocket, matches: &[FlowMatch]) -> Result<usize, SocketError> {
    let mut deleted = 0;
    for family in [Family::V4, Family::V6] {
        let wanted: Vec<_> = matches.iter().filter(|wanted| wanted.family == family).collect();
        if wanted.is_empty() {
            continue;
        }
        let flows = socket.dump(
            "read the tracked connections",
            |writer, seq| {
                writer.message(head(family, CT_GET, NLM_F_DUMP, seq), |attrs| filter(attrs, &wanted))
            },
            |found: &mut Vec<Flow>, message| {
                let flow =
                    flow(message).filter(|flow| wanted.iter().any(|wanted| wanted.matches(family, flow)));
                found.extend(flow);
            },
        )?;
        for chunk in flows.chunks(DELETE_CHUNK) {
            deleted += delete(socket, family, chunk)?;
        }
    }
    Ok(deleted)
}

fn head(family: Family, kind: u16, flags: u16, seq: u32) -> Head {
    let family = match family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    Head { kind, flags, seq, family: u8::try_from(family).unwrap_or(0), res_id: 0 }
}

/// Lets the kernel leave out other protocols, since 5.8; before, it ignores this. The comparison is made here anyway.
fn filter(attrs: &mut Attrs<'_>, wanted: &[&FlowMatch]) {
    let Some(proto) = wanted.first().map(|first| first.proto) else { return };
    if wanted.iter().any(|other| other.proto != proto) {
        return;
    }
    attrs.nest(cta::TUPLE_ORIG, |attrs| {
        attrs.nest(cta::TUPLE_PROTO, |attrs| attrs.bytes(cta::PROTO_NUM, &[proto]));
    });
    attrs.nest(cta::FILTER, |attrs| {
        attrs.bytes(cta::FILTER_ORIG_FLAGS, &FILTER_PROTO_NUM.to_ne_bytes());
        attrs.bytes(cta::FILTER_REPLY_FLAGS, &0_u32.to_ne_bytes());
    });
}

fn flow(message: Message<'_>) -> Option<Flow> {
    let attrs = message.attrs();
    let (orig, reply) = (attrs.nested(cta::TUPLE_ORIG)?, attrs.nested(cta::TUPLE_REPLY)?);
    let proto = orig.nested(cta::TUPLE_PROTO)?;
    Some(Flow {
        proto: *proto.get(cta::PROTO_NUM)?.first()?,
        dst: address(orig, cta::IP_V4_DST, cta::IP_V6_DST)?,
        dst_port: port(proto, cta::PROTO_DST_PORT)?,
        reply_src: address(reply, cta::IP_V4_SRC, cta::IP_V6_SRC)?,
        reply_src_port: port(reply.nested(cta::TUPLE_PROTO)?, cta::PROTO_SRC_PORT)?,
        tuple: attrs.get(cta::TUPLE_ORIG)?.to_vec(),
        zone: attrs.get(cta::ZONE).map(<[u8]>::to_vec),
        // Without an identity the flow could be another one by the time it is deleted.
        id: attrs.get(cta::ID)?.to_vec(),
    })
}

fn address(tuple: AttrSet<'_>, v4: u16, v6: u16) -> Option<IpAddr> {
    let ip = tuple.nested(cta::TUPLE_IP)?;
    let v4 = || ip.get(v4)?.first_chunk::<4>().map(|octets| IpAddr::from(*octets));
    let v6 = || ip.get(v6)?.first_chunk::<16>().map(|octets| IpAddr::from(*octets));
    v4().or_else(v6)
}

fn port(proto: AttrSet<'_>, kind: u16) -> Option<u16> {
    proto.get(kind)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

fn delete(socket: &mut NftSocket, family: Family, flows: &[Flow]) -> Result<usize, SocketError> {
    let mut writer = Writer::default();
    let count = u32::try_from(flows.len()).unwrap_or(u32::MAX);
    let first = socket.sequence(count);
    for (seq, flow) in (first..).zip(flows) {
        // A deletion without a tuple would be one of everything: it is a field that is always there.
        writer.message(head(family, CT_DELETE, NLM_F_ACK, seq), |attrs| {
            attrs.nest_bytes(cta::TUPLE_ORIG, &flow.tuple);
            attrs.bytes(cta::ID, &flow.id);
            if let Some(zone) = &flow.zone {
                attrs.bytes(cta::ZONE, zone);
            }
        });
    }
    let answers = socket.exchange(&writer, flows.len())?;
    let refused = answers.by_seq.values().copied().find(|errno| !matches!(*errno, 0 | libc::ENOENT));
    match refused {
        None => Ok(answers.by_seq.values().filter(|errno| **errno == 0).count()),
        Some(errno) => {
            let source = io::Error::from_raw_os_error(errno);
            Err(SocketError::Refused { doing: "delete a tracked connection", source })
        }
    }
}
