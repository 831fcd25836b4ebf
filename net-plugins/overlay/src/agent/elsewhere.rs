//! The names of other nodes' containers, for this node's DNS server. Pure.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use berth_core::names::{Elsewhere, ServiceName};
use berth_types::{AttachmentKey, ContainerId, NetworkName, NodeName};

use super::silence::Silence;
use crate::model::{Occupant, OverlayAttachment, Service};
use crate::view::View;

/// Everybody who is answered here and lives elsewhere, of the networks `joined` by this node.
pub fn everybody<'a>(
    view: &'a View,
    silence: &'a Silence,
    me: &'a NodeName,
    joined: impl IntoIterator<Item = &'a NetworkName>,
    now: Instant,
) -> impl Iterator<Item = (AttachmentKey, Elsewhere)> {
    joined.into_iter().filter_map(|name| view.network(name)).flat_map(move |network| {
        let nodes = network.nodes().filter(move |node| *node != me && !silence.is_over(node, now));
        nodes.flat_map(|node| network.attachments_of(node)).filter_map(|attachment| of(attachment))
    })
}

/// Who is on record as being elsewhere. Keys and what is said of them stand in the store and follow from the view; here are
/// fingerprints, which tell what is on record from what is not. Two of tens of thousands are alike in one of 2^32 agents.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    /// By network: what is said, by the key.
    networks: BTreeMap<NetworkName, HashMap<u64, u64>>,
    hasher: RandomState,
}

impl Recorded {
    /// Whether exactly `elsewhere` is on record of `key`.
    pub fn says(&self, key: &AttachmentKey, elsewhere: &Elsewhere) -> bool {
        self.found(key).is_some_and(|found| *found == self.hasher.hash_one(elsewhere))
    }

    /// Whether something is on record of `key`.
    pub fn contains(&self, key: &AttachmentKey) -> bool {
        self.found(key).is_some()
    }

    /// Of how many something is on record.
    pub fn count(&self) -> usize {
        self.networks.values().map(HashMap::len).sum()
    }

    /// `elsewhere` is put on record of `key`.
    pub fn note(&mut self, key: &AttachmentKey, elsewhere: &Elsewhere) {
        let (of, said) = (self.hasher.hash_one(key), self.hasher.hash_one(elsewhere));
        self.networks.entry(key.network.clone()).or_default().insert(of, said);
    }

    /// Nothing is on record of `key` any more.
    pub fn forget(&mut self, key: &AttachmentKey) {
        let of = self.hasher.hash_one(key);
        if let Some(network) = self.networks.get_mut(&key.network) {
            network.remove(&of);
        }
    }

    /// Nothing is on record of `network` any more.
    pub fn forget_network(&mut self, network: &NetworkName) {
        self.networks.remove(network);
    }

    fn found(&self, key: &AttachmentKey) -> Option<&u64> {
        self.networks.get(&key.network)?.get(&self.hasher.hash_one(key))
    }
}

/// What `attachment` is answered as, if it has a name.
pub fn of(attachment: &OverlayAttachment) -> Option<(AttachmentKey, Elsewhere)> {
    let OverlayAttachment { addresses, names, services, .. } = attachment;
    let key = key(attachment)?;
    let service = |Service { name, proto, port }: &Service| {
        Some(ServiceName { name: name.clone()?, proto: *proto, port: *port })
    };
    let elsewhere = Elsewhere {
        names: names.to_vec(),
        addrs: addresses.iter().copied().collect(),
        services: services.iter().filter_map(service).collect(),
    };
    (!elsewhere.names.is_empty()).then_some((key, elsewhere))
}

/// Under which key a container of another node is kept here. Two nodes may have containers of one number.
pub fn key(attachment: &OverlayAttachment) -> Option<AttachmentKey> {
    let Occupant::Container { id, ifname } = &attachment.of else { return None };
    let container = ContainerId::new(format!("{}..{id}", attachment.node)).ok()?;
    Some(AttachmentKey { network: attachment.network.clone(), container, ifname: ifname.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::samples::{attachment, named, network, node};
    use crate::agent::silence::GRACE;
    use crate::cluster::{Change, Entry, Revision};

    #[test]
    fn what_is_on_record_is_told_from_what_is_not() {
        let one = |name: &str| of(&named(attachment("n2", name, "10.0.0.3", 1), name)).unwrap();
        let ((key, web), (other, db)) = (one("web"), one("db"));
        let mut recorded = Recorded::default();
        recorded.note(&key, &web);
        assert!(recorded.says(&key, &web) && !recorded.says(&key, &db) && !recorded.says(&other, &web));
        recorded.note(&key, &db);
        assert!(recorded.says(&key, &db) && recorded.contains(&key));
        recorded.note(&other, &db);
        recorded.forget(&key);
        assert!(!recorded.contains(&key) && recorded.contains(&other));
        recorded.forget_network(&other.network);
        assert_eq!(recorded.count(), 0);
    }

    #[test]
    fn names_are_of_containers_elsewhere_on_nodes_that_are_heard_of() {
        let mut view = View::default();
        let entries = [
            Entry::Network(network("blue")),
            Entry::Node(node("n1", 1)),
            Entry::Node(node("n2", 2)),
            Entry::Known(node("n3", 3)),
            Entry::Attachment(named(attachment("n1", "c1", "10.0.0.2", 1), "here")),
            Entry::Attachment(named(attachment("n2", "c1", "10.0.0.3", 1), "web")),
            Entry::Attachment(attachment("n2", "c2", "10.0.0.4", 1)),
            Entry::Attachment(named(attachment("n3", "c1", "10.0.0.5", 1), "lost")),
        ];
        view.apply(Revision(1), entries.into_iter().map(Change::Put).collect());
        let (blue, me, now) = ("blue".parse().unwrap(), "n1".parse().unwrap(), Instant::now());
        let mut silence = Silence::default();
        silence.follow(&view, now);
        let names = |now| {
            let all = everybody(&view, &silence, &me, [&blue], now);
            all.map(|(key, one)| format!("{} {}", key.container, one.names[0])).collect::<Vec<_>>()
        };
        assert_eq!(names(now), ["n2..c1 web", "n3..c1 lost"]);
        assert_eq!(names(now + GRACE), ["n2..c1 web"]);
        assert_eq!(everybody(&view, &silence, &me, [], now).count(), 0, "of networks this node is on");
    }
}
