//! The cluster as last seen: pure, in memory, one of it in each agent.
//!
//! A [`View`] is made of a [`Listing`] and kept by [`Change`]s; both say what is different afterwards, as [`Deltas`], so that
//! neither the kernel's entries nor the names are gone through for one attachment. Changes applied one by one lead to the
//! view that a listing of the result gives.
//!
//! A node whose lease ran out is *suspect*: its record of presence is gone, what it last said of itself is not, and nothing
//! of its attachments is taken away.

mod delta;
mod network;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use berth_types::{NetworkName, NodeName, Vni};

pub use delta::{Deltas, NetworkDelta, Turn};
pub use network::{Holders, NetworkView};

use crate::cluster::{Change, Entry, EntryKey, Foreign, Listing, Revision};
use crate::model::{Block, Lend, Node, OverlayAttachment, OverlayNetwork};

/// The cluster as last seen.
#[derive(Debug, Clone, Default)]
pub struct View {
    revision: Revision,
    nodes: BTreeMap<NodeName, NodeView>,
    networks: BTreeMap<NetworkName, NetworkView>,
    /// Values that could not be read, by their keys, with the reason.
    foreign: BTreeMap<String, Foreign>,
    greatest_generation: u64,
}

/// A node as last seen. At least one of both is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeView {
    present: Option<Arc<Node>>,
    known: Option<Arc<Node>>,
}

/// Whether a node is heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeStatus {
    /// Its lease is renewed.
    Alive,
    /// Its lease ran out. It may be dead, or cut off with its containers running.
    Suspect,
}

impl NodeView {
    /// What the node says of itself, or last said.
    pub fn node(&self) -> Option<&Arc<Node>> {
        self.present.as_ref().or(self.known.as_ref())
    }

    /// Whether it is heard of.
    pub fn status(&self) -> NodeStatus {
        if self.present.is_some() { NodeStatus::Alive } else { NodeStatus::Suspect }
    }

    fn is_empty(&self) -> bool {
        self.present.is_none() && self.known.is_none()
    }
}

impl View {
    /// When the cluster was so.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// A node, alive or suspect.
    pub fn node(&self, name: &NodeName) -> Option<&NodeView> {
        self.nodes.get(name)
    }

