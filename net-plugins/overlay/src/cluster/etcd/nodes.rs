//! Nodes: their names, epochs and leases.

use std::time::Duration;

use berth_types::NodeName;
use etcd_client::{Client, Error, GetOptions};

use super::EtcdCluster;
use super::change::{Decision, Op, Question, Seen};
use super::session::{Again, Fault, call};
use crate::cluster::keys::{self, Read, WATCHED};
use crate::cluster::{ClusterError, Entry, EntryKey, Removal};
use crate::model::{Block, Lend, Node, OverlayAttachment};

/// How many records one transaction takes away: etcd allows 128 steps, and each record has an address or two.
const AT_ONCE: usize = 24;

/// This node's lease.
#[derive(Debug, Clone)]
pub(super) struct Presence {
    lease: i64,
    duration: Duration,
}

/// The keys of a node.
struct Keys {
    present: String,
    known: String,
    epoch: String,
}

impl Keys {
    fn of(node: &NodeName) -> Self {
        let (present, known) = (EntryKey::Node(node.clone()).path(), EntryKey::Known(node.clone()).path());
        Self { present, known, epoch: keys::epoch(node) }
    }

    fn question(&self) -> Question {
        Question {
            keys: vec![self.present.clone(), self.known.clone(), self.epoch.clone()],
            ..Question::default()
        }
    }
}

impl EtcdCluster {
    pub(super) async fn join_node(&self, node: &Node) -> Result<u64, ClusterError> {
        let keys = Keys::of(&node.name);
        let presence = self.presence.lock().await.clone();
        let epoch_of = |seen: &Seen| {
            let stored = seen.text(&keys.epoch).and_then(|text| text.parse().ok()).unwrap_or(0_u64);
            let known = seen.slot(&keys.known).and_then(|slot| keys::record::<Node>(&slot.value).ok());
            let same = known.is_some_and(|known| known.identity == node.identity);
            if same && stored == node.epoch && stored > 0 { stored } else { stored.max(node.epoch) + 1 }
        };
        let decide = |seen: &Seen| {
            refuse_other(node, &keys, seen, presence.as_ref())?;
            let epoch = epoch_of(seen);
            if seen.text(&keys.epoch) == Some(&epoch.to_string()) {
                return Ok(Decision::Done);
            }
            let known = Entry::Known(Node { epoch, ..node.clone() });
            let ops = [
                Op::Put(keys.epoch.clone(), epoch.to_string().into()),
                Op::Put(keys.known.clone(), known.value()),
            ];
            Ok(Decision::Write(ops.into()))
        };
        let (seen, _) = self.change(keys.question(), decide).await?;
        Ok(epoch_of(&seen))
    }

    pub(super) async fn present_node(&self, node: &Node, lease: Duration) -> Result<(), ClusterError> {
        let mut presence = self.presence.lock().await;
        let held = self.lease(presence.take(), lease).await.map_err(|fault| self.sessions.error(fault))?;
        *presence = Some(held.clone());
        let keys = Keys::of(&node.name);
        let decide = |seen: &Seen| {
            if seen.text(&keys.epoch) != Some(&node.epoch.to_string()) {
                return Err(ClusterError::Fenced { node: node.name.clone(), epoch: node.epoch });
            }
            refuse_other(node, &keys, seen, Some(&held))?;
            let (present, known) = (Entry::Node(node.clone()).value(), Entry::Known(node.clone()).value());
            let mut ops = Vec::new();
            if seen.slot(&keys.present).is_none_or(|slot| slot.value != present || slot.lease != held.lease) {
                ops.push(Op::PutLeased(keys.present.clone(), present, held.lease));
            }
            if seen.slot(&keys.known).is_none_or(|slot| slot.value != known) {
                ops.push(Op::Put(keys.known.clone(), known));
            }
            Ok(if ops.is_empty() { Decision::Done } else { Decision::Write(ops) })
        };
        self.change(keys.question(), decide).await.map(drop)
    }

    /// Renews the lease, or takes a new one where there is none any more.
    async fn lease(&self, held: Option<Presence>, duration: Duration) -> Result<Presence, Fault> {
        if let Some(held) = held.filter(|held| held.duration == duration) {
            let id = held.lease;
            let renew = |mut client: Client| async move {
                match client.lease_keep_alive(id).await {
                    Ok(_) => Ok(true),
                    // Its lifetime is over, or somebody revoked it.
                    Err(Error::LeaseKeepAliveError(_)) => Ok(false),
                    Err(err) => Err(err),
                }
            };
            if call(&self.sessions, Again::Yes, renew).await? {
                return Ok(held);
            }
        }
        let seconds = i64::try_from(duration.as_secs().max(1)).unwrap_or(i64::MAX);
        let grant = |mut client: Client| async move { client.lease_grant(seconds, None).await };
        let granted = call(&self.sessions, Again::Yes, grant).await?;
        Ok(Presence { lease: granted.id(), duration })
    }

