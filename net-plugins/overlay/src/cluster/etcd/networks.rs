//! Networks: created and removed.

use std::time::Duration;

use berth_core::plan::overlap;
use berth_types::NetworkName;
use etcd_client::GetOptions;
use ipnetwork::IpNetwork;
use tokio::time::{Instant, sleep};

use super::change::{Decision, Op, Question, Seen};
use super::session::{Again, call};
use super::{CONTENDED, EtcdCluster};
use crate::cluster::keys::{self, NETWORKS_CHANGED, Read};
use crate::cluster::{ClusterError, Entry, EntryKey};
use crate::model::OverlayNetwork;

/// How many networks one page of a listing has.
const PAGE: i64 = 500;

impl EtcdCluster {
    /// Subnets that overlap meet at no key. So: which networks there are is read, with the key that changes with each of them,
    /// and the transaction compares that key.
    pub(super) async fn create(&self, network: &OverlayNetwork) -> Result<(), ClusterError> {
        let until = Instant::now() + CONTENDED;
        loop {
            let (changed, networks) = self.networks().await?;
            if networks.contains(network) {
                return Ok(());
            }
            refuse_taken(network, &networks)?;
            let question = creation(network);
            let decide = |seen: &Seen| decide_creation(network, seen, changed);
            match self.change(question, decide).await {
                // Another network came or went since: look again who has what.
                Err(ClusterError::Taken { holder, .. }) if holder == RACED && Instant::now() < until => {
                    sleep(Duration::from_millis(u64::from(std::process::id() % 7))).await;
                }
                other => return other.map(drop),
            }
        }
    }

    /// All networks, and when the key was written that changes with them.
    async fn networks(&self) -> Result<(i64, Vec<OverlayNetwork>), ClusterError> {
        let prefix = self.sessions.prefix();
        let read = |mut client: etcd_client::Client| async move {
            let changed = client.get(format!("{prefix}{NETWORKS_CHANGED}"), None).await?;
            let changed = changed.kvs().first().map_or(0, etcd_client::KeyValue::mod_revision);
            let (mut networks, mut from) = (Vec::new(), format!("{prefix}nets/"));
            loop {
                let options = GetOptions::new().with_range(format!("{prefix}nets0")).with_limit(PAGE);
                let page = client.get(from.clone(), Some(options)).await?;
                for kv in page.kvs() {
                    let path = String::from_utf8_lossy(kv.key()).into_owned();
                    let path = path.strip_prefix(prefix).unwrap_or(&path).to_owned();
                    if let Read::Entry(Entry::Network(network)) = keys::read(&path, kv.value()) {
                        networks.push(network);
                    }
                    from = format!("{prefix}{path}\0");
                }
                if !page.more() {
                    return Ok((changed, networks));
                }
            }
        };
        call(&self.sessions, Again::Yes, read).await.map_err(|fault| self.sessions.error(fault))
    }

    pub(super) async fn remove(&self, network: &NetworkName) -> Result<(), ClusterError> {
        let record = EntryKey::Network(network.clone()).path();
        let containers = keys::containers(network);
        let mut keys = vec![NETWORKS_CHANGED.to_owned(), record.clone()];
        // Its indices are found by its record, which the transaction compares.
        let (seen, _) = self
            .change(Question { keys: keys.clone(), ..Question::default() }, |_| Ok(Decision::Done))
            .await?;
        let slot = seen.slot(&record).ok_or_else(|| self.no_network(network))?.clone();
        let indices =
            keys::record(&slot.value).map(|network: OverlayNetwork| indices(&network)).unwrap_or_default();
        keys.extend(indices.iter().cloned());
        let question = Question { keys, ranges: vec![containers.clone()], guess: None };
        let decide = |seen: &Seen| {
            let Some(now) = seen.slot(&record) else { return Ok(Decision::Done) };
            if now.revision != slot.revision {
                return Err(Self::taken(
                    format!("network name `{network}`"),
                    "a network that was just created anew",
                ));
            }
            let (count, some) = seen.below(&containers);
            if count > 0 {
                return Err(in_use(network, count, some));
            }
            let own = indices.iter().filter(|index| seen.text(index) == Some(network.as_str()));
            let below =
                ["ep", "addr", "blk", "lend"].map(|kind| Op::DeleteBelow(format!("{kind}/{network}/")));
            let mut ops = vec![
                Op::Put(NETWORKS_CHANGED.to_owned(), network.as_str().into()),
                Op::Delete(record.clone()),
            ];
            ops.extend(own.cloned().map(Op::Delete));
            ops.extend(below);
            Ok(Decision::Write(ops))
        };
        self.change(question, decide).await.map(drop)
    }
}

impl EtcdCluster {
    /// What a later version has written of the network besides stays.
    pub(super) async fn share(
        &self,
        network: &NetworkName,
        shared: bool,
    ) -> Result<OverlayNetwork, ClusterError> {
        let record = EntryKey::Network(network.clone()).path();
        let question = Question { keys: vec![record.clone()], ..Question::default() };
        let written = |seen: &Seen| {
            let slot = seen.slot(&record).ok_or_else(|| self.no_network(network))?;
            shared_record(&slot.value, shared).ok_or_else(|| {
                Self::taken(format!("network name `{network}`"), "a record that cannot be read")
            })
        };
        let decide = |seen: &Seen| {
            let (now, value, before) = written(seen)?;
            Ok(match before == now.shared {
                true => Decision::Done,
                false => Decision::Write(vec![Op::Put(record.clone(), value)]),
            })
        };
        let (seen, _) = self.change(question, decide).await?;
        written(&seen).map(|(now, _, _)| now)
    }
}

