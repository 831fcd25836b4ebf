//! Which elements of the constant ruleset a network and an attachment need. Pure: records in, elements out.
//!
//! The same functions serve a change, a repair after a flush, and `doctor`, so that all three agree by construction.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use berth_nft::Element;
use berth_types::{AttachmentKey, MacAddr, Proto, PublishedPort, fnv64};
use ipnetwork::IpNetwork;

use crate::attachment::{AttachmentRecord, Guard};
use crate::names::DNS_PORT;
use crate::network::NetworkRecord;
use crate::published::{Held, Published};
use crate::shown::key_of_network;

/// Elements a network needs, whatever is attached to it.
pub fn of_network(network: &NetworkRecord) -> BTreeSet<Element> {
    let NetworkRecord { bridge, reach, gateway, subnets, .. } = network;
    let mut elements = of_names(network);
    if network.is_for_names_alone() {
        return elements;
    }
    elements.extend(of_overlay(network));
    elements.insert(Element::Bridge(bridge.clone()));
    if reach.between_containers {
        elements.insert(Element::Within(bridge.clone(), bridge.clone()));
    }
    if reach.internal {
        elements.insert(Element::Internal(bridge.clone()));
    }
    if !reach.isolated {
        elements.insert(Element::Open(bridge.clone()));
    }
    // A subnet the host does not route is none of the host's business.
    if !gateway {
        elements.insert(Element::Routed(bridge.clone()));
        return elements;
    }
    for subnet in subnets {
        elements.insert(Element::Own(*subnet));
        if reach.masquerade || reach.internal {
            elements.insert(Element::Subnet(*subnet));
        }
        if reach.masquerade && !reach.internal {
            elements.insert(Element::Masquerade(*subnet));
        }
    }
    if !reach.masquerade && !reach.internal {
        elements.insert(Element::Routed(bridge.clone()));
    }
    elements
}

/// Elements of a network's port to other hosts: frames come from its known tunnel ends only, and its containers that are kept
/// apart are so from those of other hosts too.
fn of_overlay(network: &NetworkRecord) -> BTreeSet<Element> {
    let NetworkRecord { overlay, peers, reach, .. } = network;
    let Some(overlay) = overlay else { return BTreeSet::new() };
    let mut elements: BTreeSet<Element> = peers.vteps.iter().map(|vtep| Element::Vtep(*vtep)).collect();
    elements.insert(Element::VxlanPort(overlay.port));
    if overlay.encrypted {
        elements.insert(Element::EncryptedPort(overlay.port));
    }
    if !reach.between_containers {
        elements.insert(Element::ApartAcross(overlay.device()));
        elements.extend(peers.macs.iter().map(|mac| Element::HostAcross(*mac)));
    }
    elements
}

/// Elements of a network's names: its containers may ask at each gateway, and what they ask at port 53 goes where it is
/// listened to. That way is laid also where it is port 53 itself: a container that publishes port 53 on every address of
/// the host would take the network's questions otherwise.
pub(crate) fn of_names(network: &NetworkRecord) -> BTreeSet<Element> {
    let NetworkRecord { name, bridge, gateways, names, .. } = network;
    let Some(names) = names else { return BTreeSet::new() };
    let owner = owner_mark(&key_of_network(name));
    let mut elements = BTreeSet::new();
    for asked in &names.answers_for {
        let gateway = gateways.iter().map(IpNetwork::ip).find(|gateway| gateway.is_ipv4() == asked.is_ipv4());
        elements.extend(gateway.map(|gateway| Element::Led {
            bridge: bridge.clone(),
            asked: *asked,
            to: SocketAddr::new(gateway, names.port_at(gateway)),
        }));
    }
    for addr in gateways.iter().map(IpNetwork::ip) {
        elements.insert(Element::Dns { bridge: bridge.clone(), addr });
        let port = |proto| PublishedPort {
            proto,
            host_addr: addr,
            host_port: DNS_PORT,
            target: addr,
            target_port: names.port_at(addr),
            count: 1,
        };
        elements.extend([Proto::Tcp, Proto::Udp].map(|proto| Element::Port { port: port(proto), owner }));
    }
    elements
}

