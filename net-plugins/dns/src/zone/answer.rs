//! What is answered, refused, kept silent about, or asked elsewhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use berth_types::NetworkName;

use super::lookup::{Meaning, asked_of_tops, is_single, service};
use super::{Member, Net, Owned, Settings, Source, Upstream, Zone};
use crate::wire::{Query, Reverse, below, kind, reverse};

/// The gateway, as a member sees it, by the names that engines have taught people.
const HOST_NAMES: [&[u8]; 2] = [b"\x04host\x0acontainers\x08internal", b"\x04host\x06docker\x08internal"];

/// Who asks.
#[derive(Clone)]
pub struct Who<'z>(Asker<'z>);

#[derive(Clone)]
enum Asker<'z> {
    Member(&'z Source),
    Host,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Answer with what was found; nothing found means that the name has no record of the type.
    Answer,
    /// There is no such name.
    NoName,
    /// Refuse to answer.
    Refused,
    /// Ask others.
    #[expect(private_interfaces, reason = "whom to ask is the server's business only")]
    Forward(Upstream),
}

/// Why that is, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is the name of a member.
    Member,
    /// It is a name of the host.
    HostName,
    /// It is the reverse of an address.
    Reverse,
    /// It is a service of a member.
    Service,
    /// It is in the network's domain or below its name, where only members are.
    OwnDomain,
    /// It is an address of a subnet of this host, and not given to anybody that the asker may know of.
    OwnSubnet,
    /// It has no dot and is no member: such names are of no use elsewhere.
    SingleLabel,
    /// The class is not that of the Internet.
    Class,
    /// All networks of the asker are internal.
    Internal,
    /// Nobody here knows.
    Elsewhere,
    /// It belongs to a domain with servers of its own.
    Split,
}

/// The records of an answer. It is made once and filled again and again.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Found {
    /// Addresses.
    pub v4: Vec<Ipv4Addr>,
    /// IPv6 addresses.
    pub v6: Vec<Ipv6Addr>,
    /// Names, as data of PTR records.
    pub names: Vec<Vec<u8>>,
    /// Data of SRV records.
    pub services: Vec<Vec<u8>>,
    /// How long all of it may be kept, seconds.
    pub ttl: u32,
    /// Why the verdict is as it is.
    pub why: Option<Why>,
}

impl Found {
    fn clear(&mut self) {
        let Self { v4, v6, names, services, ttl, why } = self;
        v4.clear();
        v6.clear();
        names.clear();
        services.clear();
        (*ttl, *why) = (0, None);
    }

    fn verdict(&mut self, verdict: Verdict, why: Why) -> Verdict {
        self.why = Some(why);
        verdict
    }
}

/// Networks whose names are seen at once.
struct View<'z> {
    zone: &'z Zone,
    first: (&'z Net, &'z Settings),
    others: &'z [NetworkName],
}

impl<'z> View<'z> {
    fn nets(&self) -> impl Iterator<Item = (&'z Net, &'z Settings)> {
        let zone = self.zone;
        std::iter::once(self.first).chain(self.others.iter().filter_map(move |name| zone.net(name)))
    }
}

