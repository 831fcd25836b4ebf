//! Whole frames sent and received on a link, as an attacker would.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, bind, recv, send,
    socket,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::Place;

/// A packet socket on one link.
#[derive(Debug)]
pub struct RawSocket {
    fd: OwnedFd,
    mac: [u8; 6],
}

impl Place {
    /// Opens a packet socket on the link `ifname`. It gets what passes the link from now on.
    pub fn raw(&self, ifname: &str) -> RawSocket {
        self.inside(|| {
            let flags = SockFlag::SOCK_CLOEXEC;
            let fd = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll).unwrap();
            let link = link_addr(ifname);
            bind(fd.as_raw_fd(), &link).unwrap();
            RawSocket { fd, mac: link.addr().unwrap_or_default() }
        })
    }
}

/// The address of a link for packet sockets. Its protocol field is 0, which in bind(2) keeps the socket's protocol.
fn link_addr(ifname: &str) -> LinkAddr {
    let mut found = getifaddrs().unwrap().filter(|entry| entry.interface_name == ifname);
    let link = found.find_map(|entry| entry.address?.as_link_addr().copied());
    link.filter(|link| link.family() == Some(AddressFamily::Packet))
        .unwrap_or_else(|| panic!("no link `{ifname}`"))
}

impl RawSocket {
    /// The link's own MAC address.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Sends one frame, Ethernet header first.
    pub fn send(&self, frame: &[u8]) {
        let sent = send(self.fd.as_raw_fd(), frame, MsgFlags::empty()).unwrap();
        assert_eq!(sent, frame.len());
    }

    /// The next frame that `wanted` accepts, or `None` after `timeout`.
    pub fn recv(&self, timeout: Duration, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let started = Instant::now();
        let mut buffer = vec![0; 65536];
        loop {
            let left = timeout.checked_sub(started.elapsed())?;
            let limit = Timespec::try_from(left).unwrap();
            if poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&limit)).unwrap() == 0 {
                return None;
            }
            let len = recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
            if wanted(&buffer[..len]) {
                buffer.truncate(len);
                return Some(buffer);
            }
        }
    }

    /// How many frames `wanted` accepts in `duration`.
    pub fn count(&self, duration: Duration, wanted: impl Fn(&[u8]) -> bool) -> usize {
        let started = Instant::now();
        let mut count = 0;
        while let Some(left) = duration.checked_sub(started.elapsed()) {
            if self.recv(left, &wanted).is_some() {
                count += 1;
            }
        }
        count
    }
}
