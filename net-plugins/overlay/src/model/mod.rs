//! What a cluster knows: nodes, networks, attachments, blocks of addresses and single addresses that are lent.
//!
//! All are written as JSON. Each carries `v`, the layout, so that a later version can tell what an earlier one wrote; what
//! cannot be read is reported and passed over, never fatal.

mod addresses;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use berth_types::{BootId, ContainerId, IfName, MacAddr, NetworkName, NodeName, Proto, Vni};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

pub use addresses::Addresses;

/// The layout of every record that this version writes.
pub const LAYOUT: u32 = 1;

/// A host in the cluster. Bound to a lease: when it runs out, the node is *suspect*, and nothing of its attachments is
/// taken away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Layout of this record.
    pub v: u32,
    /// The node's name.
    pub name: NodeName,
    /// Where its VXLAN frames come from and go to, IPv4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vtep4: Option<Ipv4Addr>,
    /// The same, IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vtep6: Option<Ipv6Addr>,
    /// The largest packet of the link that the VTEP is on, bytes.
    pub underlay_mtu: u32,
    /// Its X25519 key, where it can encrypt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// Which host this is, whatever it is called: made by chance when its records were. Two hosts that say they are one node are
    /// told apart by it.
    pub identity: String,
    /// Which boot of the host this is.
    pub boot: BootId,
    /// Grows each time the node joins anew: what was written of an earlier one is void.
    pub epoch: u64,
}

/// A network of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayNetwork {
    /// Layout of this record.
    pub v: u32,
    /// Its name, the same on every node.
    pub name: NetworkName,
    /// Its number on the wire.
    pub vni: Vni,
    /// The UDP port of its VXLAN.
    pub port: u16,
    /// Its subnets with their gateways.
    pub subnets: Vec<OverlaySubnet>,
    /// The largest packet on it, bytes, the same on every node.
    pub mtu: u32,
    /// The gateway's Ethernet address, the same on every node.
    pub gateway_mac: MacAddr,
    /// Whether what leaves it carries its node's address.
    #[serde(default = "yes")]
    pub masquerade: bool,
    /// Whether its containers may talk to each other.
    #[serde(default = "yes")]
    pub between_containers: bool,
    /// Whether other isolated networks are kept apart from it.
    #[serde(default = "yes")]
    pub isolated: bool,
    /// Whether nothing leaves and nothing enters.
    #[serde(default)]
    pub internal: bool,
    /// Whether its packets are encrypted between nodes.
    #[serde(default)]
    pub encrypted: bool,
    /// Whether broadcasts and multicasts are copied to every node that is on it.
    #[serde(default)]
    pub flood: bool,
    /// The prefix length of the IPv4 blocks that nodes claim of it.
    pub block4: u8,
    /// The same for IPv6.
    pub block6: u8,
    /// Whether a node may take single addresses of another's block when it finds no block of its own.
    #[serde(default = "yes")]
    pub borrowing: bool,
    /// Whether the engines of every node that keep networks of their own are to have it under its name.
    #[serde(default)]
    pub shared: bool,
    /// The node that created it.
    pub created_by: NodeName,
}

/// A subnet of an overlay network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlaySubnet {
    /// The subnet.
    pub subnet: IpNetwork,
    /// Its gateway, answered by each node for its own containers.
    pub gateway: IpAddr,
}

/// A container's interface on an overlay network, or a node's own address in it. Never bound to a lease: an agent that
/// restarts takes nothing off the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayAttachment {
    /// Layout of this record.
    pub v: u32,
    /// The network.
    pub network: NetworkName,
    /// Whose it is.
    pub of: Occupant,
    /// The node it is on.
    pub node: NodeName,
    /// The node's epoch when it was written.
    pub epoch: u64,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Its addresses.
    pub addresses: Addresses,
    /// What it is called on the network, the best name first.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub names: Box<[String]>,
    /// Ports that have a name or are published, for SRV records.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub services: Box<[Service]>,
    /// Grows with each change: of two records of one address the greater is believed.
    pub generation: u64,
}

/// Whose an address is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Occupant {
    /// A container's interface.
    Container {
        /// The container.
        id: ContainerId,
        /// Its interface.
        ifname: IfName,
    },
    /// The node itself.
    Node,
}

/// A port that others may look for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Service {
    /// What it is called (RFC 6335), if it has a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its protocol.
    pub proto: Proto,
    /// The container's port.
    pub port: u16,
}

/// A part of a subnet from which one node alone gives addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Layout of this record.
    pub v: u32,
    /// The network.
    pub network: NetworkName,
    /// The part.
    pub cidr: IpNetwork,
    /// The node it is of.
    pub owner: NodeName,
    /// The owner's epoch when it was claimed.
    pub epoch: u64,
    /// How far it has come.
    pub state: BlockState,
    /// Grows with each change of owner or of what is lent of it.
    pub sequence: u64,
}

/// How far a block's claim has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlockState {
    /// Claimed; the owner has not written it down yet, and gives nothing from it.
    Pending,
    /// The owner gives addresses from it.
    Confirmed,
    /// The owner gives nothing more from it, and gives it back when it is empty.
    Draining,
}

/// A single address that a node has of another's block, or that was asked for by number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lend {
    /// Layout of this record.
    pub v: u32,
    /// The network.
    pub network: NetworkName,
    /// The address.
    pub address: IpAddr,
    /// The node that has it now.
    pub borrower: NodeName,
    /// Whom the node gave it to.
    pub of: Occupant,
    /// How far it has come.
    pub state: LendState,
    /// The block's sequence when it was asked for.
    pub sequence: u64,
}

/// How far a loan has come. Only a block's owner knows what it gives from it, while the cluster is away too; so an address of a
/// block is asked for, and is the borrower's when the owner has said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LendState {
    /// Wanted; the block's owner has not answered.
    Asked,
    /// The borrower's. Of an address in no block, at once.
    Granted,
    /// The owner has given it to a container of its own.
    Refused,
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attachment_is_read_without_what_later_versions_add_or_earlier_ones_lack() {
        let text = r#"{"v":1,"network":"blue","of":{"container":{"id":"c1","ifname":"eth0"}},"node":"n1","epoch":3,
            "mac":"02:42:0a:00:00:02","addresses":["10.0.0.2"],"generation":7,"colour":"red"}"#;
        let read: OverlayAttachment = serde_json::from_str(text).unwrap();
        assert_eq!(*read.names, [] as [String; 0]);
        let again: OverlayAttachment = serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
        assert_eq!(again, read);
    }
}
