//! Sockets from one daemon to the next, without a question lost.
//!
//! The new daemon connects to the old one's `dns-handover.sock`. The old one lets go of the control socket, sends its
//! sockets, and goes on answering; the new one reads the records, answers too, and says so; then the old one stops. In
//! between both answer the same, for nobody can tell of a change: whoever wants to finds no control socket, and waits for
//! the lock that the new daemon holds. If the new one ends before it has said so, the old one goes on as before.
//!
//! On the wire: messages of descriptors with their names, a line each; an empty message is the last. Then one byte from
//! the new daemon, and the end of the connection from the old one.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use berth_dns::HandedSocket;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// The socket of it, in the run directory.
pub(super) const SOCKET: &str = "dns-handover.sock";

/// Descriptors in one message; the kernel takes 253.
const TOGETHER: usize = 64;

/// The longest names of one message, bytes.
const NAMES: usize = 16 << 10;

/// How long either side waits for the other.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// The last message of sockets.
const END: &[u8] = b"\n";

/// What the new daemon says once it answers.
const ANSWERING: &[u8] = b"!";

/// The side of the old daemon: a connection to the one that takes over.
pub(super) struct Successor(UnixStream);

impl Successor {
    /// Talks to whoever connected, if it is root or this daemon's user.
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        let peer = rustix::net::sockopt::socket_peercred(&stream)?.uid;
        if !peer.is_root() && peer != rustix::process::geteuid() {
            return Err(io::Error::other("its peer is neither root nor me"));
        }
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self(stream))
    }

    /// Sends the sockets, and waits until the other answers. After this nobody needs this daemon's server.
    pub(super) fn hand(&mut self, sockets: &[HandedSocket]) -> io::Result<()> {
        for some in sockets.chunks(TOGETHER) {
            let names: String = some.iter().map(|socket| format!("{}\n", socket.name)).collect();
            let fds: Vec<BorrowedFd<'_>> = some.iter().map(|socket| socket.fd.as_fd()).collect();
            send(&self.0, names.as_bytes(), &fds)?;
        }
        self.0.write_all(END)?;
        let mut word = [0];
        self.0.read_exact(&mut word)?;
        if word == *ANSWERING { Ok(()) } else { Err(io::Error::other("it said something else")) }
    }
}

/// The side of the new daemon: a connection to the one it takes over from.
pub(super) struct Predecessor(UnixStream);

impl Predecessor {
    /// Looks for a daemon to take over from; none is none.
    pub(super) fn find(run_dir: &Path) -> io::Result<Option<Self>> {
        match UnixStream::connect(run_dir.join(SOCKET)) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Ok(Some(Self(stream)))
            }
            Err(err) if matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                Ok(None)
            }
            Err(err) => Err(err),
        }
    }

    /// Takes its sockets. Its control socket is free by then.
    pub(super) fn take(&mut self) -> io::Result<Vec<HandedSocket>> {
        let mut sockets = Vec::new();
        loop {
            let (names, fds) = receive(&self.0)?;
            if names == END {
                return Ok(sockets);
            }
            let names = std::str::from_utf8(&names).map_err(io::Error::other)?;
            let names: Vec<&str> = names.lines().collect();
            if names.is_empty() || names.len() != fds.len() {
                return Err(io::Error::other("names and sockets do not match"));
            }
            let both = names.into_iter().zip(fds);
            sockets.extend(both.map(|(name, fd)| HandedSocket { name: name.to_owned(), fd }));
        }
    }

    /// Says that this daemon answers, and waits until the other has stopped.
    pub(super) fn relieve(mut self) -> io::Result<()> {
        self.0.write_all(ANSWERING)?;
        match self.0.read(&mut [0]) {
            Err(err) if err.kind() != io::ErrorKind::ConnectionReset => Err(err),
            _ => Ok(()),
        }
    }
}

fn send(stream: &UnixStream, names: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(TOGETHER))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if names.len() > NAMES || !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("too much for one message"));
    }
    let sent = sendmsg(stream, &[IoSlice::new(names)], &mut control, SendFlags::NOSIGNAL)?;
    // Descriptors go with the first byte; the rest may follow.
    let mut stream = stream;
    stream.write_all(names.get(sent..).unwrap_or_default())
}

/// One message: what is read ends where the next descriptors begin (unix(7)).
fn receive(stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(TOGETHER))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut names = vec![0; NAMES];
    let received =
        recvmsg(stream, &mut [IoSliceMut::new(&mut names)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    names.truncate(received.bytes);
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            fds.extend(some);
        }
    }
    Ok((names, fds))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn sockets(count: usize) -> (Vec<HandedSocket>, Vec<u16>) {
        let made: Vec<UdpSocket> = (0..count).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let ports = made.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
        let named = made.into_iter().enumerate();
        (
            named.map(|(n, socket)| HandedSocket { name: format!("dns-{n}"), fd: socket.into() }).collect(),
            ports,
        )
    }

    fn pair() -> (Successor, Predecessor) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Successor::new(ours).unwrap(), Predecessor(theirs))
    }

    #[test]
    fn sockets_arrive_with_their_names_however_many_they_are() {
        for count in [0, 1, TOGETHER, TOGETHER + 1, 3 * TOGETHER] {
            let (sent, ports) = sockets(count);
            let (mut old, mut new) = pair();
            let handing = std::thread::spawn(move || old.hand(&sent));
            let taken = new.take().unwrap();
            let names: Vec<String> = taken.iter().map(|socket| socket.name.clone()).collect();
            assert_eq!(names, (0..count).map(|n| format!("dns-{n}")).collect::<Vec<_>>());
            let arrived =
                taken.into_iter().map(|socket| UdpSocket::from(socket.fd).local_addr().unwrap().port());
            assert_eq!(arrived.collect::<Vec<_>>(), ports);
            new.relieve().unwrap();
            handing.join().unwrap().unwrap();
        }
    }

    #[test]
    fn one_that_ends_before_it_answers_is_noticed() {
        let (sent, _) = sockets(1);
        let (mut old, mut new) = pair();
        let handing = std::thread::spawn(move || old.hand(&sent));
        new.take().unwrap();
        drop(new);
        assert!(handing.join().unwrap().is_err());
    }
}
