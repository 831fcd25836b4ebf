//! What a node without a server knows: its own records, the file's, and what peers said.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_types::{NetworkName, NodeName};
use tokio::sync::watch;

use super::{EmbeddedConfig, PeersFile};
use crate::cluster::{Change, ClusterError, Entry, EntryKey, Foreign, Listing, Revision};
use crate::model::{Block, BlockState, Node, OverlayAttachment};

/// How many changes are kept for those who follow: who is further behind lists again.
const HISTORY: usize = 4_096;

/// Shared by the calls and the tasks.
pub(super) struct Shared {
    config: EmbeddedConfig,
    state: Mutex<State>,
    changed: watch::Sender<i64>,
}

struct State {
    file: PeersFile,
    entries: BTreeMap<EntryKey, Entry>,
    foreign: BTreeMap<String, Foreign>,
    revision: i64,
    history: VecDeque<(i64, Change)>,
    own_epoch: u64,
}

impl State {
    /// Makes `entry` what stands under `key`.
    fn set(&mut self, key: EntryKey, entry: Option<Entry>) {
        let change = match entry {
            Some(entry) if self.entries.get(&key) != Some(&entry) => {
                self.entries.insert(key, entry.clone());
                Change::Put(entry)
            }
            None if self.entries.remove(&key).is_some() => Change::Gone(key),
            _ => return,
        };
        self.happened(change);
    }

    fn happened(&mut self, change: Change) {
        self.revision += 1;
        self.history.push_back((self.revision, change));
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
    }

    fn report(&mut self, key: String, why: Option<String>) {
        match why {
            Some(why) => {
                let foreign = Foreign { key: key.clone(), entry: None, why };
                if self.foreign.insert(key, foreign.clone()).as_ref() != Some(&foreign) {
                    self.happened(Change::Foreign(foreign));
                }
            }
            None if self.foreign.remove(&key).is_some() => self.happened(Change::ForeignGone(key)),
            None => (),
        }
    }

    /// Takes a peer's word for an attachment, unless it has an address that is not its to give.
    fn believe(&mut self, attachment: OverlayAttachment) {
        let key = attachment.key();
        let why = self.of_another(&attachment).map(|(address, owner)| {
            format!("it has {address}, which the file deals to node {owner}: passed over")
        });
        let believed = why.is_none();
        self.report(key.path(), why);
        self.set(key, believed.then_some(Entry::Attachment(attachment)));
    }

    /// An address of an attachment that is in another peer's part, and whose.
    fn of_another(&self, attachment: &OverlayAttachment) -> Option<(IpAddr, NodeName)> {
        let range = self.entries.values().filter_map(|entry| match entry {
            Entry::Block(block) if block.network == attachment.network && block.owner != attachment.node => {
                Some(block)
            }
            _ => None,
        });
        let theirs: Vec<&Block> = range.collect();
        let mut addresses = attachment.addresses.iter();
        addresses.find_map(|address| {
            let block = theirs.iter().find(|block| block.cidr.contains(*address))?;
            Some((*address, block.owner.clone()))
        })
    }

    /// Makes what comes of the file what it says now.
    fn deal(&mut self, own: &NodeName) {
        let file = self.file.clone();
        let mut dealt: BTreeMap<EntryKey, Entry> = BTreeMap::new();
        let networks = file.networks.values().cloned().map(Entry::Network);
        let blocks = file.blocks().map(|block| Entry::Block(self.as_is(own, block)));
        let known =
            file.peers.keys().filter_map(|name| file.node(name)).map(|node| Entry::Known(self.heard(node)));
        for entry in networks.chain(blocks).chain(known) {
            dealt.insert(entry.key(), entry);
        }
        let gone = self.entries.keys().filter(|key| match key {
            EntryKey::Network(_) | EntryKey::Block(..) | EntryKey::Known(_) => !dealt.contains_key(key),
            EntryKey::Node(node) | EntryKey::Attachment(_, node, _) => !file.peers.contains_key(node),
            EntryKey::Lend(..) => true,
        });
        for key in gone.cloned().collect::<Vec<_>>() {
            self.set(key, None);
        }
        for (key, entry) in dealt {
            self.set(key, Some(entry));
        }
    }

    /// A block of the file; this node's own is pending until the node has written it down.
    fn as_is(&self, own: &NodeName, block: Block) -> Block {
        if block.owner != *own {
            return block;
        }
        match self.entries.get(&EntryKey::Block(block.network.clone(), block.cidr)) {
            Some(Entry::Block(now)) if now.owner == *own && now.epoch == self.own_epoch => now.clone(),
            _ => Block { state: BlockState::Pending, epoch: self.own_epoch, ..block },
        }
    }

    /// A peer of the file, with what it said of itself; where it is, the file says.
    fn heard(&self, listed: Node) -> Node {
        match self.entries.get(&EntryKey::Known(listed.name.clone())) {
            Some(Entry::Known(known)) => Node { vtep4: listed.vtep4, vtep6: listed.vtep6, ..known.clone() },
            _ => listed,
        }
    }
}

