//! What the kernel of a place is told about other hosts' containers, with the time of each.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use berth_integration::Place;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket,
    sockopt,
};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

// linux/rtnetlink.h, linux/neighbour.h
const RTMGRP_NEIGH: u32 = 4;
const RTM_NEWNEIGH: u16 = 28;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_MASTER: u16 = 9;
const AF_BRIDGE: u8 = 7;

/// Kinds of entries that an attachment elsewhere needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The Ethernet address of an address.
    Neighbour,
    /// The host that an Ethernet address is on.
    Tunnel,
    /// The port of the bridge that an Ethernet address is behind.
    Bridge,
}

/// An entry that was written.
#[derive(Debug, Clone)]
struct Written {
    at: Instant,
    mac: String,
    kind: Kind,
}

/// Listens until it is dropped.
pub(crate) struct Entries {
    written: Arc<Mutex<Vec<Written>>>,
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Entries {
    /// Listens in `place`.
    pub(crate) fn of(place: &Place) -> Self {
        Self::on(place.inside(listener))
    }

    /// Listens in the namespace at `netns`, a path inside `place`.
    pub(crate) fn at(place: &Place, netns: &Path) -> Self {
        Self::on(place.inside(|| {
            let netns = File::open(netns).unwrap();
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            listener()
        }))
    }

    fn on(socket: OwnedFd) -> Self {
        let (reader, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let written = Arc::new(Mutex::default());
        let noted = Arc::clone(&written);
        let thread = std::thread::spawn(move || listen(&socket, &reader, &noted));
        Self { written, stop: Some(stop), thread: Some(thread) }
    }

    /// When the last of `kinds` was first written for `mac`, of what was written after `began`.
    pub(crate) fn complete(&self, mac: &str, kinds: &[Kind], began: Instant) -> Option<Instant> {
        let written = self.written.lock().unwrap();
        let first = |kind: &Kind| {
            let found = |one: &&Written| one.mac == mac && one.kind == *kind && one.at >= began;
            written.iter().find(found).map(|one| one.at)
        };
        kinds.iter().map(first).collect::<Option<Vec<_>>>()?.into_iter().max()
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listener() -> OwnedFd {
    let (kind, protocol) = (SockType::Raw, SockProtocol::NetlinkRoute);
    let fd = socket(AddressFamily::Netlink, kind, SockFlag::SOCK_CLOEXEC, protocol).unwrap();
    setsockopt(&fd, sockopt::RcvBuf, &(4 << 20)).unwrap();
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, RTMGRP_NEIGH)).unwrap();
    fd
}

fn listen(socket: &OwnedFd, stop: &OwnedFd, written: &Mutex<Vec<Written>>) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let mut fds = [PollFd::new(socket, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        if poll(&mut fds, None).is_ok() && !fds[1].revents().is_empty() {
            return;
        }
        let Ok(len) = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) else { continue };
        let at = Instant::now();
        let mut rest = &buffer[..len];
        while let Some((kind, body, next)) = message(rest) {
            if let Some((mac, kind)) = (kind == RTM_NEWNEIGH).then(|| entry(body)).flatten() {
                written.lock().unwrap().push(Written { at, mac, kind });
            }
            rest = next;
        }
    }
}

/// Splits off a message: its type, its body, and what follows.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let len = usize::try_from(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?)).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let next = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, bytes.get(16..len)?, next))
}

/// The Ethernet address and the kind of an entry that leads elsewhere.
fn entry(body: &[u8]) -> Option<(String, Kind)> {
    let family = *body.first()?;
    let (mut mac, mut has_dst, mut has_master) = (None, false, false);
    let mut rest = body.get(12..)?;
    while let Some(head) = rest.get(..4) {
        let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        match u16::from_ne_bytes([head[2], head[3]]) {
            NDA_LLADDR => mac = rest.get(4..len),
            NDA_DST => has_dst = true,
            NDA_MASTER => has_master = true,
            _ => (),
        }
        rest = rest.get(len.max(4).next_multiple_of(4)..).unwrap_or_default();
    }
    let mac: Vec<String> = mac?.iter().map(|byte| format!("{byte:02x}")).collect();
    let kind = match (family, has_dst, has_master) {
        (AF_BRIDGE, true, _) => Kind::Tunnel,
        (AF_BRIDGE, false, true) => Kind::Bridge,
        (AF_BRIDGE, false, false) => return None,
        _ => Kind::Neighbour,
    };
    Some((mac.join(":"), kind))
}