impl Zone {
    /// Who asks at `network` from `addr`; none if it is nobody who may. The host's other addresses are not known here: who has
    /// seen that `addr` is one of them may take [`Who::host`].
    pub fn who(&self, network: &NetworkName, addr: IpAddr) -> Option<Who<'_>> {
        let (net, settings) = self.net(network)?;
        match net.by_addr.get(&addr) {
            Some(source) if !source.member.listed_only => Some(Who(Asker::Member(source))),
            Some(_) => None,
            None => settings.listeners.contains(&addr).then_some(Who(Asker::Host)),
        }
    }

    /// Decides what `who` is answered to `query` at `network`. Records are put into `found`, in the order they are kept.
    pub fn answer(&self, network: &NetworkName, who: &Who<'_>, query: &Query, found: &mut Found) -> Verdict {
        found.clear();
        let Some(first) = self.net(network) else { return Verdict::Refused };
        let Who(asker) = who;
        let (others, member) = match asker {
            Asker::Member(source) => (source.others(), Some(&*source.member)),
            Asker::Host => (&[][..], None),
        };
        let view = View { zone: self, first, others };
        found.ttl = first.1.ttl;
        if query.class != 1 {
            return found.verdict(Verdict::Refused, Why::Class);
        }
        self.own(&view, query, found).unwrap_or_else(|| forward(&view, member, query, found))
    }

    /// What is known here, or known not to be.
    fn own(&self, view: &View<'_>, query: &Query, found: &mut Found) -> Option<Verdict> {
        let name = query.name();
        let mut absent = false;
        let mut known = false;
        for (net, settings) in view.nets() {
            match net.meaning(settings, name) {
                Meaning::Member(owned) => {
                    take(owned, query.kind, found, known);
                    known = true;
                }
                Meaning::Empty => known = true,
                Meaning::Absent => absent = true,
                Meaning::Foreign => (),
            }
        }
        if known {
            return Some(found.verdict(Verdict::Answer, Why::Member));
        }
        if let Some(verdict) = host_name(view, query, found).or_else(|| services(view, query, found)) {
            return Some(verdict);
        }
        if absent {
            return Some(found.verdict(Verdict::NoName, Why::OwnDomain));
        }
        if is_single(name) && !asked_of_tops(query.kind) {
            return Some(found.verdict(Verdict::NoName, Why::SingleLabel));
        }
        reverse(name).and_then(|what| self.reverse(view, what, query.kind, found))
    }

    /// The names of addresses. Those of this host's networks are known here only.
    fn reverse(&self, view: &View<'_>, what: Reverse, kind: u16, found: &mut Found) -> Option<Verdict> {
        match what {
            Reverse::Addr(addr) => {
                let named = view.nets().filter_map(|(net, settings)| name_of(net, settings, addr));
                let names: Vec<Vec<u8>> = named.collect();
                if !names.is_empty() {
                    if matches!(kind, kind::PTR | kind::ANY) {
                        found.names = names;
                    }
                    return Some(found.verdict(Verdict::Answer, Why::Reverse));
                }
                self.has_addr(addr).then(|| found.verdict(Verdict::NoName, Why::OwnSubnet))
            }
            Reverse::Prefix(addr, len) => {
                self.has_prefix(addr, len).then(|| found.verdict(Verdict::Answer, Why::OwnSubnet))
            }
        }
    }

    /// Whether an address is of any network of this host, seen by the asker or not.
    fn has_addr(&self, addr: IpAddr) -> bool {
        self.settings().any(|settings| settings.subnets.iter().any(|subnet| subnet.contains(addr)))
    }

    fn has_prefix(&self, addr: IpAddr, len: u8) -> bool {
        let inside = |subnet: &ipnetwork::IpNetwork| subnet.prefix() <= len && subnet.contains(addr);
        self.settings().any(|settings| settings.subnets.iter().any(inside))
    }

    fn settings(&self) -> impl Iterator<Item = &Settings> {
        self.nets.values().filter_map(|net| net.settings.as_deref())
    }

    pub(super) fn net(&self, name: &NetworkName) -> Option<(&Net, &Settings)> {
        let net = self.nets.get(name)?;
        Some((net, net.settings.as_deref()?))
    }
}

impl Who<'_> {
    /// The host itself, which sees the names of the network it asks at.
    pub fn host() -> Self {
        Self(Asker::Host)
    }
}

impl Source {
    fn others(&self) -> &[NetworkName] {
        self.others.as_ref().map(|others| others.as_slice()).unwrap_or_default()
    }
}

impl Owned {
    fn has_v4(&self) -> bool {
        match self {
            Self::One(member) => member.addrs.iter().any(IpAddr::is_ipv4),
            Self::Several(group) => !group.v4.is_empty(),
        }
    }

    fn put_v4(&self, found: &mut Vec<Ipv4Addr>) {
        match self {
            Self::One(member) => found.extend(member.addrs.iter().filter_map(|addr| match addr {
                IpAddr::V4(addr) => Some(*addr),
                IpAddr::V6(_) => None,
            })),
            Self::Several(group) => found.extend_from_slice(&group.v4),
        }
    }

    fn put_v6(&self, found: &mut Vec<Ipv6Addr>) {
        match self {
            Self::One(member) => found.extend(member.addrs.iter().filter_map(|addr| match addr {
                IpAddr::V4(_) => None,
                IpAddr::V6(addr) => Some(*addr),
            })),
            Self::Several(group) => found.extend_from_slice(&group.v6),
        }
    }
}