impl Shared {
    pub(super) fn new(config: EmbeddedConfig, file: PeersFile, remembered: Listing) -> Self {
        // What this node itself said is said anew by who knows: its records.
        let own = config.own.clone();
        let kept = remembered.entries.into_iter().filter(|entry| match entry {
            Entry::Known(node) => node.name != own,
            Entry::Attachment(attachment) => attachment.node != own,
            _ => false,
        });
        let entries = kept.map(|entry| (entry.key(), entry)).collect();
        let revision = remembered.revision.0 + 1;
        let mut state = State {
            file,
            entries,
            foreign: BTreeMap::new(),
            revision,
            history: VecDeque::new(),
            own_epoch: 1,
        };
        state.deal(&own);
        state.history.clear();
        let (changed, _) = watch::channel(state.revision);
        Self { config, state: Mutex::new(state), changed }
    }

    pub(super) fn config(&self) -> &EmbeddedConfig {
        &self.config
    }

    pub(super) fn name(&self) -> String {
        format!("peers of {}", self.config.file.display())
    }

    /// Tells of each new revision.
    pub(super) fn changed(&self) -> watch::Receiver<i64> {
        self.changed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic half way leaves records that are each whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alter<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let done = change(&mut state);
        let revision = state.revision;
        drop(state);
        self.changed.send_if_modified(|seen| std::mem::replace(seen, revision) != revision);
        done
    }

    pub(super) fn listing(&self) -> Listing {
        let state = self.lock();
        let (entries, foreign) = (state.entries.values().cloned(), state.foreign.values().cloned());
        Listing { revision: Revision(state.revision), entries: entries.collect(), foreign: foreign.collect() }
    }

    /// What changed after `revision`; `None` if that is not known any more.
    pub(super) fn since(&self, revision: Revision) -> Option<(Revision, Vec<Change>)> {
        let state = self.lock();
        let first = state.history.front().map_or(state.revision + 1, |(first, _)| *first);
        if revision.0 + 1 < first || revision.0 > state.revision {
            return None;
        }
        let later = state.history.iter().filter(|(at, _)| *at > revision.0);
        Some((Revision(state.revision), later.map(|(_, change)| change.clone()).collect()))
    }

    pub(super) fn file(&self) -> PeersFile {
        self.lock().file.clone()
    }

    pub(super) fn take_file(&self, file: PeersFile) {
        let path = self.config.file.display().to_string();
        self.alter(|state| {
            state.report(path, None);
            state.file = file;
            state.deal(&self.config.own);
        });
    }

    pub(super) fn file_refused(&self, why: String) {
        let path = self.config.file.display().to_string();
        self.alter(|state| state.report(path, Some(why)));
    }

    pub(super) fn own_only(&self, node: &NodeName) -> Result<(), ClusterError> {
        if *node == self.config.own {
            return Ok(());
        }
        let why = format!("this node is `{}` there, not `{node}`", self.config.own);
        Err(ClusterError::Config { cluster: self.name(), why })
    }

    pub(super) fn join(&self, node: &Node) -> u64 {
        self.alter(|state| {
            state.own_epoch = node.epoch.max(1);
            state.deal(&self.config.own);
            state.own_epoch
        })
    }

    pub(super) fn present(&self, node: &Node) {
        self.alter(|state| {
            state.set(EntryKey::Known(node.name.clone()), Some(Entry::Known(node.clone())));
            state.set(EntryKey::Node(node.name.clone()), Some(Entry::Node(node.clone())));
        });
    }

    /// This node, as peers are told of it.
    pub(super) fn own_node(&self) -> Option<Node> {
        let state = self.lock();
        match state.entries.get(&EntryKey::Known(self.config.own.clone())) {
            Some(Entry::Known(node)) => Some(node.clone()),
            _ => None,
        }
    }

    pub(super) fn attach(&self, attachment: &OverlayAttachment) -> Result<(), ClusterError> {
        self.own_only(&attachment.node)?;
        self.alter(|state| {
            self.refuse(state, attachment)?;
            state.set(attachment.key(), Some(Entry::Attachment(attachment.clone())));
            Ok(())
        })
    }

    /// Whether [`Self::attach`] would be refused.
    pub(super) fn check(&self, attachment: &OverlayAttachment) -> Result<(), ClusterError> {
        self.own_only(&attachment.node)?;
        self.refuse(&self.lock(), attachment)
    }

