//! Connected sockets with random ports, and random numbers in them.
//!
//! The kernel gives each socket a random port and hands it only what the server it is connected to sends to that port. A
//! socket is used for a few questions and then replaced: whoever wants to slip in an answer has to guess the port as well as
//! the number, and what was guessed is soon of no use.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::epoll;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with,
};

use crate::wire::put;

/// Questions for which one socket is used.
const USES: u32 = 32;
/// Sockets to one server that are used in turn.
const EACH: usize = 4;
/// Sockets in total; beyond that they are used longer.
const TOTAL: usize = 512;

/// The sockets.
#[derive(Debug)]
pub(crate) struct Pool {
    epoll: Arc<OwnedFd>,
    in_use: HashMap<SocketAddr, Vec<u64>>,
    sockets: HashMap<u64, Socket>,
    next: u64,
    random: Random,
}

#[derive(Debug)]
struct Socket {
    fd: OwnedFd,
    server: SocketAddr,
    uses: u32,
    /// Which flight waits for which number.
    waiting: HashMap<u16, u64>,
    retired: bool,
}

/// What one message was sent by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) socket: u64,
    pub(crate) id: u16,
}

/// Numbers that nobody can guess.
#[derive(Debug)]
pub(crate) struct Random {
    bytes: [u8; 256],
    left: usize,
}

impl Random {
    pub(crate) fn new() -> Self {
        Self { bytes: [0; 256], left: 0 }
    }

    pub(crate) fn next(&mut self) -> u16 {
        if self.left < 2 {
            // 256 bytes are never given in part, and cannot fail once the kernel has booted (getrandom(2)).
            let _ = rustix::rand::getrandom(&mut self.bytes, rustix::rand::GetRandomFlags::empty());
            self.left = self.bytes.len();
        }
        self.left -= 2;
        crate::wire::u16_at(&self.bytes, self.left).unwrap_or_default()
    }
}

impl Pool {
    /// A pool that registers its sockets with `epoll`, under numbers from `first` on in steps of two.
    pub(crate) fn new(epoll: Arc<OwnedFd>, first: u64) -> Self {
        Self { epoll, in_use: HashMap::new(), sockets: HashMap::new(), next: first, random: Random::new() }
    }

    /// Sends `message` to `server` under a new number, for `flight`.
    pub(crate) fn send(&mut self, server: SocketAddr, message: &mut [u8], flight: u64) -> io::Result<Ticket> {
        let number = self.socket_to(server)?;
        let Self { sockets, random, .. } = self;
        let socket = sockets.get_mut(&number).ok_or(io::ErrorKind::NotFound)?;
        let mut id = random.next();
        // A socket has few questions under way, so this ends soon.
        while socket.waiting.contains_key(&id) {
            id = id.wrapping_add(random.next() | 1);
        }
        put(message, 0, &id.to_be_bytes());
        send(&socket.fd, message, SendFlags::DONTWAIT)?;
        socket.waiting.insert(id, flight);
        socket.uses += 1;
        if socket.uses >= USES && sockets.len() < TOTAL {
            self.retire(number);
        }
        Ok(Ticket { socket: number, id })
    }

    /// Receives a message on socket `number` into `buffer`, if there is one. Returns its length and the server.
    pub(crate) fn receive(&self, number: u64, buffer: &mut [u8]) -> Option<io::Result<(usize, SocketAddr)>> {
        let socket = self.sockets.get(&number)?;
        match recv(&socket.fd, buffer, RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
            Ok((_, len)) => Some(Ok((len, socket.server))),
            Err(rustix::io::Errno::AGAIN) => None,
            Err(error) => Some(Err(error.into())),
        }
    }

    /// Which flight waits for number `id` on socket `number`.
    pub(crate) fn waiting(&self, number: u64, id: u16) -> Option<u64> {
        self.sockets.get(&number)?.waiting.get(&id).copied()
    }

    /// All flights that wait on socket `number`, with its server.
    pub(crate) fn all_waiting(&self, number: u64) -> Option<(SocketAddr, Vec<u64>)> {
        let socket = self.sockets.get(&number)?;
        Some((socket.server, socket.waiting.values().copied().collect()))
    }

    /// Nobody waits for `ticket` any more.
    pub(crate) fn release(&mut self, ticket: Ticket) {
        let Some(socket) = self.sockets.get_mut(&ticket.socket) else { return };
        socket.waiting.remove(&ticket.id);
        if socket.retired && socket.waiting.is_empty() {
            // Closing it takes it out of the epoll instance.
            self.sockets.remove(&ticket.socket);
        }
    }

    /// A socket that failed is not used again.
    pub(crate) fn retire(&mut self, number: u64) {
        let Some(socket) = self.sockets.get_mut(&number) else { return };
        socket.retired = true;
        if let Some(list) = self.in_use.get_mut(&socket.server) {
            list.retain(|other| *other != number);
            if list.is_empty() {
                self.in_use.remove(&socket.server);
            }
        }
        if socket.waiting.is_empty() {
            self.sockets.remove(&number);
        }
    }

    fn socket_to(&mut self, server: SocketAddr) -> io::Result<u64> {
        let known = self.in_use.get(&server).map(Vec::as_slice).unwrap_or_default();
        let room = known.len() < EACH && self.sockets.len() < TOTAL;
        if !room && let Some(number) = known.get(usize::from(self.random.next()) % known.len().max(1)) {
            return Ok(*number);
        }
        let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(family, SocketType::DGRAM, flags, None)?;
        connect(&fd, &server)?;
        let number = self.next;
        self.next += 2;
        epoll::add(&*self.epoll, &fd, epoll::EventData::new_u64(number), epoll::EventFlags::IN)?;
        let socket = Socket { fd, server, uses: 0, waiting: HashMap::new(), retired: false };
        self.sockets.insert(number, socket);
        self.in_use.entry(server).or_default().push(number);
        Ok(number)
    }
}