/// Elements an attachment needs beside its network's: the guard of its port. Published ports are
/// [`of_published`]'s.
pub fn of_attachment(attachment: &AttachmentRecord) -> BTreeSet<Element> {
    let AttachmentRecord { host_ifname, mac, leases, port, .. } = attachment;
    let mut elements = BTreeSet::new();
    if port.apart {
        elements.insert(Element::Apart(host_ifname.clone()));
    }
    match port.guard {
        Guard::Off => return elements,
        Guard::Mac => elements.insert(Element::GuardedMacOnly(host_ifname.clone())),
        Guard::Full => elements.insert(Element::Guarded(host_ifname.clone())),
    };
    elements.insert(Element::AllowedMac { port: host_ifname.clone(), mac: *mac });
    if port.trunk {
        elements.insert(Element::Trunk(host_ifname.clone()));
    }
    if port.guard == Guard::Full {
        let addrs = leases.iter().map(|lease| lease.address.ip()).chain([IpAddr::V6(link_local(*mac))]);
        for addr in addrs {
            elements.insert(Element::AllowedAddr { port: host_ifname.clone(), mac: *mac, addr });
        }
    }
    elements
}

/// Elements of what is published for one attachment.
pub fn of_published(key: &AttachmentKey, published: &Published) -> BTreeSet<Element> {
    let Published { ports, standby: _, hairpin, masquerade_all } = published;
    let owner = owner_mark(key);
    let mut elements: BTreeSet<Element> =
        ports.iter().flat_map(as_laid).map(|port| Element::Port { port, owner }).collect();
    for (subnet, addr) in hairpin {
        elements.insert(Element::Hairpin { subnet: *subnet, addr: *addr });
    }
    elements.extend(masquerade_all.iter().map(|addr| Element::MasqueradeAll(*addr)));
    elements
}

/// The published ports as the ruleset holds them and gives them back: a range is one element only where its ports keep
/// their numbers.
fn as_laid(port: &PublishedPort) -> Vec<PublishedPort> {
    if port.host_port == port.target_port {
        return vec![*port];
    }
    let at = |offset| PublishedPort {
        host_port: port.host_port.saturating_add(offset),
        target_port: port.target_port.saturating_add(offset),
        count: 1,
        ..*port
    };
    (0..port.count).map(at).collect()
}

/// Everything the ruleset holds for one record.
pub fn of_held(held: &Held) -> BTreeSet<Element> {
    let mut elements = match held {
        Held::Bridge(record) => of_attachment(record),
        Held::Ports(_) => BTreeSet::new(),
    };
    elements.extend(of_published(held.key(), held.published()));
    elements
}

/// The 32 bits by which the kernel's maps know the owner of a published port. Never 0.
pub fn owner_mark(key: &AttachmentKey) -> u32 {
    let hash = fnv64([key.network.as_str(), key.container.as_str(), key.ifname.as_str()]);
    u32::try_from((hash ^ (hash >> 32)) & 0xffff_ffff).unwrap_or(1).max(1)
}

/// The link-local address a link with `mac` gives itself (RFC 4291, appendix A).
pub fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let pair = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(0xfe80, 0, 0, 0, pair(a ^ 2, b), pair(c, 0xff), pair(0xfe, d), pair(e, f))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_one_element_only_where_the_ruleset_keeps_it_as_one() {
        let range = |host_port| PublishedPort {
            proto: Proto::Tcp,
            host_addr: "0.0.0.0".parse().unwrap(),
            host_port,
            target: "10.80.0.2".parse().unwrap(),
            target_port: 80,
            count: 3,
        };
        assert_eq!(as_laid(&range(80)), [range(80)]);
        let single: Vec<_> =
            as_laid(&range(8080)).iter().map(|port| (port.host_port, port.target_port, port.count)).collect();
        assert_eq!(single, [(8080, 80, 1), (8081, 81, 1), (8082, 82, 1)]);
    }

    #[test]
    fn the_link_local_address_is_made_of_the_mac() {
        let mac = "c2:b0:57:49:47:f2".parse().unwrap();
        assert_eq!(link_local(mac).to_string(), "fe80::c0b0:57ff:fe49:47f2");
    }
}
