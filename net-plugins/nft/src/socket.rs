//! A socket to netfilter and the two ways to talk over it: a batch and a dump.
//!
//! The kernel answers before `sendmsg` returns (dumps: before each `recvmsg` does), so nothing here ever waits: an
//! empty queue means that an answer was lost.

use std::collections::BTreeMap;
use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use crate::wire::{Message, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, Writer};

/// Larger than any datagram the kernel makes for a dump (32 KiB) or an acknowledgement.
const DATAGRAM: usize = 64 * 1024;
/// Room for one error per message of a usual batch.
const RECEIVE_BUFFER: usize = 1024 * 1024;
/// What one queued acknowledgement takes from the receive buffer, with the kernel's bookkeeping.
const ACK_COST: usize = 1280;
/// No batch asks for a larger receive buffer; errors beyond it are not all reported, the first ones are.
const MAX_RECEIVE_BUFFER: usize = 64 * 1024 * 1024;
/// How often an interrupted dump is begun again before it is an error.
const DUMP_TRIES: u32 = 20;

/// A netlink socket to the kernel's netfilter, for the network namespace of the thread that opens it.
///
/// One socket serves any number of batches, dumps and flushes, one at a time.
///
/// # Closing
///
/// After a batch that deleted something, the kernel makes `close` wait for an RCU grace period (7 to 15 ms measured)
/// and lets only one such wait at a time pass. Where that matters, keep the socket, or drop it on another thread: it
/// is `Send`, and nothing is lost when the process ends first.
#[derive(Debug)]
pub struct NftSocket {
    socket: Socket,
    seq: u32,
    buffer: Vec<u8>,
    receive_buffer: usize,
}

/// Why an exchange with the kernel failed.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The system call failed.
    #[error("cannot {doing} the netfilter socket")]
    Io {
        /// The verb.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refused the request.
    #[error("the kernel refused to {doing}")]
    Refused {
        /// What was asked.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The answer was longer than the receive buffer.
    #[error("answers of the kernel were lost")]
    Lost,
    /// Something changed during every attempt to read.
    #[error("reading {what} was interrupted {DUMP_TRIES} times by changes")]
    Interrupted {
        /// What was read.
        what: &'static str,
    },
}

impl SocketError {
    /// The error number of the kernel or the system call, if there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } | Self::Refused { source, .. } => source.raw_os_error(),
            Self::Lost | Self::Interrupted { .. } => None,
        }
    }
}

/// What the kernel answered to the messages of one send: error numbers by sequence number, 0 for a plain answer.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    pub(crate) by_seq: BTreeMap<u32, i32>,
    /// Some answers did not fit the receive buffer.
    pub(crate) lost: bool,
}

impl NftSocket {
    /// Opens a socket in the calling thread's network namespace. Using it needs `CAP_NET_ADMIN` there.
    pub fn open() -> Result<Self, SocketError> {
        let io = |doing| move |source| SocketError::Io { doing, source };
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(io("open"))?;
        socket.bind_auto().map_err(io("bind"))?;
        // Errors come without a copy of the message that caused them.
        socket.set_cap_ack(true).map_err(io("configure"))?;
        let mut opened = Self { socket, seq: 1, buffer: Vec::with_capacity(DATAGRAM), receive_buffer: 0 };
        opened.make_room(RECEIVE_BUFFER);
        Ok(opened)
    }

    /// Reserves `count` sequence numbers in a row and returns the first.
    pub(crate) fn sequence(&mut self, count: u32) -> u32 {
        let room_left = u32::MAX - self.seq;
        if room_left <= count {
            self.seq = 1;
        }
        let first = self.seq;
        self.seq += count;
        first
    }

    /// Sends `messages` of which `count` may be answered, and reads all answers.
    pub(crate) fn exchange(&mut self, messages: &Writer, count: usize) -> Result<Answers, SocketError> {
        self.make_room(count.saturating_mul(ACK_COST).min(MAX_RECEIVE_BUFFER));
        self.send(messages)?;
        let mut answers = Answers::default();
        loop {
            match self.receive() {
                Ok(true) => (),
                Ok(false) => return Ok(answers),
                Err(SocketError::Lost) => answers.lost = true,
                Err(err) => return Err(err),
            }
            for message in Message::each(&self.buffer) {
                if let (NLMSG_ERROR, Some(errno)) = (message.kind, message.errno()) {
                    answers.by_seq.entry(message.seq).or_insert(errno);
                }
            }
        }
    }

