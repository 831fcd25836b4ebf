//! The largest packet of an overlay: what the way to each node carries, less what the tunnel adds.
//!
//! The network's record says it once for all nodes. A node whose way to another carries less loses packets without a word, so
//! each looks at its own ways and names those that do not carry what the record says.

use std::fmt;
use std::net::IpAddr;

use berth_netlink::{Netlink, NetlinkError};
use berth_types::NodeName;

use crate::model::Node;

/// What VXLAN adds over IPv4, bytes: Ethernet 14, IPv4 20, UDP 8, VXLAN 8.
pub const OVERHEAD_V4: u32 = 50;

/// What VXLAN adds over IPv6, bytes: Ethernet 14, IPv6 40, UDP 8, VXLAN 8.
pub const OVERHEAD_V6: u32 = 70;

/// What is left for what ESP in transport mode adds to that, bytes: header 8, AES-GCM's number 8, check 16, and up to 5 at the end
/// of what is encrypted, which fills words of 4 (RFC 4303, section 2.4; RFC 4106, section 3). The last one keeps sizes even.
pub const OVERHEAD_ESP: u32 = 38;

/// Whether a network's packets are encrypted between nodes, as far as their size goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cover {
    /// As they are.
    Clear,
    /// By ESP.
    Esp,
}

impl Cover {
    /// That of a network's packets.
    pub fn of(encrypted: bool) -> Self {
        if encrypted { Self::Esp } else { Self::Clear }
    }

    /// What the tunnel adds to a packet, bytes.
    fn overhead(self, vtep: IpAddr) -> u32 {
        let tunnel = if vtep.is_ipv4() { OVERHEAD_V4 } else { OVERHEAD_V6 };
        tunnel + if self == Self::Esp { OVERHEAD_ESP } else { 0 }
    }
}

/// The least that IPv6 asks of a link, bytes (RFC 8200, section 5).
const LEAST_V6: u32 = 1280;

/// The least that IPv4 can be used with, bytes (RFC 791, section 3.2).
const LEAST_V4: u32 = 68;

/// The largest packet inside, where the largest outside is `underlay`, bytes.
pub fn inside(underlay: u32, vtep: IpAddr, cover: Cover) -> u32 {
    underlay.saturating_sub(cover.overhead(vtep))
}

/// The largest packet outside, where the largest inside is `mtu`, bytes.
pub fn outside(mtu: u32, vtep: IpAddr, cover: Cover) -> u32 {
    mtu.saturating_add(cover.overhead(vtep))
}

/// The way to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The node.
    pub node: NodeName,
    /// Its tunnel end.
    pub vtep: IpAddr,
    /// The largest packet outside, bytes: the route's, or its link's. None where no route leads there.
    pub underlay: Option<u32>,
}

impl Way {
    /// The largest packet inside, bytes.
    pub fn mtu(&self, cover: Cover) -> Option<u32> {
        self.underlay.map(|underlay| inside(underlay, self.vtep, cover))
    }
}

/// The ways to `nodes`, by the host's routes.
///
/// # Errors
///
/// The kernel cannot be asked.
pub fn ways<'a>(
    netlink: &Netlink,
    nodes: impl IntoIterator<Item = (&'a NodeName, IpAddr)>,
) -> Result<Vec<Way>, NetlinkError> {
    let mut ways = Vec::new();
    for (node, vtep) in nodes {
        let route = netlink.route_get(vtep)?.filter(|route| !route.is_local);
        let link = route.as_ref().map(|route| netlink.link_by_index(route.oif)).transpose()?.flatten();
        let of_link = link.map(|link| link.mtu);
        // A route may carry less than its link, and never more.
        let underlay = match (of_link, route.and_then(|route| route.mtu)) {
            (Some(link), Some(route)) => Some(link.min(route)),
            (link, _) => link,
        };
        ways.push(Way { node: node.clone(), vtep, underlay });
    }
    Ok(ways)
}

/// The largest packet that all `ways` carry inside, and the link of this node's own tunnel end, `underlay` bytes.
pub fn choose(underlay: u32, local: IpAddr, cover: Cover, ways: &[Way]) -> u32 {
    ways.iter().filter_map(|way| way.mtu(cover)).fold(inside(underlay, local, cover), u32::min)
}

/// Why a network's MTU is not good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MtuFault {
    /// The way to a node carries less.
    Way {
        /// The node.
        node: NodeName,
        /// Its tunnel end.
        vtep: IpAddr,
        /// What the way carries outside, bytes.
        carries: u32,
        /// What the network needs outside, bytes.
        needs: u32,
    },
    /// No route leads to a node.
    NoRoute {
        /// The node.
        node: NodeName,
        /// Its tunnel end.
        vtep: IpAddr,
    },
    /// A node's own link carries less, as it says.
    Link {
        /// The node.
        node: NodeName,
        /// What its link carries, bytes.
        carries: u32,
        /// What the network needs outside, bytes.
        needs: u32,
    },
    /// It is less than a family of the network's subnets can be used with.
    TooSmall {
        /// The network's, bytes.
        mtu: u32,
        /// The least, bytes.
        least: u32,
    },
}

