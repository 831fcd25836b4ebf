//! Elements: all that a network or an attachment ever changes in the ruleset.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use berth_types::{Family, IfName, MacAddr, PublishedPort};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// One fact about a network, a port or an attachment, as the ruleset knows it.
///
/// An element has no counter of users: whoever removes one that two need must know that.
/// Host bits of an [`IpNetwork`] are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Element {
    /// The bridge carries a network of berth. Nothing is forwarded from or to it but by the rules for it.
    Bridge(IfName),
    /// What comes in by the first may go out by the second. A network whose containers may talk to each other has
    /// (bridge, bridge).
    Within(IfName, IfName),
    /// Nothing is forwarded from or to this bridge, except [`Element::Within`].
    Internal(IfName),
    /// The bridge's network takes part in no isolation: it and all other open ones reach each other.
    Open(IfName),
    /// Containers on this bridge may be reached from outside by their own addresses.
    /// It needs the subnet not to be an [`Element::Subnet`].
    Routed(IfName),
    /// No frame goes from one such bridge port to another, but for what was published. The other half of a missing
    /// [`Element::Within`], which only sees what is routed.
    Apart(IfName),
    /// No frame goes from an [`Element::Apart`] port to this one, which leads to other hosts, but for what was published.
    /// What comes in by it goes to all ports: the host it comes from has kept its own containers apart.
    ApartAcross(IfName),
    /// The Ethernet address of another host's own: what is sent to it may leave ports kept apart by [`Element::ApartAcross`].
    HostAcross(MacAddr),
    /// Nothing of the family is forwarded between two interfaces that are both closed.
    ClosedRouter {
        /// The family berth turned forwarding on for.
        family: Family,
        /// The interface.
        link: IfName,
    },
    /// Packets to this subnet that come in by an interface that is no bridge of berth are dropped.
    Subnet(IpNetwork),
    /// What leaves this subnet is masqueraded.
    Masquerade(IpNetwork),
    /// Traffic within this subnet is not masqueraded, except to reach a published port from beside it.
    Own(IpNetwork),
    /// A published port of `addr`, reached from `subnet`, is masqueraded. For bridges that are not berth's.
    Hairpin {
        /// The network the container is on.
        subnet: IpNetwork,
        /// The container.
        addr: IpAddr,
    },
    /// Whoever reaches a published port of this container is masqueraded.
    MasqueradeAll(IpAddr),
    /// Names are served to this bridge at this address.
    Dns {
        /// Where queries come in.
        bridge: IfName,
        /// The gateway address they are sent to.
        addr: IpAddr,
    },
    /// Questions for names that this bridge's containers send to a server of elsewhere are answered here instead.
    Led {
        /// Where they come in.
        bridge: IfName,
        /// Whom they are sent to, at port 53.
        asked: IpAddr,
        /// Who answers them, of the same family.
        to: SocketAddr,
    },
    /// Another node's address, from which VXLAN is taken.
    Vtep(IpAddr),
    /// A UDP port of VXLAN: from others than a [`Element::Vtep`] it is dropped.
    VxlanPort(u16),
    /// A UDP port of encrypted networks: what comes in to it or leaves for it in clear is dropped.
    EncryptedPort(u16),
    /// The bridge port may send only its own MAC and addresses.
    Guarded(IfName),
    /// The bridge port may send only its own MAC; its addresses are not known.
    GuardedMacOnly(IfName),
    /// The guarded bridge port may send 802.1Q frames, with its own MAC.
    Trunk(IfName),
    /// A MAC the guarded port may send.
    AllowedMac {
        /// The bridge port.
        port: IfName,
        /// The source address.
        mac: MacAddr,
    },
    /// An address the guarded port may send, answer ARP for, or advertise. Link-local ones have to be listed too.
    AllowedAddr {
        /// The bridge port.
        port: IfName,
        /// The source address of the frame.
        mac: MacAddr,
        /// The source address of the packet.
        addr: IpAddr,
    },
    /// A published port. Who adds it owns it: adding it for another owner fails, and so does removing it.
    ///
    /// Two elements exclude each other when they have the same protocol, host address and port, or overlapping ranges
    /// of more than one port with both ends shifted alike. A single port inside such a range, and a port of one address
    /// beside the same port of all addresses, are for the records to refuse: here the more exact one wins.
    Port {
        /// What is published.
        port: PublishedPort,
        /// Who owns it: a hash of the attachment.
        owner: u32,
    },
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge(bridge) => write!(f, "bridge {bridge}"),
            Self::Within(from, to) => write!(f, "traffic from {from} to {to}"),
            Self::Internal(bridge) => write!(f, "internal bridge {bridge}"),
            Self::Open(bridge) => write!(f, "open bridge {bridge}"),
            Self::Routed(bridge) => write!(f, "routed bridge {bridge}"),
            Self::Apart(port) => write!(f, "no traffic between {port} and other ports kept apart"),
            Self::ApartAcross(port) => write!(f, "no traffic from ports kept apart to {port}"),
            Self::HostAcross(mac) => write!(f, "host {mac} across"),
            Self::ClosedRouter { family, link } => {
                write!(f, "no {family} forwarding between {link} and closed interfaces")
            }
            Self::Subnet(subnet) => write!(f, "guarded subnet {subnet}"),
            Self::Masquerade(subnet) => write!(f, "masquerading of {subnet}"),
            Self::Own(subnet) => write!(f, "traffic within {subnet}"),
            Self::Hairpin { subnet, addr } => write!(f, "hairpin from {subnet} to {addr}"),
            Self::MasqueradeAll(addr) => write!(f, "masquerading of all that reaches {addr}"),
            Self::Dns { bridge, addr } => write!(f, "names for {bridge} at {addr}"),
            Self::Led { bridge, asked, to } => write!(f, "questions from {bridge} to {asked} led to {to}"),
            Self::Vtep(addr) => write!(f, "VXLAN from {addr}"),
            Self::VxlanPort(port) => write!(f, "VXLAN port {port}"),
            Self::EncryptedPort(port) => write!(f, "encrypted VXLAN port {port}"),
            Self::Guarded(port) => write!(f, "guarded port {port}"),
            Self::GuardedMacOnly(port) => write!(f, "guarded port {port}, MAC only"),
            Self::Trunk(port) => write!(f, "trunk port {port}"),
            Self::AllowedMac { port, mac } => write!(f, "{mac} on {port}"),
            Self::AllowedAddr { port, mac, addr } => write!(f, "{addr} with {mac} on {port}"),
            Self::Port { port, owner } => write!(f, "published port {port} of {owner:08x}"),
        }
    }
}
