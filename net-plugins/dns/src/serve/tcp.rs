//! Answers on connections, within limits.
//!
//! One thread serves all of them and waits for none. A connection that is silent, or sends a question a byte at a time, is
//! closed after a few seconds; where there are too many, the one that has been silent longest gives way to the new one.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use berth_types::NetworkName;
use rustix::event::epoll::{self, EventFlags};
use rustix::net::{RecvFlags, SendFlags, SocketFlags, acceptfrom_with, recv, send};

use super::local::Locals;
use super::{Listener, Station, WAKE};
use crate::config::Limits;
use crate::forward::{Jobs, Sink};
use crate::metrics::{Count, Metrics};
use crate::respond::{Action, Origin, Responder, Shared, Transport};
use crate::wire::{rcode, u16_at};

/// The longest question that is read. Honest ones are shorter by far.
const LONGEST: usize = 4096;
/// Questions of one connection that may wait for others.
const WAITING: usize = 64;
/// Bytes of answers that a client may leave unread before no more questions are taken from it.
const UNREAD: usize = 256 << 10;
/// Where the numbers of connections begin; those of listeners are below.
const FIRST: u64 = 1 << 32;
/// Connections taken from one listener before the next event has its turn.
const ACCEPTED: usize = 64;
/// How often silent connections are looked for.
const TICK: Duration = Duration::from_millis(500);

/// Answers of others on their way to connections.
#[derive(Debug)]
pub(crate) struct Inbox {
    station: Arc<Station>,
    answers: Mutex<Vec<(u64, Vec<u8>)>>,
}

impl Inbox {
    /// The inbox of the thread at `station`.
    pub(crate) fn new(station: Arc<Station>) -> Self {
        Self { station, answers: Mutex::default() }
    }