    /// Sends the request `write` makes for a sequence number and gives every answering message to `take`; begins again
    /// with a fresh `T` when the kernel says that what was read changed meanwhile.
    pub(crate) fn dump<T: Default>(
        &mut self,
        what: &'static str,
        write: impl Fn(&mut Writer, u32),
        mut take: impl FnMut(&mut T, Message<'_>),
    ) -> Result<T, SocketError> {
        for _ in 0..DUMP_TRIES {
            let seq = self.sequence(1);
            let mut request = Writer::default();
            write(&mut request, seq);
            self.send(&request)?;
            let mut result = T::default();
            if self.read_dump(what, seq, &mut result, &mut take)? {
                return Ok(result);
            }
        }
        Err(SocketError::Interrupted { what })
    }

    /// Reads to the end of a dump, or to the last message of a plain answer. `false`: it was interrupted.
    fn read_dump<T>(
        &mut self,
        what: &'static str,
        seq: u32,
        result: &mut T,
        take: &mut impl FnMut(&mut T, Message<'_>),
    ) -> Result<bool, SocketError> {
        let (mut whole, mut ended) = (true, None);
        while ended.is_none() {
            match self.receive() {
                Ok(true) => (),
                Ok(false) | Err(SocketError::Lost) => return Err(SocketError::Lost),
                Err(err) => return Err(err),
            }
            for message in Message::each(&self.buffer).filter(|message| message.seq == seq) {
                whole &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_ERROR | NLMSG_DONE => ended = message.errno(),
                    _ => take(result, message),
                }
            }
        }
        match ended {
            None | Some(0) => Ok(whole),
            // The kernel's own way to say that the set was changed under the dump.
            Some(libc::EINTR) => Ok(false),
            Some(errno) => {
                Err(SocketError::Refused { doing: what, source: io::Error::from_raw_os_error(errno) })
            }
        }
    }

    fn send(&mut self, messages: &Writer) -> Result<(), SocketError> {
        let bytes = messages.as_bytes();
        // A batch is one datagram; the kernel refuses what exceeds the send buffer, and keeps 32 bytes of it.
        let io = |source| SocketError::Io { doing: "send on", source };
        if bytes.len() > 64 * 1024 {
            rustix::net::sockopt::set_socket_send_buffer_size_force(&self.socket, bytes.len() + 4096)
                .map_err(|err| io(err.into()))?;
        }
        // A reply left over from an exchange that failed half way must not answer this one.
        while matches!(self.receive(), Ok(true) | Err(SocketError::Lost)) {}
        let sent = self.socket.send_to(bytes, &SocketAddr::new(0, 0), 0).map_err(io)?;
        if sent == bytes.len() { Ok(()) } else { Err(SocketError::Lost) }
    }

    /// Reads one datagram of the kernel into the buffer; `false` when there is none.
    fn receive(&mut self) -> Result<bool, SocketError> {
        loop {
            self.buffer.clear();
            match self.socket.recv_from(&mut self.buffer, libc::MSG_DONTWAIT) {
                Ok((_, from)) if from.port_number() == 0 => return Ok(true),
                // From another process: not an answer.
                Ok(_) => (),
                Err(err) if err.raw_os_error() == Some(libc::EINTR) => (),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(err) if err.raw_os_error() == Some(libc::ENOBUFS) => return Err(SocketError::Lost),
                Err(source) => return Err(SocketError::Io { doing: "read from", source }),
            }
        }
    }

    /// Makes the receive buffer at least `bytes`. Without the right to, it stays as it is and `Lost` says so.
    fn make_room(&mut self, bytes: usize) {
        if bytes <= self.receive_buffer {
            return;
        }
        match rustix::net::sockopt::set_socket_recv_buffer_size_force(&self.socket, bytes) {
            Ok(()) => self.receive_buffer = bytes,
            Err(err) => tracing::debug!(%err, bytes, "cannot enlarge the receive buffer"),
        }
    }
}
