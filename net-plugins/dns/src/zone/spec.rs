//! What the server is told: networks, their members, and changes of both.

use std::net::{IpAddr, SocketAddr};

use berth_types::{AttachmentKey, IfName, NetworkName, Proto};
use ipnetwork::IpNetwork;

/// A network whose members are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSpec {
    /// Its identity.
    pub name: NetworkName,
    /// What people call it: `name.CALLED` is answered. Includes the name itself; the first is used in answers that need one.
    pub called: Vec<String>,
    /// Its gateway addresses: where its members ask.
    pub listeners: Vec<IpAddr>,
    /// The device these addresses are on. Only needed for link-local ones.
    pub bridge: Option<IfName>,
    /// Its subnets: questions for names of addresses in them are never forwarded.
    pub subnets: Vec<IpNetwork>,
    /// Whether its members must not cause a packet to any server outside.
    pub internal: bool,
    /// The domain its names are also found in, for instance `berth.internal`.
    pub domain: String,
    /// How long its answers may be kept, seconds.
    pub ttl: u32,
    /// Its own servers; empty: those of the host's `resolv.conf`.
    pub upstreams: Vec<SocketAddr>,
    /// Domains with servers of their own.
    pub split: Vec<(String, Vec<SocketAddr>)>,
}

/// A container on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberSpec {
    /// Network, container and interface.
    pub key: AttachmentKey,
    /// Container name, aliases, host name. The first is used in answers that need one.
    pub names: Vec<String>,
    /// Its addresses on the network.
    pub addrs: Vec<IpAddr>,
    /// Its own servers, instead of the network's.
    pub upstreams: Vec<SocketAddr>,
    /// What it offers by name, for SRV.
    pub services: Vec<Service>,
    /// Whether it is on another host: its names are answered, but it asks nothing here.
    pub listed_only: bool,
}

/// A port with a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Service {
    /// The service, without the underscore of DNS: `http`.
    pub name: String,
    /// Its protocol.
    pub proto: Proto,
    /// The port in the container.
    pub port: u16,
}

/// One change of what is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A network is there, or has other settings. Its members stay.
    NetworkPut(NetworkSpec),
    /// A network is gone, and its members with it.
    NetworkGone(NetworkName),
    /// A member is there, or has other names or addresses. Its network may be put later.
    MemberPut(MemberSpec),
    /// A member is gone.
    MemberGone(AttachmentKey),
}