/// The record with `shared` in it, as it is read and as it is written, and what it said before.
fn shared_record(value: &[u8], shared: bool) -> Option<(OverlayNetwork, Vec<u8>, bool)> {
    let before: OverlayNetwork = keys::record(value).ok()?;
    let mut text: serde_json::Value = serde_json::from_slice(value).ok()?;
    text.as_object_mut()?.insert("shared".to_owned(), shared.into());
    let text = serde_json::to_vec(&text).ok()?;
    Some((OverlayNetwork { shared, ..before.clone() }, text, before.shared))
}

/// Says that the networks are others by now.
const RACED: &str = "another network that came meanwhile";

fn creation(network: &OverlayNetwork) -> Question {
    let record = EntryKey::Network(network.name.clone()).path();
    let keys = [NETWORKS_CHANGED.to_owned(), record].into_iter().chain(indices(network)).collect();
    Question { keys, ..Question::default() }
}

fn decide_creation(network: &OverlayNetwork, seen: &Seen, changed: i64) -> Result<Decision, ClusterError> {
    let entry = Entry::Network(network.clone());
    let (record, value) = (entry.key().path(), entry.value());
    if seen.slot(&record).is_some_and(|slot| slot.value == value) {
        return Ok(Decision::Done);
    }
    if seen.slot(NETWORKS_CHANGED).map_or(0, |slot| slot.revision) != changed {
        return Err(EtcdCluster::taken(format!("network name `{}`", network.name), RACED));
    }
    // A record that cannot be read is nevertheless somebody's, and so is an index.
    if seen.slot(&record).is_some() {
        return Err(EtcdCluster::taken(
            format!("network name `{}`", network.name),
            "a record that cannot be read",
        ));
    }
    for index in indices(network) {
        if let Some(holder) = seen.text(&index).filter(|holder| *holder != network.name.as_str()) {
            return Err(EtcdCluster::taken(format!("`{index}`"), format!("network `{holder}`")));
        }
    }
    let name = network.name.as_str();
    let indices = indices(network).into_iter().map(|index| Op::Put(index, name.into()));
    let ops = [Op::Put(NETWORKS_CHANGED.to_owned(), name.into()), Op::Put(record, value)];
    Ok(Decision::Write(ops.into_iter().chain(indices).collect()))
}

/// The keys that make a network's VNI and subnets its own.
fn indices(network: &OverlayNetwork) -> Vec<String> {
    let subnets = network.subnets.iter().map(|subnet| keys::cidr(subnet.subnet));
    std::iter::once(keys::vni(network.vni)).chain(subnets).collect()
}

/// Refuses a network that has something of `others`.
pub(crate) fn refuse_taken(network: &OverlayNetwork, others: &[OverlayNetwork]) -> Result<(), ClusterError> {
    for other in others {
        let holder = format!("network `{}`", other.name);
        if other.name == network.name {
            let holder =
                format!("network `{}` with VNI {}, created by {},", other.name, other.vni, other.created_by);
            return Err(EtcdCluster::taken(format!("network name `{}`", network.name), holder));
        }
        if other.vni == network.vni {
            return Err(EtcdCluster::taken(format!("VNI {}", network.vni), holder));
        }
        for (subnet, theirs) in pairs(network, other) {
            if overlap(&subnet, &theirs) {
                let holder = if subnet == theirs { holder } else { format!("{holder}, with {theirs},") };
                return Err(EtcdCluster::taken(format!("subnet {subnet}"), holder));
            }
        }
    }
    Ok(())
}

fn pairs(one: &OverlayNetwork, other: &OverlayNetwork) -> Vec<(IpNetwork, IpNetwork)> {
    let with = |subnet: IpNetwork| other.subnets.iter().map(move |theirs| (subnet, theirs.subnet));
    one.subnets.iter().flat_map(|subnet| with(subnet.subnet)).collect()
}

fn in_use(network: &NetworkName, count: usize, some: &[String]) -> ClusterError {
    let name = |path: &String| match EntryKey::of_path(path) {
        Some(EntryKey::Attachment(_, node, crate::model::Occupant::Container { id, .. })) => {
            format!("{} on {node}", id.short())
        }
        _ => format!("`{path}`"),
    };
    let mut some = some.iter().map(name).collect::<Vec<_>>().join(", ");
    if count > 4 {
        some.push_str(", …");
    }
    ClusterError::InUse { network: network.clone(), count, some }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sharing_changes_one_word_of_a_record() {
        let record = crate::agent::samples::network("blue");
        let mut text: serde_json::Value = serde_json::to_value(&record).unwrap();
        text["colour"] = "red".into();
        let (now, written, before) = shared_record(&serde_json::to_vec(&text).unwrap(), true).unwrap();
        assert_eq!((now, before), (OverlayNetwork { shared: true, ..record }, false));
        let written: serde_json::Value = serde_json::from_slice(&written).unwrap();
        assert_eq!((&written["colour"], &written["shared"]), (&"red".into(), &true.into()));
        assert!(shared_record(b"[]", true).is_none());
    }

    #[test]
    fn prefixes_overlap_when_one_is_in_the_other() {
        for (one, other, both) in [
            ("10.0.0.0/24", "10.0.0.0/24", true),
            ("10.0.0.0/16", "10.0.9.0/24", true),
            ("10.0.0.0/24", "10.0.1.0/24", false),
            ("fd00::/48", "fd00::/64", true),
            ("0.0.0.0/0", "::/0", false),
        ] {
            let (one, other): (IpNetwork, IpNetwork) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!((overlap(&one, &other), overlap(&other, &one)), (both, both), "{one} {other}");
        }
    }
}
