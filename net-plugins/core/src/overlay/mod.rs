//! The one port more that makes a bridge network an overlay: a VXLAN device to the other hosts. What it is and what is wrong
//! with it, pure; and the set of other hosts that frames are taken from.
//!
//! This crate knows nothing of a cluster. Who the other hosts are, and which container is where, is told from outside:
//! tunnel ends by `Berth::peers_set`, forwarding entries by whoever writes them to the device.
//!
//! Addresses: each host has one of its own in the network ([`OverlayPort::addresses`]) on the bridge, and the gateway's beside
//! it, the same on every host. The gateway's carries no subnet and is never chosen as a source, so the order in which the two
//! are put on the bridge does not matter (docs/adr/0005-the-gateway-of-an-overlay.md).

mod peers;
mod plan;

pub(crate) use plan::plan_overlay;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use berth_netlink::{BridgePort, Link, LinkKind, PortChange};
use berth_types::{AttachmentKey, IfName, MacAddr, NetworkName, Vni, fnv64};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::network::NetworkRecord;

/// The VXLAN device of a network, and this host's place in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayPort {
    /// The network's number on the wire, the same on every host.
    pub vni: Vni,
    /// The UDP port, the same on every host.
    pub port: u16,
    /// The address this host's packets leave from: its tunnel end.
    pub local: IpAddr,
    /// Largest packet, bytes, of the device, the bridge and both ends of every container's link; the same on every host.
    pub mtu: u32,
    /// This host's Ethernet address in the network: the bridge's.
    pub mac: MacAddr,
    /// This host's own addresses in the network, each with the subnet's prefix length; at most one of a subnet.
    pub addresses: BTreeSet<IpNetwork>,
    /// Whether broadcasts, multicasts and frames to unknown addresses leave for the other hosts.
    #[serde(default)]
    pub flood: bool,
    /// Whether nothing of it may come in or leave in clear. The port is one of encrypted networks alone, then.
    #[serde(default)]
    pub encrypted: bool,
}

impl OverlayPort {
    /// The device's name: readable, and no two networks of a host have one VNI.
    pub fn device(&self) -> IfName {
        device_of(self.vni)
    }

    /// Whether `other` is the same network with this host in another place, or with other choices that its containers do
    /// not notice: it may become the other without being made anew.
    pub(crate) fn is_same_network(&self, other: &Self) -> bool {
        let Self { vni, port, local: _, mtu: _, mac: _, addresses: _, flood: _, encrypted: _ } = self;
        *vni == other.vni && *port == other.port
    }
}

impl fmt::Display for OverlayPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vni, port, local, mtu, mac, addresses: _, flood, encrypted } = self;
        write!(f, "vni {vni} port {port} from {local} mac {mac} mtu {mtu}")?;
        f.write_str(if *flood { " flood on" } else { " flood off" })?;
        f.write_str(if *encrypted { " encrypted" } else { "" })
    }
}

/// The other hosts of an overlay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peers {
    /// Their tunnel ends, from which frames are taken.
    pub vteps: BTreeSet<IpAddr>,
    /// Their own Ethernet addresses in the network, to which containers answer that are kept apart from all others.
    #[serde(default)]
    pub macs: BTreeSet<MacAddr>,
}

impl Peers {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        let Self { vteps, macs } = self;
        vteps.is_empty() && macs.is_empty()
    }

    /// Those of both.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self {
            vteps: self.vteps.union(&other.vteps).copied().collect(),
            macs: self.macs.union(&other.macs).copied().collect(),
        }
    }
}

/// How the names of an overlay's links begin: its device's and its bridge's, unless somebody named that.
pub(crate) const LINK_NAMES: &[&str] = &[DEVICE, BRIDGE];

const DEVICE: &str = "bvx";
const BRIDGE: &str = "bbr";

/// The name of the device of a network with this VNI.
pub fn device_of(vni: Vni) -> IfName {
    IfName::new(format!("{DEVICE}{vni}"))
        .expect("three letters and at most eight digits are an interface name")
}

/// The name of the bridge of a network with this VNI, where nobody named it: one that network managers are told to leave alone
/// (`packaging/network`).
pub fn bridge_of(vni: Vni) -> IfName {
    IfName::new(format!("{BRIDGE}{vni}"))
        .expect("three letters and at most eight digits are an interface name")
}

/// The `ifalias` of a network's VXLAN device.
pub fn vxlan_alias(network: &NetworkName) -> String {
    let alias = format!("berth {network} vxlan");
    if alias.len() < 256 { alias } else { format!("berth #{:016x} vxlan", fnv64([network.as_str()])) }
}