    fn refuse(&self, state: &State, attachment: &OverlayAttachment) -> Result<(), ClusterError> {
        let OverlayAttachment { network, addresses, .. } = attachment;
        if !state.file.networks.contains_key(network) {
            return Err(ClusterError::NoNetwork { cluster: self.name(), network: network.clone() });
        }
        let key = attachment.key();
        if let Some((address, owner)) = state.of_another(attachment) {
            let what = format!("address {address} of network `{network}`");
            return Err(ClusterError::Taken {
                what,
                holder: format!("node {owner} (the file deals its part to it)"),
            });
        }
        for address in addresses.iter() {
            let holder = state.entries.values().find(|entry| holds(entry, network, *address, &key));
            if let Some(Entry::Attachment(holder)) = holder {
                let what = format!("address {address} of network `{network}`");
                return Err(ClusterError::Taken {
                    what,
                    holder: format!("an attachment on {}", holder.node),
                });
            }
        }
        match state.entries.get(&key) {
            Some(Entry::Attachment(now)) if now.generation > attachment.generation => {
                let holder = format!("a newer record (generation {})", now.generation);
                Err(ClusterError::Taken { what: format!("attachment `{}`", key.path()), holder })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn detach(&self, key: &EntryKey, generation: u64) -> Result<(), ClusterError> {
        if let EntryKey::Attachment(_, node, _) = key {
            self.own_only(node)?;
        }
        self.alter(|state| {
            let newer =
                matches!(state.entries.get(key), Some(Entry::Attachment(now)) if now.generation > generation);
            if !newer {
                state.set(key.clone(), None);
            }
        });
        Ok(())
    }

    pub(super) fn put_block(&self, before: Option<&Block>, block: &Block) -> Result<(), ClusterError> {
        self.own_only(&block.owner)?;
        let key = EntryKey::Block(block.network.clone(), block.cidr);
        self.alter(|state| {
            let now = match state.entries.get(&key) {
                Some(Entry::Block(now)) => Some(now),
                _ => None,
            };
            let own = now.is_some_and(|now| now.owner == block.owner);
            if own && (now == before || now == Some(block)) {
                state.set(key.clone(), Some(Entry::Block(block.clone())));
                return Ok(());
            }
            let holder =
                now.map_or_else(|| "no peer of the file".to_owned(), |now| format!("node {}", now.owner));
            Err(ClusterError::Taken {
                what: format!("block {} of network `{}`", block.cidr, block.network),
                holder,
            })
        })
    }

    /// Whose part an address is in, for people.
    pub(super) fn part_of(&self, network: &NetworkName, address: IpAddr) -> String {
        let state = self.lock();
        let owner = state.entries.values().find_map(|entry| match entry {
            Entry::Block(block) if block.network == *network && block.cidr.contains(address) => {
                Some(&block.owner)
            }
            _ => None,
        });
        owner.map_or_else(
            || "no peer of the file".to_owned(),
            |owner| format!("node {owner} (the file deals its part to it)"),
        )
    }

    /// What a peer said of itself, when it begins to talk.
    pub(super) fn peer_came(&self, node: Node) {
        self.alter(|state| {
            let Some(listed) = state.file.node(&node.name) else { return };
            let node = Node { vtep4: listed.vtep4, vtep6: listed.vtep6, ..node };
            state.set(EntryKey::Known(node.name.clone()), Some(Entry::Known(node.clone())));
            state.set(EntryKey::Node(node.name.clone()), Some(Entry::Node(node)));
        });
    }

    /// How a peer's file deals addresses out: it must be as this node's does.
    pub(super) fn peer_deals(&self, name: &NodeName, deal: u64) {
        self.alter(|state| {
            let other = deal != state.file.deal;
            let why = "its file deals the parts of the subnets out otherwise than this node's: addresses may be given twice";
            state.report(format!("peers/{name}"), other.then(|| why.to_owned()));
        });
    }

    pub(super) fn peer_silent(&self, name: &NodeName) {
        self.alter(|state| state.set(EntryKey::Node(name.clone()), None));
    }

    /// All that a peer has: what is not among it is gone.
    pub(super) fn peer_has(&self, name: &NodeName, attachments: Vec<OverlayAttachment>) {
        self.alter(|state| {
            let kept: BTreeMap<EntryKey, OverlayAttachment> =
                attachments.into_iter().map(|attachment| (attachment.key(), attachment)).collect();
            let gone = state.entries.keys().filter(|key| {
                matches!(key, EntryKey::Attachment(_, node, _) if node == name) && !kept.contains_key(key)
            });
            for key in gone.cloned().collect::<Vec<_>>() {
                state.set(key, None);
            }
            for attachment in kept.into_values() {
                state.believe(attachment);
            }
        });
    }

    /// One change of what a peer has.
    pub(super) fn peer_changed(&self, attachment: OverlayAttachment) {
        self.alter(|state| state.believe(attachment));
    }

    /// A peer has this attachment no more.
    pub(super) fn peer_lost(&self, key: EntryKey) {
        self.alter(|state| {
            state.report(key.path(), None);
            state.set(key, None);
        });
    }
}

/// Whether `entry` is an attachment, not the one of `key`, that has `address` on `network`.
fn holds(entry: &Entry, network: &NetworkName, address: IpAddr, key: &EntryKey) -> bool {
    match entry {
        Entry::Attachment(other) => {
            other.network == *network && other.addresses.contains(&address) && other.key() != *key
        }
        _ => false,
    }
}
