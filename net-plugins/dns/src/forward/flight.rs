//! One question on its way.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::jobs::{Job, Waiter};
use super::pool::Ticket;
use crate::cache::Key;
use crate::wire::{HEADER, Query, kind, message, rcode, u16_at};

/// When a server that did not answer is asked again, once all were asked.
const AGAIN: Duration = Duration::from_secs(1);

/// A question on its way, and who waits for it.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) message: Vec<u8>,
    pub(crate) query: Query,
    pub(crate) key: Option<Key>,
    pub(crate) waiters: Vec<Waiter>,
    pub(crate) asked: Vec<Asked>,
    /// Servers in the order to ask them; those that cannot help are taken out.
    pub(crate) order: Vec<SocketAddr>,
    next: usize,
    /// When something is to be done if nothing comes.
    pub(crate) wake: Instant,
    pub(crate) deadline: Instant,
    /// An answer that says that the server failed, for want of a better one.
    pub(crate) failure: Option<Vec<u8>>,
    /// Whether a server could not even be reached.
    pub(crate) unreachable: bool,
}

/// A message that was sent for a flight.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) server: SocketAddr,
    pub(crate) ticket: Ticket,
    pub(crate) at: Instant,
    pub(crate) answered: bool,
}

/// What an answer is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Worth {
    /// It is the answer.
    Answer,
    /// It is the beginning of it.
    CutOff,
    /// Another server may know better.
    Failure,
    /// It is none.
    Bogus,
}

impl Flight {
    /// A flight for `job`, which asks `order`.
    pub(crate) fn new(job: Job, order: Vec<SocketAddr>, now: Instant, limit: Duration) -> Self {
        let Job { message, query, key, servers: _, waiter } = job;
        Self {
            message: message.into_vec(),
            query,
            key,
            waiters: vec![waiter],
            asked: Vec::new(),
            order,
            next: 0,
            wake: now,
            deadline: now + limit,
            failure: None,
            unreachable: false,
        }
    }

    /// The server that is to be asked now, and whether all were asked before.
    pub(crate) fn turn(&mut self) -> Option<(SocketAddr, bool)> {
        let again = self.next >= self.order.len();
        let server = *self.order.get(self.next % self.order.len().max(1))?;
        self.next += 1;
        Some((server, again))
    }

    /// Sets when something is to be done next: the next server's turn after `patience`, or the same again.
    pub(crate) fn rest(&mut self, now: Instant, patience: Duration) {
        let more = self.next < self.order.len();
        self.wake = (now + if more { patience } else { AGAIN }).min(self.deadline);
    }

    /// `server` cannot help. Whether anybody is left.
    pub(crate) fn strike(&mut self, server: SocketAddr) -> bool {
        if let Some(at) = self.order.iter().position(|other| *other == server) {
            self.order.remove(at);
            if at < self.next {
                self.next -= 1;
            }
        }
        !self.order.is_empty()
    }

    /// Whether every server left was asked and has not answered yet: then nothing is gained by asking at once.
    pub(crate) fn all_asked(&self) -> bool {
        self.next >= self.order.len()
    }

    /// Whether `server` has said anything.
    pub(crate) fn has_answered(&self, server: SocketAddr) -> bool {
        self.asked.iter().any(|asked| asked.server == server && asked.answered)
    }

    /// Adds one who waits, unless it is a client that has asked already.
    pub(crate) fn join(&mut self, waiter: Waiter) {
        if !self.waiters.iter().any(|other| other.is_same(&waiter)) {
            self.waiters.push(waiter);
        }
    }

    /// What `answer`, which came from the right server to the right socket under the right number, is worth. It must also
    /// repeat the question.
    pub(crate) fn worth(&self, answer: &[u8]) -> Worth {
        let (Some(flags), Some(questions)) = (u16_at(answer, 2), u16_at(answer, 4)) else {
            return Worth::Bogus;
        };
        let code = u8::try_from(flags & 0xf).unwrap_or(0);
        if flags & 0xf800 != 0x8000 {
            return Worth::Bogus;
        }
        // Some servers leave the question out of an answer that says it was not understood.
        let refusal = questions == 0 && answer.len() == HEADER;
        if refusal && matches!(code, rcode::FORMERR | rcode::NOTIMP | rcode::SERVFAIL | rcode::REFUSED) {
            return Worth::Failure;
        }
        let end = self.query.end;
        let (Some(theirs), Some(ours)) = (answer.get(HEADER..end), self.message.get(HEADER..end)) else {
            return Worth::Bogus;
        };
        if questions != 1 || !theirs.eq_ignore_ascii_case(ours) {
            return Worth::Bogus;
        }
        if !matches!(code, rcode::NOERROR | rcode::NXDOMAIN | 6..=10) || self.is_lame(flags, answer) {
            return Worth::Failure;
        }
        if flags & 0x0200 != 0 { Worth::CutOff } else { Worth::Answer }
    }

    /// A referral from a server that does not recurse, where recursion was asked for: it knows nothing.
    fn is_lame(&self, flags: u16, answer: &[u8]) -> bool {
        let offers = flags & 0x0080 != 0;
        let knows = flags & 0x0400 != 0;
        let empty = flags & 0xf == 0 && u16_at(answer, 6) == Some(0);
        let soa = || {
            let mut records = message::records(answer, self.query.end).flatten();
            records.any(|(_, record)| record.kind == kind::SOA)
        };
        self.query.recursion_desired() && !offers && !knows && empty && !soa()
    }
}
