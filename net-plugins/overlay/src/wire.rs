//! What is said on the agent's socket: HTTP with JSON bodies, on `overlay.sock` in the run directory.
//!
//! `POST /v1/network` takes [`AskNetwork`] and answers once this node is on the network; `/v1/create` takes [`NewNetwork`];
//! `/v1/describe` takes [`AskNetwork`] and answers the record of the network, or the one it would be created with; `/v1/share` takes
//! [`ShareNetwork`]; `/v1/remove` and `/v1/room` take [`AskNetwork`]; `/v1/changed` takes [`Changed`] and answers [`Published`];
//! `/v1/nameless` takes [`Changed`] of attachments whose names come soon and answers nothing: they are published with them;
//! `/v1/joined` takes nothing and says that this node has joined a cluster, or left it. `GET /v1/status` answers
//! [`Status`], `GET /v1/ping` nothing. A refusal is a status of 400 and more with a [`Refusal`].

use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_types::{AttachmentKey, NetworkName, NodeName, Vni};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::cluster::ClusterError;

/// The agent's socket, in the run directory.
pub const SOCKET: &str = "overlay.sock";

/// A network of the cluster, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskNetwork {
    /// Its name.
    pub name: NetworkName,
    /// What it is made as where the cluster has none of the name; absent, that is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create: Option<NewNetwork>,
    /// A certain address that is needed of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
}

impl AskNetwork {
    /// The network of this name, which is there.
    pub fn named(name: NetworkName) -> Self {
        Self { name, create: None, address: None }
    }
}

/// A network to create. What is absent is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewNetwork {
    /// Its name.
    pub name: NetworkName,
    /// Its subnets, at most one of each family; absent is a free one of IPv4.
    #[serde(default)]
    pub subnets: Vec<IpNetwork>,
    /// Its gateways, each in one of the subnets; absent is a subnet's first address.
    #[serde(default)]
    pub gateways: Vec<IpAddr>,
    /// Its number on the wire.
    #[serde(default)]
    pub vni: Option<Vni>,
    /// The largest packet, bytes; absent is what the nodes' links let through.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// Whether its packets are encrypted between nodes.
    #[serde(default)]
    pub encrypted: bool,
    /// Whether nothing leaves and nothing enters.
    #[serde(default)]
    pub internal: bool,
    /// Whether broadcasts and multicasts reach every node.
    #[serde(default)]
    pub flood: bool,
    /// Whether its containers are kept from each other.
    #[serde(default)]
    pub apart: bool,
}

impl NewNetwork {
    /// One of which everything is chosen.
    pub fn named(name: NetworkName) -> Self {
        Self {
            name,
            subnets: Vec::new(),
            gateways: Vec::new(),
            vni: None,
            mtu: None,
            encrypted: false,
            internal: false,
            flood: false,
            apart: false,
        }
    }
}

/// Whether the engines of all nodes that keep networks of their own are to have a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareNetwork {
    /// Its name.
    pub name: NetworkName,
    /// Whether they are.
    pub shared: bool,
}

/// Records of attachments that were written or removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Whose.
    pub attachments: Vec<AttachmentKey>,
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Published {
    /// The cluster has it.
    Committed,
    /// It is in the records, and goes to the cluster when it can; why it could not yet.
    Later(String),
}

/// The agent, as it is looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// This node; absent while it has joined no cluster.
    pub node: Option<NodeName>,
    /// Where the cluster's records are, in words.
    pub cluster: Option<String>,
    /// Whether they are reached.
    pub connected: bool,
    /// Why not, or what the cluster refuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// The revision of the cluster as last seen.
    pub revision: i64,
    /// When it last changed, milliseconds since 1970; 0 is never.
    pub last_change_ms: u64,
    /// The networks this node is on.
    pub networks: Vec<NetworkStatus>,
    /// The nodes.
    pub nodes: Vec<NodeStatusView>,
    /// Values in the cluster that cannot be read: key and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub foreign: BTreeMap<String, String>,
    /// Attachments of this node that are not published yet.
    pub unpublished: usize,
    /// What was done so far.
    pub counters: CountersView,
}

