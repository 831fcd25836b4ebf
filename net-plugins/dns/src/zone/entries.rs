//! All that is answered, as a list for people.

use std::net::IpAddr;
use std::sync::Arc;

use berth_types::NetworkName;

use super::answer::full_name;
use super::{Member, Net, Settings, Zone};
use crate::shown::Entry;
use crate::wire::text_of;

impl Zone {
    /// Every name with what it is answered with, sorted.
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        for (name, net) in self.nets.iter() {
            if let Some(settings) = &net.settings {
                entries_of_network(name, settings, &mut entries);
            }
        }
        for member in self.containers.values().flat_map(|members| members.iter()) {
            if let Some((net, settings)) = self.net(&member.key.network) {
                entries_of_member(member, net, settings, &mut entries);
            }
        }
        entries.sort_unstable();
        entries
    }

    /// The networks on which `addr` is a member's.
    pub(crate) fn networks_of(&self, addr: IpAddr) -> Vec<NetworkName> {
        let here = |(name, net): (&NetworkName, &Arc<Net>)| {
            let asks = net.by_addr.get(&addr).is_some_and(|source| !source.member.listed_only);
            (asks && net.settings.is_some()).then(|| name.clone())
        };
        let mut names: Vec<NetworkName> = self.nets.iter().filter_map(here).collect();
        names.sort_unstable();
        names
    }

    /// How many networks, members and names there are.
    pub(crate) fn sizes(&self) -> [usize; 3] {
        let sum = |count: fn(&Net) -> usize| self.nets.values().map(|net| count(net)).sum();
        [self.nets.len(), sum(|net| net.members), sum(|net| net.names.len())]
    }
}

fn entries_of_network(network: &NetworkName, settings: &Settings, entries: &mut Vec<Entry>) {
    for addr in &settings.listeners {
        let kind = if addr.is_ipv4() { "A" } else { "AAAA" };
        for name in ["host.containers.internal", "host.docker.internal"] {
            entries.push(Entry {
                network: network.clone(),
                name: name.to_owned(),
                kind: kind.to_owned(),
                value: addr.to_string(),
                ttl: settings.ttl,
                container: None,
                why: "the network's gateway".to_owned(),
            });
        }
    }
}

fn entries_of_member(member: &Member, net: &Net, settings: &Settings, entries: &mut Vec<Entry>) {
    let entry = |name: String, kind: &str, value: String, why: &str| Entry {
        network: member.key.network.clone(),
        name,
        kind: kind.to_owned(),
        value,
        ttl: settings.ttl,
        container: Some(member.key.container.clone()),
        why: why.to_owned(),
    };
    for (number, name) in member.names.iter().enumerate() {
        let shared = net.names.get(name).map_or(1, |owned| owned.members().len());
        let mut why = if number == 0 { "its name".to_owned() } else { "another name of it".to_owned() };
        if shared > 1 {
            why = format!("{why}, one of {shared} containers with it");
        }
        if member.listed_only {
            why += ", on another host";
        }
        for addr in &member.addrs {
            let kind = if addr.is_ipv4() { "A" } else { "AAAA" };
            entries.push(entry(text_of(name), kind, addr.to_string(), &why));
        }
        for service in &member.services {
            let Some(target) = full_name(member, settings) else { continue };
            let of = format!("_{}._{}.{}", service.name, service.proto, text_of(name));
            let value =
                format!("0 0 {} {}", service.port, text_of(target.strip_suffix(&[0]).unwrap_or(&target)));
            entries.push(entry(of, "SRV", value, "a port with a name"));
        }
    }
    for addr in &member.addrs {
        let Some(target) = full_name(member, settings) else { continue };
        let value = text_of(target.strip_suffix(&[0]).unwrap_or(&target));
        entries.push(entry(addr.to_string(), "PTR", value, "its address"));
    }
}
