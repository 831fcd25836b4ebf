//! One question by TCP, where the answer is too long for a datagram.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::event::epoll;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with,
};

use crate::wire::u16_at;

/// A connection for one question.
#[derive(Debug)]
pub(crate) struct Stream {
    fd: OwnedFd,
    pub(crate) server: SocketAddr,
    pub(crate) flight: u64,
    /// The number the question was sent under.
    pub(crate) id: u16,
    out: Vec<u8>,
    written: usize,
    came: Vec<u8>,
}

/// How far it is.
#[derive(Debug)]
pub(crate) enum Progress {
    /// There is more to come.
    Waiting,
    /// A message.
    Whole(Vec<u8>),
    /// The connection is of no more use.
    Broken,
}

impl Stream {
    /// Begins to connect, and registers with `epoll` under `number`.
    pub(crate) fn open(
        epoll: &OwnedFd,
        number: u64,
        (server, flight): (SocketAddr, u64),
        message: &[u8],
    ) -> io::Result<Self> {
        let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(family, SocketType::STREAM, flags, None)?;
        match connect(&fd, &server) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => (),
            Err(error) => return Err(error.into()),
        }
        epoll::add(
            epoll,
            &fd,
            epoll::EventData::new_u64(number),
            epoll::EventFlags::IN | epoll::EventFlags::OUT,
        )?;
        let len = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let id = u16_at(message, 0).unwrap_or(0);
        let out = [&len.to_be_bytes(), message].concat();
        Ok(Self { fd, server, flight, id, out, written: 0, came: Vec::new() })
    }

    /// Goes on: the socket can be written or read.
    pub(crate) fn step(&mut self, epoll: &OwnedFd, number: u64) -> Progress {
        if self.written < self.out.len() {
            let rest = self.out.get(self.written..).unwrap_or_default();
            match send(&self.fd, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => self.written += sent,
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::NOTCONN) => return Progress::Waiting,
                Err(_) => return Progress::Broken,
            }
            if self.written < self.out.len() {
                return Progress::Waiting;
            }
            let data = epoll::EventData::new_u64(number);
            if epoll::modify(epoll, &self.fd, data, epoll::EventFlags::IN).is_err() {
                return Progress::Broken;
            }
        }
        self.read()
    }

    fn read(&mut self) -> Progress {
        let mut buffer = [0; 4096];
        loop {
            match recv(&self.fd, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Progress::Broken,
                Ok((_, len)) => self.came.extend_from_slice(buffer.get(..len).unwrap_or_default()),
                Err(rustix::io::Errno::AGAIN) => return Progress::Waiting,
                Err(_) => return Progress::Broken,
            }
            // The length bounds what is read.
            let whole = u16_at(&self.came, 0).map(|len| 2 + usize::from(len));
            if let Some(message) = whole.and_then(|end| self.came.get(2..end)) {
                return Progress::Whole(message.to_vec());
            }
        }
    }
}
