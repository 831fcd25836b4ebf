//! The thread that asks.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rustix::event::{Timespec, epoll};

use super::flight::{Asked, Flight, Worth};
use super::health::Healths;
use super::jobs::{Job, Jobs};
use super::pool::{Pool, Ticket};
use super::resolv::Resolv;
use super::stream::{Progress, Stream};
use crate::cache::Key;
use crate::metrics::{Count, Metrics};
use crate::respond::Shared;
use crate::wire::{Reply, ede, put, rcode, u16_at};

/// Numbers of descriptors in the epoll instance. Sockets have even ones, connections odd ones.
const JOBS: u64 = 0;
const RESOLV: u64 = 1;
const FIRST_SOCKET: u64 = 2;
const FIRST_STREAM: u64 = 3;

/// Connections to other servers at a time. Few answers need one.
const STREAMS: usize = 128;
/// The longest datagram that is taken. What is longer is asked for again by TCP.
const DATAGRAM: usize = 4096;

/// What the thread is made with.
pub(crate) struct Forwarder {
    pub(crate) shared: Arc<Shared>,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) resolv: Resolv,
    /// Addresses that this server listens on: asking there would be asking itself.
    pub(crate) own: Arc<ArcSwap<Vec<SocketAddr>>>,
    pub(crate) deadline: Duration,
    pub(crate) stop: Arc<AtomicBool>,
}

/// The thread's own state.
struct Desk {
    epoll: Arc<OwnedFd>,
    pool: Pool,
    streams: HashMap<u64, Stream>,
    next_stream: u64,
    flights: HashMap<u64, Flight>,
    next_flight: u64,
    by_key: HashMap<Key, u64>,
    /// When which flight is to be looked at. Those that are out of date are passed over.
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    healths: Healths,
    warned: Vec<SocketAddr>,
    buffer: Vec<u8>,
}

impl Forwarder {
    /// Asks until stopped, and then until what is on its way has arrived.
    pub(crate) fn run(mut self) {
        let Ok(epoll) = epoll::create(epoll::CreateFlags::CLOEXEC).map(Arc::new) else { return };
        let wake = epoll::EventData::new_u64(JOBS);
        if epoll::add(&*epoll, &self.jobs.wake, wake, epoll::EventFlags::IN).is_err() {
            return;
        }
        let mut desk = Desk {
            pool: Pool::new(Arc::clone(&epoll), FIRST_SOCKET),
            epoll,
            streams: HashMap::new(),
            next_stream: FIRST_STREAM,
            flights: HashMap::new(),
            next_flight: 0,
            by_key: HashMap::new(),
            timers: BinaryHeap::new(),
            healths: Healths::default(),
            warned: Vec::new(),
            buffer: vec![0; DATAGRAM],
        };
        self.reread(&desk.epoll);
        let mut events: Vec<epoll::Event> = Vec::with_capacity(64);
        // Those who hand in have ended before it is stopped: what they left in the queue is taken too.
        while !(self.stop.load(Ordering::Acquire) && desk.flights.is_empty() && self.jobs.is_empty()) {
            let limit = self.limit(&mut desk).and_then(|limit| Timespec::try_from(limit).ok());
            events.clear();
            // Interrupted: nothing has happened.
            let _ = epoll::wait(&*desk.epoll, rustix::buffer::spare_capacity(&mut events), limit.as_ref());
            for event in &events {
                self.event(&mut desk, event.data.u64());
            }
            if self.resolv.is_due() {
                self.reread(&desk.epoll);
            }
            self.timers(&mut desk);
        }
    }

    /// How long to wait for events.
    fn limit(&self, desk: &mut Desk) -> Option<Duration> {
        let now = Instant::now();
        while let Some(Reverse((at, flight))) = desk.timers.peek() {
            if desk.flights.get(flight).is_some_and(|flight| flight.wake == *at) {
                break;
            }
            desk.timers.pop();
        }
        let timer = desk.timers.peek().map(|Reverse((at, _))| at.saturating_duration_since(now));
        [timer, self.resolv.limit()].into_iter().flatten().min()
    }

    fn event(&mut self, desk: &mut Desk, number: u64) {
        match number {
            JOBS => {
                let mut count = [0; 8];
                let _ = rustix::io::read(&self.jobs.wake, &mut count);
                for job in self.jobs.take() {
                    self.take(desk, job);
                }
            }
            RESOLV => self.reread(&desk.epoll),
            number if number % 2 == 0 => self.datagrams(desk, number),
            number => self.stream(desk, number),
        }
    }

    fn reread(&mut self, epoll: &OwnedFd) {
        if let Some(servers) = self.resolv.refresh(epoll, RESOLV) {
            self.shared.host.store(Arc::new(servers));
        }
    }

