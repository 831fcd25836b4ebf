//! A new network: what is chosen for it, and what is refused. Pure; that nobody else has its name, number or subnets, the
//! cluster decides when it is written.

use std::net::{IpAddr, Ipv4Addr};

use berth_core::plan::overlap;
use berth_ipam::blocks::block_length;
use berth_types::{MacAddr, NetworkName, NodeName, Vni, fnv64};
use ipnetwork::IpNetwork;

use crate::model::{LAYOUT, Node, OverlayNetwork, OverlaySubnet};
use crate::mtu::{Cover, inside, usable};
use crate::view::View;
use crate::wire::{NewNetwork, Refusal, RefusalCode};

/// The UDP port of VXLAN (RFC 7348).
pub(crate) const VXLAN_PORT: u16 = 4789;

/// The UDP port of encrypted networks, of all of them and of no other: by it alone the kernel tells what must not be in clear.
/// Outside the packets are ESP, so nobody on the way meets it. It is no registered one, and none of those that hosts choose by
/// themselves (`net.ipv4.ip_local_port_range`); 4790 is that of VXLAN-GPE, 4791 that of RoCE.
pub(crate) const ENCRYPTED_PORT: u16 = 4799;

/// Where VNIs are chosen: far above those that other programs begin with.
const FIRST_VNI: u32 = 0x10_0000;

/// Subnets are chosen from 10.FIRST_CHOSEN.0.0/16 on: what is below is in many a host's own network.
const FIRST_CHOSEN: u8 = 100;

/// What a new network has to get along with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    /// The cluster.
    pub(crate) view: &'a View,
    /// This node.
    pub(crate) node: &'a Node,
    /// Prefixes that are somebody's on this host.
    pub(crate) used: &'a [IpNetwork],
}

/// The record of the network `new` asks for.
///
/// # Errors
///
/// Something of it cannot be, or is somebody's already; who has it is said.
pub(crate) fn record(new: &NewNetwork, around: &Surroundings<'_>) -> Result<OverlayNetwork, Refusal> {
    // Whether it can be encrypted is the kernel's to say.
    let NewNetwork { name, subnets, gateways, vni, mtu, encrypted, internal, flood, apart } = new;
    let subnets = with_gateways(&asked_subnets(name, subnets, around)?, gateways)?;
    Ok(OverlayNetwork {
        v: LAYOUT,
        name: name.clone(),
        vni: number(name, *vni, around)?,
        port: if *encrypted { ENCRYPTED_PORT } else { VXLAN_PORT },
        mtu: packet(*mtu, Cover::of(*encrypted), &subnets, around)?,
        gateway_mac: MacAddr::of_names([name.as_str(), "gateway"]),
        masquerade: true,
        between_containers: !apart,
        isolated: true,
        internal: *internal,
        encrypted: *encrypted,
        flood: *flood,
        block4: length_of(&subnets, IpNetwork::is_ipv4),
        block6: length_of(&subnets, IpNetwork::is_ipv6),
        borrowing: true,
        shared: false,
        subnets,
        created_by: around.node.name.clone(),
    })
}

impl OverlayNetwork {
    /// A network on which everything is as usual, on an underlay of IPv4 packets of 1500 bytes; blocks are of 16 IPv4 addresses.
    pub fn usual(name: NetworkName, vni: Vni, subnets: Vec<OverlaySubnet>, created_by: NodeName) -> Self {
        Self {
            v: LAYOUT,
            vni,
            port: VXLAN_PORT,
            subnets,
            mtu: 1450,
            gateway_mac: MacAddr::of_names([name.as_str(), "gateway"]),
            masquerade: true,
            between_containers: true,
            isolated: true,
            internal: false,
            encrypted: false,
            flood: false,
            block4: 28,
            block6: 120,
            borrowing: true,
            shared: false,
            name,
            created_by,
        }
    }
}

/// Says that the packets of `record` do not fit through the link of `node`.
pub(crate) fn too_large(record: &OverlayNetwork, node: &Node) -> Option<Refusal> {
    let fits = fitting(node, Cover::of(record.encrypted));
    let text = || {
        format!(
            "network `{}` has packets of {} bytes, and the link of node {} lets {fits} through beside what its tunnel adds\n\
             give that link a larger MTU, or create the network with a smaller one",
            record.name, record.mtu, node.name
        )
    };
    (record.mtu > fits).then(|| Refusal::new(RefusalCode::Unsupported, text()))
}

/// The prefix length of the blocks of the subnet of a family; 0 where there is none.
fn length_of(subnets: &[OverlaySubnet], of_family: fn(&IpNetwork) -> bool) -> u8 {
    let subnet = subnets.iter().map(|subnet| subnet.subnet).find(of_family);
    subnet.map_or(0, block_length)
}

