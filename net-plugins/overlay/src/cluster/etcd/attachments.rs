//! Attachments: one transaction each.

use std::net::IpAddr;

use berth_types::NetworkName;

use super::EtcdCluster;
use super::change::{Decision, Op, Question, Seen, Slot};
use crate::cluster::keys;
use crate::cluster::{ClusterError, Entry, EntryKey};
use crate::model::OverlayAttachment;

impl EtcdCluster {
    /// The first try guesses: the network and the node's epoch are as last seen, and neither attachment nor addresses are there.
    /// So a new attachment is one transaction, and no read before it.
    pub(super) async fn attach(&self, attachment: &OverlayAttachment) -> Result<(), ClusterError> {
        let places = Places::of(attachment);
        let mut question = Question { keys: places.keys(), ..Question::default() };
        question.guess = self.recalled([&places.network, &places.epoch]);
        let mut before = None;
        loop {
            let decide = |seen: &Seen| self.decide_attach(attachment, &places, &before, seen);
            let (seen, _) = self.change(question.clone(), decide).await?;
            self.remember([&places.network, &places.epoch], &seen);
            // Addresses that it had and has no more are keys that the first look did not know of.
            let earlier = earlier(&places.record, &seen);
            let dropped = earlier.map(|earlier| dropped_of(&earlier, attachment)).unwrap_or_default();
            if dropped.is_empty() || before.is_some() {
                return Ok(());
            }
            question = Question {
                keys: places.keys().into_iter().chain(dropped.clone()).collect(),
                ..Question::default()
            };
            before = Some(dropped);
        }
    }

    /// What [`Self::attach`] would decide, by a read.
    pub(super) async fn check(&self, attachment: &OverlayAttachment) -> Result<(), ClusterError> {
        let places = Places::of(attachment);
        let question = Question { keys: places.keys(), ..Question::default() };
        let decide =
            |seen: &Seen| self.decide_attach(attachment, &places, &None, seen).map(|_| Decision::Done);
        let (seen, _) = self.change(question, decide).await?;
        self.remember([&places.network, &places.epoch], &seen);
        Ok(())
    }

    fn decide_attach(
        &self,
        attachment: &OverlayAttachment,
        places: &Places,
        dropped: &Option<Vec<String>>,
        seen: &Seen,
    ) -> Result<Decision, ClusterError> {
        let OverlayAttachment { network, node, epoch, .. } = attachment;
        if seen.text(&places.epoch) != Some(&epoch.to_string()) {
            return Err(ClusterError::Fenced { node: node.clone(), epoch: *epoch });
        }
        if seen.slot(&places.network).is_none() {
            return Err(self.no_network(network));
        }
        for (address, key) in &places.addresses {
            if let Some(holder) = seen.text(key).filter(|holder| *holder != places.record) {
                return Err(Self::taken(
                    format!("address {address} of network `{network}`"),
                    holder_text(holder),
                ));
            }
        }
        let earlier = earlier(&places.record, seen);
        if let Some(earlier) = earlier.as_ref().filter(|earlier| earlier.generation > attachment.generation) {
            let holder = format!("a newer record (generation {})", earlier.generation);
            return Err(Self::taken(format!("attachment `{}`", places.record), holder));
        }
        // What it drops is taken away in the same transaction, once its keys were looked at.
        let gone = match (earlier.as_ref().map(|earlier| dropped_of(earlier, attachment)), dropped) {
            (Some(gone), None) if !gone.is_empty() => return Ok(Decision::Done),
            (_, Some(gone)) => gone.clone(),
            _ => Vec::new(),
        };
        let value = Entry::Attachment(attachment.clone()).value();
        if earlier.as_ref() == Some(attachment) && gone.iter().all(|key| seen.slot(key).is_none()) {
            return Ok(Decision::Done);
        }
        let mut ops = vec![Op::Put(places.record.clone(), value)];
        let new = places.addresses.iter().filter(|(_, key)| seen.slot(key).is_none());
        ops.extend(new.map(|(_, key)| Op::Put(key.clone(), places.record.clone().into())));
        let own = gone.iter().filter(|key| seen.text(key) == Some(&places.record));
        ops.extend(own.map(|key| Op::Delete(key.clone())));
        Ok(Decision::Write(ops))
    }

