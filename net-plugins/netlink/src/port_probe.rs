//! Whether a port of the host is free, and who holds it if it is not.
//!
//! A published port is reached by address translation and needs no socket of its own; but a program of the host that
//! listens on it would be cut off without a word. So the port is bound and listened on as a server would, in the
//! calling thread's namespace, and given back at once or held for as long as the caller likes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;

use berth_types::Proto;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

/// What became of an attempt to bind a port.
#[derive(Debug)]
pub enum Probe {
    /// Nobody has it. It is held until the value is dropped.
    Free(PortHold),
    /// Somebody has it, on this address or on one that includes it.
    Taken,
}

impl Probe {
    /// Whether nobody has the port.
    pub fn is_free(&self) -> bool {
        matches!(self, Self::Free(_))
    }
}

/// Holds a port against others until it is dropped.
#[derive(Debug)]
pub struct PortHold {
    /// None for a protocol that this kernel does not speak, which nobody can hold a port of.
    _socket: Option<OwnedFd>,
}

/// A port that could not be tried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("try port {addr}:{port}/{proto}")]
pub struct ProbeError {
    /// The transport protocol.
    pub proto: Proto,
    /// The address.
    pub addr: IpAddr,
    /// The port.
    pub port: u16,
    /// The system's error: `EADDRNOTAVAIL` if the address is not the host's.
    #[source]
    pub source: Errno,
}

impl ProbeError {
    /// Whether the address is not one of the host's.
    pub fn is_foreign_address(&self) -> bool {
        self.source == Errno::ADDRNOTAVAIL
    }
}

/// The process that holds a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessHolder {
    /// Its number.
    pub pid: u32,
    /// Its command, as the kernel has it (at most 15 bytes), with control characters escaped.
    pub command: String,
}

/// Binds `port` of `addr` as a server would, and listens where the protocol has connections.
///
/// A server on the unspecified address takes the port of every address, and the other way round; `::` is tried for
/// IPv6 alone.
///
/// # Errors
///
/// [`ProbeError`] if that fails for another reason than that the port is taken.
pub fn try_bind(proto: Proto, addr: IpAddr, port: u16) -> Result<Probe, ProbeError> {
    match hold(proto, addr, port) {
        Ok(socket) => Ok(Probe::Free(PortHold { _socket: Some(socket) })),
        Err(Errno::ADDRINUSE) => Ok(Probe::Taken),
        Err(Errno::PROTONOSUPPORT | Errno::SOCKTNOSUPPORT | Errno::AFNOSUPPORT) => {
            Ok(Probe::Free(PortHold { _socket: None }))
        }
        Err(source) => Err(ProbeError { proto, addr, port, source }),
    }
}

fn hold(proto: Proto, addr: IpAddr, port: u16) -> Result<OwnedFd, Errno> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let (kind, protocol) = match proto {
        Proto::Tcp => (SocketType::STREAM, ipproto::TCP),
        Proto::Udp => (SocketType::DGRAM, ipproto::UDP),
        Proto::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, Some(protocol))?;
    if addr.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if proto != Proto::Udp {
        // Past connections in TIME-WAIT do not count. For UDP the option would share the port with whoever set it too.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &SocketAddr::new(addr, port))?;
    if proto != Proto::Udp {
        // Two sockets with the option may be bound to one port; only one of them may listen.
        rustix::net::listen(&socket, 1)?;
    }
    Ok(socket)
}

/// The process that holds `port` of `addr` in the calling thread's namespace, as far as `/proc` tells: none if
/// nobody does, if it is one of the kernel's own sockets, or if its process may not be looked into.
///
/// It reads every process's open files; it is for telling a person, after a port was found taken.
pub fn holder_of(proto: Proto, addr: IpAddr, port: u16) -> Option<ProcessHolder> {
    let inodes = socket_inodes(proto, addr, port);
    if inodes.is_empty() {
        return None;
    }
    let links: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pid = pids.find(|pid| has_open(*pid, &links))?;
    let command = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(ProcessHolder { pid, command: command.trim().escape_debug().to_string() })
}

fn has_open(pid: u32, links: &[String]) -> bool {
    let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let targets = files.flatten().filter_map(|file| std::fs::read_link(file.path()).ok());
    targets.into_iter().any(|target| links.iter().any(|link| Path::new(link) == target))
}

/// The inodes of the sockets that keep `port` of `addr` from being bound.
fn socket_inodes(proto: Proto, addr: IpAddr, port: u16) -> Vec<u64> {
    // A socket of `::` may take the port of IPv4 as well, so both tables are read for either family.
    let tables: &[&str] = match proto {
        Proto::Tcp => &["tcp", "tcp6"],
        Proto::Udp => &["udp", "udp6"],
        Proto::Sctp => return Vec::new(),
    };
    let read = |table: &&str| -> io::Result<String> {
        // `/proc/net` would be that of the process's first thread.
        std::fs::read_to_string(format!("/proc/thread-self/net/{table}"))
    };
    let texts: Vec<String> = tables.iter().filter_map(|table| read(table).ok()).collect();
    let entries = texts.iter().flat_map(|text| text.lines()).filter_map(Entry::parse);
    entries.filter(|entry| entry.holds(proto, addr, port)).map(|entry| entry.inode).collect()
}

/// A line of `/proc/net/tcp` and its like.
#[derive(Debug, PartialEq)]
struct Entry {
    addr: IpAddr,
    port: u16,
    state: u8,
    inode: u64,
}

