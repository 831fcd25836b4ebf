//! Which packets must have gone through a state.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_xfrm::policy::{DelGetMessage, ModifyMessage};
use netlink_packet_xfrm::{
    Address, Id, Selector, UserPolicyId, UserPolicyInfo, UserTemplate, XFRM_MODE_TRANSPORT,
    XFRM_POLICY_ALLOW, XFRM_POLICY_BLOCK, XFRM_POLICY_IN, XFRM_POLICY_OUT, XfrmAttrs, XfrmMessage,
};

use super::state::{addr_of, family};
use super::{ESP, REQUEST_ID};

/// The protocol of UDP.
const UDP: u8 = 17;

/// Of two policies for one packet the smaller number counts: that of a pair, and not that of all others. Key exchange daemons
/// choose numbers above a hundred thousand.
const PAIR: u32 = 0x100;
const ALL: u32 = 0x200;

/// A policy about a UDP port. A kernel with these, and without a state, sends and takes nothing to that port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EspPolicy {
    /// What comes in to this host's address at the port was encrypted by a state of berth's, whoever sent it.
    Require {
        /// This host's address.
        to: IpAddr,
        /// The UDP port.
        port: u16,
    },
    /// Nothing leaves from this host's address to the port, but by [`EspPolicy::Encrypt`].
    Block {
        /// This host's address.
        from: IpAddr,
        /// The UDP port.
        port: u16,
    },
    /// What leaves for the port of another host is encrypted, or does not leave.
    Encrypt {
        /// This host's address.
        from: IpAddr,
        /// The other host's.
        to: IpAddr,
        /// The UDP port.
        port: u16,
    },
}

impl fmt::Display for EspPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Require { to, port } => write!(f, "only encrypted to {to} UDP port {port}"),
            Self::Block { from, port } => write!(f, "nothing in clear from {from} to UDP port {port}"),
            Self::Encrypt { from, to, port } => write!(f, "encrypted from {from} to {to} UDP port {port}"),
        }
    }
}

impl EspPolicy {
    fn selector(&self) -> Selector {
        let (from, to, port) = match *self {
            Self::Require { to, port } => (any(to), to, port),
            Self::Block { from, port } => (from, any(from), port),
            Self::Encrypt { from, to, port } => (from, to, port),
        };
        Selector {
            daddr: Address::from_ip(&to),
            saddr: Address::from_ip(&from),
            dport: port,
            dport_mask: u16::MAX,
            family: family(to),
            prefixlen_d: length(to),
            prefixlen_s: length(from),
            proto: UDP,
            ..Selector::default()
        }
    }

    fn direction(&self) -> u8 {
        if matches!(self, Self::Require { .. }) { XFRM_POLICY_IN } else { XFRM_POLICY_OUT }
    }

    /// The state it asks for; a policy that blocks asks for none.
    fn template(&self) -> Option<UserTemplate> {
        let (from, to) = match *self {
            Self::Block { .. } => return None,
            Self::Require { to, .. } => (any(to), any(to)),
            Self::Encrypt { from, to, .. } => (from, to),
        };
        Some(UserTemplate {
            id: Id { daddr: Address::from_ip(&to), spi: 0, proto: ESP },
            family: family(to),
            saddr: Address::from_ip(&from),
            reqid: REQUEST_ID,
            mode: XFRM_MODE_TRANSPORT,
            ..UserTemplate::default()
        })
    }

    /// Makes it, or makes another of its packets into it.
    pub(super) fn put(&self) -> XfrmMessage {
        let user_policy_info = UserPolicyInfo {
            selector: self.selector(),
            priority: if matches!(self, Self::Encrypt { .. }) { PAIR } else { ALL },
            direction: self.direction(),
            action: if matches!(self, Self::Block { .. }) { XFRM_POLICY_BLOCK } else { XFRM_POLICY_ALLOW },
            ..UserPolicyInfo::default()
        };
        let nlas = self.template().map(|template| XfrmAttrs::Template(vec![template])).into_iter().collect();
        XfrmMessage::UpdatePolicy(ModifyMessage { user_policy_info, nlas })
    }

    pub(super) fn del(&self) -> XfrmMessage {
        let user_policy_id = UserPolicyId {
            selector: self.selector(),
            direction: self.direction(),
            ..UserPolicyId::default()
        };
        XfrmMessage::DeletePolicy(DelGetMessage { user_policy_id, nlas: Vec::new() })
    }

    /// The policy that a listing has, if it is one that berth would make. One that differs in anything is none.
    pub(super) fn listed(message: &XfrmMessage) -> Option<Self> {
        let XfrmMessage::AddPolicy(ModifyMessage { user_policy_info: info, nlas }) = message else {
            return None;
        };
        let Selector { dport: port, family, .. } = info.selector;
        let (from, to) = (addr_of(&info.selector.saddr, family), addr_of(&info.selector.daddr, family));
        let found = match (info.direction, info.action) {
            (XFRM_POLICY_IN, _) => Self::Require { to, port },
            (XFRM_POLICY_OUT, XFRM_POLICY_BLOCK) => Self::Block { from, port },
            (XFRM_POLICY_OUT, _) => Self::Encrypt { from, to, port },
            _ => return None,
        };
        let XfrmMessage::UpdatePolicy(ours) = found.put() else { return None };
        let templates = |nlas: &[XfrmAttrs]| {
            let found = nlas.iter().find_map(|nla| match nla {
                XfrmAttrs::Template(all) => Some(all.clone()),
                _ => None,
            });
            found.unwrap_or_default()
        };
        let is_ours = info.selector == ours.user_policy_info.selector
            && info.priority == ours.user_policy_info.priority
            && info.action == ours.user_policy_info.action
            && templates(nlas) == templates(&ours.nlas);
        is_ours.then_some(found)
    }
}

/// Any address of the family.
fn any(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

fn length(addr: IpAddr) -> u8 {
    match addr {
        _ if addr.is_unspecified() => 0,
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}
