//! Which answers may be kept, for how long, and what of them.

use std::time::Duration;

use super::{LONGEST, LONGEST_NEGATIVE, write_truncated};
use crate::wire::message::{Record, Section, name_at, records};
use crate::wire::{Query, below, kind, put, rcode, u16_at, u32_at};

/// An answer as it is kept: without number and question, which are those of whoever asks, without the records that were not
/// asked for, and without the options of EDNS, which were for one client.
#[derive(Debug)]
pub(crate) struct Kept {
    flags: u16,
    /// Numbers of records in the three sections.
    counts: [u16; 3],
    /// What follows the question.
    tail: Box<[u8]>,
    /// Where in the tail lifetimes are.
    ttls: Box<[u16]>,
    /// How long it may be used.
    pub(crate) lifetime: Duration,
}

impl Kept {
    /// What of `answer` to `query` is kept, if it may be.
    pub(crate) fn of(query: &Query, answer: &[u8]) -> Option<Self> {
        let flags = u16_at(answer, 2)?;
        let code = u8::try_from(flags & 0xf).ok()?;
        // No answer, cut off, or a failure that may be over in a moment.
        if flags & 0x8200 != 0x8000 || !matches!(code, rcode::NOERROR | rcode::NXDOMAIN) {
            return None;
        }
        let mut reading = Reading { names: vec![query.name().to_vec()], ..Reading::default() };
        for record in records(answer, query.end) {
            let (section, record) = record?;
            reading.take(query, answer, section, record)?;
        }
        let Reading { end, opt, answered, shortest, negative, ttls, .. } = reading;
        let seconds = if answered && code == rcode::NOERROR { shortest? } else { negative?.min(shortest?) };
        let longest = if answered { LONGEST } else { LONGEST_NEGATIVE };
        let lifetime = Duration::from_secs(u64::from(seconds)).min(longest);
        if lifetime.is_zero() {
            return None;
        }
        let mut tail = answer.get(query.end..end.max(query.end))?.to_vec();
        if let Some(opt) = opt {
            tail.extend_from_slice(answer.get(opt.start..opt.data - 2)?);
            tail.extend([0, 0]);
        }
        let counts = [u16_at(answer, 6)?, u16_at(answer, 8)?, u16::from(opt.is_some())];
        let offset = |at: usize| u16::try_from(at - query.end).ok();
        let ttls = ttls.into_iter().map(offset).collect::<Option<Box<[u16]>>>()?;
        Some(Self { flags, counts, tail: tail.into(), ttls, lifetime })
    }

    /// How much memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.tail.len() + 2 * self.ttls.len()
    }

    /// Writes it over the question in `buffer`, with `limit` bytes at most, `age` seconds after it came. Returns its length.
    pub(crate) fn write(&self, query: &Query, buffer: &mut [u8], limit: usize, age: u32) -> usize {
        let end = query.end + self.tail.len();
        let room = buffer.get_mut(query.end..end).filter(|_| end <= limit);
        let Some(room) = room else { return write_truncated(query, buffer, self.flags) };
        room.copy_from_slice(&self.tail);
        for at in &self.ttls {
            let at = usize::from(*at);
            let left = u32_at(room, at).unwrap_or(0).saturating_sub(age);
            put(room, at, &left.to_be_bytes());
        }
        put(buffer, 2, &self.flags.to_be_bytes());
        put(buffer, 4, &[0, 1]);
        for (at, count) in [6, 8, 10].into_iter().zip(self.counts) {
            put(buffer, at, &count.to_be_bytes());
        }
        end
    }
}

/// What was seen of an answer so far.
#[derive(Default)]
struct Reading {
    /// The name asked for and those it is another name of.
    names: Vec<Vec<u8>>,
    /// Where the last record ends that is kept.
    end: usize,
    opt: Option<Record>,
    /// Whether there is a record of the type asked for.
    answered: bool,
    shortest: Option<u32>,
    /// How long it may be believed that there is none.
    negative: Option<u32>,
    ttls: Vec<usize>,
}

/// More names for one thing than any honest answer has.
const CHAIN: usize = 16;

impl Reading {
    /// Takes note of a record. Nothing, where it does not belong into an answer to the question: then nothing of it is kept.
    fn take(&mut self, query: &Query, answer: &[u8], section: Section, record: Record) -> Option<()> {
        let owner = name_at(answer, record.start)?;
        match section {
            Section::Answer => self.take_answer(query, answer, record, &owner)?,
            Section::Authority => self.take_authority(answer, record, &owner)?,
            Section::Additional => {
                if record.kind == kind::OPT && owner.is_empty() && self.opt.is_none() {
                    self.opt = Some(record);
                }
                return Some(());
            }
        }
        // The upper half of the numbers means 0 (RFC 2181, section 8).
        let ttl = if record.ttl > i32::MAX.unsigned_abs() { 0 } else { record.ttl };
        self.shortest = Some(self.shortest.map_or(ttl, |shortest| shortest.min(ttl)));
        self.ttls.push(record.data - 6);
        self.end = record.end;
        Some(())
    }

    /// An answer's records are of the name asked for, or of one that it leads to.
    fn take_answer(&mut self, query: &Query, answer: &[u8], record: Record, owner: &[u8]) -> Option<()> {
        let of_chain = self.names.iter().any(|name| name == owner);
        if record.kind == kind::DNAME || (record.kind == kind::RRSIG && !of_chain) {
            // Its owner is above the name, and the CNAME made of it follows.
            return self.names.iter().any(|name| below(name, owner).is_some()).then_some(());
        }
        if !of_chain {
            return None;
        }
        if record.kind == query.kind || query.kind == kind::ANY {
            self.answered = true;
        } else if record.kind == kind::CNAME {
            self.names.push(name_at(answer, record.data)?);
        }
        (self.names.len() <= CHAIN).then_some(())
    }

    /// What follows an answer is about a zone that the name is in; proofs of absence are about names beside it.
    fn take_authority(&mut self, answer: &[u8], record: Record, owner: &[u8]) -> Option<()> {
        let above = self.names.iter().any(|name| below(name, owner).is_some());
        match record.kind {
            kind::SOA if above => {
                let minimum = u32_at(answer, record.end.checked_sub(4)?)?;
                self.negative = Some(record.ttl.min(minimum));
                Some(())
            }
            kind::SOA | kind::NS => above.then_some(()),
            // NSEC, NSEC3, DS and their signatures.
            _ => Some(()),
        }
    }
}
