//! Batches: changes of elements that the kernel takes all or none.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;

use crate::element::Element;
use crate::kernel::{Ack, Script, elements, mark_entry, msg};
use crate::lower::{Entry, lower};
use crate::read;
use crate::ruleset::marker_set;
use crate::schema::{SetDef, Table};
use crate::socket::{Answers, NftSocket, SocketError};
use crate::span::{Clash, Spans};
use crate::wire::NLM_F_CREATE;

/// How often a batch is sent again when the kernel asks for that. Each try is a transaction of its own.
const TRIES: u32 = 8;
/// How often a batch with ranges begins again because others changed the ruleset. A try takes some 0.2 ms, and each
/// that fails means that another one got through.
const RESTARTS: u32 = 1000;

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
    change: &'a Change,
    entry: Entry,
}

/// What to do after a try that did not succeed.
enum Verdict {
    Fail(CommitError),
    Again(io::Error),
}

/// One message about an entry, and the change to name when it is refused.
struct Message<'a> {
    kind: u16,
    entry: Cow<'a, Entry>,
    change: Option<&'a Change>,
}

impl NftSocket {
    /// Applies `batch` as one transaction: all of it, or on error nothing.
    ///
    /// A batch with ranges (subnets, ranges of ports) first reads the sets they belong to, and is tried again when the
    /// ruleset changed in between.
    pub fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        let parts = batch.parts()?;
        let ranged: BTreeMap<_, _> = parts
            .iter()
            .filter(|part| part.entry.set.interval)
            .map(|part| (part.entry.set.name, part.entry.set))
            .collect();
        let mut last = io::Error::from_raw_os_error(libc::EBUSY);
        let (mut tries, mut restarts) = (0, 0);
        let mut packing = Packing::Dense;
        while tries < TRIES && restarts < RESTARTS {
            let (generation, spans) = self.spans(ranged.values().copied())?;
            let messages = match messages(&parts, &spans) {
                // What was read while another transaction was applied may be half of it, so it proves nothing.
                Err(_) if read::generation(self)? != generation => {
                    restarts += 1;
                    continue;
                }
                result => result?,
            };
            let packets = packing.pack(&messages);
            match self.try_commit(&packets, generation)? {
                None => return Ok(()),
                // One of several elements in a message: each in its own tells which.
                Some(Verdict::Fail(CommitError::Batch { .. })) if packets.len() < messages.len() => {
                    packing = Packing::Single;
                }
                Some(Verdict::Fail(err)) => return Err(err),
                Some(Verdict::Again(source)) => {
                    let restart = source.raw_os_error() == Some(libc::ERESTART);
                    *(if restart { &mut restarts } else { &mut tries }) += 1;
                    tracing::trace!(%source, tries, restarts, "nf_tables asks for another try");
                    last = source;
                }
            }
        }
        Err(CommitError::Busy { source: last })
    }

    /// The ranges of `sets`, and the generation they were read in if there are any.
    fn spans(
        &mut self,
        sets: impl ExactSizeIterator<Item = &'static SetDef>,
    ) -> Result<(Option<u32>, Spans), CommitError> {
        let mut spans = Spans::default();
        if sets.len() == 0 {
            return Ok((None, spans));
        }
        let generation = read::generation(self)?;
        for set in sets {
            match read::spans(self, set) {
                Ok(entries) => spans.insert(set, entries),
                Err(err) if err.errno() == Some(libc::ENOENT) => return Err(CommitError::NoRuleset),
                Err(err) => return Err(err.into()),
            }
        }
        Ok((generation, spans))
    }

    fn try_commit(
        &mut self,
        packets: &[Packet<'_>],
        generation: Option<u32>,
    ) -> Result<Option<Verdict>, CommitError> {
        let count = u32::try_from(packets.len()).unwrap_or(u32::MAX).saturating_add(3);
        let mut script = Script::begin(self.sequence(count), generation);
        // Its answer tells that the ruleset is laid, and being there at all tells that no answer was lost.
        let marker = script.push(Table::Inet, msg::NEWSETELEM, NLM_F_CREATE, Ack::Success, |attrs| {
            elements(attrs, marker_set().name, [&mark_entry(marker_set(), LAID)]);
        });
        for Packet { kind, set, messages } in packets {
            let flags = if *kind == msg::NEWSETELEM { NLM_F_CREATE } else { 0 };
            script.entries(*kind, flags, set, messages.iter().map(|message| &*message.entry));
        }
        let script = script.end();
        let answers = self.exchange(&script.writer, script.message_count())?;
        Ok(judge(&answers, marker, |seq| {
            let after_marker = usize::try_from(seq.checked_sub(marker + 1)?).ok()?;
            match packets.get(after_marker)?.messages.as_slice() {
                [message] => Some(*message),
                _ => None,
            }
        }))
    }
}