    /// The nodes by name, alive and suspect.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodeName, &NodeView)> {
        self.nodes.iter()
    }

    /// A network that was created and not removed.
    pub fn network(&self, name: &NetworkName) -> Option<&NetworkView> {
        self.networks.get(name).filter(|network| network.record().is_some())
    }

    /// What there is under a network's name, whether the network is there or not.
    pub fn everything_of(&self, name: &NetworkName) -> Option<&NetworkView> {
        self.networks.get(name)
    }

    /// The networks that were created and not removed, by name.
    pub fn networks(&self) -> impl Iterator<Item = (&NetworkName, &NetworkView)> {
        self.networks.iter().filter(|(_, network)| network.record().is_some())
    }

    /// The network with this number.
    pub fn network_of_vni(&self, vni: Vni) -> Option<&Arc<OverlayNetwork>> {
        self.networks.values().filter_map(NetworkView::record).find(|network| network.vni == vni)
    }

    /// What stands under the cluster's prefix and could not be read, by key.
    pub fn foreign(&self) -> impl Iterator<Item = &Foreign> {
        self.foreign.values()
    }

    /// The attachments of a node in all networks, those of networks that are no more included.
    pub fn attachments_of(&self, node: &NodeName) -> impl Iterator<Item = &Arc<OverlayAttachment>> {
        self.networks.values().flat_map(move |network| network.attachments_of(node))
    }

    /// The blocks of a node in all networks.
    pub fn blocks_of(&self, node: &NodeName) -> impl Iterator<Item = &Arc<Block>> {
        self.networks.values().flat_map(move |network| network.blocks_of(node))
    }

    /// The single addresses that a node has or asked for, in all networks.
    pub fn lends_of(&self, node: &NodeName) -> impl Iterator<Item = &Arc<Lend>> {
        self.networks.values().flat_map(move |network| network.lends_of(node))
    }

    /// The generation for an attachment that is written now: greater than any seen, and by the clock where clocks are right, so
    /// that a record on one node is believed over an earlier one on another.
    pub fn next_generation(&self, now_unix_ms: u64) -> u64 {
        now_unix_ms.max(self.greatest_generation.saturating_add(1))
    }

    /// All records, by key: what a listing would give.
    pub fn entries(&self) -> Vec<Entry> {
        let nodes = self.nodes.values();
        let present = nodes.clone().filter_map(|node| node.present.as_deref().cloned().map(Entry::Node));
        let known = nodes.filter_map(|node| node.known.as_deref().cloned().map(Entry::Known));
        let mut entries: Vec<Entry> = present.chain(known).collect();
        for network in self.networks.values() {
            entries.extend(network.entries());
        }
        entries
    }

    /// What makes this view of none.
    pub fn listing(&self) -> Listing {
        let foreign = self.foreign.values().cloned().collect();
        Listing { revision: self.revision, entries: self.entries(), foreign }
    }

    /// Becomes what `listing` says. What is not in it is gone; what is there and cannot be read any more stays as it was.
    pub fn replace(&mut self, listing: Listing) -> Deltas {
        let Listing { revision, entries, foreign } = listing;
        let unreadable = foreign.iter().filter_map(|foreign| foreign.entry.clone());
        let listed: HashSet<EntryKey> = entries.iter().map(Entry::key).chain(unreadable).collect();
        let gone: Vec<EntryKey> = self.keys().filter(|key| !listed.contains(key)).collect();
        drop(listed);
        self.foreign.clear();
        let mut deltas = Deltas::default();
        for key in gone {
            self.take(key, &mut deltas);
        }
        for entry in entries {
            self.put(entry, &mut deltas);
        }
        self.foreign = foreign.into_iter().map(|foreign| (foreign.key.clone(), foreign)).collect();
        self.revision = revision;
        deltas.settle();
        deltas
    }

    /// Follows `changes`, in order, the last of which was at `revision`.
    pub fn apply(&mut self, revision: Revision, changes: Vec<Change>) -> Deltas {
        let mut deltas = Deltas::default();
        for change in changes {
            match change {
                Change::Put(entry) => {
                    self.readable(&entry.key());
                    self.put(entry, &mut deltas);
                }
                Change::Gone(key) => {
                    self.readable(&key);
                    self.take(key, &mut deltas);
                }
                Change::Foreign(foreign) => drop(self.foreign.insert(foreign.key.clone(), foreign)),
                Change::ForeignGone(key) => drop(self.foreign.remove(&key)),
            }
        }
        self.revision = self.revision.max(revision);
        deltas.settle();
        deltas
    }

    /// Notes that nothing unreadable stands any more where `key` should.
    fn readable(&mut self, key: &EntryKey) {
        if !self.foreign.is_empty() {
            self.foreign.retain(|_, foreign| foreign.entry.as_ref() != Some(key));
        }
    }

    fn keys(&self) -> impl Iterator<Item = EntryKey> {
        let present = self.nodes.iter().filter(|(_, node)| node.present.is_some());
        let known = self.nodes.iter().filter(|(_, node)| node.known.is_some());
        let present = present.map(|(name, _)| EntryKey::Node(name.clone()));
        let known = known.map(|(name, _)| EntryKey::Known(name.clone()));
        present.chain(known).chain(self.networks.iter().flat_map(|(name, network)| network.keys(name)))
    }

    fn put(&mut self, entry: Entry, deltas: &mut Deltas) {
        match entry {
            Entry::Node(node) => {
                self.turn_node(node.name.clone(), deltas, |view| view.present = Some(Arc::new(node)))
            }
            Entry::Known(node) => {
                self.turn_node(node.name.clone(), deltas, |view| view.known = Some(Arc::new(node)))
            }
            Entry::Attachment(attachment) => {
                self.greatest_generation = self.greatest_generation.max(attachment.generation);
                let delta = deltas.network(&attachment.network);
                self.network_mut(&attachment.network).put_attachment(attachment, delta);
            }
            Entry::Network(network) => {
                let delta = deltas.network(&network.name);
                self.network_mut(&network.name).put_record(network, delta);
            }
            Entry::Block(block) => {
                let delta = deltas.network(&block.network);
                self.network_mut(&block.network).put_block(block, delta);
            }
            Entry::Lend(lend) => {
                let delta = deltas.network(&lend.network);
                self.network_mut(&lend.network).put_lend(lend, delta);
            }
        }
    }

    fn take(&mut self, key: EntryKey, deltas: &mut Deltas) {
        let name = match key {
            EntryKey::Node(name) => return self.turn_node(name, deltas, |view| view.present = None),
            EntryKey::Known(name) => return self.turn_node(name, deltas, |view| view.known = None),
            EntryKey::Network(ref name)
            | EntryKey::Attachment(ref name, _, _)
            | EntryKey::Block(ref name, _)
            | EntryKey::Lend(ref name, _) => name.clone(),
        };
        let Some(network) = self.networks.get_mut(&name) else { return };
        let delta = deltas.network(&name);
        match key {
            EntryKey::Network(_) => network.take_record(delta),
            EntryKey::Attachment(_, node, of) => network.take_attachment(&node, &of, delta),
            EntryKey::Block(_, cidr) => network.take_block(cidr, delta),
            EntryKey::Lend(_, address) => network.take_lend(address, delta),
            EntryKey::Node(_) | EntryKey::Known(_) => (),
        }
        if network.is_empty() {
            self.networks.remove(&name);
        }
    }

    fn turn_node(&mut self, name: NodeName, deltas: &mut Deltas, turn: impl FnOnce(&mut NodeView)) {
        let view = self.nodes.entry(name.clone()).or_default();
        let before = view.clone();
        turn(view);
        let after = view.clone();
        if after.is_empty() {
            self.nodes.remove(&name);
        }
        deltas.turn_node(name, before, after);
    }

    fn network_mut(&mut self, name: &NetworkName) -> &mut NetworkView {
        self.networks.entry(name.clone()).or_default()
    }
}

#[cfg(test)]
mod tests;
