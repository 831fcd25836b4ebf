//! Reading whole lists.
//!
//! The kernel walks a list in pieces; when the list changes between two of them it sets `NLM_F_DUMP_INTR`, and the
//! list read may lack entries or have some twice. `rtnetlink` never looks at that flag, and drops entries it cannot
//! decode, so lists are read here, over a plain socket: an interrupted one is read again, at most [`ATTEMPTS`] times,
//! and one with an undecodable entry is an error. Nothing ever acts on a partial list.
//!
//! The same socket waits for changes ([`DumpSocket::watch`]): what it receives then has no sequence number of a list, so
//! a list that is read afterwards passes it over.

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::error::{NetlinkError, Refusal};
use crate::netlink::refusal;

/// How often a list that keeps changing is read before giving up.
const ATTEMPTS: u32 = 20;

/// Larger than any piece the kernel sends: `netlink_dump` in net/netlink/af_netlink.c allocates at most 32 KiB.
pub(crate) const PIECE_MAX: usize = 64 * 1024;

/// What there can be news of, by its number in linux/rtnetlink.h.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub(crate) enum News {
    /// `RTNLGRP_LINK`.
    Links = 1,
    /// `RTNLGRP_IPV6_ROUTE`.
    Ipv6Routes = 11,
}

/// A blocking socket for lists. One list is read at a time: it is not `Sync`.
pub(crate) struct DumpSocket {
    pub(crate) socket: Socket,
    pub(crate) sequence: Cell<u32>,
}

impl DumpSocket {
    pub(crate) fn open() -> io::Result<Self> {
        let socket = Socket::new(NETLINK_ROUTE)?;
        // Lets the kernel filter by what the request says, and refuse what it does not know.
        socket.set_netlink_get_strict_chk(true)?;
        socket.set_ext_ack(true)?;
        // Notifications lost while watching are no error of the list that is read next.
        socket.set_no_enobufs(true)?;
        Ok(Self { socket, sequence: Cell::new(0) })
    }

    /// The whole list that `request` asks for.
    pub(crate) fn list(
        &self,
        operation: &'static str,
        request: &RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        for attempt in 1..=ATTEMPTS {
            let outcome = self.read_once(request.clone()).map_err(|fault| fault.on(operation))?;
            match outcome {
                Outcome::Whole(entries) => return Ok(entries),
                Outcome::Interrupted => tracing::trace!(operation, attempt, "list changed while it was read"),
            }
        }
        Err(NetlinkError::Interrupted { operation, attempts: ATTEMPTS })
    }

    /// The number of the next request.
    pub(crate) fn next_sequence(&self) -> u32 {
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        sequence
    }

    /// Waits until `holds`, at most `timeout`, looking again at all `news`. Whether it does.
    pub(crate) fn await_that(
        &self,
        news: News,
        timeout: Duration,
        holds: impl Fn() -> Result<bool, NetlinkError>,
    ) -> Result<bool, NetlinkError> {
        if holds()? {
            return Ok(true);
        }
        let start = Instant::now();
        let watch = self.watch(news)?;
        // Looks after it began to listen, so that no change falls between the two.
        while !holds()? {
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() || !watch.wait(left)? {
                return holds();
            }
        }
        Ok(true)
    }

    /// Receives a notification of every change in `news`, until the value is dropped.
    fn watch(&self, news: News) -> Result<Watch<'_>, NetlinkError> {
        self.socket.add_membership(news as u32).map_err(|source| failed("watch", source))?;
        Ok(Watch { socket: &self.socket, news })
    }

    fn read_once(&self, request: RouteNetlinkMessage) -> Result<Outcome, Fault> {
        let sequence = self.next_sequence();
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        message.header.sequence_number = sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0).map_err(|err| Fault::Io("write to", err))?;

        let mut collector = Collector::new(sequence);
        let mut piece = Vec::with_capacity(PIECE_MAX);
        loop {
            piece.clear();
            match self.socket.recv(&mut piece, 0) {
                Ok(_) => (),
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                Err(err) => return Err(Fault::Io("read from", err)),
            }
            if collector.take(&piece) {
                return collector.finish();
            }
        }
    }
}

