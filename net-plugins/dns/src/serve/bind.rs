//! Opens the sockets of a gateway address, on port 53 or beside it.
//!
//! They are bound before the address exists (`IP_FREEBIND`): the bridge may come later, or go and come back, and nobody else
//! gets the port meanwhile. Port 53 may be somebody else's, on this address or on all: then the first free one of a few other
//! ports is taken, the same ones at every start, so that what leads there stays right.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, OwnedFd};

use berth_types::IfName;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with, sockopt};

use crate::error::DnsError;
use crate::shown::HandedSocket;
use crate::sys::spread;

/// Groups that the sources are spread over: one that floods disturbs those of its own.
const GROUPS: u16 = 2;
/// Ports beside the one wanted, counted from it.
const BESIDE: [u16; 8] = [10_000, 10_100, 10_200, 10_300, 10_400, 10_500, 10_600, 10_700];
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// What waits in a socket for its thread, bytes. Bursts of a few thousand questions.
const QUEUE: usize = 2 << 20;

/// What is to be opened.
pub(crate) struct Wanted<'w> {
    pub(crate) ip: IpAddr,
    pub(crate) port: u16,
    pub(crate) bridge: Option<&'w IfName>,
    /// Threads that answer datagrams.
    pub(crate) workers: u16,
}

/// Open sockets of one address.
pub(crate) struct Opened {
    /// The address and port they have.
    pub(crate) addr: SocketAddr,
    /// In the order of binding.
    pub(crate) udp: Vec<OwnedFd>,
    pub(crate) tcp: OwnedFd,
}

/// Sockets from the process before this one.
#[derive(Default)]
pub(crate) struct Handed(Vec<(SocketAddr, Kind, OwnedFd)>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Udp,
    Tcp,
}

impl Handed {
    /// Looks what each of the sockets is. Those that are none of ours are closed.
    pub(crate) fn new(sockets: Vec<HandedSocket>) -> Self {
        let known = |HandedSocket { name: _, fd }: HandedSocket| {
            let addr = SocketAddr::try_from(getsockname(&fd).ok()?).ok()?;
            let kind = match sockopt::socket_type(&fd).ok()? {
                SocketType::DGRAM => Kind::Udp,
                SocketType::STREAM => Kind::Tcp,
                _ => return None,
            };
            rustix::io::ioctl_fionbio(&fd, true).ok()?;
            Some((addr, kind, fd))
        };
        Self(sockets.into_iter().filter_map(known).collect())
    }

    /// Takes the sockets of `ip`, if both kinds are there on one port.
    fn take(&mut self, ip: IpAddr) -> Option<Opened> {
        let (of_ip, others) = std::mem::take(&mut self.0).into_iter().partition(|(addr, ..)| addr.ip() == ip);
        self.0 = others;
        let of_ip: Vec<(SocketAddr, Kind, OwnedFd)> = of_ip;
        let addr = of_ip.iter().find(|(_, kind, _)| *kind == Kind::Tcp)?.0;
        let (mut udp, mut tcp) = (Vec::new(), None);
        for (_, kind, fd) in of_ip.into_iter().filter(|(other, ..)| other.port() == addr.port()) {
            match kind {
                Kind::Udp => udp.push(fd),
                Kind::Tcp => tcp = Some(fd),
            }
        }
        (!udp.is_empty()).then_some(Opened { addr, udp, tcp: tcp? })
    }
}

/// Opens the sockets, or takes those that were handed over.
pub(crate) fn open(wanted: &Wanted<'_>, handed: &mut Handed) -> Result<Opened, DnsError> {
    if let Some(opened) = handed.take(wanted.ip) {
        return Ok(opened);
    }
    let addr = scoped(wanted.ip, wanted.port, wanted.bridge);
    let source = match open_at(addr, wanted.workers) {
        Ok(opened) => return Ok(opened),
        Err(source) => source,
    };
    for beside in BESIDE {
        let mut other = addr;
        other.set_port(wanted.port.wrapping_add(beside));
        if let Ok(opened) = open_at(other, wanted.workers) {
            tracing::warn!(%addr, port = other.port(), error = %source, "the DNS port is not free, another is used");
            return Ok(opened);
        }
    }
    Err(DnsError::Listen { addr, source })
}

fn scoped(ip: IpAddr, port: u16, bridge: Option<&IfName>) -> SocketAddr {
    match ip {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            let index = bridge.and_then(|bridge| index_of(bridge).ok()).unwrap_or(0);
            SocketAddr::V6(SocketAddrV6::new(v6, port, 0, index))
        }
        _ => SocketAddr::new(ip, port),
    }
}

fn index_of(bridge: &IfName) -> rustix::io::Result<u32> {
    let any = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::netdevice::name_to_index(any, bridge.as_str())
}

fn open_at(addr: SocketAddr, workers: u16) -> io::Result<Opened> {
    // Sockets that may share their port would share it with any other program that allows it: one that may not is tried first.
    let probe = socket(addr, SocketType::DGRAM)?;
    bind(&probe, &addr)?;
    drop(probe);
    let tcp = socket(addr, SocketType::STREAM)?;
    sockopt::set_socket_reuseaddr(&tcp, true)?;
    bind(&tcp, &addr)?;
    listen(&tcp, BACKLOG)?;
    let mut udp = Vec::new();
    for _ in 0..GROUPS * workers {
        let socket = socket(addr, SocketType::DGRAM)?;
        sockopt::set_socket_reuseport(&socket, true)?;
        // Without the privilege to go beyond the system's limit, as much as that.
        let _ = sockopt::set_socket_recv_buffer_size_force(&socket, QUEUE)
            .or_else(|_| sockopt::set_socket_recv_buffer_size(&socket, QUEUE));
        bind(&socket, &addr)?;
        udp.push(socket);
    }
    // Where the kernel cannot, it spreads in its own way.
    if let Some(Err(error)) = udp.first().map(|socket| spread(socket.as_fd(), addr.ip(), GROUPS, workers)) {
        tracing::debug!(%error, "cannot spread sources over sockets");
    }
    Ok(Opened { addr, udp, tcp })
}

fn socket(addr: SocketAddr, kind: SocketType) -> rustix::io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if addr.is_ipv4() {
        sockopt::set_ip_freebind(&socket, true)?;
    } else {
        sockopt::set_ipv6_v6only(&socket, true)?;
        sockopt::set_ipv6_freebind(&socket, true)?;
    }
    Ok(socket)
}
