//! What the server tells about itself.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use berth_types::{ContainerId, NetworkName};
use serde::Serialize;

/// Where a network's members are answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listening {
    /// The network.
    pub network: NetworkName,
    /// The gateway address, and the port that is really listened on.
    pub addr: SocketAddr,
    /// The port that members ask at. If it differs from that of `addr`, somebody else holds it.
    pub wanted: u16,
}

/// One name and what it is answered with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Entry {
    /// The network whose members are answered so.
    pub network: NetworkName,
    /// The name, without the domain.
    pub name: String,
    /// The type of record: `A`, `AAAA`, `PTR`, `SRV`.
    pub kind: String,
    /// Address, name, or port and name.
    pub value: String,
    /// Seconds the answer may be kept.
    pub ttl: u32,
    /// Where it is from; none for what the server knows by itself.
    pub container: Option<ContainerId>,
    /// Why it is answered, for people.
    pub why: String,
}

/// The path an answer takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// What was decided, in order, for people.
    pub steps: Vec<String>,
    /// How it ends: `answered`, `no data`, `no such name`, `refused`, `forwarded`, `no answer`, `failed`.
    pub outcome: String,
    /// The records of the answer, as text.
    pub answers: Vec<String>,
    /// Who is asked, in order, if nothing here knows.
    pub upstreams: Vec<SocketAddr>,
}

/// A socket on its way to the server's next process. It is the same socket in both: what waits in it is lost by neither.
#[derive(Debug)]
pub struct HandedSocket {
    /// A name fit for systemd's fd store. What the socket is, is read from the socket.
    pub name: String,
    /// The socket.
    pub fd: OwnedFd,
}