/// Waits for changes.
struct Watch<'a> {
    socket: &'a Socket,
    news: News,
}

impl Watch<'_> {
    /// Waits until something of the namespace changes; false if nothing does within `timeout`.
    fn wait(&self, timeout: Duration) -> Result<bool, NetlinkError> {
        let timeout =
            Timespec::try_from(timeout).map_err(|_| failed("watch", io::Error::from(Errno::INVAL)))?;
        let mut polled = [PollFd::new(self.socket, PollFlags::IN)];
        match rustix::event::poll(&mut polled, Some(&timeout)) {
            Ok(0) => Ok(false),
            Ok(_) => {
                let mut notification = Vec::with_capacity(PIECE_MAX);
                self.socket.recv(&mut notification, 0).map_err(|source| failed("read from", source))?;
                Ok(true)
            }
            // The caller looks again, and waits for the rest of its time.
            Err(Errno::INTR) => Ok(true),
            Err(errno) => Err(failed("watch", errno.into())),
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        // It cannot fail for a group that was joined; and if it did, lists pass notifications over.
        let _ = self.socket.drop_membership(self.news as u32);
    }
}

fn failed(operation: &'static str, source: io::Error) -> NetlinkError {
    NetlinkError::Socket { operation, source }
}

/// What one reading of a list came to.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// Every entry.
    Whole(Vec<RouteNetlinkMessage>),
    /// The list changed meanwhile.
    Interrupted,
}

/// Why a list could not be read.
#[derive(Debug)]
enum Fault {
    Refused(Refusal),
    Undecodable(String),
    Io(&'static str, io::Error),
}

impl Fault {
    fn on(self, operation: &'static str) -> NetlinkError {
        match self {
            Self::Refused(source) => {
                NetlinkError::Kernel { operation, object: "of the namespace".to_owned(), source }
            }
            Self::Undecodable(why) => {
                NetlinkError::Answer { operation, object: "of the namespace".to_owned(), why }
            }
            Self::Io(operation, source) => failed(operation, source),
        }
    }
}

/// Takes the pieces of one list and decides what they come to. Pure.
struct Collector {
    sequence: u32,
    entries: Vec<RouteNetlinkMessage>,
    interrupted: bool,
    fault: Option<Fault>,
}

impl Collector {
    fn new(sequence: u32) -> Self {
        Self { sequence, entries: Vec::new(), interrupted: false, fault: None }
    }

    /// Takes one datagram; whether the list ends in it. After a fault it goes on to the end, because the kernel
    /// refuses to start a list on a socket where another has not ended.
    fn take(&mut self, mut piece: &[u8]) -> bool {
        while !piece.is_empty() {
            let Ok(message) = NetlinkBuffer::new_checked(piece) else {
                self.blame("a message is longer than its datagram".to_owned());
                return true;
            };
            let (sequence, flags) = (message.sequence_number(), message.flags());
            let length = usize::try_from(message.length()).unwrap_or(usize::MAX);
            let (bytes, rest) = piece.split_at_checked(length).unwrap_or((piece, &[]));
            // Messages are aligned to four bytes, of which the last may lack its padding.
            piece = rest.get(length.next_multiple_of(4) - length..).unwrap_or_default();
            if sequence != self.sequence {
                continue;
            }
            self.interrupted |= flags & NLM_F_DUMP_INTR != 0;
            if self.message(bytes) {
                return true;
            }
        }
        false
    }

    /// Takes one message; whether it is the last one.
    fn message(&mut self, bytes: &[u8]) -> bool {
        let message = match NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) {
            Ok(message) => message,
            Err(err) => {
                self.blame(err.to_string());
                return false;
            }
        };
        match message.payload {
            NetlinkPayload::InnerMessage(entry) => {
                self.entries.push(entry);
                false
            }
            NetlinkPayload::Done(done) if done.code == 0 => true,
            NetlinkPayload::Done(done) => {
                let errno = Errno::from_raw_os_error(done.code.saturating_abs());
                self.fault = Some(Fault::Refused(Refusal { errno, message: None }));
                true
            }
            NetlinkPayload::Error(error) => {
                self.fault = refusal(message.header.flags, &error).map(Fault::Refused);
                true
            }
            _ => false,
        }
    }

