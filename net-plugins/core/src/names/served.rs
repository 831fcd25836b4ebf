//! What the DNS server is to answer: a pure function of the records.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use berth_store::{AttachmentRow, AttachmentState};
use berth_types::{AttachmentKey, BootId, ContainerId, IfName, NetworkName};
use ipnetwork::IpNetwork;

use super::record::{MemberNames, NamesSource, NetworkNames, ServiceName, SplitDomain, host_name};
use crate::network::{NetworkRecord, subnet_of};
use crate::published::{Held, Published};
use crate::shown::Shown;

/// Everything that is answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Served {
    /// The networks.
    pub networks: Vec<ServedNetwork>,
    /// The containers on them.
    pub members: Vec<ServedMember>,
}

/// A network whose members are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedNetwork {
    /// The network.
    pub name: NetworkName,
    /// What it is called, what people say first: `container.CALLED` is a name.
    pub called: Vec<String>,
    /// The addresses its members ask.
    pub listeners: BTreeSet<IpAddr>,
    /// The device they are on.
    pub bridge: IfName,
    /// Addresses whose names are nobody else's to tell.
    pub subnets: BTreeSet<IpNetwork>,
    /// Whether nothing may leave.
    pub internal: bool,
    /// `name.DOMAIN` is `name`.
    pub domain: String,
    /// How long an answer may be kept, seconds.
    pub ttl: u32,
    /// Servers for names of elsewhere; none is the host's.
    pub servers: Vec<SocketAddr>,
    /// Domains with servers of their own.
    pub split: Vec<SplitDomain>,
}

/// A container on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedMember {
    /// The record it comes of.
    pub record: AttachmentKey,
    /// Who it is: `record`, with the container's own number where the engine has one for the attachment. By it a
    /// container on several networks is one.
    pub key: AttachmentKey,
    /// Its names, the one it is best known by first.
    pub names: Vec<String>,
    /// Its addresses.
    pub addrs: Vec<IpAddr>,
    /// Its own servers.
    pub servers: Vec<SocketAddr>,
    /// What its ports are called.
    pub services: Vec<ServiceName>,
    /// Whether it is on another host: it is answered, and asks nothing here.
    pub elsewhere: bool,
}

/// All that is answered by these records, of this boot.
pub fn served(
    networks: &[NetworkRecord],
    held: &[(AttachmentRow, Held)],
    shown: &crate::shown::Names,
    boot: &BootId,
) -> Served {
    let network_of = |key: &AttachmentKey| networks.iter().find(|network| network.name == key.network);
    let ready = held.iter().filter(|(row, _)| stands(row, boot));
    let member = |(row, held): &(AttachmentRow, Held)| {
        ServedMember::of(network_of(&row.key)?, held, shown.attachment(&row.key))
    };
    Served {
        networks: networks
            .iter()
            .filter_map(|network| ServedNetwork::of(network, shown.network(&network.name)))
            .collect(),
        members: ready.filter_map(member).collect(),
    }
}

/// Whether the row stands for something whose names are answered.
pub(super) fn stands(row: &AttachmentRow, boot: &BootId) -> bool {
    row.state == AttachmentState::Ready && row.boot_id == *boot
}

impl ServedNetwork {
    /// What `record` asks for; nothing, where it says nothing of names or has no address to ask.
    pub fn of(record: &NetworkRecord, shown: Option<&Shown>) -> Option<Self> {
        let NetworkRecord { name, bridge, reach, gateways, subnets, names, .. } = record;
        let NetworkNames { source, domain, ttl, servers, split, services: _, alternates: _, answers_for: _ } =
            names.as_ref()?;
        let said = shown.and_then(|shown| host_name(&shown.name).ok());
        let called = distinct(said.into_iter().chain([name.as_str().to_ascii_lowercase()]));
        let mut subnets = subnets.clone();
        if *source == NamesSource::Alone {
            subnets.extend(gateways.iter().map(|gateway| subnet_of(*gateway)));
        }
        Some(Self {
            name: name.clone(),
            called,
            listeners: gateways.iter().map(IpNetwork::ip).collect(),
            bridge: bridge.clone(),
            subnets,
            internal: reach.internal,
            domain: domain.clone(),
            ttl: *ttl,
            servers: servers.clone(),
            split: split.clone(),
        })
        .filter(|served| !served.listeners.is_empty())
    }
}

impl ServedMember {
    /// What `held` is called on `network`.
    pub fn of(network: &NetworkRecord, held: &Held, shown: Option<&Shown>) -> Option<Self> {
        let of_network = network.names.as_ref()?;
        let MemberNames { names, servers, services, addrs } = held.names()?;
        let mut names = names.clone();
        let mut key = held.key().clone();
        if let Some(Shown { name, container, aliases }) = shown {
            names.extend(std::iter::once(name).chain(aliases).filter_map(|name| host_name(name).ok()));
            key.container = container.parse().unwrap_or(key.container);
        }
        // An attachment that its engine took has the engine's number, which is nobody's name.
        let is_numbered = matches!(held, Held::Bridge(record) if record.peer.is_some()) && shown.is_none();
        if !is_numbered {
            if names.is_empty() {
                names.extend(host_name(key.container.as_str()).ok());
            }
            names.extend(short_number(&key.container));
        }
        let addrs = match held {
            Held::Bridge(record) => record.leases.iter().map(|lease| lease.address.ip()).collect(),
            Held::Ports(_) => addrs.clone(),
        };
        let published = of_network.services.iter().filter(|service| is_published(held.published(), service));
        let mut all = services.clone();
        all.extend(published.filter(|service| !services.contains(service)).cloned());
        let names = distinct(names);
        let (record, servers) = (held.key().clone(), servers.clone());
        Some(Self { record, key, names, addrs, servers, services: all, elsewhere: false })
    }
}

/// Each once, in order.
fn distinct(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    names.into_iter().filter(|name| seen.insert(name.clone())).collect()
}

/// The first twelve digits of an engine's long number, by which people call a container without a name.
fn short_number(container: &ContainerId) -> Option<String> {
    let number = container.as_str();
    let is_number = number.len() == 64 && number.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_number.then(|| number.chars().take(12).collect::<String>().to_ascii_lowercase())
}

fn is_published(published: &Published, service: &ServiceName) -> bool {
    published.asked().iter().any(|port| {
        let last = port.target_port.saturating_add(port.count.saturating_sub(1));
        port.proto == service.proto && (port.target_port..=last).contains(&service.port)
    })
}

#[cfg(test)]
#[path = "served_tests.rs"]
mod tests;
