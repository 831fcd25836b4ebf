//! Takes questions in, and bounds how many wait.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{SendFlags, sendto};

use crate::cache::Key;
use crate::config::Limits;
use crate::respond::{Responder, Transport, is_personal, limit};
use crate::serve::Listener;
use crate::serve::tcp::Inbox;
use crate::wire::{HEADER, Query, put};
use crate::zone::Servers;

/// Where questions for others are handed in.
#[derive(Debug)]
pub(crate) struct Jobs {
    queue: Mutex<VecDeque<Job>>,
    /// Wakes the forwarder.
    pub(crate) wake: OwnedFd,
    admission: Arc<Admission>,
}

/// One question for others.
#[derive(Debug)]
pub(crate) struct Job {
    /// The client's message.
    pub(crate) message: Box<[u8]>,
    /// The same, read.
    pub(crate) query: Query,
    /// What it is known by; none if the answer is for one client only.
    pub(crate) key: Option<Key>,
    /// Who is to be asked.
    pub(crate) servers: Arc<Servers>,
    /// Who waits for it.
    pub(crate) waiter: Waiter,
}

/// Somebody who waits for an answer.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) sink: Sink,
    /// How long the answer may be.
    limit: usize,
    /// The header's number and the question, as this client wrote them.
    id: [u8; 2],
    question: Box<[u8]>,
    pub(crate) since: Instant,
    /// Given back when this is dropped.
    _permit: Permit,
}

/// Where an answer goes.
#[derive(Debug)]
pub(crate) enum Sink {
    /// To a client, by the socket that it asked at.
    Udp { listener: Arc<Listener>, peer: SocketAddr },
    /// To a connection.
    Tcp { inbox: Arc<Inbox>, connection: u64 },
    /// To a caller in this process.
    Call(SyncSender<Vec<u8>>),
}

/// Who waits, by source.
#[derive(Debug)]
struct Admission {
    waiting: Mutex<Waiting>,
    total: usize,
    each: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    total: usize,
    by_source: HashMap<IpAddr, usize>,
}

/// The right to wait.
#[derive(Debug)]
struct Permit {
    admission: Arc<Admission>,
    source: IpAddr,
}

impl Jobs {
    /// An empty queue.
    pub(crate) fn new(limits: &Limits) -> rustix::io::Result<Self> {
        let admission = Admission {
            waiting: Mutex::default(),
            total: limits.in_flight,
            each: limits.in_flight_per_source,
        };
        Ok(Self {
            queue: Mutex::default(),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            admission: Arc::new(admission),
        })
    }

    /// Hands in the question that `responder` has read from `message`. Says no if too many wait already. The queue needs no
    /// bound of its own: whatever is in it waits.
    pub(crate) fn submit(
        &self,
        responder: &Responder,
        servers: Arc<Servers>,
        message: &[u8],
        (source, transport): (IpAddr, Transport),
        sink: Sink,
    ) -> bool {
        let Some(permit) = Admission::enter(&self.admission, source) else { return false };
        let query = responder.query();
        let waiter = Waiter {
            sink,
            limit: limit(query, transport),
            id: message.first_chunk().copied().unwrap_or_default(),
            question: message.get(HEADER..query.end).unwrap_or_default().into(),
            since: Instant::now(),
            _permit: permit,
        };
        let key = (!is_personal(query)).then(|| responder.key().clone());
        let job = Job { message: message.into(), query: query.clone(), key, servers, waiter };
        let was_empty = {
            let mut queue = self.lock();
            queue.push_back(job);
            queue.len() == 1
        };
        if was_empty {
            self.wake();
        }
        true
    }

    /// Wakes the forwarder.
    pub(crate) fn wake(&self) {
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Takes all that was handed in.
    pub(crate) fn take(&self) -> VecDeque<Job> {
        std::mem::take(&mut *self.lock())
    }

    /// Whether all that was handed in was taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.admission.lock().total
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Job>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter {
    /// Whether this is the same question of the same client, sent again.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (&self.sink, &other.sink) {
            (Sink::Udp { peer, .. }, Sink::Udp { peer: again, .. }) => peer == again && self.id == other.id,
            _ => false,
        }
    }

    /// Sends `answer` to whom this is, as an answer to what it asked. `query` is the question, and `truncated` is what is sent
    /// instead if the answer is too long.
    pub(crate) fn send(&self, query: &Query, answer: &[u8]) {
        let mut bytes = answer.to_vec();
        if bytes.len() > self.limit {
            // Room for what marks the end.
            bytes.truncate(self.limit.max(HEADER + 300));
            let flags = crate::wire::u16_at(&bytes, 2).unwrap_or(0);
            let len = crate::cache::write_truncated(query, &mut bytes, flags);
            bytes.truncate(len);
        }
        put(&mut bytes, 0, &self.id);
        put(&mut bytes, HEADER, &self.question);
        match &self.sink {
            // As on any datagram's way: what there is no room for is lost, and asked for again.
            Sink::Udp { listener, peer } => {
                let _ = sendto(&listener.fd, &bytes, SendFlags::DONTWAIT, peer);
            }
            Sink::Tcp { inbox, connection } => inbox.put(*connection, bytes),
            Sink::Call(caller) => {
                let _ = caller.try_send(bytes);
            }
        }
    }
}

impl Admission {
    fn enter(this: &Arc<Self>, source: IpAddr) -> Option<Permit> {
        let mut waiting = this.lock();
        if waiting.total >= this.total {
            return None;
        }
        let count = waiting.by_source.entry(source).or_default();
        if *count >= this.each {
            return None;
        }
        *count += 1;
        waiting.total += 1;
        Some(Permit { admission: Arc::clone(this), source })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut waiting = self.admission.lock();
        waiting.total = waiting.total.saturating_sub(1);
        if let Some(count) = waiting.by_source.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                waiting.by_source.remove(&self.source);
            }
        }
    }
}
