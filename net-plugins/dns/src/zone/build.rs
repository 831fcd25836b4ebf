//! How a change makes another zone.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use berth_types::{AttachmentKey, ContainerId, NetworkName};

use super::spec::{Change, MemberSpec, NetworkSpec};
use super::{Member, Net, Owned, Servers, Settings, Source, Wire, Zone};
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

    fn network_gone(&mut self, name: &NetworkName) {
        let Some(net) = self.nets.remove(name) else { return };
        for member in net.members.values() {
            self.left(&member.key);
        }
    }

    fn member_put(&mut self, spec: &MemberSpec) {
        let member = Arc::new(Member::new(spec));
        let key = &member.key;
        let before = self.nets.get(&key.network).and_then(|net| net.member(key)).cloned();
        self.change(&key.network, |net| {
            if let Some(before) = &before {
                net.forget(before);
            }
            net.learn(&member);
        });
        if before.is_none() {
            let known = self.containers.get(&key.container).map(|keys| keys.to_vec()).unwrap_or_default();
            let all: Arc<[AttachmentKey]> = known.into_iter().chain([key.clone()]).collect();
            self.containers.insert(key.container.clone(), all);
        }
        self.relate(&key.container);
    }

    fn member_gone(&mut self, key: &AttachmentKey) {
        let Some(member) = self.nets.get(&key.network).and_then(|net| net.member(key)).cloned() else {
            return;
        };
        self.change(&key.network, |net| net.forget(&member));
        // A network that was never put and has no members is not remembered.
        if self.nets.get(&key.network).is_some_and(|net| net.settings.is_none() && net.members.is_empty()) {
            self.nets.remove(&key.network);
        }
        self.left(key);
    }

    /// The container of `key` is no longer there.
    fn left(&mut self, key: &AttachmentKey) {
        let Some(keys) = self.containers.get(&key.container) else { return };
        let rest: Arc<[AttachmentKey]> = keys.iter().filter(|other| *other != key).cloned().collect();
        if rest.is_empty() {
            self.containers.remove(&key.container);
        } else {
            self.containers.insert(key.container.clone(), rest);
            self.relate(&key.container);
        }
    }

    /// Tells each of the container's addresses of the networks that the others are on.
    fn relate(&mut self, container: &ContainerId) {
        let Some(keys) = self.containers.get(container).cloned() else { return };
        let networks: BTreeSet<&NetworkName> = keys.iter().map(|key| &key.network).collect();
        for key in keys.iter() {
            let others = || networks.iter().copied().filter(|name| **name != key.network);
            let right = |source: &Source| source.others.iter().eq(others());
            let Some(member) = self.nets.get(&key.network).and_then(|net| net.member(key)).cloned() else {
                continue;
            };
            self.change(&key.network, |net| {
                for addr in &member.addrs {
                    let here =
                        net.by_addr.get(addr).filter(|source| source.member.key == *key && !right(source));
                    if here.is_some() {
                        let others = others().cloned().collect();
                        net.by_addr.insert(*addr, Arc::new(Source { member: Arc::clone(&member), others }));
                    }
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
    pub(super) fn member(&self, key: &AttachmentKey) -> Option<&Arc<Member>> {
        self.members.get(&(key.container.clone(), key.ifname.clone()))
    }

    fn learn(&mut self, member: &Arc<Member>) {
        let AttachmentKey { network: _, container, ifname } = &member.key;
        self.members.insert((container.clone(), ifname.clone()), Arc::clone(member));
        for name in &member.names {
            let others = self.names.get(name).map(|owned| owned.members.iter()).into_iter().flatten();
            let members = others.chain([member]).cloned().collect();
            self.names.insert(Arc::clone(name), Arc::new(Owned::by(members)));
        }
        for addr in &member.addrs {
            let source = Source { member: Arc::clone(member), others: Box::default() };
            self.by_addr.insert(*addr, Arc::new(source));
        }
    }

    fn forget(&mut self, member: &Arc<Member>) {
        let AttachmentKey { network: _, container, ifname } = &member.key;
        self.members.remove(&(container.clone(), ifname.clone()));
        for name in &member.names {
            let others = self.names.get(name).map(|owned| owned.members.iter()).into_iter().flatten();
            let members: Vec<Arc<Member>> = others.filter(|other| other.key != member.key).cloned().collect();
            if members.is_empty() {
                self.names.remove(name);
            } else {
                self.names.insert(Arc::clone(name), Arc::new(Owned::by(members)));
            }
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
    fn by(members: Vec<Arc<Member>>) -> Self {
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