/// Takes the records of `owned` that are asked for. Where several networks have the name, none is taken twice.
fn take(owned: &Owned, kind: u16, found: &mut Found, more: bool) {
    // ANY is answered with what is least (RFC 8482).
    if kind == kind::A || (kind == kind::ANY && owned.has_v4()) {
        owned.put_v4(&mut found.v4);
        if more {
            found.v4.sort_unstable();
            found.v4.dedup();
        }
    } else if kind == kind::AAAA || kind == kind::ANY {
        owned.put_v6(&mut found.v6);
        if more {
            found.v6.sort_unstable();
            found.v6.dedup();
        }
    }
}

fn host_name(view: &View<'_>, query: &Query, found: &mut Found) -> Option<Verdict> {
    if !HOST_NAMES.contains(&query.name()) {
        return None;
    }
    for addr in &view.first.1.listeners {
        match (addr, query.kind) {
            (IpAddr::V4(addr), kind::A | kind::ANY) => found.v4.push(*addr),
            (IpAddr::V6(addr), kind::AAAA) => found.v6.push(*addr),
            _ => (),
        }
    }
    Some(found.verdict(Verdict::Answer, Why::HostName))
}

/// `_http._tcp.NAME`: one record for each member of the name that has the service.
fn services(view: &View<'_>, query: &Query, found: &mut Found) -> Option<Verdict> {
    let (wanted, proto, rest) = service(query.name())?;
    let mut owner = false;
    let mut any = false;
    for (net, settings) in view.nets() {
        let Meaning::Member(owned) = net.meaning(settings, rest) else { continue };
        owner = true;
        for member in owned.members() {
            let fits = |service: &&super::Service| {
                service.name.eq_ignore_ascii_case(wanted) && service.proto.as_str() == proto
            };
            for service in member.services.iter().filter(fits) {
                any = true;
                if matches!(query.kind, kind::SRV | kind::ANY)
                    && let Some(target) = full_name(member, settings)
                {
                    let mut data = vec![0, 0, 0, 0];
                    data.extend(service.port.to_be_bytes());
                    data.extend(target);
                    found.services.push(data);
                }
            }
        }
    }
    found.services.sort_unstable();
    found.services.dedup();
    // Below the name of a member there is nothing but its services.
    match (owner, any) {
        (false, _) => None,
        (true, true) => Some(found.verdict(Verdict::Answer, Why::Service)),
        (true, false) => Some(found.verdict(Verdict::NoName, Why::Service)),
    }
}

/// The first name of the member with its network and the domain, as data of a record.
pub(super) fn full_name(member: &Member, settings: &Settings) -> Option<Vec<u8>> {
    let mut name = member.names.first()?.to_vec();
    if let Some(called) = settings.called.first() {
        name.extend_from_slice(called);
    }
    name.extend_from_slice(&settings.domain);
    name.push(0);
    (name.len() <= 255).then_some(name)
}

fn name_of(net: &Net, settings: &Settings, addr: IpAddr) -> Option<Vec<u8>> {
    if let Some(source) = net.by_addr.get(&addr) {
        return full_name(&source.member, settings);
    }
    let host = HOST_NAMES.first().filter(|_| settings.listeners.contains(&addr))?;
    Some([host, &[0][..]].concat())
}

/// Whom to ask for what is not known here: the servers of the longest domain that has some, those of the container, those of
/// the network, those of the host. Only networks that are not internal have a say.
fn forward(view: &View<'_>, member: Option<&Member>, query: &Query, found: &mut Found) -> Verdict {
    let open = || view.nets().filter(|(_, settings)| !settings.internal);
    let Some((_, settings)) = open().next() else {
        return found.verdict(Verdict::Refused, Why::Internal);
    };
    let splits = open().flat_map(|(_, settings)| settings.split.iter());
    let fitting = splits.filter(|(domain, _)| below(query.name(), domain).is_some());
    if let Some((_, servers)) = fitting.max_by_key(|(domain, _)| domain.len()) {
        return found.verdict(Verdict::Forward(Upstream::Listed(Arc::clone(servers))), Why::Split);
    }
    let own = member.filter(|_| !view.first.1.internal).and_then(|member| member.servers.as_ref());
    let elsewhere = || {
        let container = &member?.key.container;
        let all = view.zone.containers.get(container)?;
        let is_open = |member: &&Arc<Member>| {
            view.zone.net(&member.key.network).is_some_and(|(_, settings)| !settings.internal)
        };
        all.iter().filter(is_open).find_map(|member| member.servers.clone())
    };
    let servers = own.cloned().or_else(elsewhere).or_else(|| settings.servers.clone());
    let upstream = servers.map_or(Upstream::Host, Upstream::Listed);
    found.verdict(Verdict::Forward(upstream), Why::Elsewhere)
}