impl Entry {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let (addr, port) = fields.nth(1)?.split_once(':')?;
        let state = u8::from_str_radix(fields.nth(1)?, 16).ok()?;
        let inode = fields.nth(5)?.parse().ok()?;
        Some(Self { addr: address(addr)?, port: u16::from_str_radix(port, 16).ok()?, state, inode })
    }

    /// Whether this socket is why `port` of `addr` cannot be bound.
    fn holds(&self, proto: Proto, addr: IpAddr, port: u16) -> bool {
        const LISTEN: u8 = 0x0a;
        let mapped = |ip: IpAddr| ip.to_canonical();
        let covers = match (mapped(self.addr), mapped(addr)) {
            (IpAddr::V4(a), IpAddr::V4(b)) => a == b || a.is_unspecified() || b.is_unspecified(),
            (IpAddr::V6(a), IpAddr::V6(b)) => a == b || a.is_unspecified() || b.is_unspecified(),
            // `::` may have been opened for both families; the table does not tell.
            (IpAddr::V6(a), IpAddr::V4(_)) => a.is_unspecified(),
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
        };
        self.port == port && covers && (proto != Proto::Tcp || self.state == LISTEN)
    }
}

/// An address as the kernel prints it: words of 32 bits in the machine's order, in hexadecimal.
fn address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(text.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let octets = <[u8; 16]>::try_from(words.as_flattened()).ok()?;
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;
    use crate::{LOOPBACK_INDEX, Netlink, Sandbox};

    /// Runs `work` where every port is free and loopback works.
    fn private<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        let sandbox = Sandbox::anonymous().unwrap();
        Netlink::open_in(&sandbox).unwrap().link_set_up(LOOPBACK_INDEX).unwrap();
        sandbox.run(work).unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn is_free(proto: Proto, addr: &str, port: u16) -> bool {
        try_bind(proto, ip(addr), port).unwrap().is_free()
    }

    #[test]
    fn a_listener_takes_the_port_of_every_address_it_covers() {
        private(|| {
            for (listen, taken, free) in [
                ("0.0.0.0", vec!["0.0.0.0", "127.0.0.1"], vec!["::1", "::"]),
                ("127.0.0.1", vec!["0.0.0.0", "127.0.0.1"], vec!["127.0.0.2", "::"]),
                ("::", vec!["::", "::1", "0.0.0.0", "127.0.0.1"], vec![]),
                ("::1", vec!["::", "::1"], vec!["127.0.0.1", "0.0.0.0"]),
            ] {
                let _listener = TcpListener::bind((ip(listen), 80)).unwrap();
                let _socket = UdpSocket::bind((ip(listen), 80)).unwrap();
                for proto in [Proto::Tcp, Proto::Udp] {
                    for addr in &taken {
                        assert!(!is_free(proto, addr, 80), "{proto} {addr} beside {listen}");
                    }
                    for addr in &free {
                        assert!(is_free(proto, addr, 80), "{proto} {addr} beside {listen}");
                    }
                    assert!(is_free(proto, listen, 81));
                }
            }
        });
    }

    #[test]
    fn a_port_is_held_as_long_as_the_hold_lives() {
        private(|| {
            let hold = try_bind(Proto::Tcp, ip("0.0.0.0"), 80).unwrap();
            assert!(hold.is_free());
            assert!(!is_free(Proto::Tcp, "127.0.0.1", 80));
            drop(hold);
            assert!(is_free(Proto::Tcp, "127.0.0.1", 80));
        });
    }

    #[test]
    fn past_connections_do_not_take_a_port() {
        private(|| {
            let listener = TcpListener::bind("127.0.0.1:80").unwrap();
            let client = TcpStream::connect("127.0.0.1:80").unwrap();
            // The end that closes first waits: here the server's.
            drop(listener.accept().unwrap());
            drop(client);
            drop(listener);
            assert!(is_free(Proto::Tcp, "127.0.0.1", 80));
        });
    }

    #[test]
    fn an_address_of_another_host_is_an_error() {
        let err = private(|| try_bind(Proto::Tcp, ip("192.0.2.1"), 80)).unwrap_err();
        assert!(err.is_foreign_address());
        assert_eq!(err.to_string(), "try port 192.0.2.1:80/tcp");
    }

    #[test]
    fn the_holder_of_a_port_is_this_process() {
        private(|| {
            let _listener = TcpListener::bind("[::]:80").unwrap();
            let _socket = UdpSocket::bind("127.0.0.1:53").unwrap();
            for (proto, addr, port) in
                [(Proto::Tcp, "0.0.0.0", 80), (Proto::Tcp, "::1", 80), (Proto::Udp, "127.0.0.1", 53)]
            {
                let holder = holder_of(proto, ip(addr), port).unwrap();
                assert_eq!(holder.pid, std::process::id());
                assert!(!holder.command.is_empty());
            }
            assert_eq!(holder_of(Proto::Udp, ip("127.0.0.2"), 53), None);
            assert_eq!(holder_of(Proto::Tcp, ip("127.0.0.1"), 53), None);
            assert_eq!(holder_of(Proto::Sctp, ip("127.0.0.1"), 80), None);
        });
    }

    #[test]
    fn a_protocol_the_kernel_lacks_is_free_and_never_an_error() {
        private(|| assert!(try_bind(Proto::Sctp, ip("127.0.0.1"), 80).unwrap().is_free()));
    }

    #[test]
    fn lines_of_the_kernels_tables_are_read() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1";
        if cfg!(target_endian = "little") {
            let entry = Entry { addr: ip("127.0.0.1"), port: 8080, state: 10, inode: 4711 };
            assert_eq!(Entry::parse(line), Some(entry));
            assert_eq!(address("0000000000000000FFFF00000100007F"), Some(ip("::ffff:127.0.0.1")));
        }
        for bad in ["", "  sl  local_address rem_address   st", "0: 0100007F 0:0 0A", "é: é:é é é"] {
            assert_eq!(Entry::parse(bad), None);
        }
    }
}