    fn timers(&self, desk: &mut Desk) {
        let now = Instant::now();
        while let Some(Reverse((at, number))) = desk.timers.peek().copied() {
            if at > now {
                break;
            }
            desk.timers.pop();
            let Some(flight) = desk.flights.get(&number).filter(|flight| flight.wake == at) else { continue };
            if flight.deadline <= now {
                self.fail(desk, number);
            } else {
                self.ask(desk, number);
            }
        }
    }

    /// Begins a flight, or joins one.
    fn take(&self, desk: &mut Desk, job: Job) {
        if let Some(number) = job.key.as_ref().and_then(|key| desk.by_key.get(key))
            && let Some(flight) = desk.flights.get_mut(number)
        {
            flight.join(job.waiter);
            self.metrics.add(Count::Joined);
            return;
        }
        let now = Instant::now();
        let servers = self.without_own(desk, job.servers.addrs());
        let order = desk.healths.order(&servers, now);
        let number = desk.next_flight;
        desk.next_flight += 1;
        if let Some(key) = &job.key {
            desk.by_key.insert(key.clone(), number);
        }
        desk.flights.insert(number, Flight::new(job, order, now, self.deadline));
        self.ask(desk, number);
    }

    /// `servers` without this one: it would ask itself for ever.
    fn without_own(&self, desk: &mut Desk, servers: &[SocketAddr]) -> Vec<SocketAddr> {
        let own = self.own.load();
        let (own, others): (Vec<_>, Vec<_>) =
            servers.iter().copied().partition(|server| own.contains(server));
        for server in own {
            if !desk.warned.contains(&server) && desk.warned.len() < 64 {
                tracing::warn!(%server, "this server is listed as its own upstream and is not asked");
                desk.warned.push(server);
            }
        }
        others
    }

    /// Asks the server whose turn it is. One that cannot be sent to is passed over.
    fn ask(&self, desk: &mut Desk, number: u64) {
        let now = Instant::now();
        loop {
            let Some(flight) = desk.flights.get_mut(&number) else { return };
            let Some((server, _)) = flight.turn() else { return self.fail(desk, number) };
            match desk.pool.send(server, &mut flight.message, number) {
                Ok(ticket) => {
                    flight.asked.push(Asked { server, ticket, at: now, answered: false });
                    flight.rest(now, desk.healths.patience(&server));
                    desk.timers.push(Reverse((flight.wake, number)));
                    self.metrics.add(Count::UpstreamSent);
                    return;
                }
                Err(error) => {
                    tracing::debug!(%server, %error, "cannot send to a DNS server");
                    flight.unreachable = true;
                    desk.healths.silent(server, now);
                    flight.strike(server);
                }
            }
        }
    }

    /// Reads what came on a socket.
    fn datagrams(&self, desk: &mut Desk, socket: u64) {
        let mut buffer = std::mem::take(&mut desk.buffer);
        // As many as one socket can be waiting for, so that no server keeps the others from their turn.
        for _ in 0..64 {
            match desk.pool.receive(socket, &mut buffer) {
                None => break,
                Some(Ok((len, server))) => {
                    let whole = len <= buffer.len();
                    let answer = buffer.get(..len.min(DATAGRAM)).unwrap_or_default();
                    self.datagram(desk, socket, server, (answer, whole));
                }
                // The server's host says that nobody listens there.
                Some(Err(_)) => {
                    self.unreachable(desk, socket);
                    break;
                }
            }
        }
        desk.buffer = buffer;
    }

    fn datagram(&self, desk: &mut Desk, socket: u64, server: SocketAddr, (answer, whole): (&[u8], bool)) {
        let id = u16_at(answer, 0).unwrap_or(0);
        let number = desk.pool.waiting(socket, id);
        let worth = number.and_then(|number| desk.flights.get(&number)).map(|flight| flight.worth(answer));
        let (Some(number), Some(worth)) = (number, worth.filter(|worth| *worth != Worth::Bogus)) else {
            self.metrics.add(Count::UpstreamBogus);
            return;
        };
        let Some(flight) = desk.flights.get_mut(&number) else { return };
        let asked =
            flight.asked.iter_mut().find(|asked| asked.ticket.socket == socket && asked.ticket.id == id);
        if let Some(asked) = asked {
            asked.answered = true;
            desk.healths.answered(server, asked.at.elapsed());
        }
        // What comes under this number from now on is no answer.
        desk.pool.release(Ticket { socket, id });
        match worth {
            Worth::Answer if whole => self.finish(desk, number, answer),
            Worth::Answer | Worth::CutOff => self.by_stream(desk, number, server),
            Worth::Failure | Worth::Bogus => self.failed(desk, number, server, answer),
        }
    }

