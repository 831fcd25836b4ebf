//! Batches: changes of elements that the kernel takes all or none.

use std::collections::BTreeSet;
use std::fmt;
use std::io;

use crate::element::Element;
use crate::kernel::{Ack, Script, elements, mark_entry, msg};
use crate::lower::{Entry, lower};
use crate::ruleset::marker_set;
use crate::schema::Table;
use crate::socket::{Answers, NftSocket, SocketError};
use crate::wire::NLM_F_CREATE;

/// How often a batch is sent again when the kernel asks for that. Each try is a transaction of its own.
const TRIES: u32 = 8;

/// The element of the marker set that every batch adds again.
pub(crate) const LAID: u32 = 0;

/// Changes of elements, applied by [`NftSocket::commit`] in the order they were put in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    changes: Vec<Change>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    verb: Verb,
    element: Element,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Add,
    Remove,
}

impl Batch {
    /// A batch without changes. Committing it checks that the ruleset is laid.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `element`. It is no error when it is there already, exactly as it is.
    pub fn add(&mut self, element: Element) {
        self.changes.push(Change { verb: Verb::Add, element });
    }

    /// Removes `element`. It is no error when it is not there.
    ///
    /// A published port is removed only from its owner: when another owner has it, or it leads elsewhere, the commit
    /// fails and nothing of the batch happens.
    pub fn remove(&mut self, element: Element) {
        self.changes.push(Change { verb: Verb::Remove, element });
    }

    /// Number of changes.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether there are no changes.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The batch that takes this one back: the inverse of each change, newest first.
    pub fn inverse(&self) -> Self {
        let changes = self.changes.iter().rev().map(|Change { verb, element }| {
            let verb = match verb {
                Verb::Add => Verb::Remove,
                Verb::Remove => Verb::Add,
            };
            Change { verb, element: element.clone() }
        });
        Self { changes: changes.collect() }
    }
}

/// One line per change.
impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Change { verb, element }) in self.changes.iter().enumerate() {
            let verb = match verb {
                Verb::Add => "add",
                Verb::Remove => "remove",
            };
            write!(f, "{}{verb} {element}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

/// Why nothing of a batch was applied.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The ruleset is missing, or it is another version's: lay it with [`crate::lay`], then add all elements again.
    #[error("berth's nftables ruleset is not laid")]
    NoRuleset,
    /// The published port is taken: its host port has another owner, or leads elsewhere.
    #[error("{element} is taken already")]
    Exists {
        /// The element that was to be added.
        element: Box<Element>,
    },
    /// The subnet or range overlaps one that is there.
    #[error("{element} overlaps another")]
    Overlaps {
        /// The element that was to be added.
        element: Box<Element>,
    },
    /// The published port is not the given owner's, so it was not removed.
    #[error("{element} belongs to another owner")]
    OtherOwner {
        /// The element that was to be removed.
        element: Box<Element>,
    },
    /// The element cannot be.
    #[error("{element}: {reason}")]
    Invalid {
        /// The element.
        element: Box<Element>,
        /// What contradicts itself.
        reason: &'static str,
    },
    /// The kernel refused an element.
    #[error("the kernel refused {element}")]
    Element {
        /// The element.
        element: Box<Element>,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refused the batch as a whole.
    #[error("the kernel refused a batch of nf_tables")]
    Batch {
        /// Why. `EPERM`: `CAP_NET_ADMIN` is missing.
        #[source]
        source: io::Error,
    },
    /// The kernel asked for another try too often.
    #[error("nf_tables stayed busy for {TRIES} tries")]
    Busy {
        /// What it said last.
        #[source]
        source: io::Error,
    },
    /// The kernel could not be talked to.
    #[error(transparent)]
    Socket(#[from] SocketError),
}

/// An entry and the change it belongs to.
struct Part<'a> {
    index: usize,
    change: &'a Change,
    entry: Entry,
}

/// What to do after a try that did not succeed.
enum Verdict {
    Fail(CommitError),
    Again(io::Error),
    /// This removal has nothing to remove.
    Without(usize),
}

impl NftSocket {
    /// Applies `batch` as one transaction: all of it, or on error nothing.
    pub fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        let parts = batch.parts()?;
        let mut without = BTreeSet::new();
        let mut last = io::Error::from_raw_os_error(libc::EBUSY);
        let mut tries = 0;
        while tries < TRIES {
            let parts: Vec<_> = parts.iter().filter(|part| !without.contains(&part.index)).collect();
            match self.try_commit(&parts)? {
                None => return Ok(()),
                Some(Verdict::Fail(err)) => return Err(err),
                // Each takes one change out, so there is an end to it.
                Some(Verdict::Without(index)) => _ = without.insert(index),
                Some(Verdict::Again(source)) => {
                    tracing::debug!(%source, tries, "nf_tables asks for another try");
                    (last, tries) = (source, tries + 1);
                }
            }
        }
        Err(CommitError::Busy { source: last })
    }

    fn try_commit(&mut self, parts: &[&Part<'_>]) -> Result<Option<Verdict>, CommitError> {
        let messages = parts.iter().map(|part| part.messages()).sum::<u32>();
        let first = self.sequence(messages + 3);
        let mut script = Script::begin(first);
        // Its answer tells that the ruleset is laid, and being there at all tells that no answer was lost.
        let marker = script.push(Table::Inet, msg::NEWSETELEM, NLM_F_CREATE, Ack::Success, |attrs| {
            elements(attrs, marker_set().name, Some(&mark_entry(marker_set(), LAID)));
        });
        let mut owners = Vec::with_capacity(parts.len() * 2);
        for part in parts {
            owners.push((script.entry(msg::NEWSETELEM, NLM_F_CREATE, &part.entry), part));
            if part.change.verb == Verb::Remove {
                owners.push((script.entry(msg::DELSETELEM, 0, &part.entry), part));
            }
        }
        let script = script.end();
        let answers = self.exchange(&script.writer, script.message_count())?;
        Ok(judge(&answers, marker, |seq| {
            let at = owners.binary_search_by_key(&seq, |(seq, _)| *seq).ok()?;
            owners.get(at).map(|(_, part)| **part)
        }))
    }
}

/// Reads the answers: the marker's first, then the first message's that failed.
fn judge<'a>(
    answers: &Answers,
    marker: u32,
    part_of: impl Fn(u32) -> Option<&'a Part<'a>>,
) -> Option<Verdict> {
    let marked = answers.by_seq.get(&marker).copied();
    if marked == Some(libc::ENOENT) {
        return Some(Verdict::Fail(CommitError::NoRuleset));
    }
    let Some((seq, errno)) = answers.by_seq.iter().find(|(_, errno)| **errno != 0) else {
        let lost = || Verdict::Again(io::Error::from_raw_os_error(libc::ENOBUFS));
        return if marked == Some(0) { None } else { Some(lost()) };
    };
    let source = io::Error::from_raw_os_error(*errno);
    if is_temporary(*errno) {
        return Some(Verdict::Again(source));
    }
    Some(match part_of(*seq) {
        None => Verdict::Fail(CommitError::Batch { source }),
        Some(part) => part.refused(*errno, source),
    })
}

/// Errors of the moment: another transaction was in between, or memory or buffers were short.
pub(crate) fn is_temporary(errno: i32) -> bool {
    matches!(errno, libc::EBUSY | libc::ERESTART | libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM)
}

impl Batch {
    fn parts(&self) -> Result<Vec<Part<'_>>, CommitError> {
        let mut parts = Vec::with_capacity(self.changes.len());
        for (index, change) in self.changes.iter().enumerate() {
            let entries = lower(&change.element).map_err(|reason| CommitError::Invalid {
                element: Box::new(change.element.clone()),
                reason,
            })?;
            parts.extend(entries.into_iter().map(|entry| Part { index, change, entry }));
        }
        Ok(parts)
    }
}

