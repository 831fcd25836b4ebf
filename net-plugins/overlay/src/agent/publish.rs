//! What of this node's attachments the cluster does not know, or knows otherwise. Pure.
//!
//! Wanted is what the records say; known is what was last seen of the cluster, with what it has acknowledged since and the
//! watch has not told yet. Whatever was missed, by a crash or while the cluster was away, is the difference.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use berth_types::NodeName;

use crate::cluster::{Entry, EntryKey};
use crate::model::{Occupant, OverlayAttachment};
use crate::view::{Deltas, View};

/// A change of the cluster's records of this node's attachments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// The attachment is there, or is another.
    Put(OverlayAttachment),
    /// It is gone; not if it is newer than the generation.
    Remove(EntryKey, u64),
}

impl Write {
    /// Which record.
    pub fn key(&self) -> EntryKey {
        match self {
            Self::Put(attachment) => attachment.key(),
            Self::Remove(key, _) => key.clone(),
        }
    }
}

/// What the cluster has said yes to, until the watch tells of it.
#[derive(Debug, Clone, Default)]
pub struct Acknowledged {
    after: BTreeMap<EntryKey, Option<OverlayAttachment>>,
}

impl Acknowledged {
    /// The cluster has done `write`.
    pub fn note(&mut self, write: Write) {
        match write {
            Write::Put(attachment) => self.after.insert(attachment.key(), Some(attachment)),
            Write::Remove(key, _) => self.after.insert(key, None),
        };
    }

    /// Forgets what the watch has told of.
    pub fn follow(&mut self, deltas: &Deltas) {
        if self.after.is_empty() {
            return;
        }
        for turn in deltas.networks.values().flat_map(|delta| &delta.attachments) {
            let (key, turn) = turn;
            let told = match (self.after.get(key), &turn.after) {
                (None, _) => false,
                (Some(None), after) => after.is_none(),
                // The same, or what somebody wrote after it.
                (Some(Some(written)), Some(after)) => after.generation >= written.generation,
                // The end of an earlier one: the watch has not come as far.
                (Some(Some(written)), None) => {
                    turn.before.as_ref().is_some_and(|before| before.generation >= written.generation)
                }
            };
            if told {
                self.after.remove(key);
            }
        }
    }

    /// Forgets everything: a listing says how things are.
    pub fn clear(&mut self) {
        self.after.clear();
    }

    fn known<'v>(
        &'v self,
        key: &EntryKey,
        seen: Option<&'v Arc<OverlayAttachment>>,
    ) -> Option<&'v OverlayAttachment> {
        match self.after.get(key) {
            Some(after) => after.as_ref(),
            None => seen.map(Arc::as_ref),
        }
    }
}

/// What is to be written so that the cluster knows `wanted` of `node`, but for what is being written already. With `only`,
/// of these keys alone. Generations in `wanted` say nothing; `generation` is that of all that is written.
pub fn due(
    (view, acknowledged): (&View, &Acknowledged),
    node: &NodeName,
    wanted: &BTreeMap<EntryKey, OverlayAttachment>,
    under_way: &BTreeSet<EntryKey>,
    only: Option<&BTreeSet<EntryKey>>,
    generation: u64,
) -> Vec<Write> {
    let is_asked = |key: &EntryKey| only.is_none_or(|only| only.contains(key)) && !under_way.contains(key);
    let mut writes = Vec::new();
    for (key, attachment) in wanted.iter().filter(|(key, _)| is_asked(key)) {
        let known = acknowledged.known(key, seen(view, key));
        if known.is_none_or(|known| !says_the_same(known, attachment)) {
            writes.push(Write::Put(OverlayAttachment { generation, ..attachment.clone() }));
        }
    }
    let mut stale = BTreeMap::new();
    for attachment in view.attachments_of(node) {
        stale.insert(attachment.key(), attachment.generation);
    }
    for (key, after) in &acknowledged.after {
        match after {
            Some(attachment) => drop(stale.insert(key.clone(), attachment.generation)),
            None => drop(stale.remove(key)),
        }
    }
    stale.retain(|key, _| is_asked(key) && !wanted.contains_key(key));
    writes.extend(stale.into_iter().map(|(key, generation)| Write::Remove(key, generation)));
    writes
}

/// Which of `wanted` are without names and were not heard of `before`: whoever makes them says in a moment that names come, or that
/// none do.
pub(super) fn untold<'w>(
    (view, acknowledged): (&View, &Acknowledged),
    before: &BTreeMap<EntryKey, OverlayAttachment>,
    wanted: &'w BTreeMap<EntryKey, OverlayAttachment>,
) -> impl Iterator<Item = &'w EntryKey> {
    let is_new =
        move |key: &EntryKey| !before.contains_key(key) && acknowledged.known(key, seen(view, key)).is_none();
    let untold = move |(key, one): &(&EntryKey, &OverlayAttachment)| {
        // A node itself is called nothing.
        matches!(one.of, Occupant::Container { .. }) && one.names.is_empty() && is_new(key)
    };
    wanted.iter().filter(untold).map(|(key, _)| key)
}