    /// `server` said that it cannot help.
    fn failed(&self, desk: &mut Desk, number: u64, server: SocketAddr, answer: &[u8]) {
        let Some(flight) = desk.flights.get_mut(&number) else { return };
        if u16_at(answer, 2).is_some_and(|flags| flags & 0xf == u16::from(rcode::SERVFAIL))
            && u16_at(answer, 4) == Some(1)
        {
            flight.failure = Some(answer.to_vec());
        }
        self.strike(desk, number, server);
    }

    /// `server` is no longer asked for this flight. The next one is, at once, if it was not yet.
    fn strike(&self, desk: &mut Desk, number: u64, server: SocketAddr) {
        let Some(flight) = desk.flights.get_mut(&number) else { return };
        if !flight.strike(server) {
            self.fail(desk, number);
        } else if !flight.all_asked() {
            self.ask(desk, number);
        }
    }

    fn unreachable(&self, desk: &mut Desk, socket: u64) {
        let Some((server, flights)) = desk.pool.all_waiting(socket) else { return };
        desk.pool.retire(socket);
        desk.healths.silent(server, Instant::now());
        for number in flights {
            if let Some(flight) = desk.flights.get_mut(&number) {
                flight.unreachable = true;
            }
            self.strike(desk, number, server);
        }
    }

    /// Asks `server` again, by TCP.
    fn by_stream(&self, desk: &mut Desk, number: u64, server: SocketAddr) {
        let Some(flight) = desk.flights.get(&number) else { return };
        if desk.streams.len() >= STREAMS || desk.streams.values().any(|stream| stream.flight == number) {
            return;
        }
        let stream = desk.next_stream;
        desk.next_stream += 2;
        self.metrics.add(Count::UpstreamTcp);
        match Stream::open(&desk.epoll, stream, (server, number), &flight.message) {
            Ok(opened) => {
                desk.streams.insert(stream, opened);
            }
            Err(_) => self.strike(desk, number, server),
        }
    }

    fn stream(&self, desk: &mut Desk, number: u64) {
        let Some(stream) = desk.streams.get_mut(&number) else { return };
        let progress = stream.step(&desk.epoll, number);
        if matches!(progress, Progress::Waiting) {
            return;
        }
        let Some(stream) = desk.streams.remove(&number) else { return };
        let Progress::Whole(answer) = progress else {
            return self.strike(desk, stream.flight, stream.server);
        };
        let Some(flight) = desk.flights.get(&stream.flight) else { return };
        match flight.worth(&answer) {
            // Cut off here too: there is no more to be had.
            Worth::Answer | Worth::CutOff if u16_at(&answer, 0) == Some(stream.id) => {
                self.finish(desk, stream.flight, &answer);
            }
            _ => self.failed(desk, stream.flight, stream.server, &answer),
        }
    }

    /// The answer is there.
    fn finish(&self, desk: &mut Desk, number: u64, answer: &[u8]) {
        let Some(flight) = self.land(desk, number) else { return };
        if let Some(key) = &flight.key {
            self.shared.cache.insert(key, &flight.query, answer);
        }
        self.metrics.add(Count::Resolved);
        self.tell(&flight, answer);
    }

    /// There will be no answer.
    fn fail(&self, desk: &mut Desk, number: u64) {
        let Some(mut flight) = self.land(desk, number) else { return };
        self.metrics.add(Count::Failed);
        if let Some(answer) = flight.failure.take() {
            return self.tell(&flight, &answer);
        }
        let reason = if flight.unreachable { ede::NETWORK_ERROR } else { ede::NO_REACHABLE_AUTHORITY };
        let mut answer = std::mem::take(&mut flight.message);
        // Room for the reason.
        answer.resize(answer.len() + 32, 0);
        let limit = answer.len();
        let len = Reply::new(&mut answer, &flight.query, limit).finish(
            &flight.query,
            rcode::SERVFAIL,
            Some(reason),
        );
        answer.truncate(len);
        self.tell(&flight, &answer);
    }

    fn tell(&self, flight: &Flight, answer: &[u8]) {
        for waiter in &flight.waiters {
            waiter.send(&flight.query, answer);
            self.metrics.forwarded.note(waiter.since.elapsed(), 1);
        }
    }

    /// Takes the flight and all that belongs to it away.
    fn land(&self, desk: &mut Desk, number: u64) -> Option<Flight> {
        let mut flight = desk.flights.remove(&number)?;
        if let Some(key) = &flight.key {
            desk.by_key.remove(key);
        }
        desk.streams.retain(|_, stream| stream.flight != number);
        let now = Instant::now();
        for asked in &flight.asked {
            // Those who had their time and said nothing are asked later the next time.
            let late = now.saturating_duration_since(asked.at) > desk.healths.patience(&asked.server);
            if late && !flight.has_answered(asked.server) {
                desk.healths.overdue(asked.server, asked.at, now);
            }
            desk.pool.release(asked.ticket);
        }
        put(&mut flight.message, 0, &[0, 0]);
        Some(flight)
    }
}
