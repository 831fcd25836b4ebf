//! Where a cluster's records are written down, and how its nodes hear of each other's.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use berth_types::{NetworkName, NodeName};
use ipnetwork::IpNetwork;

use crate::model::{Block, Lend, Node, Occupant, OverlayAttachment, OverlayNetwork};

/// What a [`Cluster`] answers, later.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, ClusterError>> + Send + 'a>>;

/// A point in the history of a cluster's records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision(pub i64);

/// One record, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A node that is there: gone when its lease runs out.
    Node(Node),
    /// What a node last said of itself: stays until the node is removed, so that one that comes to the cluster while another is
    /// silent knows where the silent one's containers are.
    Known(Node),
    /// A network.
    Network(OverlayNetwork),
    /// An attachment, or a node's own address.
    Attachment(OverlayAttachment),
    /// A node's part of a subnet.
    Block(Block),
    /// A single address.
    Lend(Lend),
}

/// Which record: the part of an [`Entry`] that stays when it changes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKey {
    /// A node that is there.
    Node(NodeName),
    /// What a node last said of itself.
    Known(NodeName),
    /// A network.
    Network(NetworkName),
    /// An attachment: the network, the node and whose it is.
    Attachment(NetworkName, NodeName, Occupant),
    /// A block.
    Block(NetworkName, IpNetwork),
    /// A lent address.
    Lend(NetworkName, IpAddr),
}

impl Entry {
    /// Which record this is.
    pub fn key(&self) -> EntryKey {
        match self {
            Self::Node(node) => EntryKey::Node(node.name.clone()),
            Self::Known(node) => EntryKey::Known(node.name.clone()),
            Self::Network(network) => EntryKey::Network(network.name.clone()),
            Self::Attachment(attachment) => attachment.key(),
            Self::Block(block) => EntryKey::Block(block.network.clone(), block.cidr),
            Self::Lend(lend) => EntryKey::Lend(lend.network.clone(), lend.address),
        }
    }
}

impl OverlayAttachment {
    /// Which record this is.
    pub fn key(&self) -> EntryKey {
        EntryKey::Attachment(self.network.clone(), self.node.clone(), self.of.clone())
    }
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The record is new or another.
    Put(Entry),
    /// The record is gone.
    Gone(EntryKey),
}

/// Everything, at one revision. A value under the prefix that cannot be read is in `foreign`: its key and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// When.
    pub revision: Revision,
    /// What.
    pub entries: Vec<Entry>,
    /// What was passed over.
    pub foreign: Vec<(String, String)>,
}

/// News of a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Changes up to `revision`, in order.
    Changes {
        /// When the last was.
        revision: Revision,
        /// What changed.
        changes: Vec<Change>,
        /// What was passed over.
        foreign: Vec<(String, String)>,
    },
    /// The history from the revision asked for is no more: list again, and work out what is gone.
    Lost,
}

/// Follows a cluster's changes.
pub trait Watch: Send {
    /// The next news; waits for it.
    fn next(&mut self) -> Answer<'_, News>;
}

/// Where a cluster's records are. Every call ends by its own deadline, a few seconds; none retries for longer.
pub trait Cluster: Send + Sync + fmt::Debug {
    /// How people know it: `etcd at 10.0.0.1:2379`, `peers of /etc/berth/peers.toml`.
    fn name(&self) -> String;

    /// Everything.
    fn list(&self) -> Answer<'_, Listing>;

    /// Follows changes after `revision`.
    fn watch(&self, revision: Revision) -> Answer<'_, Box<dyn Watch>>;

    /// Says that `node` is here, and keeps saying it for `lease` after each call: calling again renews, and writes only if the
    /// record is another. Refused with [`ClusterError::Identity`] if another living host has the name.
    fn present<'a>(&'a self, node: &'a Node, lease: Duration) -> Answer<'a, ()>;

