//! Writing this node's attachments to the cluster, and telling those who wait for it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use berth_core::Chain;
use berth_store::unix_ms;

use super::AgentError;
use super::command::Reply;
use super::nameless::NAMES;
use super::publish::{Write, due, untold};
use super::state::{Agent, Link, answer};
use crate::cluster::{ClusterError, EntryKey};
use crate::wire::{Changed, Published, Refusal};

/// How long somebody waits for the cluster to have a change. What takes longer is published later.
pub(super) const WAITS: Duration = Duration::from_secs(2);

/// Writes that are under way at once.
const AT_ONCE: usize = 64;

/// Somebody who changed records and waits until the cluster has them.
pub(super) struct Waiting {
    keys: BTreeSet<EntryKey>,
    pub(super) until: Instant,
    reply: Reply<Published>,
}

impl Agent {
    /// Records were changed.
    pub(super) async fn changed(
        &mut self,
        changed: Changed,
        reply: Reply<Published>,
    ) -> Result<(), AgentError> {
        let keys = match self.take_up(changed).await? {
            Ok(keys) => keys,
            Err(refusal) => {
                answer(reply, Err(refusal));
                return Ok(());
            }
        };
        if let Some(why) = self.cannot_write() {
            answer(reply, Ok(Published::Later(why)));
            return Ok(());
        }
        self.publish(Some(&keys));
        let keys: BTreeSet<EntryKey> = keys.intersection(&self.writing).cloned().collect();
        if keys.is_empty() {
            answer(reply, Ok(Published::Committed));
        } else {
            self.waiting.push(Waiting { keys, until: Instant::now() + WAITS, reply });
        }
        self.tend_soon();
        Ok(())
    }

    /// Reads what this node is to publish of records that were changed. Nothing that was known of them holds any more.
    pub(super) async fn take_up(
        &mut self,
        changed: Changed,
    ) -> Result<Result<BTreeSet<EntryKey>, Refusal>, AgentError> {
        let Some(link) = &self.link else {
            return Ok(Err(self.unlinked.as_deref().map_or_else(Refusal::not_joined, not_linked)));
        };
        let (me, joined, keys) = (link.me(), self.joined.clone(), changed.attachments);
        let found = match self.with(move |hands| hands.wanted_of(&me, &joined, &keys)).await? {
            Ok(found) => found,
            Err(err) => {
                return Ok(Err(Refusal::new(crate::wire::RefusalCode::Failed, Chain(&err).to_string())));
            }
        };
        let mut keys = BTreeSet::new();
        for (key, wanted) in found {
            self.refused.remove(&key);
            self.nameless.remove(&key);
            match wanted {
                Some(wanted) => drop(self.wanted.insert(key.clone(), wanted)),
                None => drop(self.wanted.remove(&key)),
            }
            keys.insert(key);
        }
        Ok(Ok(keys))
    }

    /// Why nothing can be written now, if so.
    pub(super) fn cannot_write(&self) -> Option<String> {
        let Some(link) = &self.link else { return Some("this node has joined no cluster".to_owned()) };
        let is_away = !link.connected || !link.present || !link.listed;
        let why = || link.trouble.clone().unwrap_or_else(|| "the cluster has not answered yet".to_owned());
        is_away.then(why)
    }

    /// Reads what this node is to publish.
    pub(super) async fn read_wanted(&mut self) -> Result<(), AgentError> {
        let Some(me) = self.link.as_ref().map(Link::me) else { return Ok(()) };
        let joined = self.joined.clone();
        match self.with(move |hands| hands.wanted(&me, &joined)).await? {
            Ok(wanted) => {
                let until = Instant::now() + NAMES;
                let untold = untold((&self.view, &self.acknowledged), &self.wanted, &wanted);
                let untold = untold.filter(|key| !self.writing.contains(*key));
                for key in untold {
                    self.nameless.entry(key.clone()).or_insert(until);
                }
                self.wanted = wanted;
            }
            Err(err) => tracing::error!(error = %Chain(&err), "the records cannot be read"),
        }
        Ok(())
    }