/// Reads back what [`vxlan_alias`] wrote.
pub(crate) fn network_of_vxlan(alias: &str) -> Option<NetworkName> {
    alias.strip_prefix("berth ")?.strip_suffix(" vxlan")?.parse().ok()
}

/// Under which name a host's own addresses in a network are kept from its containers: no engine has a container of that number.
pub fn key_of_host(network: &NetworkName) -> AttachmentKey {
    AttachmentKey {
        network: network.clone(),
        container: "0".parse().expect("a digit is a container id"),
        ifname: "node".parse().expect("four letters are an interface name"),
    }
}

/// The address as a gateway has it on the bridge of an overlay: without its subnet.
pub(crate) fn alone(gateway: IpAddr) -> IpNetwork {
    IpNetwork::from(gateway)
}

/// How the device behaves as the bridge's port. Nothing is learned and nothing is sent out that no entry asks for, unless the
/// network floods; questions for a known address are answered here.
pub fn port_settings(flood: bool) -> PortChange {
    PortChange {
        hairpin: None,
        isolated: Some(false),
        learning: Some(false),
        flood: Some(flood),
        mcast_flood: Some(flood),
        bcast_flood: Some(flood),
        neigh_suppress: Some(true),
    }
}

fn has_settings(port: Option<BridgePort>, flood: bool) -> bool {
    let wanted = BridgePort {
        hairpin: port.is_some_and(|port| port.hairpin),
        isolated: false,
        learning: false,
        flood,
        mcast_flood: flood,
        bcast_flood: flood,
        neigh_suppress: true,
    };
    port == Some(wanted)
}

/// Whether `link` is the device that berth made for the network: it says so, or its maker was killed before it could.
pub(crate) fn is_device(link: &Link, network: &NetworkName, overlay: &OverlayPort, pending: bool) -> bool {
    let nameless = pending && link.alias.is_none() && is_configured(link, overlay);
    link.kind == LinkKind::Vxlan && (link.alias.as_ref() == Some(&vxlan_alias(network)) || nameless)
}

/// Whether the device is what cannot be changed of it.
pub(crate) fn is_configured(link: &Link, overlay: &OverlayPort) -> bool {
    link.vxlan.is_some_and(|vxlan| {
        vxlan.vni == overlay.vni.get()
            && vxlan.port == overlay.port
            && vxlan.local == Some(overlay.local)
            && !vxlan.learning
    })
}

/// Something that is not as it should be of a network's device or of its bridge as an overlay's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlayFault {
    /// What it is about.
    pub link: IfName,
    /// What is wrong, in a sentence without its subject.
    pub what: String,
}

/// What is wrong with the VXLAN device and the bridge of `network`, given the host's links. Nothing for other networks.
pub fn faults(network: &NetworkRecord, links: &[Link]) -> Vec<OverlayFault> {
    let Some(overlay) = &network.overlay else { return Vec::new() };
    let device = overlay.device();
    let link_of = |name: &IfName| links.iter().find(|link| link.name == *name);
    let bridge = link_of(&network.bridge);
    let mut found = Vec::new();
    if let Some(bridge) = bridge {
        let mut wrong = |what| found.push(OverlayFault { link: bridge.name.clone(), what });
        if bridge.mtu != overlay.mtu {
            wrong(format!("has MTU {}, not {}", bridge.mtu, overlay.mtu));
        }
        if bridge.mac != Some(overlay.mac) {
            wrong(format!("has not this host's MAC address {}", overlay.mac));
        }
    }
    let mut wrong = |what: String| found.push(OverlayFault { link: device.clone(), what });
    let Some(link) = link_of(&device) else {
        wrong("is gone".to_owned());
        return found;
    };
    if !is_device(link, &network.name, overlay, false) {
        wrong("is not berth's device of the network".to_owned());
        return found;
    }
    if !is_configured(link, overlay) {
        wrong(format!("is not VNI {} on UDP port {} from {}", overlay.vni, overlay.port, overlay.local));
    }
    if link.master.is_none() || link.master != bridge.map(|bridge| bridge.index) {
        wrong(format!("is not a port of {}", network.bridge));
    } else if !has_settings(link.port, overlay.flood) {
        wrong("has other settings as the bridge's port".to_owned());
    }
    if link.mtu != overlay.mtu {
        wrong(format!("has MTU {}, not {}", link.mtu, overlay.mtu));
    }
    if !link.up {
        wrong("is down".to_owned());
    }
    found
}

#[cfg(test)]
mod tests;