impl fmt::Display for MtuFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Way { node, vtep, carries, needs } => write!(
                f,
                "the way to node `{node}` ({vtep}) carries {carries} bytes and the network needs {needs}: larger packets are lost"
            ),
            Self::NoRoute { node, vtep } => write!(f, "no route leads to node `{node}` ({vtep})"),
            Self::Link { node, carries, needs } => write!(
                f,
                "the link of node `{node}` carries {carries} bytes and the network needs {needs}: larger packets are lost"
            ),
            Self::TooSmall { mtu, least } => {
                write!(f, "MTU {mtu} is less than the {least} bytes that the network's subnets need")
            }
        }
    }
}

/// What is not good about `mtu`, bytes, of a network with this node's tunnel end `local`: by the ways from here, and by what
/// the nodes say of their own links.
pub fn faults<'a>(
    (mtu, cover): (u32, Cover),
    local: IpAddr,
    ways: &[Way],
    nodes: impl IntoIterator<Item = &'a Node>,
) -> Vec<MtuFault> {
    let needs = outside(mtu, local, cover);
    let mut found = Vec::new();
    for Way { node, vtep, underlay } in ways {
        let (node, vtep) = (node.clone(), *vtep);
        match underlay {
            None => found.push(MtuFault::NoRoute { node, vtep }),
            Some(carries) if *carries < needs => {
                found.push(MtuFault::Way { node, vtep, carries: *carries, needs });
            }
            Some(_) => (),
        }
    }
    let narrow = nodes.into_iter().filter(|node| node.underlay_mtu < needs);
    found.extend(narrow.map(|node| MtuFault::Link {
        node: node.name.clone(),
        carries: node.underlay_mtu,
        needs,
    }));
    found
}

/// Whether `mtu`, bytes, can be used with the families of the network's subnets.
pub fn usable(mtu: u32, has_v6: bool) -> Result<(), MtuFault> {
    let least = if has_v6 { LEAST_V6 } else { LEAST_V4 };
    if mtu < least { Err(MtuFault::TooSmall { mtu, least }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use berth_types::BootId;

    use super::*;

    fn way(node: &str, vtep: &str, underlay: Option<u32>) -> Way {
        Way { node: node.parse().unwrap(), vtep: vtep.parse().unwrap(), underlay }
    }

    #[test]
    fn a_tunnel_takes_50_bytes_of_ipv4_and_70_of_ipv6() {
        let (v4, v6) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        let clear = |underlay, vtep| inside(underlay, vtep, Cover::Clear);
        assert_eq!((clear(1500, v4), clear(1500, v6)), (1450, 1430));
        assert_eq!((clear(9000, v4), clear(1450, v4)), (8950, 1400));
        assert_eq!((outside(1450, v4, Cover::Clear), outside(1430, v6, Cover::Clear)), (1500, 1500));
    }

    #[test]
    fn encryption_takes_38_bytes_more() {
        let (v4, v6) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        assert_eq!((inside(1500, v4, Cover::Esp), inside(1500, v6, Cover::Esp)), (1412, 1392));
        assert_eq!((outside(1412, v4, Cover::Esp), outside(1392, v6, Cover::Esp)), (1500, 1500));
        // The whole of it, filled up to words, is never more than what was kept free.
        for mtu in 1280..1600_u32 {
            let datagram = mtu + 14 + 8 + 8;
            let filled = (datagram + 2).next_multiple_of(4);
            assert!(20 + 8 + 8 + filled + 16 <= outside(mtu, v4, Cover::Esp), "{mtu}");
        }
    }

    #[test]
    fn the_narrowest_way_decides_and_each_that_is_too_narrow_is_named() {
        let local = "192.0.2.1".parse().unwrap();
        let ways = [
            way("n2", "192.0.2.2", Some(1500)),
            way("n3", "192.0.2.3", Some(1400)),
            way("n4", "192.0.2.4", None),
        ];
        assert_eq!(choose(1500, local, Cover::Clear, &ways), 1350);
        assert_eq!(choose(1300, local, Cover::Clear, &ways), 1250);
        let node = Node {
            v: 1,
            name: "n5".parse().unwrap(),
            vtep4: None,
            vtep6: None,
            underlay_mtu: 1420,
            public_key: None,
            boot: BootId::new("b"),
            identity: String::new(),
            epoch: 1,
        };
        let said: Vec<String> =
            faults((1450, Cover::Clear), local, &ways, [&node]).iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "the way to node `n3` (192.0.2.3) carries 1400 bytes and the network needs 1500: larger packets are lost",
                "no route leads to node `n4` (192.0.2.4)",
                "the link of node `n5` carries 1420 bytes and the network needs 1500: larger packets are lost",
            ]
        );
        assert_eq!(faults((1350, Cover::Clear), local, &ways[..2], [&node]), []);
    }

    #[test]
    fn ipv6_inside_asks_for_1280_bytes() {
        assert_eq!(usable(1279, false), Ok(()));
        assert_eq!(usable(1279, true), Err(MtuFault::TooSmall { mtu: 1279, least: 1280 }));
        assert_eq!(usable(1280, true), Ok(()));
    }
}