    /// Writes what the cluster does not know: of `only`, or of everything.
    pub(super) fn publish(&mut self, only: Option<&BTreeSet<EntryKey>>) {
        if self.cannot_write().is_some() {
            return;
        }
        let Some(link) = &self.link else { return };
        let (name, cluster) = (&link.membership.name, &link.cluster);
        let generation = self.view.next_generation(unix_ms().unsigned_abs());
        let known = (&self.view, &self.acknowledged);
        let not_now = self.writing.iter().chain(&self.refused).chain(self.nameless.keys());
        let not_now: BTreeSet<EntryKey> = not_now.cloned().collect();
        let writes = due(known, name, &self.wanted, &not_now, only, generation);
        let room = AT_ONCE.saturating_sub(self.writing.len());
        // Whoever waits for a write of its own is not made to wait for others.
        let room = if only.is_some() { writes.len() } else { room };
        for write in writes.into_iter().take(room) {
            self.counters.writes += 1;
            self.writing.insert(write.key());
            let cluster = std::sync::Arc::clone(cluster);
            self.writes.spawn(async move {
                let outcome = match &write {
                    Write::Put(attachment) => cluster.put_attachment(attachment).await,
                    Write::Remove(key, generation) => cluster.remove_attachment(key, *generation).await,
                };
                (write, outcome)
            });
        }
    }

    /// A write has come to its end.
    pub(super) fn written(&mut self, write: Write, outcome: Result<(), ClusterError>) {
        let key = write.key();
        self.writing.remove(&key);
        match outcome {
            Ok(()) => {
                self.acknowledged.note(write);
                // It may have changed again meanwhile, and others may not have had their turn.
                self.publish(Some(&[key.clone()].into()));
                if !self.writing.contains(&key) {
                    self.settle(&key, &Ok(Published::Committed));
                }
                if self.writing.len() < AT_ONCE / 2 {
                    self.publish(None);
                }
            }
            Err(err @ ClusterError::Away { .. }) => {
                self.settle(&key, &Ok(Published::Later(err.to_string())));
            }
            // The session sees it too, and asks for a new place.
            Err(err @ ClusterError::Fenced { .. }) => {
                self.settle(&key, &Ok(Published::Later(err.to_string())));
            }
            Err(err) => {
                self.counters.refused += 1;
                // Until the next round, or until it is another.
                self.refused.insert(key.clone());
                tracing::error!(key = key.path(), error = %Chain(&err), "the cluster refuses an attachment");
                self.settle(&key, &Err(Refusal::from(&err)));
            }
        }
    }

    /// Tells those who waited for `key`; a refusal or a delay of one is that of all they waited for.
    fn settle(&mut self, key: &EntryKey, outcome: &Result<Published, Refusal>) {
        let mut left = Vec::new();
        for mut waiting in std::mem::take(&mut self.waiting) {
            if !waiting.keys.remove(key) || (*outcome == Ok(Published::Committed) && !waiting.keys.is_empty())
            {
                left.push(waiting);
            } else {
                answer(waiting.reply, outcome.clone());
            }
        }
        self.waiting = left;
    }

    /// The cluster went away: nobody waits for it.
    pub(super) fn later(&mut self, why: &str) {
        for waiting in std::mem::take(&mut self.waiting) {
            answer(waiting.reply, Ok(Published::Later(why.to_owned())));
        }
    }

    pub(super) fn give_up_waiting(&mut self, now: Instant) {
        let (over, left) = std::mem::take(&mut self.waiting).into_iter().partition(|one| one.until <= now);
        self.waiting = left;
        let over: Vec<Waiting> = over;
        for waiting in over {
            let why = format!("the cluster has not said yes for {} s", WAITS.as_secs());
            answer(waiting.reply, Ok(Published::Later(why)));
        }
    }
}

pub(super) fn not_linked(why: &str) -> Refusal {
    Refusal::new(crate::wire::RefusalCode::Away, why)
}
