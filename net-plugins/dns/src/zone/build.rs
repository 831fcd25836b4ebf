//! How a change makes another zone.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use berth_types::{AttachmentKey, NetworkName};

use super::spec::{Change, MemberSpec, NetworkSpec};
use super::{Group, Member, Net, Owned, Servers, Settings, Source, Wire, Zone};
use crate::wire::wire_of;

impl Zone {
    /// Makes `change` here. Copies of this zone made before do not see it.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::NetworkPut(spec) => self.network_put(spec),
            Change::NetworkGone(name) => self.network_gone(name),
            Change::MemberPut(spec) => self.member_put(spec),
            Change::MemberGone(key) => self.member_gone(key),
        }
    }

    fn network_put(&mut self, spec: &NetworkSpec) {
        let settings = Some(Arc::new(Settings::new(spec)));
        self.change(&spec.name, |net| net.settings = settings);
    }

    /// Takes its members with it. It has none left, usually: finding them costs more the more containers there are.
    fn network_gone(&mut self, name: &NetworkName) {
        let Some(net) = self.nets.remove(name) else { return };
        if net.members == 0 {
            return;
        }
        let all = self.containers.values().flat_map(|members| members.iter());
        let gone: Vec<AttachmentKey> =
            all.filter(|member| member.key.network == *name).map(|member| member.key.clone()).collect();
        gone.iter().for_each(|key| self.enlist(key, None));
    }

    fn member_put(&mut self, spec: &MemberSpec) {
        let member = Arc::new(Member::new(spec));
        let key = &member.key;
        let before = self.member(key).cloned();
        self.change(&key.network, |net| {
            if let Some(before) = &before {
                net.forget(before);
            }
            net.learn(&member);
        });
        self.enlist(key, Some(&member));
    }

    fn member_gone(&mut self, key: &AttachmentKey) {
        let Some(member) = self.member(key).cloned() else { return };
        self.change(&key.network, |net| net.forget(&member));
        // A network that was never put and has no members is not remembered.
        if self.nets.get(&key.network).is_some_and(|net| net.settings.is_none() && net.members == 0) {
            self.nets.remove(&key.network);
        }
        self.enlist(key, None);
    }

    fn member(&self, key: &AttachmentKey) -> Option<&Arc<Member>> {
        self.containers.get(&key.container)?.iter().find(|member| member.key == *key)
    }

    /// Notes that `key` is now `member`, or gone, and tells all addresses of its container of the networks that the others
    /// are on.
    fn enlist(&mut self, key: &AttachmentKey, member: Option<&Arc<Member>>) {
        let known = self.containers.get(&key.container).map(|known| known.iter()).into_iter().flatten();
        let others = known.filter(|other| other.key != *key);
        let all: Arc<[Arc<Member>]> = others.chain(member).cloned().collect();
        if all.is_empty() {
            self.containers.remove(&key.container);
            return;
        }
        self.containers.insert(key.container.clone(), Arc::clone(&all));
        let networks: BTreeSet<&NetworkName> = all.iter().map(|member| &member.key.network).collect();
        for member in all.iter() {
            let own = &member.key.network;
            let others: Vec<NetworkName> =
                networks.iter().filter(|name| **name != own).copied().cloned().collect();
            let others = (!others.is_empty()).then(|| Arc::new(others));
            self.relate(member, &others);
        }
    }

    /// Tells the addresses of `member` of the other networks of its container.
    fn relate(&mut self, member: &Arc<Member>, others: &Option<Arc<Vec<NetworkName>>>) {
        let Some(net) = self.nets.get(&member.key.network) else { return };
        let old = |addr: &&IpAddr| {
            let source = net.by_addr.get(*addr);
            source.is_some_and(|source| source.member.key == member.key && source.others != *others)
        };
        let stale: Vec<IpAddr> = member.addrs.iter().filter(old).copied().collect();
        if !stale.is_empty() {
            self.change(&member.key.network, |net| {
                for addr in stale {
                    let source = Source { member: Arc::clone(member), others: others.clone() };
                    net.by_addr.insert(addr, source);
                }
            });
        }
    }

    fn change(&mut self, name: &NetworkName, how: impl FnOnce(&mut Net)) {
        match self.nets.get_mut(name) {
            Some(net) => how(Arc::make_mut(net)),
            None => {
                let mut net = Net::default();
                how(&mut net);
                self.nets.insert(name.clone(), Arc::new(net));
            }
        }
    }
}

