//! Attachments whose names come soon: they are published with them, so that the cluster is written to once.
//!
//! Docker tells a network driver no names; they are learned of its API a moment after the endpoint was made, before its container's
//! program begins. Whether the cluster would have the attachment is asked at once all the same, by a read, so that an address
//! of another's is refused to whoever makes the attachment. Names that do not come are waited for only so long.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_core::Chain;
use berth_store::unix_ms;

use super::AgentError;
use super::command::Reply;
use super::publishing::WAITS;
use super::state::{Agent, answer};
use crate::cluster::{ClusterError, EntryKey};
use crate::model::OverlayAttachment;
use crate::wire::{Changed, Refusal};

/// How long names are waited for. dockerd tells them some ten milliseconds after the endpoint was made, and later when it
/// starts several containers at once.
pub(super) const NAMES: Duration = Duration::from_secs(1);

/// What the cluster would say of attachments, and who asked.
pub(super) struct Checked {
    keys: BTreeSet<EntryKey>,
    refusal: Option<ClusterError>,
    reply: Reply<()>,
}

impl Agent {
    /// Records were made that are to be published with their names. Answers whether the cluster would have them; where it does
    /// not say, that it would.
    pub(super) async fn nameless(&mut self, changed: Changed, reply: Reply<()>) -> Result<(), AgentError> {
        let keys = match self.take_up(changed).await? {
            Ok(keys) => keys,
            Err(refusal) => {
                answer(reply, Err(refusal));
                return Ok(());
            }
        };
        let Some(link) = self.link.as_ref().filter(|_| self.cannot_write().is_none()) else {
            answer(reply, Ok(()));
            return Ok(());
        };
        let generation = self.view.next_generation(unix_ms().unsigned_abs());
        let made = keys.iter().filter_map(|key| self.wanted.get(key));
        let made: Vec<_> = made.map(|one| OverlayAttachment { generation, ..one.clone() }).collect();
        let until = Instant::now() + NAMES;
        self.nameless.extend(made.iter().map(|one| (one.key(), until)));
        let cluster = Arc::clone(&link.cluster);
        self.checks.spawn(async move {
            let asked = async {
                for one in &made {
                    cluster.check_attachment(one).await?;
                }
                Ok(())
            };
            let refusal = match tokio::time::timeout(WAITS, asked).await {
                // What the cluster does not say now, it says when it is written.
                Err(_) | Ok(Ok(()) | Err(ClusterError::Away { .. } | ClusterError::Fenced { .. })) => None,
                Ok(Err(err)) => Some(err),
            };
            Checked { keys, refusal, reply }
        });
        self.tend_soon();
        Ok(())
    }

    /// The cluster has said whether it would have attachments.
    pub(super) fn checked(&mut self, Checked { keys, refusal, reply }: Checked) {
        let Some(err) = refusal else {
            answer(reply, Ok(()));
            return;
        };
        self.counters.refused += 1;
        for key in keys {
            self.nameless.remove(&key);
            tracing::error!(key = key.path(), error = %Chain(&err), "the cluster refuses an attachment");
            // Until the next round, or until it is another.
            self.refused.insert(key);
        }
        answer(reply, Err(Refusal::from(&err)));
    }

    /// Publishes what has waited for its names long enough.
    pub(super) fn publish_nameless(&mut self, now: Instant) {
        let over = self.nameless.iter().filter(|(_, until)| **until <= now);
        let over: BTreeSet<EntryKey> = over.map(|(key, _)| key.clone()).collect();
        self.nameless.retain(|key, _| !over.contains(key));
        if !over.is_empty() {
            self.publish(Some(&over));
        }
    }
}
