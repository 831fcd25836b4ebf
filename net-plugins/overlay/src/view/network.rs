//! One network as last seen.

use std::borrow::Borrow;
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use berth_types::{NetworkName, NodeName};
use ipnetwork::IpNetwork;

use super::delta::{NetworkDelta, Turn, note};
use crate::cluster::{Entry, EntryKey};
use crate::model::{Block, Lend, Occupant, OverlayAttachment, OverlayNetwork};

/// One network: its record, and what is on it. Things can be on it whose network's record is not there, for a moment or because
/// somebody removed it by hand.
#[derive(Debug, Clone, Default)]
pub struct NetworkView {
    record: Option<Arc<OverlayNetwork>>,
    attachments: BTreeMap<NodeName, BTreeSet<ByOccupant>>,
    by_address: BTreeMap<IpAddr, Holders>,
    blocks: BTreeMap<IpNetwork, Arc<Block>>,
    lends: BTreeMap<IpAddr, Arc<Lend>>,
}

impl Eq for NetworkView {}

impl PartialEq for NetworkView {
    fn eq(&self, other: &Self) -> bool {
        let Self { record, attachments: _, by_address, blocks, lends } = other;
        self.attachments().eq(other.attachments())
            && self.record == *record
            && self.by_address == *by_address
            && self.blocks == *blocks
            && self.lends == *lends
    }
}

/// An attachment of a node, known by whose it is: a key of its own would be half as large as the record.
#[derive(Debug, Clone)]
struct ByOccupant(Arc<OverlayAttachment>);

impl Borrow<Occupant> for ByOccupant {
    fn borrow(&self) -> &Occupant {
        &self.0.of
    }
}

impl Ord for ByOccupant {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.of.cmp(&other.0.of)
    }
}

impl PartialOrd for ByOccupant {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Eq for ByOccupant {}

impl PartialEq for ByOccupant {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

/// Who says that an address is theirs. Never empty; nearly always one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holders {
    believed: Arc<OverlayAttachment>,
    /// Greatest generation first.
    others: Box<[Arc<OverlayAttachment>]>,
}

impl Holders {
    /// The one with the greatest generation; of two alike, the one that comes first by node and occupant, so that all nodes
    /// believe the same.
    pub fn believed(&self) -> &Arc<OverlayAttachment> {
        &self.believed
    }

    /// The others, for diagnosis: an address should be nobody else's.
    pub fn others(&self) -> &[Arc<OverlayAttachment>] {
        &self.others
    }

    fn new(mut all: Vec<Arc<OverlayAttachment>>) -> Option<Self> {
        all.sort_by(|one, other| rank(one).cmp(&rank(other)));
        let mut all = all.into_iter();
        let believed = all.next()?;
        Some(Self { believed, others: all.collect() })
    }

    fn into_all(self) -> Vec<Arc<OverlayAttachment>> {
        let mut all = self.others.into_vec();
        all.push(self.believed);
        all
    }
}

fn rank(attachment: &OverlayAttachment) -> (Reverse<u64>, &NodeName, &Occupant) {
    (Reverse(attachment.generation), &attachment.node, &attachment.of)
}

impl NetworkView {
    /// The network's own record.
    pub fn record(&self) -> Option<&Arc<OverlayNetwork>> {
        self.record.as_ref()
    }

    /// The attachments, by node.
    pub fn attachments(&self) -> impl Iterator<Item = &Arc<OverlayAttachment>> {
        self.attachments.values().flatten().map(|one| &one.0)
    }

    /// The attachments of one node.
    pub fn attachments_of(&self, node: &NodeName) -> impl Iterator<Item = &Arc<OverlayAttachment>> + use<'_> {
        self.attachments.get(node).into_iter().flatten().map(|one| &one.0)
    }

    /// One attachment.
    pub fn attachment(&self, node: &NodeName, of: &Occupant) -> Option<&Arc<OverlayAttachment>> {
        self.attachments.get(node)?.get(of).map(|one| &one.0)
    }

