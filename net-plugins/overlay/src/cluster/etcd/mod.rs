//! A cluster whose records are in etcd, 3.4 or later.
//!
//! Of etcd's calls only those of 3.4 are used: ranges, transactions, leases and watches. Each change is one transaction, and so
//! one write of etcd's log. Names, VNIs and addresses are unique because their keys are; subnets that overlap have no key in
//! common, so every creation and removal of a network also changes one key that it compares first.
//!
//! A node's presence is on a lease, its attachments and blocks never are. Its epoch stands under a key that each write of the
//! node compares: what a node sends that was removed meanwhile, or whose name another host has taken, is refused.

mod attachments;
mod blocks;
mod change;
mod config;
mod networks;
mod nodes;
mod session;
mod watch;

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use berth_types::{NetworkName, NodeName};
use ipnetwork::IpNetwork;

pub use config::{EtcdConfig, PREFIX, Password, TlsFiles};

use self::change::Slot;
pub(crate) use self::networks::refuse_taken;
use self::session::{Fault, Sessions};
use super::{Answer, Cluster, ClusterError, EntryKey, Listing, Removal, Revision, Watch};
use crate::model::{Block, Lend, LendState, Node, OverlayAttachment, OverlayNetwork};

/// No call takes longer, the connection included.
pub const DEADLINE: Duration = Duration::from_secs(3);

/// How long a change is tried that others contend for.
const CONTENDED: Duration = Duration::from_secs(6);

/// How often a connection is asked for a sign of life, and how long it has for it: a watch through a partition ends after both.
const KEEP_ALIVE: Duration = Duration::from_secs(3);

/// A cluster whose records are in etcd.
pub struct EtcdCluster {
    sessions: Sessions,
    /// This node's lease and the record that was last written on it.
    presence: tokio::sync::Mutex<Option<nodes::Presence>>,
    /// What epochs and networks were when last seen: only ever a guess.
    remembered: Mutex<std::collections::BTreeMap<String, Slot>>,
}

impl fmt::Debug for EtcdCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EtcdCluster").field(&self.sessions.name()).finish()
    }
}

impl EtcdCluster {
    /// A cluster that is connected to when it is first asked.
    ///
    /// # Errors
    ///
    /// [`ClusterError::Config`]: an endpoint is none, or a file cannot be read.
    pub fn new(config: EtcdConfig) -> Result<Self, ClusterError> {
        let checked = config.check().and_then(|()| config.certificates());
        let sessions = Sessions::new(config);
        checked.map_err(|why| sessions.error(Fault::Config(why)))?;
        Ok(Self { sessions, presence: tokio::sync::Mutex::default(), remembered: Mutex::default() })
    }

    fn taken(what: String, holder: impl fmt::Display) -> ClusterError {
        ClusterError::Taken { what, holder: holder.to_string() }
    }

    fn no_network(&self, network: &NetworkName) -> ClusterError {
        ClusterError::NoNetwork { cluster: self.sessions.name(), network: network.clone() }
    }
}

impl Cluster for EtcdCluster {
    fn name(&self) -> String {
        self.sessions.name()
    }

    fn list(&self) -> Answer<'_, Listing> {
        Box::pin(self.list_all())
    }

    fn watch(&self, revision: Revision) -> Answer<'_, Box<dyn Watch>> {
        Box::pin(self.watch_after(revision))
    }

    fn join<'a>(&'a self, node: &'a Node) -> Answer<'a, u64> {
        Box::pin(self.join_node(node))
    }

    fn present<'a>(&'a self, node: &'a Node, lease: Duration) -> Answer<'a, ()> {
        Box::pin(self.present_node(node, lease))
    }

    fn remove_node<'a>(&'a self, node: &'a NodeName, removal: Removal) -> Answer<'a, ()> {
        Box::pin(self.take_node_away(node, removal))
    }

    fn create_network<'a>(&'a self, network: &'a OverlayNetwork) -> Answer<'a, ()> {
        Box::pin(self.create(network))
    }

    fn remove_network<'a>(&'a self, network: &'a NetworkName) -> Answer<'a, ()> {
        Box::pin(self.remove(network))
    }

    fn share_network<'a>(&'a self, network: &'a NetworkName, shared: bool) -> Answer<'a, OverlayNetwork> {
        Box::pin(self.share(network, shared))
    }

    fn put_attachment<'a>(&'a self, attachment: &'a OverlayAttachment) -> Answer<'a, ()> {
        Box::pin(self.attach(attachment))
    }

    fn check_attachment<'a>(&'a self, attachment: &'a OverlayAttachment) -> Answer<'a, ()> {
        Box::pin(self.check(attachment))
    }

    fn remove_attachment<'a>(&'a self, key: &'a EntryKey, generation: u64) -> Answer<'a, ()> {
        Box::pin(self.detach(key, generation))
    }

    fn put_block<'a>(&'a self, before: Option<&'a Block>, block: &'a Block) -> Answer<'a, Vec<Lend>> {
        Box::pin(self.change_block(before, block))
    }

    fn remove_block<'a>(&'a self, block: &'a Block) -> Answer<'a, ()> {
        Box::pin(self.give_block_back(block))
    }

    fn put_lend<'a>(&'a self, lend: &'a Lend, around: IpNetwork) -> Answer<'a, LendState> {
        Box::pin(self.ask_for(lend, around))
    }

    fn settle_lend<'a>(&'a self, lend: &'a Lend) -> Answer<'a, ()> {
        Box::pin(self.answer_lend(lend))
    }

    fn remove_lend<'a>(&'a self, lend: &'a Lend) -> Answer<'a, ()> {
        Box::pin(self.give_lend_back(lend))
    }
}
