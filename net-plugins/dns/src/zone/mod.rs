//! What is answered to whom: an immutable snapshot, and changes that share all they do not touch.
//!
//! A [`Zone`] is a value. A change makes another one, at a cost that does not grow with what is in it: maps are tries that
//! share all nodes but those on the way to what changed. Whoever holds the old one goes on reading it.
//!
//! [`Zone::answer`] is the whole of the server's policy, pure: who asks, at which network, for what. It does no I/O, knows no
//! wire format but that of names, and is tested as tables.
//!
//! | module | says |
//! |---|---|
//! | [`spec`] | what the server is told |
//! | `build` | how a change makes another zone |
//! | `lookup` | which of the network's names a question means |
//! | `answer` | what is answered, refused, kept silent about, or asked elsewhere |
//! | `entries` | all of it as a list, for people |

mod answer;
mod build;
mod entries;
mod lookup;
mod servers;
pub mod spec;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use berth_types::{AttachmentKey, ContainerId, NetworkName};
use ipnetwork::IpNetwork;

pub use answer::{Found, Verdict, Who, Why};
pub use servers::Servers;
pub(crate) use servers::Upstream;
use spec::Service;

/// A map that is cheap to copy and to change.
type Map<K, V> = imbl::GenericHashMap<K, V, foldhash::fast::RandomState, imbl::shared_ptr::DefaultSharedPtr>;

/// A name in lower case, as labels.
type Wire = Arc<[u8]>;

/// All that is answered, at one moment.
#[derive(Clone, Default)]
pub struct Zone {
    nets: Map<NetworkName, Arc<Net>>,
    /// Each container's memberships: the one place where all members are.
    containers: Map<ContainerId, Arc<[Arc<Member>]>>,
}

/// One network.
#[derive(Clone, Default)]
struct Net {
    /// None while only members are known.
    settings: Option<Arc<Settings>>,
    /// How many members it has.
    members: usize,
    names: Map<Wire, Owned>,
    by_addr: Map<IpAddr, Source>,
}

/// What a network's answers depend on besides its members.
struct Settings {
    /// What it is called, each as labels; the first is used in answers.
    called: Box<[Wire]>,
    domain: Wire,
    listeners: Box<[IpAddr]>,
    subnets: Box<[IpNetwork]>,
    internal: bool,
    ttl: u32,
    servers: Option<Arc<Servers>>,
    split: Box<[(Wire, Arc<Servers>)]>,
}

/// A container on a network.
struct Member {
    key: AttachmentKey,
    names: Box<[Wire]>,
    addrs: Box<[IpAddr]>,
    servers: Option<Arc<Servers>>,
    services: Box<[Service]>,
    listed_only: bool,
}

/// Who has an address on a network.
#[derive(Clone)]
struct Source {
    member: Arc<Member>,
    /// The other networks its container is on. Most are on none.
    others: Option<Arc<Vec<NetworkName>>>,
}

/// What a name stands for. Most names are one container's, and cost no more than that.
#[derive(Clone)]
enum Owned {
    One(Arc<Member>),
    Several(Arc<Group>),
}

/// Several containers with one name, and all their addresses, none of them twice.
struct Group {
    members: Box<[Arc<Member>]>,
    v4: Box<[Ipv4Addr]>,
    v6: Box<[Ipv6Addr]>,
}

impl std::fmt::Debug for Zone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Zone").field("networks", &self.nets.len()).finish_non_exhaustive()
    }
}
