//! What is different after a view has changed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use berth_types::{NetworkName, NodeName};
use ipnetwork::IpNetwork;

use super::NodeView;
use crate::cluster::{Entry, EntryKey};
use crate::model::{Block, Lend, Node, OverlayAttachment, OverlayNetwork};

/// Something that is other than it was. Both ends differ; what came and went in between is not told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn<T> {
    /// What was, if anything.
    pub before: Option<Arc<T>>,
    /// What is, if anything.
    pub after: Option<Arc<T>>,
}

/// What is different, node by node and network by network. Nothing in it is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deltas {
    /// Nodes that came, went silent, came back, changed or were removed.
    pub nodes: BTreeMap<NodeName, Turn<NodeView>>,
    /// Networks of which something is different.
    pub networks: BTreeMap<NetworkName, NetworkDelta>,
}

/// What is different in one network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkDelta {
    /// The network's own record.
    pub record: Option<Turn<OverlayNetwork>>,
    /// Who is believed to have an address, by address: what the kernel's entries are made of.
    pub addresses: BTreeMap<IpAddr, Turn<OverlayAttachment>>,
    /// The attachments' records, by key: what names are made of. A record that is not believed is among them.
    pub attachments: BTreeMap<EntryKey, Turn<OverlayAttachment>>,
    /// Blocks.
    pub blocks: BTreeMap<IpNetwork, Turn<Block>>,
    /// Single addresses.
    pub lends: BTreeMap<IpAddr, Turn<Lend>>,
}

impl<T: PartialEq> Turn<T> {
    fn is_none(&self) -> bool {
        self.before == self.after
    }
}

impl Deltas {
    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.networks.is_empty()
    }

    /// How many records are other than they were, about.
    pub fn len(&self) -> usize {
        self.nodes.len() + self.networks.values().map(NetworkDelta::len).sum::<usize>()
    }

    /// The records that are other than they were, as they are written down, one at a time: path and value, or that it is gone.
    pub fn records(&self) -> impl Iterator<Item = (String, Option<Vec<u8>>)> {
        let mut records = Vec::new();
        for (name, turn) in &self.nodes {
            let side = |side: fn(&NodeView) -> &Option<Arc<Node>>,
                        entry: fn(Node) -> Entry,
                        key: EntryKey| {
                let of = |end: &Option<Arc<NodeView>>| end.as_ref().and_then(|view| side(view).clone());
                let (before, after) = (of(&turn.before), of(&turn.after));
                (before != after).then(|| (key.path(), after.map(|node| entry(Node::clone(&node)).value())))
            };
            records.extend(side(|view| &view.present, Entry::Node, EntryKey::Node(name.clone())));
            records.extend(side(|view| &view.known, Entry::Known, EntryKey::Known(name.clone())));
        }
        records.into_iter().chain(self.networks.iter().flat_map(|(name, delta)| delta.records(name)))
    }

    pub(super) fn network(&mut self, name: &NetworkName) -> &mut NetworkDelta {
        self.networks.entry(name.clone()).or_default()
    }

    pub(super) fn turn_node(&mut self, name: NodeName, before: NodeView, after: NodeView) {
        let some = |view: NodeView| (!view.is_empty()).then(|| Arc::new(view));
        let (before, after) = (some(before), some(after));
        self.nodes.entry(name).or_insert(Turn { before, after: None }).after = after;
    }

    /// Drops what is as it was.
    pub(super) fn settle(&mut self) {
        self.nodes.retain(|_, turn| !turn.is_none());
        self.networks.retain(|_, delta| {
            delta.settle();
            !delta.is_empty()
        });
    }
}

impl NetworkDelta {
    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        let Self { record, addresses, attachments, blocks, lends } = self;
        record.is_none()
            && addresses.is_empty()
            && attachments.is_empty()
            && blocks.is_empty()
            && lends.is_empty()
    }

    fn len(&self) -> usize {
        let Self { record, addresses: _, attachments, blocks, lends } = self;
        usize::from(record.is_some()) + attachments.len() + blocks.len() + lends.len()
    }

    fn records(&self, network: &NetworkName) -> impl Iterator<Item = (String, Option<Vec<u8>>)> {
        fn value<T: Clone>(turn: &Turn<T>, entry: fn(T) -> Entry) -> Option<Vec<u8>> {
            turn.after.as_deref().map(|after| entry(after.clone()).value())
        }
        let Self { record, addresses: _, attachments, blocks, lends } = self;
        let record =
            record.iter().map(|turn| (EntryKey::Network(network.clone()), value(turn, Entry::Network)));
        let attachments = attachments.iter().map(|(key, turn)| (key.clone(), value(turn, Entry::Attachment)));
        let blocks = blocks
            .iter()
            .map(|(cidr, turn)| (EntryKey::Block(network.clone(), *cidr), value(turn, Entry::Block)));
        let lends = lends
            .iter()
            .map(|(address, turn)| (EntryKey::Lend(network.clone(), *address), value(turn, Entry::Lend)));
        let all = record.chain(attachments).chain(blocks).chain(lends);
        all.map(|(key, value)| (key.path(), value))
    }

    fn settle(&mut self) {
        let Self { record, addresses, attachments, blocks, lends } = self;
        record.take_if(|turn| turn.is_none());
        addresses.retain(|_, turn| !turn.is_none());
        attachments.retain(|_, turn| !turn.is_none());
        blocks.retain(|_, turn| !turn.is_none());
        lends.retain(|_, turn| !turn.is_none());
    }
}

/// Notes that `key` turned from `before` to `after`; where it turned already, the first end stays.
pub(super) fn note<K: Ord, T>(
    turns: &mut BTreeMap<K, Turn<T>>,
    key: K,
    before: Option<Arc<T>>,
    after: Option<Arc<T>>,
) {
    turns.entry(key).or_insert(Turn { before, after: None }).after = after;
}