impl Net {
    fn learn(&mut self, member: &Arc<Member>) {
        self.members += 1;
        for name in &member.names {
            let others = self.names.get(name).map(Owned::members).unwrap_or_default();
            if let Some(owned) = Owned::by(others.iter().chain([member])) {
                self.names.insert(Arc::clone(name), owned);
            }
        }
        for addr in &member.addrs {
            self.by_addr.insert(*addr, Source { member: Arc::clone(member), others: None });
        }
    }

    fn forget(&mut self, member: &Arc<Member>) {
        self.members = self.members.saturating_sub(1);
        for name in &member.names {
            let all = self.names.get(name).map(Owned::members).unwrap_or_default();
            match Owned::by(all.iter().filter(|other| other.key != member.key)) {
                Some(owned) => self.names.insert(Arc::clone(name), owned),
                None => self.names.remove(name),
            };
        }
        for addr in &member.addrs {
            // The address may be another's by now: its news overtook the old owner's.
            if self.by_addr.get(addr).is_some_and(|source| source.member.key == member.key) {
                self.by_addr.remove(addr);
            }
        }
    }
}

impl Owned {
    /// What a name of `members` stands for; nothing if there are none.
    fn by<'m>(members: impl Iterator<Item = &'m Arc<Member>>) -> Option<Self> {
        let members: Vec<Arc<Member>> = members.cloned().collect();
        match members.as_slice() {
            [] => None,
            [one] => Some(Self::One(Arc::clone(one))),
            _ => Some(Self::Several(Arc::new(Group::new(members)))),
        }
    }

    /// Whose name it is.
    pub(super) fn members(&self) -> &[Arc<Member>] {
        match self {
            Self::One(member) => std::slice::from_ref(member),
            Self::Several(group) => &group.members,
        }
    }
}

impl Group {
    fn new(members: Vec<Arc<Member>>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for addr in members.iter().flat_map(|member| member.addrs.iter()) {
            match addr {
                IpAddr::V4(addr) => v4.push(*addr),
                IpAddr::V6(addr) => v6.push(*addr),
            }
        }
        v4.sort_unstable();
        v4.dedup();
        v6.sort_unstable();
        v6.dedup();
        Self { members: members.into(), v4: v4.into(), v6: v6.into() }
    }
}

impl Settings {
    fn new(spec: &NetworkSpec) -> Self {
        let NetworkSpec {
            name,
            called,
            listeners,
            bridge: _,
            subnets,
            internal,
            domain,
            ttl,
            upstreams,
            split,
        } = spec;
        let mut names = wires(called);
        if names.is_empty() {
            names = wires(&[name.as_str().to_owned()]);
        }
        let split =
            split.iter().filter_map(|(domain, servers)| Some((wire(domain)?, Servers::new(servers)?)));
        Self {
            called: names.into(),
            domain: wire(domain).unwrap_or_default(),
            listeners: listeners.clone().into(),
            subnets: subnets.clone().into(),
            internal: *internal,
            // The upper half of the numbers means 0 (RFC 2181, section 8).
            ttl: (*ttl).min(i32::MAX.unsigned_abs()),
            servers: Servers::new(upstreams),
            split: split.collect(),
        }
    }
}

impl Member {
    fn new(spec: &MemberSpec) -> Self {
        let MemberSpec { key, names, addrs, upstreams, services, listed_only } = spec;
        let mut unique: Vec<IpAddr> = Vec::with_capacity(addrs.len());
        for addr in addrs {
            if !unique.contains(addr) {
                unique.push(*addr);
            }
        }
        Self {
            key: key.clone(),
            names: wires(names).into(),
            addrs: unique.into(),
            servers: Servers::new(upstreams),
            services: services.clone().into(),
            listed_only: *listed_only,
        }
    }
}

/// The names among `texts` that DNS can carry, each once. Others cannot be asked for: they are said and left out.
fn wires(texts: &[String]) -> Vec<Wire> {
    let mut names: Vec<Wire> = Vec::with_capacity(texts.len());
    for text in texts {
        match wire(text) {
            Some(name) if names.contains(&name) => (),
            Some(name) => names.push(name),
            None => tracing::warn!(name = text, "this name cannot be asked for by DNS"),
        }
    }
    names
}

fn wire(text: &str) -> Option<Wire> {
    wire_of(text).map(Wire::from)
}