fn asked_subnets(
    name: &NetworkName,
    asked: &[IpNetwork],
    around: &Surroundings<'_>,
) -> Result<Vec<IpNetwork>, Refusal> {
    if asked.is_empty() {
        let count = u8::MAX - FIRST_CHOSEN;
        let [.., low] = fnv64([name.as_str()]).to_be_bytes();
        let second = |step: u8| FIRST_CHOSEN + (low % count + step) % count;
        let subnet = |step| IpNetwork::new(Ipv4Addr::new(10, second(step), 0, 0).into(), 16).ok();
        let free = (0..count).filter_map(subnet).find(|subnet| holder(*subnet, around).is_none());
        let text = "no subnet is free to choose\nchoose one: --subnet PREFIX";
        return Ok(vec![free.ok_or_else(|| Refusal::new(RefusalCode::Exhausted, text))?]);
    }
    for (place, subnet) in asked.iter().enumerate() {
        let invalid = |why: String| Err(Refusal::new(RefusalCode::Invalid, format!("subnet {subnet} {why}")));
        if subnet.ip() != subnet.network() {
            return invalid(format!("is no network's address: that is {}", subnet.network()));
        }
        let longest = if subnet.is_ipv4() { 29 } else { 120 };
        if subnet.prefix() > longest || subnet.prefix() == 0 {
            return invalid(format!(
                "cannot be shared among nodes: its prefix length is to be 1 to {longest}"
            ));
        }
        if asked.iter().take(place).any(|other| other.is_ipv4() == subnet.is_ipv4()) {
            return invalid("is a second one of its family".to_owned());
        }
        if let Some(holder) = holder(*subnet, around) {
            let text = format!("subnet {subnet} overlaps {holder}\ngive the network another subnet");
            return Err(Refusal::new(RefusalCode::Taken, text));
        }
    }
    Ok(asked.to_vec())
}

/// Who has a part of `subnet`.
fn holder(subnet: IpNetwork, around: &Surroundings<'_>) -> Option<String> {
    let overlaps = |other: &IpNetwork| overlap(&subnet, other);
    for (name, network) in around.view.networks() {
        let subnets = network.record().into_iter().flat_map(|record| &record.subnets);
        if let Some(other) = subnets.map(|subnet| subnet.subnet).find(overlaps) {
            return Some(format!("{other} of network `{name}`"));
        }
    }
    let nodes = around.view.nodes().filter_map(|(_, node)| node.node().map(AsRef::as_ref));
    for node in nodes.chain([around.node]) {
        let ends = node.vtep4.map(IpAddr::V4).into_iter().chain(node.vtep6.map(IpAddr::V6));
        if let Some(end) = ends.into_iter().find(|end| subnet.contains(*end)) {
            return Some(format!("the underlay: node {} is at {end}", node.name));
        }
    }
    around.used.iter().find(|used| overlaps(used)).map(|used| format!("{used} of this host"))
}

fn with_gateways(subnets: &[IpNetwork], gateways: &[IpAddr]) -> Result<Vec<OverlaySubnet>, Refusal> {
    let inside = |subnet: &IpNetwork, gateway: IpAddr| {
        let broadcast = subnet.is_ipv4() && gateway == subnet.broadcast();
        subnet.contains(gateway) && gateway != subnet.network() && !broadcast
    };
    if let Some(outside) =
        gateways.iter().find(|gateway| !subnets.iter().any(|subnet| inside(subnet, **gateway)))
    {
        let text = format!("gateway {outside} is no address in a subnet of the network");
        return Err(Refusal::new(RefusalCode::Invalid, text));
    }
    let with = |subnet: &IpNetwork| {
        let asked = gateways.iter().copied().find(|gateway| inside(subnet, *gateway));
        let gateway = asked.or_else(|| subnet.iter().nth(1))?;
        Some(OverlaySubnet { subnet: *subnet, gateway })
    };
    Ok(subnets.iter().filter_map(with).collect())
}

fn number(name: &NetworkName, asked: Option<Vni>, around: &Surroundings<'_>) -> Result<Vni, Refusal> {
    let taken = |vni: Vni| around.view.network_of_vni(vni).filter(|holder| holder.name != *name);
    if let Some(vni) = asked {
        return match taken(vni) {
            None => Ok(vni),
            Some(holder) => {
                let text = format!("VNI {vni} is network `{}`'s\ngive the network another", holder.name);
                Err(Refusal::new(RefusalCode::Taken, text))
            }
        };
    }
    let count = Vni::MAX - FIRST_VNI;
    let [.., a, b, c, d] = fnv64([name.as_str(), "vni"]).to_be_bytes();
    let start = u32::from_be_bytes([a, b, c, d]) % count;
    let candidate = |step: u32| Vni::new(FIRST_VNI + (start + step) % count).ok();
    let free = (0..count).filter_map(candidate).find(|vni| taken(*vni).is_none());
    free.ok_or_else(|| Refusal::new(RefusalCode::Exhausted, "no VNI is free"))
}