    /// The nodes that something of is on the network.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeName> {
        self.attachments.keys()
    }

    /// Who says that `address` is theirs.
    pub fn holders(&self, address: IpAddr) -> Option<&Holders> {
        self.by_address.get(&address)
    }

    /// Who is believed to have which address, by address.
    pub fn believed(&self) -> impl Iterator<Item = (IpAddr, &Arc<OverlayAttachment>)> {
        self.by_address.iter().map(|(address, holders)| (*address, &holders.believed))
    }

    /// Addresses that more than one say they have.
    pub fn conflicts(&self) -> impl Iterator<Item = (IpAddr, &Holders)> {
        let several = self.by_address.iter().filter(|(_, holders)| !holders.others.is_empty());
        several.map(|(address, holders)| (*address, holders))
    }

    /// The blocks, by prefix.
    pub fn blocks(&self) -> impl Iterator<Item = &Arc<Block>> {
        self.blocks.values()
    }

    /// The blocks of one node.
    pub fn blocks_of(&self, node: &NodeName) -> impl Iterator<Item = &Arc<Block>> + use<'_> {
        let node = node.clone();
        self.blocks.values().filter(move |block| block.owner == node)
    }

    /// The block that `address` is in.
    pub fn block_around(&self, address: IpAddr) -> Option<&Arc<Block>> {
        self.blocks.values().find(|block| block.cidr.contains(address))
    }

    /// The single addresses, by address.
    pub fn lends(&self) -> impl Iterator<Item = &Arc<Lend>> {
        self.lends.values()
    }

    /// The single addresses of one node.
    pub fn lends_of(&self, node: &NodeName) -> impl Iterator<Item = &Arc<Lend>> + use<'_> {
        let node = node.clone();
        self.lends.values().filter(move |lend| lend.borrower == node)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> {
        let record = self.record.as_deref().cloned().map(Entry::Network).into_iter();
        let attachments =
            self.attachments().map(|attachment| Entry::Attachment(OverlayAttachment::clone(attachment)));
        let blocks = self.blocks.values().map(|block| Entry::Block(Block::clone(block)));
        let lends = self.lends.values().map(|lend| Entry::Lend(Lend::clone(lend)));
        record.chain(attachments).chain(blocks).chain(lends)
    }

    pub(super) fn keys(&self, name: &NetworkName) -> Vec<EntryKey> {
        let mut keys: Vec<EntryKey> = self.attachments().map(|attachment| attachment.key()).collect();
        keys.extend(self.record.iter().map(|_| EntryKey::Network(name.clone())));
        keys.extend(self.blocks.keys().map(|cidr| EntryKey::Block(name.clone(), *cidr)));
        keys.extend(self.lends.keys().map(|address| EntryKey::Lend(name.clone(), *address)));
        keys
    }

    pub(super) fn is_empty(&self) -> bool {
        let Self { record, attachments, by_address: _, blocks, lends } = self;
        record.is_none() && attachments.is_empty() && blocks.is_empty() && lends.is_empty()
    }

    pub(super) fn put_record(&mut self, network: OverlayNetwork, delta: &mut NetworkDelta) {
        self.turn_record(Some(Arc::new(network)), delta);
    }

    pub(super) fn take_record(&mut self, delta: &mut NetworkDelta) {
        self.turn_record(None, delta);
    }

    fn turn_record(&mut self, after: Option<Arc<OverlayNetwork>>, delta: &mut NetworkDelta) {
        let before = std::mem::replace(&mut self.record, after.clone());
        delta.record.get_or_insert(Turn { before, after: None }).after = after;
    }

    pub(super) fn put_attachment(&mut self, mut attachment: OverlayAttachment, delta: &mut NetworkDelta) {
        if let Some((node, others)) = self.attachments.get_key_value(&attachment.node) {
            attachment.node.clone_from(node);
            // A listing is mostly what is known.
            if others.get(&attachment.of).is_some_and(|known| *known.0 == attachment) {
                return;
            }
            if let Some(other) = others.first() {
                share(&mut attachment, &other.0);
            }
        }
        let attachment = Arc::new(attachment);
        let of_node = self.attachments.entry(attachment.node.clone()).or_default();
        let before = of_node.replace(ByOccupant(Arc::clone(&attachment))).map(|one| one.0);
        note(&mut delta.attachments, attachment.key(), before.clone(), Some(Arc::clone(&attachment)));
        self.turn_addresses(before.as_ref(), Some(&attachment), delta);
    }

    pub(super) fn take_attachment(&mut self, node: &NodeName, of: &Occupant, delta: &mut NetworkDelta) {
        let Some(of_node) = self.attachments.get_mut(node) else { return };
        let Some(ByOccupant(before)) = of_node.take(of) else { return };
        if of_node.is_empty() {
            self.attachments.remove(node);
        }
        note(&mut delta.attachments, before.key(), Some(Arc::clone(&before)), None);
        self.turn_addresses(Some(&before), None, delta);
    }

    /// Takes `before` from those that hold its addresses and puts `after` to those of its own.
    fn turn_addresses(
        &mut self,
        before: Option<&Arc<OverlayAttachment>>,
        after: Option<&Arc<OverlayAttachment>>,
        delta: &mut NetworkDelta,
    ) {
        let ends = [before, after].into_iter().flatten();
        let touched: Vec<IpAddr> = ends.flat_map(|end| end.addresses.iter().copied()).collect();
        for address in touched {
            let holders = self.by_address.remove(&address);
            let believed = holders.as_ref().map(|holders| Arc::clone(&holders.believed));
            let mut all = holders.map(Holders::into_all).unwrap_or_default();
            all.retain(|one| ![before, after].into_iter().flatten().any(|end| is_same(one, end)));
            all.extend(after.filter(|after| after.addresses.contains(&address)).map(Arc::clone));
            let holders = Holders::new(all);
            let now = holders.as_ref().map(|holders| Arc::clone(&holders.believed));
            note(&mut delta.addresses, address, believed, now);
            if let Some(holders) = holders {
                self.by_address.insert(address, holders);
            }
        }
    }

    pub(super) fn put_block(&mut self, block: Block, delta: &mut NetworkDelta) {
        let (cidr, after) = (block.cidr, Arc::new(block));
        let before = self.blocks.insert(cidr, Arc::clone(&after));
        note(&mut delta.blocks, cidr, before, Some(after));
    }

    pub(super) fn take_block(&mut self, cidr: IpNetwork, delta: &mut NetworkDelta) {
        note(&mut delta.blocks, cidr, self.blocks.remove(&cidr), None);
    }

    pub(super) fn put_lend(&mut self, lend: Lend, delta: &mut NetworkDelta) {
        let (address, after) = (lend.address, Arc::new(lend));
        let before = self.lends.insert(address, Arc::clone(&after));
        note(&mut delta.lends, address, before, Some(after));
    }

    pub(super) fn take_lend(&mut self, address: IpAddr, delta: &mut NetworkDelta) {
        note(&mut delta.lends, address, self.lends.remove(&address), None);
    }
}

/// Has `attachment` share what it has in common with `other` of its network: its interface is nearly always called the same.
fn share(attachment: &mut OverlayAttachment, other: &OverlayAttachment) {
    attachment.network.clone_from(&other.network);
    if let (Occupant::Container { ifname, .. }, Occupant::Container { ifname: of_other, .. }) =
        (&mut attachment.of, &other.of)
        && ifname == of_other
    {
        ifname.clone_from(of_other);
    }
}

/// Whether both are records of one attachment.
fn is_same(one: &OverlayAttachment, other: &OverlayAttachment) -> bool {
    one.of == other.of && one.node == other.node
}