    pub(super) async fn take_node_away(&self, node: &NodeName, removal: Removal) -> Result<(), ClusterError> {
        let keys = Keys::of(node);
        let decide = |seen: &Seen| {
            let stored = seen.text(&keys.epoch).and_then(|text| text.parse().ok()).unwrap_or(0_u64);
            if let Removal::Lost { epoch } = removal {
                if seen.slot(&keys.present).is_some() {
                    return Err(Self::taken(format!("node name `{node}`"), "a living host"));
                }
                // Fenced already by an earlier call that did not come to its end: the rest is to be taken away.
                if stored == epoch + 1 && seen.slot(&keys.known).is_none() {
                    return Ok(Decision::Done);
                }
                if stored != epoch {
                    return Err(ClusterError::Fenced { node: node.clone(), epoch });
                }
            }
            let gone = [&keys.present, &keys.known].into_iter().filter(|key| seen.slot(key).is_some());
            let fence = Op::Put(keys.epoch.clone(), (stored + 1).to_string().into());
            Ok(Decision::Write(std::iter::once(fence).chain(gone.cloned().map(Op::Delete)).collect()))
        };
        let (seen, _) = self.change(keys.question(), decide).await?;
        let stored = seen.text(&keys.epoch).and_then(|text| text.parse().ok()).unwrap_or(0_u64);
        let fenced = match removal {
            Removal::Lost { epoch } => epoch,
            Removal::Told => stored,
        };
        self.take_belongings(node, fenced).await
    }

    /// Takes away what `node` wrote in epochs up to `epoch`.
    async fn take_belongings(&self, node: &NodeName, epoch: u64) -> Result<(), ClusterError> {
        let listing = self.list_all().await?;
        let own = listing.entries.into_iter().filter(|entry| belongs(entry, node, epoch)).collect::<Vec<_>>();
        for some in own.chunks(AT_ONCE) {
            let records: Vec<(String, &Entry)> =
                some.iter().map(|entry| (entry.key().path(), entry)).collect();
            let addresses: Vec<(String, String)> = some.iter().flat_map(addresses).collect();
            let records_and_addresses =
                records.iter().map(|(path, _)| path).chain(addresses.iter().map(|(key, _)| key));
            let question = Question { keys: records_and_addresses.cloned().collect(), ..Question::default() };
            let decide = |seen: &Seen| {
                // What was written anew since is the node's that returned.
                let read = |path: &String| seen.slot(path).map(|slot| keys::read(path, &slot.value));
                let same = |path: &String, entry: &Entry| matches!(read(path), Some(Read::Entry(now)) if now == *entry);
                let records = records.iter().filter(|(path, entry)| same(path, entry)).map(|(path, _)| path);
                let held = addresses.iter().filter(|(key, path)| {
                    seen.text(key) == Some(path) && records.clone().any(|record| record == path)
                });
                let keys = records.clone().chain(held.map(|(key, _)| key));
                let ops: Vec<Op> = keys.cloned().map(Op::Delete).collect();
                Ok(if ops.is_empty() { Decision::Done } else { Decision::Write(ops) })
            };
            self.change(question, decide).await?;
        }
        Ok(())
    }

    /// How many keys are below the cluster's prefix, without what they say: for people.
    pub async fn key_count(&self) -> Result<usize, ClusterError> {
        let prefix = self.sessions.prefix();
        let count = |mut client: Client| async move {
            let options = GetOptions::new().with_range(format!("{prefix}{}", WATCHED.1)).with_count_only();
            client.get(prefix, Some(options)).await
        };
        let counted =
            call(&self.sessions, Again::Yes, count).await.map_err(|fault| self.sessions.error(fault))?;
        Ok(usize::try_from(counted.count()).unwrap_or(0))
    }
}

/// Refuses if another living host has the node's name. The record is this host's own if it is on its lease, or if it has its
/// identity and one of its addresses: no two living hosts have one address. A host that comes back with another address waits
/// until its old lease runs out.
fn refuse_other(
    node: &Node,
    keys: &Keys,
    seen: &Seen,
    presence: Option<&Presence>,
) -> Result<(), ClusterError> {
    let Some(slot) = seen.slot(&keys.present) else { return Ok(()) };
    if presence.is_some_and(|presence| presence.lease == slot.lease) {
        return Ok(());
    }
    let other: Option<Node> = keys::record(&slot.value).ok();
    let own =
        other.as_ref().is_some_and(|other| other.identity == node.identity && shares_address(other, node));
    if own {
        return Ok(());
    }
    let address =
        other.and_then(|other| other.vtep4.map(|v4| v4.to_string()).or(other.vtep6.map(|v6| v6.to_string())));
    let address = address.unwrap_or_else(|| "an unknown address".to_owned());
    Err(ClusterError::Identity { node: node.name.clone(), address })
}

fn shares_address(one: &Node, other: &Node) -> bool {
    one.vtep4.is_some() && one.vtep4 == other.vtep4 || one.vtep6.is_some() && one.vtep6 == other.vtep6
}

fn belongs(entry: &Entry, node: &NodeName, epoch: u64) -> bool {
    match entry {
        Entry::Attachment(OverlayAttachment { node: of, epoch: written, .. }) => {
            of == node && *written <= epoch
        }
        Entry::Block(Block { owner, epoch: written, .. }) => owner == node && *written <= epoch,
        Entry::Lend(Lend { borrower, .. }) => borrower == node,
        Entry::Node(_) | Entry::Known(_) | Entry::Network(_) => false,
    }
}

/// The keys of an attachment's addresses, and what they say.
fn addresses(entry: &Entry) -> Vec<(String, String)> {
    let Entry::Attachment(attachment) = entry else { return Vec::new() };
    let path = attachment.key().path();
    let key = |address: &std::net::IpAddr| (keys::address(&attachment.network, *address), path.clone());
    attachment.addresses.iter().map(key).collect()
}