fn seen<'v>(view: &'v View, key: &EntryKey) -> Option<&'v Arc<OverlayAttachment>> {
    let EntryKey::Attachment(network, node, of) = key else { return None };
    // Of a network without a record too: what cannot be written there is at least not written again and again.
    view.everything_of(network)?.attachment(node, of)
}

fn says_the_same(one: &OverlayAttachment, other: &OverlayAttachment) -> bool {
    let OverlayAttachment { v: _, network, of, node, epoch, mac, addresses, names, services, generation: _ } =
        one;
    *network == other.network
        && *of == other.of
        && *node == other.node
        && *epoch == other.epoch
        && *mac == other.mac
        && *addresses == other.addresses
        && *names == other.names
        && *services == other.services
}

/// The change of the view that an acknowledged write is, for whoever does not wait for the watch.
impl From<&Write> for crate::cluster::Change {
    fn from(write: &Write) -> Self {
        match write {
            Write::Put(attachment) => Self::Put(Entry::Attachment(attachment.clone())),
            Write::Remove(key, _) => Self::Gone(key.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::samples::{attachment, network};
    use crate::cluster::{Change, Revision};

    fn wanted(all: &[OverlayAttachment]) -> BTreeMap<EntryKey, OverlayAttachment> {
        all.iter().map(|one| (one.key(), one.clone())).collect()
    }

    fn view(entries: Vec<Entry>) -> View {
        let mut view = View::default();
        view.apply(Revision(1), entries.into_iter().map(Change::Put).collect());
        view
    }

    fn writes(
        view: &View,
        acknowledged: &Acknowledged,
        wanted: &BTreeMap<EntryKey, OverlayAttachment>,
    ) -> Vec<Write> {
        due((view, acknowledged), &"n1".parse().unwrap(), wanted, &BTreeSet::new(), None, 50)
    }

    #[test]
    fn what_was_missed_is_written_and_what_is_known_is_not() {
        let (one, two) = (attachment("n1", "c1", "10.0.0.2", 1), attachment("n1", "c2", "10.0.0.3", 1));
        let gone = attachment("n1", "c3", "10.0.0.4", 7);
        let other = attachment("n2", "c9", "10.0.0.9", 7);
        let view = view(vec![
            Entry::Network(network("blue")),
            Entry::Attachment(one.clone()),
            Entry::Attachment(gone.clone()),
            Entry::Attachment(other),
        ]);
        let found = writes(&view, &Acknowledged::default(), &wanted(&[one, two.clone()]));
        let two = OverlayAttachment { generation: 50, ..two };
        assert_eq!(found, [Write::Put(two), Write::Remove(gone.key(), 7)]);
    }

    #[test]
    fn what_the_cluster_has_acknowledged_is_not_written_again_before_the_watch_tells_of_it() {
        let one = attachment("n1", "c1", "10.0.0.2", 0);
        let (mut acknowledged, mut view) = (Acknowledged::default(), View::default());
        let all = wanted(std::slice::from_ref(&one));
        let first = writes(&view, &acknowledged, &all);
        assert_eq!(first.len(), 1);
        acknowledged.note(first[0].clone());
        assert_eq!(writes(&view, &acknowledged, &all), []);
        // Removed before the watch told that it was there.
        assert_eq!(writes(&view, &acknowledged, &BTreeMap::new()), [Write::Remove(one.key(), 50)]);
        acknowledged.note(Write::Remove(one.key(), 50));
        let deltas = view.apply(Revision(2), vec![Change::from(&first[0])]);
        acknowledged.follow(&deltas);
        assert_eq!(
            writes(&view, &acknowledged, &BTreeMap::new()),
            [],
            "it is gone, though the watch says it is there"
        );
        let deltas = view.apply(Revision(3), vec![Change::Gone(one.key())]);
        acknowledged.follow(&deltas);
        assert!(acknowledged.after.is_empty());
    }

    #[test]
    fn only_what_is_new_and_without_names_is_still_to_be_told_of() {
        let of = |id: &str| attachment("n1", id, "10.0.0.2", 1);
        let (seen, written, heard, new) = (of("c1"), of("c2"), of("c3"), of("c4"));
        let named = OverlayAttachment { names: ["web".into()].into(), ..of("c5") };
        let view = view(vec![Entry::Network(network("blue")), Entry::Attachment(seen.clone())]);
        let mut acknowledged = Acknowledged::default();
        acknowledged.note(Write::Put(written.clone()));
        let before = wanted(std::slice::from_ref(&heard));
        let node = OverlayAttachment { of: Occupant::Node, ..of("c6") };
        let all = wanted(&[seen, written, heard, new.clone(), named, node]);
        let untold: Vec<_> = untold((&view, &acknowledged), &before, &all).collect();
        assert_eq!(untold, [&new.key()]);
    }

    #[test]
    fn what_changed_or_is_of_an_earlier_epoch_is_written_anew() {
        let one = attachment("n1", "c1", "10.0.0.2", 3);
        let view = view(vec![Entry::Attachment(one.clone())]);
        let renamed = OverlayAttachment { names: ["web".into()].into(), ..one.clone() };
        let returned = OverlayAttachment { epoch: 9, ..one };
        for wanted in [wanted(&[renamed]), wanted(&[returned])] {
            assert!(matches!(writes(&view, &Acknowledged::default(), &wanted)[..], [Write::Put(_)]));
        }
    }
}