/// A network that this node is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// Its name.
    pub name: NetworkName,
    /// Its number on the wire.
    pub vni: Vni,
    /// The largest packet, bytes.
    pub mtu: u32,
    /// Its subnets.
    pub subnets: Vec<IpNetwork>,
    /// This node's parts of them.
    pub blocks: Vec<IpNetwork>,
    /// Attachments of this node.
    pub here: usize,
    /// Attachments of other nodes.
    pub elsewhere: usize,
    /// Other nodes' tunnel ends.
    pub vteps: Vec<IpAddr>,
    /// Addresses that two say are theirs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<String>,
    /// Ways to other nodes that its packets do not fit through, and links of nodes, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub narrow: Vec<String>,
    /// What is wrong with it here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// How it is encrypted; absent of one in clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<EncryptionView>,
}

/// A network's encryption, as it is looked at. No key is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncryptionView {
    /// Since when this node has its present secret, milliseconds since 1970; 0 while it has none.
    pub since_ms: u64,
    /// Nodes on the network that this one encrypts for.
    pub peers: usize,
    /// Nodes on the network that have no key, and so get no packet of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<NodeName>,
    /// Whether the cluster has this node's key; until then nobody takes what it sends.
    pub published: bool,
}

/// A node, as it is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatusView {
    /// Its name.
    pub name: NodeName,
    /// Its tunnel ends.
    pub vteps: Vec<IpAddr>,
    /// The largest packet of its link, bytes.
    pub underlay_mtu: u32,
    /// Whether it is heard of.
    pub alive: bool,
    /// Attachments of it.
    pub attachments: usize,
}

/// What an agent has done since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountersView {
    /// Entries of the kernel that were not as they should be, and were put right.
    pub repaired: u64,
    /// Whole listings read from the cluster.
    pub listings: u64,
    /// Records written to the cluster, or removed there.
    pub writes: u64,
    /// Of these, those that the cluster refused.
    pub refused: u64,
}

/// Why the agent did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// What kind of refusal.
    pub code: RefusalCode,
    /// What, why, who has it and what to do.
    pub text: String,
}

/// Kinds of refusals, for adapters to turn into their protocols' codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalCode {
    /// This node has joined no cluster.
    NotJoined,
    /// The cluster is away, and it is needed.
    Away,
    /// The cluster does not let this node in.
    Denied,
    /// There is no network of the name.
    NoNetwork,
    /// Somebody else has it: a name, a VNI, a subnet, an address.
    Taken,
    /// It is used.
    InUse,
    /// No addresses are left.
    Exhausted,
    /// The request makes no sense.
    Invalid,
    /// This host or this kind of cluster cannot do it.
    Unsupported,
    /// It was tried and failed.
    Failed,
}

impl Refusal {
    /// A refusal in these words.
    pub fn new(code: RefusalCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// This node is in no cluster.
    pub fn not_joined() -> Self {
        let text = "this node has joined no cluster\njoin one: berth node join --etcd URL, or --peers FILE";
        Self::new(RefusalCode::NotJoined, text)
    }
}

impl From<&ClusterError> for Refusal {
    fn from(err: &ClusterError) -> Self {
        let code = match err {
            ClusterError::Away { .. } => RefusalCode::Away,
            ClusterError::Refused { .. }
            | ClusterError::Untrusted { .. }
            | ClusterError::Identity { .. }
            | ClusterError::Fenced { .. } => RefusalCode::Denied,
            ClusterError::Config { .. } => RefusalCode::Invalid,
            ClusterError::Taken { .. } => RefusalCode::Taken,
            ClusterError::InUse { .. } => RefusalCode::InUse,
            ClusterError::NoNetwork { .. } => RefusalCode::NoNetwork,
            ClusterError::Unsupported { .. } => RefusalCode::Unsupported,
        };
        Self::new(code, err.to_string())
    }
}
