//! Whether an address is one of the host's own.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

/// How long an answer is believed.
const FRESH: Duration = Duration::from_secs(2);
/// How many are remembered. Who floods from invented addresses gets no answer beyond that until they are forgotten.
const REMEMBERED: usize = 256;

/// Remembers for a moment what the kernel said.
#[derive(Debug, Default)]
pub(crate) struct Locals {
    known: HashMap<IpAddr, bool>,
    since: Option<Instant>,
}

impl Locals {
    /// Whether `addr` is an address of this host. The kernel is asked in the one way that has no side effect and needs no
    /// list: a socket can be bound to it or not.
    pub(crate) fn contains(&mut self, addr: IpAddr) -> bool {
        if self.since.is_none_or(|since| since.elapsed() > FRESH) {
            self.known.clear();
            self.since = Some(Instant::now());
        }
        if let Some(known) = self.known.get(&addr) {
            return *known;
        }
        if self.known.len() >= REMEMBERED {
            return false;
        }
        let local = is_local(addr);
        self.known.insert(addr, local);
        local
    }
}

fn is_local(addr: IpAddr) -> bool {
    if addr.is_unspecified() || addr.is_multicast() {
        return false;
    }
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    socket.and_then(|socket| bind(&socket, &SocketAddr::new(addr, 0))).is_ok()
}
