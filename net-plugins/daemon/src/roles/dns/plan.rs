//! What the server is to be told, given what it was told so far and what the records ask for. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use berth_core::names::{Changed, Served, ServedMember, ServedNetwork, ServedView, ServiceName, SplitDomain};
use berth_dns::{Change, MemberSpec, NetworkSpec, Service};
use berth_types::{AttachmentKey, ContainerId, NetworkName};

/// What the server was told. Of a member it is only known whether it is the same again: there may be many.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Without its settings where the server refused them: they are told again.
    networks: BTreeMap<NetworkName, Option<NetworkSpec>>,
    members: BTreeMap<AttachmentKey, Member>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    /// The container's own number, where it is not that of the record.
    container: Option<ContainerId>,
    /// Whether it is on another host.
    elsewhere: bool,
    hash: u64,
}

impl Told {
    /// The changes after which the server answers `wanted` and nothing else.
    pub(super) fn all(&mut self, wanted: &Served) -> Vec<Change> {
        let networks: BTreeSet<&NetworkName> = wanted.networks.iter().map(|network| &network.name).collect();
        let members: BTreeSet<&AttachmentKey> = wanted.members.iter().map(|member| &member.record).collect();
        let known = self.networks.keys().filter(|name| !networks.contains(name));
        let gone_networks: Vec<NetworkName> = known.cloned().collect();
        let known = self.members.keys().filter(|key| !members.contains(key));
        let gone_members: Vec<AttachmentKey> = known.cloned().collect();
        let mut changes = Vec::new();
        changes.extend(gone_members.iter().filter_map(|key| self.member_gone(key)));
        changes.extend(gone_networks.iter().filter_map(|name| self.network_gone(name)));
        self.put(wanted, &mut changes);
        changes
    }

    /// The changes after which the server answers what `part` says of what `changed` is about.
    pub(super) fn part(&mut self, changed: &Changed, part: &Served) -> Vec<Change> {
        let mut changes = Vec::new();
        for key in &changed.attachments {
            if !part.members.iter().any(|member| member.record == *key) {
                changes.extend(self.member_gone(key));
            }
        }
        for name in &changed.networks {
            if !part.networks.iter().any(|network| network.name == *name) {
                changes.extend(self.network_gone(name));
            }
        }
        self.put(part, &mut changes);
        changes
    }

    /// Whether the server was told of the network.
    pub(super) fn knows(&self, name: &NetworkName) -> bool {
        self.networks.contains_key(name)
    }

    /// Notes that the server refused what it was told of a network.
    pub(super) fn doubt(&mut self, name: &NetworkName) {
        if let Some(spec) = self.networks.get_mut(name) {
            *spec = None;
        }
    }

    /// Whether there is nobody to answer: whoever is on another host asks there.
    pub(super) fn is_empty(&self) -> bool {
        self.members.values().all(|member| member.elsewhere)
    }

    /// The networks that the server was told of.
    pub(super) fn networks(&self) -> impl Iterator<Item = &NetworkName> {
        self.networks.keys()
    }

    /// For whoever compares.
    pub(super) fn view(&self) -> ServedView {
        ServedView { listening: Vec::new(), members: self.members.keys().cloned().collect() }
    }

    fn put(&mut self, wanted: &Served, changes: &mut Vec<Change>) {
        for network in &wanted.networks {
            let spec = network_spec(network);
            if self.networks.get(&network.name).and_then(Option::as_ref) != Some(&spec) {
                self.networks.insert(network.name.clone(), Some(spec.clone()));
                changes.push(Change::NetworkPut(spec));
            }
        }
        for member in &wanted.members {
            let spec = member_spec(member);
            let now = Member::of(&member.record, &spec);
            let before = self.members.get(&member.record);
            if before == Some(&now) {
                continue;
            }
            // Known by another number so far.
            if before.is_some_and(|before| before.container != now.container) {
                changes.extend(self.member_gone(&member.record));
            }
            self.members.insert(member.record.clone(), now);
            changes.push(Change::MemberPut(spec));
        }
    }

    fn network_gone(&mut self, name: &NetworkName) -> Option<Change> {
        self.networks.remove(name)?;
        // Its members go with it, there too.
        self.members.retain(|key, _| key.network != *name);
        Some(Change::NetworkGone(name.clone()))
    }

    fn member_gone(&mut self, record: &AttachmentKey) -> Option<Change> {
        let Member { container, elsewhere: _, hash: _ } = self.members.remove(record)?;
        let mut key = record.clone();
        key.container = container.unwrap_or(key.container);
        Some(Change::MemberGone(key))
    }
}

impl Member {
    fn of(record: &AttachmentKey, spec: &MemberSpec) -> Self {
        let MemberSpec { key, names, addrs, upstreams, services, listed_only } = spec;
        let mut hasher = DefaultHasher::new();
        (key, names, addrs, upstreams, services, listed_only).hash(&mut hasher);
        let container = (key.container != record.container).then(|| key.container.clone());
        Self { container, elsewhere: *listed_only, hash: hasher.finish() }
    }
}