impl Part<'_> {
    /// Adding first makes a removal that finds nothing no error, and one that finds other data fail.
    fn messages(&self) -> u32 {
        match self.change.verb {
            Verb::Add => 1,
            Verb::Remove => 2,
        }
    }

    fn refused(&self, errno: i32, source: io::Error) -> Verdict {
        let element = Box::new(self.change.element.clone());
        let is_map = self.entry.data.is_some();
        match (errno, self.change.verb) {
            // The marker is there and a set is not: somebody took it away.
            (libc::ENOENT, _) => Verdict::Fail(CommitError::NoRuleset),
            (libc::EEXIST, Verb::Add) if is_map => Verdict::Fail(CommitError::Exists { element }),
            (libc::EEXIST, Verb::Add) => Verdict::Fail(CommitError::Overlaps { element }),
            (libc::EEXIST, Verb::Remove) if is_map => Verdict::Fail(CommitError::OtherOwner { element }),
            // What overlaps another range is not there itself.
            (libc::EEXIST, Verb::Remove) => Verdict::Without(self.index),
            _ => Verdict::Fail(CommitError::Element { element, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_types::IfName;

    #[test]
    fn a_batch_prints_and_inverts() {
        let mut batch = Batch::new();
        batch.add(Element::Bridge(IfName::new("br0").unwrap()));
        batch.remove(Element::VxlanPort(4789));
        assert_eq!(batch.to_string(), "add bridge br0\nremove VXLAN port 4789");
        assert_eq!(batch.inverse().to_string(), "add VXLAN port 4789\nremove bridge br0");
        assert_eq!(batch.inverse().inverse(), batch);
        assert_eq!((batch.len(), batch.is_empty()), (2, false));
    }

    #[test]
    fn answers_are_judged_by_their_meaning() {
        let answers = |list: &[(u32, i32)]| Answers { by_seq: list.iter().copied().collect(), lost: false };
        let judged = |list: &[(u32, i32)]| judge(&answers(list), 2, |_| None);
        assert!(judged(&[(2, 0)]).is_none());
        assert!(matches!(
            judged(&[(2, libc::ENOENT), (3, libc::ENOENT)]),
            Some(Verdict::Fail(CommitError::NoRuleset))
        ));
        assert!(matches!(judged(&[]), Some(Verdict::Again(_))));
        assert!(matches!(judged(&[(1, libc::ERESTART)]), Some(Verdict::Again(_))));
        assert!(matches!(judged(&[(1, libc::EPERM)]), Some(Verdict::Fail(CommitError::Batch { .. }))));
    }
}
