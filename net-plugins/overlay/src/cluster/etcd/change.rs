//! Changes by transaction: look, decide, write if nothing that was looked at has changed; otherwise look again.
//!
//! What was looked at comes back with a refused transaction, so each further try is one round trip. A first look can be
//! guessed: then a change that nobody contends for is a single transaction, one write of etcd's log. A guess is never a reason to
//! refuse: only what etcd said is. A transaction whose answer was lost is looked for: to have come about is success.

use std::collections::BTreeMap;

use etcd_client::{Client, Compare, CompareOp, DeleteOptions, Error, GetOptions, GetResponse, PutOptions};
use etcd_client::{Txn, TxnOp, TxnOpResponse};
use tokio::time::{Instant, sleep};

use super::session::{Again, Fault, Sessions, call};
use super::{CONTENDED, EtcdCluster};
use crate::cluster::{ClusterError, Revision};

/// What stands under a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) value: Vec<u8>,
    /// When it was written last; 0 if it is not there.
    pub(super) revision: i64,
    pub(super) lease: i64,
}

/// What was seen: keys that are not there are not in it.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    slots: BTreeMap<String, Slot>,
    /// By prefix: how many keys are below it, and the first few.
    ranges: BTreeMap<String, (usize, Vec<String>)>,
}

impl Seen {
    /// What stands under `key`.
    pub(super) fn slot(&self, key: &str) -> Option<&Slot> {
        self.slots.get(key)
    }

    /// The text under `key`.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.slot(key).and_then(|slot| std::str::from_utf8(&slot.value).ok())
    }

    /// How many keys are below `prefix`, and the first few.
    pub(super) fn below(&self, prefix: &str) -> (usize, &[String]) {
        self.ranges.get(prefix).map_or((0, &[]), |(count, some)| (*count, some))
    }

    /// Assumes that `slot` stands under `key`.
    pub(super) fn assume(&mut self, key: String, slot: Slot) {
        self.slots.insert(key, slot);
    }

    fn compares(&self, prefix: &str, question: &Question) -> Vec<Compare> {
        let key = |key: &String| {
            let revision = self.slots.get(key).map_or(0, |slot| slot.revision);
            Compare::mod_revision(format!("{prefix}{key}"), CompareOp::Equal, revision)
        };
        // A range with nothing in it counts as a key that was never created.
        let empty = question.ranges.iter().filter(|range| self.below(range).0 == 0);
        let empty = empty.map(|range| {
            Compare::create_revision(format!("{prefix}{range}"), CompareOp::Equal, 0).with_prefix()
        });
        question.keys.iter().map(key).chain(empty).collect()
    }
}

/// What a decision needs to know. What is written may depend on nothing else.
#[derive(Debug, Clone, Default)]
pub(super) struct Question {
    pub(super) keys: Vec<String>,
    /// Prefixes below which there may have to be nothing.
    pub(super) ranges: Vec<String>,
    /// What is probably there.
    pub(super) guess: Option<Seen>,
}

/// A step of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Op {
    Put(String, Vec<u8>),
    PutLeased(String, Vec<u8>, i64),
    Delete(String),
    DeleteBelow(String),
}

/// What to do about what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is as it should be.
    Done,
    Write(Vec<Op>),
}

/// What a transaction came to.
enum Outcome {
    Written(i64),
    /// Something is other than was seen.
    Stale(Seen),
}

impl EtcdCluster {
    /// Decides about `question` and writes, until what was decided about is what is there. Answers what was seen, and at which
    /// revision it was written, if it was.
    pub(super) async fn change(
        &self,
        mut question: Question,
        decide: impl Fn(&Seen) -> Result<Decision, ClusterError> + Send,
    ) -> Result<(Seen, Option<Revision>), ClusterError> {
        let error = |fault| self.sessions.error(fault);
        let until = Instant::now() + CONTENDED;
        let mut guess = question.guess.take();
        let mut tries = 0;
        let mut seen = match guess.take_if(|guess| decide(guess).is_ok()) {
            Some(guess) => guess,
            None => look(&self.sessions, &question).await.map_err(error)?,
        };
        loop {
            let Decision::Write(ops) = decide(&seen)? else { return Ok((seen, None)) };
            match write(&self.sessions, &question, &seen, &ops).await {
                Ok(Outcome::Written(revision)) => return Ok((seen, Some(Revision(revision)))),
                Ok(Outcome::Stale(now)) => seen = now,
                // Whether it was written is not known: what is there now tells.
                Err(Fault::Away(why)) if tries == 0 => {
                    tracing::debug!(why, "the answer to a transaction was lost");
                    seen = look(&self.sessions, &question).await.map_err(error)?;
                }
                Err(fault) => return Err(error(fault)),
            }
            tries += 1;
            if Instant::now() > until {
                let why = format!("others changed the same records {tries} times meanwhile");
                return Err(error(Fault::Away(why)));
            }
            if tries > 2 {
                // Those who contend come apart.
                sleep(std::time::Duration::from_millis(u64::from(jitter()) % (4 * tries))).await;
            }
        }
    }
}