fn network_spec(network: &ServedNetwork) -> NetworkSpec {
    let ServedNetwork { name, called, listeners, bridge, subnets, internal, domain, ttl, servers, split } =
        network.clone();
    NetworkSpec {
        name,
        called,
        listeners: listeners.into_iter().collect(),
        bridge: Some(bridge),
        subnets: subnets.into_iter().collect(),
        internal,
        domain,
        ttl,
        upstreams: servers,
        split: split.into_iter().map(|SplitDomain { domain, servers }| (domain, servers)).collect(),
    }
}

fn member_spec(member: &ServedMember) -> MemberSpec {
    let ServedMember { record: _, key, names, addrs, servers, services, elsewhere } = member.clone();
    let service = |ServiceName { name, proto, port }| Service { name, proto, port };
    MemberSpec {
        key,
        names,
        addrs,
        upstreams: servers,
        services: services.into_iter().map(service).collect(),
        listed_only: elsewhere,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(name: &str) -> ServedNetwork {
        ServedNetwork {
            name: name.parse().unwrap(),
            called: vec![name.to_owned()],
            listeners: ["10.80.0.1".parse().unwrap()].into(),
            bridge: "br0".parse().unwrap(),
            subnets: ["10.80.0.0/24".parse().unwrap()].into(),
            internal: false,
            domain: "berth.internal".to_owned(),
            ttl: 0,
            servers: Vec::new(),
            split: Vec::new(),
        }
    }

    fn member(network: &str, record: &str, container: &str, name: &str) -> ServedMember {
        let key = |container: &str| AttachmentKey {
            network: network.parse().unwrap(),
            container: container.parse().unwrap(),
            ifname: "eth0".parse().unwrap(),
        };
        ServedMember {
            record: key(record),
            key: key(container),
            names: vec![name.to_owned()],
            addrs: vec!["10.80.0.2".parse().unwrap()],
            servers: Vec::new(),
            services: Vec::new(),
            elsewhere: false,
        }
    }

    fn words(changes: &[Change]) -> Vec<String> {
        let word = |change: &Change| match change {
            Change::NetworkPut(spec) => format!("+ {}", spec.name),
            Change::NetworkGone(name) => format!("- {name}"),
            Change::MemberPut(spec) => format!("+ {}/{}", spec.key.network, spec.key.container),
            Change::MemberGone(key) => format!("- {}/{}", key.network, key.container),
        };
        changes.iter().map(word).collect()
    }

    fn changed(networks: &[&str], attachments: &[&ServedMember]) -> Changed {
        Changed {
            networks: networks.iter().map(|name| name.parse().unwrap()).collect(),
            attachments: attachments.iter().map(|member| member.record.clone()).collect(),
            all: false,
        }
    }

    #[test]
    fn what_is_the_same_again_is_not_told() {
        let mut told = Told::default();
        let wanted = Served { networks: vec![network("n0")], members: vec![member("n0", "c1", "c1", "web")] };
        assert_eq!(words(&told.all(&wanted)), ["+ n0", "+ n0/c1"]);
        assert_eq!(words(&told.all(&wanted)), Vec::<String>::new());
        let renamed = Served { members: vec![member("n0", "c1", "c1", "www")], ..wanted };
        assert_eq!(words(&told.all(&renamed)), ["+ n0/c1"]);
        assert_eq!(words(&told.all(&Served::default())), ["- n0/c1", "- n0"]);
        assert!(told.is_empty());
    }

    #[test]
    fn a_part_says_nothing_of_the_rest() {
        let mut told = Told::default();
        let (one, two) = (member("n0", "c1", "c1", "web"), member("n0", "c2", "c2", "db"));
        told.all(&Served { networks: vec![network("n0")], members: vec![one.clone(), two.clone()] });
        let left = Served { networks: vec![network("n0")], members: Vec::new() };
        assert_eq!(words(&told.part(&changed(&["n0"], &[&one]), &left)), ["- n0/c1"]);
        assert_eq!(words(&told.part(&changed(&["n0"], &[&one]), &left)), Vec::<String>::new());
        assert_eq!(words(&told.part(&changed(&["n0"], &[]), &Served::default())), ["- n0"]);
        assert_eq!(told.view().members.len(), 0, "a network's members go with it");
    }

    #[test]
    fn a_container_that_turns_out_to_have_another_number_is_one_all_the_same() {
        let mut told = Told::default();
        let before = member("n0", "endpoint", "endpoint", "web");
        let after = member("n0", "endpoint", "container", "web");
        let one =
            |member: &ServedMember| Served { networks: vec![network("n0")], members: vec![member.clone()] };
        told.all(&one(&before));
        assert_eq!(words(&told.all(&one(&after))), ["- n0/endpoint", "+ n0/container"]);
        assert_eq!(words(&told.part(&changed(&[], &[&after]), &Served::default())), ["- n0/container"]);
    }
}