/// The messages that do what `parts` say, given the ranges that are there. Removed ranges come first: they make room.
fn messages<'a>(parts: &'a [Part<'a>], spans: &Spans) -> Result<Vec<Message<'a>>, CommitError> {
    let mut after = spans.clone();
    let mut singles = Vec::with_capacity(parts.len() * 2);
    for Part { change, entry } in parts {
        if entry.set.interval {
            let result = match change.verb {
                Verb::Add => after.add(entry),
                Verb::Remove => after.remove(entry),
            };
            result.map_err(|clash| change.clashes(clash, entry.data.is_some()))?;
            continue;
        }
        // Adding first makes a removal that finds nothing no error, and one that finds other data fail.
        let kinds: &[u16] = match change.verb {
            Verb::Add => &[msg::NEWSETELEM],
            Verb::Remove => &[msg::NEWSETELEM, msg::DELSETELEM],
        };
        singles.extend(kinds.iter().map(|kind| Message {
            kind: *kind,
            entry: Cow::Borrowed(entry),
            change: Some(change),
        }));
    }
    let change_of =
        |entry: &Entry| parts.iter().rev().find(|part| part.entry == *entry).map(|part| part.change);
    let ranged = |kind, entries: Vec<Entry>| {
        entries.into_iter().map(move |entry| {
            let change = change_of(&entry);
            Message { kind, entry: Cow::Owned(entry), change }
        })
    };
    let mut messages: Vec<_> = ranged(msg::DELSETELEM, spans.without(&after)).collect();
    messages.append(&mut singles);
    messages.extend(ranged(msg::NEWSETELEM, after.without(spans)));
    Ok(messages)
}

/// How messages are put into netlink messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    /// Elements of one set together: the kernel looks up table and set once.
    Dense,
    /// Each alone, so that the one that is refused can be named.
    Single,
}

/// A netlink message: what happens to elements of one set.
struct Packet<'a> {
    kind: u16,
    set: &'static SetDef,
    messages: Vec<&'a Message<'a>>,
}

/// So many elements fit a netlink attribute, whose length is 16 bits, by far.
const DENSEST: usize = 256;