    /// Leaves `answer` for `connection`, which may be gone by now.
    pub(crate) fn put(&self, connection: u64, answer: Vec<u8>) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push((connection, answer));
        self.station.wake();
    }

    fn take(&self) -> Vec<(u64, Vec<u8>)> {
        std::mem::take(&mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The thread that serves connections.
pub(crate) struct TcpWorker {
    pub(crate) station: Arc<Station>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: Limits,
    pub(crate) seed: u64,
}

struct Desk {
    connections: HashMap<u64, Connection>,
    by_source: HashMap<IpAddr, usize>,
    next: u64,
    responder: Responder,
    locals: Locals,
    /// Where questions are answered; the length goes before.
    buffer: Vec<u8>,
}

struct Connection {
    fd: OwnedFd,
    network: NetworkName,
    peer: SocketAddr,
    came: Vec<u8>,
    out: Vec<u8>,
    /// Questions that others are asked.
    waiting: usize,
    /// When it last asked something, or took an answer.
    active: Instant,
    /// The client has said that it will ask no more.
    ended: bool,
    interest: EventFlags,
}

impl TcpWorker {
    /// Serves until stopped.
    pub(crate) fn run(self) {
        let mut desk = Desk {
            connections: HashMap::new(),
            by_source: HashMap::new(),
            next: FIRST,
            responder: Responder::new(self.seed),
            locals: Locals::default(),
            buffer: vec![0; usize::from(u16::MAX)],
        };
        let mut events: Vec<epoll::Event> = Vec::with_capacity(64);
        let mut looked = Instant::now();
        while !self.station.is_stopped() {
            let limit = (!desk.connections.is_empty()).then_some(TICK);
            for event in self.station.wait(&mut events, limit) {
                match event.data.u64() {
                    WAKE => self.deliver(&mut desk),
                    number if number < FIRST => self.accept(&mut desk, number),
                    number => self.serve(&mut desk, number),
                }
            }
            if looked.elapsed() >= TICK {
                looked = Instant::now();
                self.close_silent(&mut desk);
            }
        }
        // What arrived last.
        self.deliver(&mut desk);
    }

    fn accept(&self, desk: &mut Desk, number: u64) {
        let Some(listener) = self.station.listener(number) else { return };
        for _ in 0..ACCEPTED {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            // Nothing more there, or a client that gave up meanwhile. If descriptors have run out, closing the silent ones
            // is all that helps, and happens.
            let Ok((fd, Some(peer))) = acceptfrom_with(&listener.fd, flags) else { return };
            let Ok(peer) = SocketAddr::try_from(peer) else { continue };
            self.admit(desk, &listener, fd, peer);
        }
    }

    /// Takes a new connection, or closes it.
    fn admit(&self, desk: &mut Desk, listener: &Arc<Listener>, fd: OwnedFd, peer: SocketAddr) {
        let zone = self.shared.zone.load();
        let known = zone.who(&listener.network, peer.ip()).is_some() || desk.locals.contains(peer.ip());
        if !known {
            return self.metrics.add(Count::Stranger);
        }
        if desk.by_source.get(&peer.ip()).is_some_and(|count| *count >= self.limits.tcp_per_source) {
            return self.metrics.add(Count::TcpLimited);
        }
        if desk.connections.len() >= self.limits.tcp {
            let idle = desk.connections.iter().filter(|(_, connection)| connection.waiting == 0);
            let Some(oldest) =
                idle.min_by_key(|(_, connection)| connection.active).map(|(number, _)| *number)
            else {
                return self.metrics.add(Count::TcpLimited);
            };
            self.metrics.add(Count::TcpLimited);
            close(desk, oldest);
        }
        let number = desk.next;
        desk.next += 1;
        let data = epoll::EventData::new_u64(number);
        if epoll::add(&self.station.epoll, &fd, data, EventFlags::IN).is_err() {
            return;
        }
        self.metrics.add(Count::TcpAccepted);
        *desk.by_source.entry(peer.ip()).or_default() += 1;
        let connection = Connection {
            fd,
            network: listener.network.clone(),
            peer,
            came: Vec::new(),
            out: Vec::new(),
            waiting: 0,
            active: Instant::now(),
            ended: false,
            interest: EventFlags::IN,
        };
        desk.connections.insert(number, connection);
    }

    /// Gives answers of others to the connections that wait for them.
    fn deliver(&self, desk: &mut Desk) {
        self.station.woken();
        for (number, answer) in self.inbox.take() {
            let Some(connection) = desk.connections.get_mut(&number) else { continue };
            connection.waiting = connection.waiting.saturating_sub(1);
            connection.push(&answer);
            connection.active = Instant::now();
            self.go_on(desk, number);
        }
    }

    /// The client has sent something, or takes answers again.
    fn serve(&self, desk: &mut Desk, number: u64) {
        let Some(connection) = desk.connections.get_mut(&number) else { return };
        if connection.wants_more() && connection.read().is_err() {
            return close(desk, number);
        }
        self.go_on(desk, number);
    }

    /// Answers what has come whole, sends what can be sent, and waits for the right thing next.
    fn go_on(&self, desk: &mut Desk, number: u64) {
        loop {
            let Some(connection) = desk.connections.get_mut(&number) else { return };
            if connection.write().is_err() {
                return close(desk, number);
            }
            if !connection.wants_more() {
                break;
            }
            match connection.message(&mut desk.buffer) {
                Message::Whole(len) => self.answer(desk, number, len),
                Message::Part => break,
                Message::TooLong => return close(desk, number),
            }
        }
        let Some(connection) = desk.connections.get_mut(&number) else { return };
        if connection.ended && connection.waiting == 0 && connection.out.is_empty() {
            return close(desk, number);
        }
        let interest = connection.wanted();
        if interest != connection.interest {
            connection.interest = interest;
            let data = epoll::EventData::new_u64(number);
            if epoll::modify(&self.station.epoll, &connection.fd, data, interest).is_err() {
                close(desk, number);
            }
        }
    }

    /// Answers the question in the first `len` bytes of the buffer.
    fn answer(&self, desk: &mut Desk, number: u64, len: usize) {
        let Desk { connections, responder, locals, buffer, .. } = desk;
        let Some(connection) = connections.get_mut(&number) else { return };
        connection.active = Instant::now();
        let started = Instant::now();
        let zone = self.shared.zone.load();
        let origin =
            Origin { network: &connection.network, source: connection.peer.ip(), transport: Transport::Tcp };
        let message = (&mut buffer[..], len);
        match responder.respond(&self.shared, &zone, origin, message, |addr| locals.contains(addr)) {
            Action::Send(len, count) => {
                self.metrics.add(count);
                connection.push(buffer.get(..len).unwrap_or_default());
                self.metrics.local.note(started.elapsed(), 1);
            }
            // Not a question, or no longer a member: there is nothing to say to it.
            Action::Silent(count) => {
                self.metrics.add(count);
                connection.ended = true;
            }
            Action::Forward(servers) => {
                let sink = Sink::Tcp { inbox: Arc::clone(&self.inbox), connection: number };
                let message = buffer.get(..len).unwrap_or_default();
                let source = (connection.peer.ip(), Transport::Tcp);
                if self.jobs.submit(responder, servers, message, source, sink) {
                    self.metrics.add(Count::Forwarded);
                    connection.waiting += 1;
                } else {
                    self.metrics.add(Count::Shed);
                    let len = responder.code(buffer, rcode::REFUSED, None);
                    connection.push(buffer.get(..len).unwrap_or_default());
                }
            }
        }
    }

    fn close_silent(&self, desk: &mut Desk) {
        let silent = |connection: &Connection| {
            connection.waiting == 0 && connection.active.elapsed() >= self.limits.tcp_idle
        };
        let found: Vec<u64> = desk
            .connections
            .iter()
            .filter(|(_, connection)| silent(connection))
            .map(|(number, _)| *number)
            .collect();
        for number in found {
            close(desk, number);
        }
    }
}

fn close(desk: &mut Desk, number: u64) {
    let Some(connection) = desk.connections.remove(&number) else { return };
    let source = connection.peer.ip();
    if let Some(count) = desk.by_source.get_mut(&source) {
        *count -= 1;
        if *count == 0 {
            desk.by_source.remove(&source);
        }
    }
}

/// What has come of the next question.
enum Message {
    Whole(usize),
    Part,
    TooLong,
}

impl Connection {
    /// Reads what there is, up to a limit. An error is a connection that is of no more use.
    fn read(&mut self) -> rustix::io::Result<()> {
        let mut buffer = [0; LONGEST + 2];
        match recv(self.fd.as_fd(), &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => {
                self.ended = true;
                Ok(())
            }
            Ok((_, len)) => {
                self.came.extend_from_slice(buffer.get(..len).unwrap_or_default());
                Ok(())
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes the next question into `buffer`, if it has come whole.
    fn message(&mut self, buffer: &mut [u8]) -> Message {
        let Some(len) = u16_at(&self.came, 0).map(usize::from) else { return Message::Part };
        if len > LONGEST {
            return Message::TooLong;
        }
        let (Some(message), Some(place)) = (self.came.get(2..2 + len), buffer.get_mut(..len)) else {
            return Message::Part;
        };
        place.copy_from_slice(message);
        self.came.drain(..2 + len);
        Message::Whole(len)
    }

    /// Adds an answer to what is to be sent.
    fn push(&mut self, answer: &[u8]) {
        if let Ok(len) = u16::try_from(answer.len()) {
            self.out.extend(len.to_be_bytes());
            self.out.extend_from_slice(answer);
        }
    }

    fn write(&mut self) -> rustix::io::Result<()> {
        while !self.out.is_empty() {
            match send(self.fd.as_fd(), &self.out, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    self.out.drain(..sent);
                    self.active = Instant::now();
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR) => (),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether questions are taken from it.
    fn wants_more(&self) -> bool {
        self.waiting < WAITING && self.out.len() < UNREAD
    }

    fn wanted(&self) -> EventFlags {
        let mut wanted = EventFlags::empty();
        if !self.ended && self.wants_more() {
            wanted |= EventFlags::IN;
        }
        if !self.out.is_empty() {
            wanted |= EventFlags::OUT;
        }
        wanted
    }
}