    /// Takes a node's record away, with its blocks and attachments: it has left, or is lost for ever.
    fn remove_node<'a>(&'a self, node: &'a NodeName) -> Answer<'a, ()>;

    /// Creates a network; name, VNI and subnets are nobody else's, or it is refused ([`ClusterError::Taken`]).
    fn create_network<'a>(&'a self, network: &'a OverlayNetwork) -> Answer<'a, ()>;

    /// Removes a network that has no container attached on any node ([`ClusterError::InUse`]).
    fn remove_network<'a>(&'a self, network: &'a NetworkName) -> Answer<'a, ()>;

    /// Writes an attachment: one write. Refused with [`ClusterError::Fenced`] if the node has joined anew since `epoch`, and with
    /// [`ClusterError::Taken`] if an address of it is another's.
    fn put_attachment<'a>(&'a self, attachment: &'a OverlayAttachment) -> Answer<'a, ()>;

    /// Removes an attachment, if it is not newer than `generation`. Gone already is success.
    fn remove_attachment<'a>(&'a self, key: &'a EntryKey, generation: u64) -> Answer<'a, ()>;

    /// Claims, confirms or changes a block: what is there must be `before` (nothing, for a claim), or the answer is
    /// [`ClusterError::Taken`] and nothing is changed.
    fn put_block<'a>(&'a self, before: Option<&'a Block>, block: &'a Block) -> Answer<'a, ()>;

    /// Gives a block back, if it is still as `block` says.
    fn remove_block<'a>(&'a self, block: &'a Block) -> Answer<'a, ()>;

    /// Takes a single address, of `block` as it is now, or of no block; [`ClusterError::Taken`] if it is lent or `block` has
    /// changed.
    fn put_lend<'a>(&'a self, lend: &'a Lend, block: Option<&'a Block>) -> Answer<'a, ()>;

    /// Gives a single address back. Gone already is success.
    fn remove_lend<'a>(&'a self, lend: &'a Lend) -> Answer<'a, ()>;
}

/// Why the cluster did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// No member answered in time.
    #[error(
        "{cluster} does not answer: {why}
attachments of networks this node knows go on; new networks have to wait"
    )]
    Away {
        /// Which cluster, with what was tried.
        cluster: String,
        /// What was tried and what came of it.
        why: String,
    },
    /// It answered, and did not let this node in.
    #[error("{cluster} refuses this node: {why}")]
    Refused {
        /// Which cluster.
        cluster: String,
        /// Its words: user, password or certificate.
        why: String,
    },
    /// Somebody else has it.
    #[error("{what} is {holder}'s")]
    Taken {
        /// What was asked for, with its kind: `VNI 4096`, `subnet 10.0.0.0/24`, `network name `blue``.
        what: String,
        /// Who has it.
        holder: String,
    },
    /// It is used.
    #[error("network `{network}` is in use by {count} attachments: {some}")]
    InUse {
        /// The network.
        network: NetworkName,
        /// How many.
        count: usize,
        /// The first few, `CONTAINER on NODE`.
        some: String,
    },
    /// There is none.
    #[error("{cluster} has no network `{network}`")]
    NoNetwork {
        /// Which cluster.
        cluster: String,
        /// The name.
        network: NetworkName,
    },
    /// Another host says it is this node.
    #[error(
        "node name `{node}` is taken by a host at {address}
give this host another: berth node join --name NAME"
    )]
    Identity {
        /// The name.
        node: NodeName,
        /// The other's address.
        address: String,
    },
    /// The node joined anew since; this is an earlier one's request.
    #[error("node `{node}` has joined anew since (epoch {epoch} is over)")]
    Fenced {
        /// The node.
        node: NodeName,
        /// The epoch of the request.
        epoch: u64,
    },
    /// This kind of cluster cannot do it.
    #[error("{cluster} cannot {what}")]
    Unsupported {
        /// Which cluster.
        cluster: String,
        /// What was asked, and where to do it instead.
        what: String,
    },
}
