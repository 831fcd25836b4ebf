//! How long nodes have been silent. Pure: the time is an argument.
//!
//! A node whose lease ran out may be cut off with its containers running, so nothing of it leaves the kernel. Its names are
//! answered for a while and then not any more: who asks for one is to be led to somebody who is heard of.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use berth_types::NodeName;

use crate::view::{NodeStatus, View};

/// How long the names of a silent node are answered.
pub const GRACE: Duration = Duration::from_secs(15);

/// Which nodes are silent, and since when this node has seen it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Silence {
    since: BTreeMap<NodeName, Instant>,
}

impl Silence {
    /// Follows `view`.
    pub fn follow(&mut self, view: &View, now: Instant) {
        let suspect =
            |name: &NodeName| view.node(name).is_some_and(|node| node.status() == NodeStatus::Suspect);
        self.since.retain(|name, _| suspect(name));
        for (name, node) in view.nodes() {
            if node.status() == NodeStatus::Suspect {
                self.since.entry(name.clone()).or_insert(now);
            }
        }
    }

    /// Counts from `now` on for those that are silent: nobody was heard of meanwhile, because the cluster was away.
    pub fn begin_anew(&mut self, now: Instant) {
        self.since.values_mut().for_each(|since| *since = now);
    }

    /// Whether the names of `node` are no longer answered.
    pub fn is_over(&self, node: &NodeName, now: Instant) -> bool {
        self.since.get(node).is_some_and(|since| now.saturating_duration_since(*since) >= GRACE)
    }

    /// When the next node's names are to go.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        self.since.values().map(|since| *since + GRACE).filter(|end| *end > now).min()
    }

    /// Who is silent, and for how long.
    pub fn all(&self, now: Instant) -> impl Iterator<Item = (NodeName, Duration)> {
        self.since.iter().map(move |(name, since)| (name.clone(), now.saturating_duration_since(*since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::samples::node;
    use crate::cluster::{Change, Entry, EntryKey, Revision};

    #[test]
    fn the_names_of_a_silent_node_go_after_a_while_and_come_back_with_it() {
        let (mut view, mut silence, start) = (View::default(), Silence::default(), Instant::now());
        let name: NodeName = "n2".parse().unwrap();
        let put = |view: &mut View, changes| drop(view.apply(Revision(1), changes));
        put(
            &mut view,
            vec![Change::Put(Entry::Known(node("n2", 2))), Change::Put(Entry::Node(node("n2", 2)))],
        );
        silence.follow(&view, start);
        assert_eq!(silence, Silence::default());
        put(&mut view, vec![Change::Gone(EntryKey::Node(name.clone()))]);
        silence.follow(&view, start);
        silence.follow(&view, start + GRACE / 2);
        assert!(!silence.is_over(&name, start + GRACE / 2));
        assert_eq!(silence.next(start), Some(start + GRACE));
        assert!(silence.is_over(&name, start + GRACE));
        assert_eq!(silence.next(start + GRACE), None);
        put(&mut view, vec![Change::Put(Entry::Node(node("n2", 2)))]);
        silence.follow(&view, start + GRACE);
        assert!(!silence.is_over(&name, start + GRACE));
    }

    #[test]
    fn while_the_cluster_was_away_nobody_could_be_heard_of() {
        let (mut view, mut silence, start) = (View::default(), Silence::default(), Instant::now());
        let name: NodeName = "n2".parse().unwrap();
        view.apply(Revision(1), vec![Change::Put(Entry::Known(node("n2", 2)))]);
        silence.follow(&view, start);
        silence.begin_anew(start + GRACE);
        assert!(!silence.is_over(&name, start + GRACE));
        assert!(silence.is_over(&name, start + GRACE * 2));
        assert_eq!(silence.all(start + GRACE * 2).collect::<Vec<_>>(), [(name, GRACE)]);
    }
}
