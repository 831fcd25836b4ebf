//! Tells the service manager how far the daemon is, and has it keep sockets (sd_notify(3)).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// The daemon does its work.
pub(crate) fn ready() {
    tell("READY=1", None);
}

/// The daemon is ending.
pub(crate) fn stopping() {
    tell("STOPPING=1", None);
}

/// Whether there is a service manager that keeps anything.
pub(crate) fn has_manager() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some_and(|place| !place.is_empty())
}

/// Has a socket kept under `name` over a restart. It is not watched: it is never at its end.
pub(crate) fn store(name: &str, socket: BorrowedFd<'_>) {
    tell(&format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}"), Some(socket));
}

/// Has the socket kept under `name` closed.
pub(crate) fn unstore(name: &str) {
    tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), None);
}

fn tell(state: &str, socket: Option<BorrowedFd<'_>>) {
    let Some(place) = std::env::var_os("NOTIFY_SOCKET").filter(|place| !place.is_empty()) else { return };
    let addr = match place.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path)),
    };
    let sent = addr.and_then(|addr| {
        let manager = UnixDatagram::unbound()?;
        manager.connect_addr(&addr)?;
        send(&manager, state, socket)
    });
    if let Err(err) = sent {
        tracing::warn!(%err, state, "the service manager was not told");
    }
}

fn send(manager: &UnixDatagram, state: &str, socket: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let sockets: Vec<BorrowedFd<'_>> = socket.into_iter().collect();
    if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
        return Err(io::Error::other("no room for a descriptor"));
    }
    // A manager that does not read is not waited for: whoever tells it has names to answer.
    sendmsg(manager, &[io::IoSlice::new(state.as_bytes())], &mut control, SendFlags::DONTWAIT)?;
    Ok(())
}