/// A number that differs between processes that fail together.
fn jitter() -> u32 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.subsec_micros())
}

fn reads(prefix: &str, question: &Question) -> Vec<TxnOp> {
    let keys = question.keys.iter().map(|key| TxnOp::get(format!("{prefix}{key}"), None));
    let ranges = question.ranges.iter().map(|range| {
        let options = GetOptions::new().with_prefix().with_keys_only().with_limit(4);
        TxnOp::get(format!("{prefix}{range}"), Some(options))
    });
    keys.chain(ranges).collect()
}

async fn look(sessions: &Sessions, question: &Question) -> Result<Seen, Fault> {
    let read = |mut client: Client| async move {
        let txn = Txn::new().and_then(reads(sessions.prefix(), question));
        let answer = client.txn(txn).await?;
        Ok::<_, Error>(seen_in(sessions.prefix(), question, answer.op_responses()))
    };
    call(sessions, Again::Yes, read).await
}

async fn write(sessions: &Sessions, question: &Question, seen: &Seen, ops: &[Op]) -> Result<Outcome, Fault> {
    let prefix = sessions.prefix();
    let run = |mut client: Client| async move {
        let ops: Vec<TxnOp> = ops.iter().map(|op| op.request(prefix)).collect();
        let txn =
            Txn::new().when(seen.compares(prefix, question)).and_then(ops).or_else(reads(prefix, question));
        let answer = client.txn(txn).await?;
        if answer.succeeded() {
            return Ok::<_, Error>(Outcome::Written(answer.header().map_or(0, |header| header.revision())));
        }
        Ok(Outcome::Stale(seen_in(prefix, question, answer.op_responses())))
    };
    call(sessions, Again::No, run).await
}

fn seen_in(prefix: &str, question: &Question, answers: Vec<TxnOpResponse>) -> Seen {
    let mut gets = answers.into_iter().filter_map(|answer| match answer {
        TxnOpResponse::Get(get) => Some(get),
        _ => None,
    });
    let mut seen = Seen::default();
    for (key, get) in question.keys.iter().zip(gets.by_ref()) {
        if let Some(kv) = get.kvs().first() {
            let slot = Slot { value: kv.value().to_vec(), revision: kv.mod_revision(), lease: kv.lease() };
            seen.slots.insert(key.clone(), slot);
        }
    }
    for (range, get) in question.ranges.iter().zip(gets) {
        let count = usize::try_from(get.count()).unwrap_or(0);
        seen.ranges.insert(range.clone(), (count, names(prefix, &get)));
    }
    seen
}

fn names(prefix: &str, get: &GetResponse) -> Vec<String> {
    let name = |kv: &etcd_client::KeyValue| {
        let key = String::from_utf8_lossy(kv.key()).into_owned();
        key.strip_prefix(prefix).map(str::to_owned).unwrap_or(key)
    };
    get.kvs().iter().map(name).collect()
}

impl Op {
    fn request(&self, prefix: &str) -> TxnOp {
        match self {
            Self::Put(key, value) => TxnOp::put(format!("{prefix}{key}"), value.clone(), None),
            Self::PutLeased(key, value, lease) => {
                let options = PutOptions::new().with_lease(*lease);
                TxnOp::put(format!("{prefix}{key}"), value.clone(), Some(options))
            }
            Self::Delete(key) => TxnOp::delete(format!("{prefix}{key}"), None),
            Self::DeleteBelow(below) => {
                let options = DeleteOptions::new().with_prefix();
                TxnOp::delete(format!("{prefix}{below}"), Some(options))
            }
        }
    }
}