impl Packing {
    /// Packs `messages` so that they mean the same. Of changes in a row that all add or all remove, the order does not
    /// matter, except that what is removed is added first.
    fn pack<'a>(self, messages: &'a [Message<'a>]) -> Vec<Packet<'a>> {
        let alike = |one: &Message<'_>, next: &Message<'_>| {
            let verb = |message: &Message<'_>| message.change.map(|change| change.verb);
            let ranged = one.entry.set.interval || next.entry.set.interval;
            self == Self::Dense && !ranged && verb(one) == verb(next)
        };
        messages.chunk_by(alike).flat_map(pack_run).collect()
    }
}

fn pack_run<'a>(run: &'a [Message<'a>]) -> Vec<Packet<'a>> {
    let mut packets: Vec<Packet<'a>> = Vec::new();
    for kind in [msg::NEWSETELEM, msg::DELSETELEM] {
        let mut seen = BTreeSet::new();
        let first = packets.len();
        for message in run.iter().filter(|message| message.kind == kind) {
            let set = message.entry.set;
            // Nothing can be removed twice.
            if run.len() > 1 && !seen.insert((set.name, &message.entry.key, &message.entry.data)) {
                continue;
            }
            let fits =
                |packet: &&mut Packet<'_>| same_set(packet.set, set) && packet.messages.len() < DENSEST;
            match packets.iter_mut().skip(first).find(fits) {
                Some(packet) => packet.messages.push(message),
                None => packets.push(Packet { kind, set, messages: vec![message] }),
            }
        }
    }
    packets
}

fn same_set(one: &SetDef, other: &SetDef) -> bool {
    (one.table, one.name) == (other.table, other.name)
}

/// Reads the answers: the marker's first, then the first message's that failed.
fn judge<'a>(
    answers: &Answers,
    marker: u32,
    message_of: impl Fn(u32) -> Option<&'a Message<'a>>,
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
    Some(Verdict::Fail(match message_of(*seq).and_then(|message| Some((message, message.change?))) {
        None => CommitError::Batch { source },
        Some((message, change)) => change.refused(*errno, source, message.entry.data.is_some()),
    }))
}

/// Errors of the moment: another transaction was in between, or memory or buffers were short.
pub(crate) fn is_temporary(errno: i32) -> bool {
    matches!(errno, libc::EBUSY | libc::ERESTART | libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM)
}

impl Batch {
    fn parts(&self) -> Result<Vec<Part<'_>>, CommitError> {
        let mut parts = Vec::with_capacity(self.changes.len());
        for change in &self.changes {
            let entries = lower(&change.element).map_err(|reason| CommitError::Invalid {
                element: Box::new(change.element.clone()),
                reason,
            })?;
            parts.extend(entries.into_iter().map(|entry| Part { change, entry }));
        }
        Ok(parts)
    }
}

impl Change {
    /// What the kernel's error number means for this change.
    fn refused(&self, errno: i32, source: io::Error, is_map: bool) -> CommitError {
        match errno {
            // The marker is there and a set is not: somebody took it away.
            libc::ENOENT => CommitError::NoRuleset,
            libc::EEXIST => self.clashes(if is_map { Clash::OtherData } else { Clash::Overlap }, is_map),
            _ => CommitError::Element { element: Box::new(self.element.clone()), source },
        }
    }

    fn clashes(&self, clash: Clash, is_map: bool) -> CommitError {
        let element = Box::new(self.element.clone());
        match (self.verb, clash) {
            (Verb::Remove, _) => CommitError::OtherOwner { element },
            (Verb::Add, Clash::Overlap) if !is_map => CommitError::Overlaps { element },
            (Verb::Add, _) => CommitError::Exists { element },
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

    /// The kinds and elements of the packets, by name of set.
    fn packed(batch: &Batch, packing: Packing) -> Vec<(u16, &'static str, usize)> {
        let parts = batch.parts().unwrap();
        let messages = messages(&parts, &Spans::default()).unwrap();
        let packets = packing.pack(&messages);
        packets.iter().map(|packet| (packet.kind, packet.set.name, packet.messages.len())).collect()
    }

    #[test]
    fn elements_of_one_set_share_a_message_and_what_is_removed_is_added_first() {
        let bridge = |name: &str| Element::Bridge(IfName::new(name).unwrap());
        let mut batch = Batch::new();
        for name in ["a", "b", "c"] {
            batch.add(bridge(name));
            batch.add(Element::Internal(IfName::new(name).unwrap()));
        }
        // Twice the same: the second could not be removed.
        for name in ["d", "e", "d"] {
            batch.remove(bridge(name));
        }
        let (new, del) = (msg::NEWSETELEM, msg::DELSETELEM);
        assert_eq!(
            packed(&batch, Packing::Dense),
            [(new, "bridges", 3), (new, "internal", 3), (new, "bridges", 2), (del, "bridges", 2)]
        );
        assert_eq!(packed(&batch, Packing::Single).len(), 6 + 2 * 3);
    }

    #[test]
    fn a_message_holds_a_bounded_number_of_elements() {
        let mut batch = Batch::new();
        (1..=1000).for_each(|port| batch.add(Element::VxlanPort(port)));
        assert_eq!(
            packed(&batch, Packing::Dense).iter().map(|packet| packet.2).collect::<Vec<_>>(),
            [256, 256, 256, 232]
        );
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