/// The largest packet that all nodes' links let through, or the one asked for.
fn packet(
    asked: Option<u32>,
    cover: Cover,
    subnets: &[OverlaySubnet],
    around: &Surroundings<'_>,
) -> Result<u32, Refusal> {
    let nodes = around.view.nodes().filter_map(|(_, node)| node.node().map(AsRef::as_ref));
    let smallest = nodes.chain([around.node]).min_by_key(|node| fitting(node, cover)).unwrap_or(around.node);
    let fits = fitting(smallest, cover);
    let mtu = asked.unwrap_or(fits);
    if mtu > fits {
        let text = format!(
            "MTU {mtu} is too large: the link of node {} lets {fits} bytes through beside what its tunnel adds",
            smallest.name
        );
        return Err(Refusal::new(RefusalCode::Unsupported, text));
    }
    let has_v6 = subnets.iter().any(|subnet| subnet.subnet.is_ipv6());
    usable(mtu, has_v6).map_err(|fault| Refusal::new(RefusalCode::Invalid, fault.to_string()))?;
    Ok(mtu)
}

/// The largest packet of a network that fits through the link of `node`.
fn fitting(node: &Node, cover: Cover) -> u32 {
    let vtep = node.vtep4.map(IpAddr::V4).or(node.vtep6.map(IpAddr::V6));
    vtep.map_or(0, |vtep| inside(node.underlay_mtu, vtep, cover))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::samples::{network, node};
    use crate::cluster::{Change, Entry, Revision};

    fn asked(change: impl FnOnce(&mut NewNetwork)) -> Result<OverlayNetwork, String> {
        let mut view = View::default();
        let small = Node { underlay_mtu: 1400, ..node("n2", 2) };
        let entries = [Entry::Network(network("blue")), Entry::Node(node("n1", 1)), Entry::Node(small)];
        view.apply(Revision(1), entries.into_iter().map(Change::Put).collect());
        let used = ["172.17.0.0/16".parse().unwrap()];
        let around = Surroundings { view: &view, node: &node("n1", 1), used: &used };
        let mut new = NewNetwork::named("green".parse().unwrap());
        change(&mut new);
        record(&new, &around).map_err(|refusal| refusal.text)
    }

    #[test]
    fn what_is_not_said_is_chosen_so_that_it_gets_along() {
        let chosen = asked(|_| ()).unwrap();
        assert_eq!(chosen.mtu, 1350, "of the smallest link");
        assert!(chosen.vni.get() >= FIRST_VNI);
        assert_eq!((chosen.subnets.len(), chosen.subnets[0].subnet.prefix(), chosen.block4), (1, 16, 26));
        assert_eq!(asked(|_| ()).unwrap(), chosen, "the same again");
        let dual = asked(|new| {
            new.subnets = vec!["10.9.0.0/24".parse().unwrap(), "fd09::/64".parse().unwrap()];
            new.gateways = vec!["10.9.0.254".parse().unwrap()];
        });
        let dual = dual.unwrap();
        assert_eq!((dual.block4, dual.block6), (28, 120));
        let gateways: Vec<String> = dual.subnets.iter().map(|subnet| subnet.gateway.to_string()).collect();
        assert_eq!(gateways, ["10.9.0.254", "fd09::1"]);
    }

    #[test]
    fn what_cannot_be_is_refused_and_says_who_has_it() {
        let subnet = |text: &str| asked(|new| new.subnets = vec![text.parse().unwrap()]).unwrap_err();
        for (text, words) in [
            ("10.0.0.128/25", "overlaps 10.0.0.0/24 of network `blue`"),
            ("192.0.2.0/24", "overlaps the underlay: node n1 is at 192.0.2.1"),
            ("172.17.4.0/24", "overlaps 172.17.0.0/16 of this host"),
            ("10.9.0.4/24", "is no network's address: that is 10.9.0.0"),
            ("10.9.0.0/30", "its prefix length is to be 1 to 29"),
        ] {
            assert!(subnet(text).contains(words), "{text}: {}", subnet(text));
        }
        let said = |change: fn(&mut NewNetwork)| asked(change).unwrap_err();
        assert!(said(|new| new.vni = Vni::new(4097).ok()).contains("VNI 4097 is network `blue`'s"));
        assert!(said(|new| new.mtu = Some(1400)).contains("the link of node n2 lets 1350 bytes through"));
        assert!(said(|new| new.mtu = Some(60)).contains("60"));
        assert!(
            said(|new| new.gateways = vec!["10.9.9.9".parse().unwrap()]).contains("no address in a subnet")
        );
    }

    #[test]
    fn an_encrypted_network_has_a_port_of_its_own_and_leaves_room_for_encryption() {
        let secret = asked(|new| new.encrypted = true).unwrap();
        assert_eq!((secret.encrypted, secret.port, secret.mtu), (true, ENCRYPTED_PORT, 1312));
        let text = asked(|new| (new.encrypted, new.mtu) = (true, Some(1350))).unwrap_err();
        assert!(text.contains("lets 1312 bytes through"), "{text}");
    }

    #[test]
    fn a_network_that_does_not_fit_through_a_nodes_link_is_not_joined_there() {
        let small = Node { underlay_mtu: 1400, ..node("n2", 2) };
        let refusal = too_large(&network("blue"), &small).unwrap();
        assert!(
            refusal.text.contains("packets of 1450 bytes, and the link of node n2 lets 1350"),
            "{refusal}"
        );
        assert_eq!(too_large(&network("blue"), &node("n1", 1)), None);
    }
}