    fn blame(&mut self, why: String) {
        self.fault.get_or_insert(Fault::Undecodable(why));
    }

    fn finish(self) -> Result<Outcome, Fault> {
        match (self.fault, self.interrupted) {
            // EINTR is how some lists say the same as the flag.
            (Some(Fault::Refused(Refusal { errno: Errno::INTR, .. })), _) => Ok(Outcome::Interrupted),
            (Some(fault), _) => Err(fault),
            (None, true) => Ok(Outcome::Interrupted),
            (None, false) => Ok(Outcome::Whole(self.entries)),
        }
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{DoneMessage, NLM_F_MULTIPART, NetlinkHeader};
    use netlink_packet_route::link::{LinkAttribute, LinkMessage};

    use super::*;

    fn entry(name: &str) -> RouteNetlinkMessage {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        RouteNetlinkMessage::NewLink(message)
    }

    fn bytes(payload: NetlinkPayload<RouteNetlinkMessage>, sequence: u32, flags: u16) -> Vec<u8> {
        let mut header = NetlinkHeader::default();
        header.sequence_number = sequence;
        header.flags = flags | NLM_F_MULTIPART;
        let mut message = NetlinkMessage::new(header, payload);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn done(code: i32, flags: u16) -> Vec<u8> {
        let mut done = DoneMessage::default();
        done.code = code;
        bytes(NetlinkPayload::Done(done), 7, flags)
    }

    fn link(name: &str, flags: u16) -> Vec<u8> {
        bytes(entry(name).into(), 7, flags)
    }

    fn collect(pieces: &[Vec<u8>]) -> Result<Outcome, Fault> {
        let mut collector = Collector::new(7);
        let ends: Vec<bool> = pieces.iter().map(|piece| collector.take(piece)).collect();
        assert_eq!(ends.iter().position(|end| *end), Some(pieces.len() - 1), "ends with the last piece");
        collector.finish()
    }

    #[test]
    fn a_list_is_whole_over_several_pieces() {
        let first = [link("a", 0), link("bc", 0)].concat();
        let outcome = collect(&[first, link("d", 0), done(0, 0)]).unwrap();
        assert_eq!(outcome, Outcome::Whole(vec![entry("a"), entry("bc"), entry("d")]));
    }

    #[test]
    fn the_interruption_flag_on_any_message_spoils_the_list() {
        for spoiled in 0..3 {
            let flag = |at| if at == spoiled { NLM_F_DUMP_INTR } else { 0 };
            let pieces = [link("a", flag(0)), link("b", flag(1)), done(0, flag(2))];
            assert_eq!(collect(&pieces).unwrap(), Outcome::Interrupted, "on message {spoiled}");
        }
    }

    #[test]
    fn a_list_that_ends_with_an_error_is_not_whole() {
        let fault = collect(&[link("a", 0), done(-95, 0)]).unwrap_err();
        assert!(matches!(fault, Fault::Refused(Refusal { errno: Errno::OPNOTSUPP, .. })));
        assert_eq!(collect(&[link("a", 0), done(-4, 0)]).unwrap(), Outcome::Interrupted);
    }

    #[test]
    fn an_undecodable_entry_is_an_error_once_the_list_ended() {
        let mut broken = link("abc", 0);
        broken[32] = 0xff; // the attribute's length
        let fault = collect(&[[broken, link("b", 0)].concat(), done(0, 0)]).unwrap_err();
        assert!(matches!(fault, Fault::Undecodable(_)), "{fault:?}");
    }

    #[test]
    fn answers_to_an_earlier_request_are_passed_over() {
        let old = bytes(entry("old").into(), 6, NLM_F_DUMP_INTR);
        let outcome = collect(&[[old, link("new", 0)].concat(), done(0, 0)]).unwrap();
        assert_eq!(outcome, Outcome::Whole(vec![entry("new")]));
    }

    #[test]
    fn rubbish_ends_the_list_with_an_error() {
        for length in 1..40 {
            let mut collector = Collector::new(7);
            assert!(collector.take(&vec![0xff; length]));
            assert!(collector.finish().is_err());
        }
    }
}
