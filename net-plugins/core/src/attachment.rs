//! What an attachment is: what a caller asks for, and what is remembered of it.

use std::path::PathBuf;

use berth_types::{
    AddressLease, AttachmentKey, Dns, IfName, MacAddr, PublishedPort, Route, SandboxId, fnv64,
};
use serde::{Deserialize, Serialize};

use crate::names::MemberNames;
use crate::plan::Joining;
use crate::published::Published;

/// One interface of a container on a bridge network, as a caller asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachmentSpec {
    /// Who it is.
    pub key: AttachmentKey,
    /// The MAC address of the container's end.
    pub mac: MacAddr,
    /// Addresses, with their gateways.
    pub leases: Vec<AddressLease>,
    /// Routes inside the sandbox.
    pub routes: Vec<Route>,
    /// How the bridge port behaves.
    pub port: PortSpec,
    /// Whether the container's end is brought up.
    pub container_link: ContainerLink,
    /// Whether the container's end checks for duplicate addresses, which costs a second or two.
    pub duplicate_detection: DuplicateDetection,
    /// Ports published for it.
    pub ports: Vec<PublishedPort>,
    /// Rate limits, if any.
    pub bandwidth: Option<Bandwidth>,
}

/// The bridge port of an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSpec {
    /// Frames may go back out of the port they came in by.
    pub hairpin: bool,
    /// The port reaches no other isolated port.
    pub isolated: bool,
    /// The port reaches no other port of a network without traffic between containers, but for published ports.
    pub apart: bool,
    /// The container may send 802.1Q frames.
    pub trunk: bool,
    /// What is checked of frames that come from the container.
    pub guard: Guard,
}

/// Anti-spoofing of one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Guard {
    /// Nothing is checked.
    Off,
    /// The source MAC address.
    Mac,
    /// The source MAC and IP addresses, and what ARP and neighbour discovery claim.
    Full,
}

/// What becomes of the container's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerLink {
    /// Up after the attach.
    Up,
    /// Left down, for a container that brings it up itself.
    Down,
    /// Left in the host's namespace under this name, for an engine that moves, names and configures it itself.
    Handed(IfName),
}

/// Whether IPv6 duplicate address detection runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DuplicateDetection {
    /// The address is usable at once.
    Off,
    /// The kernel probes first.
    On,
}

/// Rate limits of an attachment, seen from the container. Rates in bits per second, bursts in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// Towards the container: rate and burst.
    pub ingress: Option<(u64, u64)>,
    /// From the container: rate and burst.
    pub egress: Option<(u64, u64)>,
}

/// What the records keep of an attachment. Stored as JSON; `version` tells the layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentRecord {
    /// Layout of this record; 1 so far.
    pub version: u32,
    /// Who it is.
    pub key: AttachmentKey,
    /// The bridge it is on.
    pub bridge: IfName,
    /// The host's end of the veth pair.
    pub host_ifname: IfName,
    /// The MAC address of the container's end.
    pub mac: MacAddr,
    /// Its addresses.
    pub leases: Vec<AddressLease>,
    /// Routes inside the sandbox.
    pub routes: Vec<Route>,
    /// Resolver settings it was given.
    pub dns: Dns,
    /// How its bridge port behaves.
    pub port: PortSpec,
    /// What is published for it.
    pub published: Published,
    /// Rate limits.
    pub bandwidth: Option<Bandwidth>,
    /// What it is called, on a network with names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<MemberNames>,
    /// The container's end as it is called in the host's namespace, before the engine takes it and after it gave it back;
    /// only for an engine that does so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<IfName>,
    /// Sandbox path as the caller gave it; empty where it is not known (rebuilt from the kernel, or not there yet).
    pub sandbox_path: PathBuf,
    /// Sandbox identity, where it is known.
    pub sandbox: Option<SandboxId>,
}

impl AttachmentRecord {
    /// The layout this version writes.
    pub const VERSION: u32 = 1;

    /// What its network is made for.
    pub fn joining(&self) -> Joining<'_> {
        Joining {
            leases: &self.leases,
            own_mac: mac_of(&self.key, &self.leases) != Some(self.mac),
            peers: None,
        }
    }
}

/// The MAC address that goes with the first of `leases`, an IPv4 one where there is one.
pub fn mac_of(key: &AttachmentKey, leases: &[AddressLease]) -> Option<MacAddr> {
    let first = leases.iter().find(|lease| lease.address.is_ipv4()).or(leases.first())?;
    Some(MacAddr::of_address(&key.network, first.address.ip()))
}

/// The MAC address of an attachment on an overlay: the attachment's own and never its address's, so that what another host
/// still has of the address's last user leads to nobody. `host` is this host's own on the network: two hosts may have a container
/// of one name.
pub fn mac_of_key(key: &AttachmentKey, host: MacAddr) -> MacAddr {
    let AttachmentKey { network, container, ifname } = key;
    let host = host.to_string();
    MacAddr::of_names([network.as_str(), container.as_str(), ifname.as_str(), host.as_str()])
}

/// The `ifalias` of an attachment's host link: what it is recognised by when no record is left.
pub fn attachment_alias(key: &AttachmentKey) -> String {
    let AttachmentKey { network, container, ifname } = key;
    let alias = format!("berth {network} {container} {ifname}");
    let hash = fnv64([network.as_str(), container.as_str(), ifname.as_str()]);
    bounded(alias, || format!("berth #{hash:016x}"))
}

/// The `ifalias` of a network's bridge.
pub fn bridge_alias(network: &berth_types::NetworkName) -> String {
    bounded(format!("berth {network}"), || format!("berth #{:016x}", fnv64([network.as_str()])))
}

/// `alias`, or `instead` where the kernel would not take it (`IFALIASZ`): names have no limit. Such an alias still tells
/// a link of berth's from others, but not what it is: without a record it cannot be rebuilt.
fn bounded(alias: String, instead: impl FnOnce() -> String) -> String {
    if alias.len() < 256 { alias } else { instead() }
}

/// Reads back what [`attachment_alias`] wrote.
pub fn key_of_alias(alias: &str) -> Option<AttachmentKey> {
    let mut words = alias.split(' ');
    let (Some("berth"), Some(network), Some(container), Some(ifname), None) =
        (words.next(), words.next(), words.next(), words.next(), words.next())
    else {
        return None;
    };
    Some(AttachmentKey {
        network: network.parse().ok()?,
        container: container.parse().ok()?,
        ifname: ifname.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_gives_its_key_back() {
        let key = AttachmentKey {
            network: "n0".parse().unwrap(),
            container: "c.1".parse().unwrap(),
            ifname: "eth0".parse().unwrap(),
        };
        assert_eq!(key_of_alias(&attachment_alias(&key)), Some(key));
        for foreign in
            ["", "berth", "berth n0", "berth n0 c1 eth0 more", "other n0 c1 eth0", "berth n0 /x eth0"]
        {
            assert_eq!(key_of_alias(foreign), None, "{foreign:?}");
        }
    }
}
