//! Where a cluster's records are written down, and how its nodes hear of each other's.
//!
//! A [`Cluster`] refuses what may not be, by transaction: two networks with one name, VNI or address, two attachments with one
//! address, a block of two owners, words of a node that has joined anew since. It decides nothing.

pub mod embedded;
mod error;
pub mod etcd;

pub mod keys;

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use berth_types::{NetworkName, NodeName};
use ipnetwork::IpNetwork;

pub use error::ClusterError;

use crate::model::{Block, Lend, LendState, Node, Occupant, OverlayAttachment, OverlayNetwork};

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
    /// Something was written that cannot be read.
    Foreign(Foreign),
    /// What stood under a key that is no record's is gone.
    ForeignGone(String),
}

/// Something under the cluster's prefix that cannot be read: reported and passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// Where it stands.
    pub key: String,
    /// The record that should stand there, if the key is a record's. What was last read of it goes on being believed.
    pub entry: Option<EntryKey>,
    /// Why it cannot be read.
    pub why: String,
}

/// Everything, at one revision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// When.
    pub revision: Revision,
    /// What.
    pub entries: Vec<Entry>,
    /// What was passed over.
    pub foreign: Vec<Foreign>,
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
    },
    /// The history from the revision asked for is no more: list again, and work out what is gone.
    Lost,
}

/// Follows a cluster's changes.
pub trait Watch: Send {
    /// The next news; waits for it, and may be dropped while it does. After an error a new watch is begun from the last revision
    /// that was told.
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

    /// Takes the node's name, before anything else is written of it: answers its epoch, which is `node.epoch` if the cluster still
    /// knows the node so, and otherwise one greater than any before. Refused with [`ClusterError::Identity`] while another living
    /// host has the name.
    fn join<'a>(&'a self, node: &'a Node) -> Answer<'a, u64>;

    /// Says that `node` is here, and keeps saying it for `lease` after each call: calling again renews, and writes only if the
    /// record is another. Refused with [`ClusterError::Identity`] if another living host has the name, and with
    /// [`ClusterError::Fenced`] if the node was removed or has joined anew since `node.epoch`.
    fn present<'a>(&'a self, node: &'a Node, lease: Duration) -> Answer<'a, ()>;

    /// Takes a node's records away, with its blocks, loans and attachments, and fences what it may still write.
    fn remove_node<'a>(&'a self, node: &'a NodeName, removal: Removal) -> Answer<'a, ()>;

    /// Creates a network; name, VNI and subnets are nobody else's, or it is refused ([`ClusterError::Taken`]).
    fn create_network<'a>(&'a self, network: &'a OverlayNetwork) -> Answer<'a, ()>;

    /// Removes a network that has no container attached on any node ([`ClusterError::InUse`]).
    fn remove_network<'a>(&'a self, network: &'a NetworkName) -> Answer<'a, ()>;

    /// Says whether engines of all nodes are to have the network; answers its record as it is then.
    fn share_network<'a>(&'a self, network: &'a NetworkName, shared: bool) -> Answer<'a, OverlayNetwork>;

    /// Writes an attachment: one write. Refused with [`ClusterError::Fenced`] if the node has joined anew since `epoch`, and with
    /// [`ClusterError::Taken`] if an address of it is another's.
    fn put_attachment<'a>(&'a self, attachment: &'a OverlayAttachment) -> Answer<'a, ()>;

    /// Whether [`Cluster::put_attachment`] would be refused, and how. Nothing is written.
    fn check_attachment<'a>(&'a self, attachment: &'a OverlayAttachment) -> Answer<'a, ()>;

    /// Removes an attachment, if it is not newer than `generation`. Gone already is success.
    fn remove_attachment<'a>(&'a self, key: &'a EntryKey, generation: u64) -> Answer<'a, ()>;

    /// Claims, confirms or changes a block: what is there must be `before` (nothing, for a claim), or the answer is
    /// [`ClusterError::Taken`] and nothing is changed. Answers the addresses of it that are lent or asked for: nothing more is
    /// granted of it from now on without its owner.
    fn put_block<'a>(&'a self, before: Option<&'a Block>, block: &'a Block) -> Answer<'a, Vec<Lend>>;

    /// Gives a block back, if it is still as `block` says.
    fn remove_block<'a>(&'a self, block: &'a Block) -> Answer<'a, ()>;

    /// Asks for a single address. `around` is the prefix of the block that it would be in. Where there is no such block it is the
    /// borrower's at once, otherwise the block's owner has to answer. Answers how far it has come; [`ClusterError::Taken`] if it
    /// is another's, or if the network lends nothing.
    fn put_lend<'a>(&'a self, lend: &'a Lend, around: IpNetwork) -> Answer<'a, LendState>;

    /// The owner's answer to a loan that was asked for; `lend` with the new state. One that is no longer asked for is left alone.
    fn settle_lend<'a>(&'a self, lend: &'a Lend) -> Answer<'a, ()>;

    /// Gives a single address back. Gone already is success.
    fn remove_lend<'a>(&'a self, lend: &'a Lend) -> Answer<'a, ()>;
}

/// Why a node is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It leaves, or a person says that it is gone.
    Told,
    /// It was silent for longer than the grace. Refused with [`ClusterError::Taken`] if it is heard of, and with
    /// [`ClusterError::Fenced`] if its epoch is another by now.
    Lost {
        /// The epoch in which it fell silent.
        epoch: u64,
    },
}