    pub(super) async fn detach(&self, key: &EntryKey, generation: u64) -> Result<(), ClusterError> {
        let EntryKey::Attachment(network, _, _) = key else { return Ok(()) };
        let record = key.path();
        let mut keys = vec![record.clone()];
        for _ in 0..8 {
            let question = Question { keys: keys.clone(), ..Question::default() };
            let decide = |seen: &Seen| {
                if seen.slot(&record).is_none() {
                    return Ok(Decision::Done);
                }
                let addresses = match earlier(&record, seen) {
                    Some(now) if now.generation > generation => return Ok(Decision::Done),
                    Some(now) => address_keys(network, &now),
                    None => Vec::new(),
                };
                if addresses.iter().any(|key| !keys.contains(key)) {
                    return Ok(Decision::Done);
                }
                let own = addresses.into_iter().filter(|key| seen.text(key) == Some(&record));
                Ok(Decision::Write(std::iter::once(record.clone()).chain(own).map(Op::Delete).collect()))
            };
            let (seen, written) = self.change(question, decide).await?;
            let Some(now) = earlier(&record, &seen).filter(|_| written.is_none()) else { return Ok(()) };
            if now.generation > generation {
                return Ok(());
            }
            // Its addresses are known by now; once more, with their keys.
            keys = std::iter::once(record.clone()).chain(address_keys(network, &now)).collect();
        }
        Err(self.sessions.error(super::Fault::Away(format!("others changed `{record}` again and again"))))
    }

    /// What was last seen of `keys`, if all of it is remembered.
    fn recalled<'a>(&self, keys: impl IntoIterator<Item = &'a String>) -> Option<Seen> {
        let remembered = self.remembered.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut seen = Seen::default();
        for key in keys {
            seen.assume(key.clone(), remembered.get(key)?.clone());
        }
        Some(seen)
    }

    fn remember<'a>(&self, keys: impl IntoIterator<Item = &'a String>, seen: &Seen) {
        let mut remembered = self.remembered.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for key in keys {
            let Slot { value, revision, lease } = seen.slot(key).cloned().unwrap_or_default();
            // A network's record is only asked whether it is there.
            let value = if key.starts_with("nets/") { Vec::new() } else { value };
            remembered.insert(key.clone(), Slot { value, revision, lease });
        }
    }
}

/// The keys of an attachment.
struct Places {
    record: String,
    network: String,
    epoch: String,
    addresses: Vec<(IpAddr, String)>,
}

impl Places {
    fn of(attachment: &OverlayAttachment) -> Self {
        let network = &attachment.network;
        let address = |address: &IpAddr| (*address, keys::address(network, *address));
        Self {
            record: attachment.key().path(),
            network: EntryKey::Network(network.clone()).path(),
            epoch: keys::epoch(&attachment.node),
            addresses: attachment.addresses.iter().map(address).collect(),
        }
    }

    fn keys(&self) -> Vec<String> {
        let Self { record, network, epoch, addresses } = self;
        let addresses = addresses.iter().map(|(_, key)| key.clone());
        [record, network, epoch].into_iter().cloned().chain(addresses).collect()
    }
}

/// The record that stands there now, if it can be read.
fn earlier(record: &str, seen: &Seen) -> Option<OverlayAttachment> {
    seen.slot(record).and_then(|slot| keys::record(&slot.value).ok())
}

/// The keys of addresses that `earlier` has and `attachment` has not.
fn dropped_of(earlier: &OverlayAttachment, attachment: &OverlayAttachment) -> Vec<String> {
    let dropped = earlier.addresses.iter().filter(|address| !attachment.addresses.contains(address));
    dropped.map(|address| keys::address(&attachment.network, *address)).collect()
}

fn address_keys(network: &NetworkName, attachment: &OverlayAttachment) -> Vec<String> {
    attachment.addresses.iter().map(|address| keys::address(network, *address)).collect()
}

/// An attachment's key as people know it.
fn holder_text(path: &str) -> String {
    match EntryKey::of_path(path) {
        Some(EntryKey::Attachment(_, node, crate::model::Occupant::Container { id, .. })) => {
            format!("container {} on {node}", id.short())
        }
        Some(EntryKey::Attachment(_, node, crate::model::Occupant::Node)) => format!("node {node}"),
        _ => format!("`{path}`"),
    }
}
