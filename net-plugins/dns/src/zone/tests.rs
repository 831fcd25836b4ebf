//! The policy, as tables.

use std::net::{IpAddr, SocketAddr};

use berth_types::{AttachmentKey, ContainerId, IfName, NetworkName, Proto};
use proptest::prelude::*;

use super::spec::{Change, MemberSpec, NetworkSpec, Service};
use super::{Found, Servers, Upstream, Verdict, Who, Why, Zone};
use crate::wire::{Query, kind, text_of, wire_of};

fn network(number: u8) -> NetworkSpec {
    NetworkSpec {
        name: NetworkName::new(format!("net{number}")).unwrap(),
        called: vec![format!("net{number}"), format!("called{number}")],
        listeners: vec![ip(&format!("10.80.{number}.1")), ip(&format!("fd00:80:{number}::1"))],
        bridge: None,
        subnets: [format!("10.80.{number}.0/24"), format!("fd00:80:{number}::/64")]
            .map(|subnet| subnet.parse().unwrap())
            .into(),
        internal: false,
        domain: "berth.internal".to_owned(),
        ttl: 5,
        upstreams: Vec::new(),
        split: Vec::new(),
    }
}

fn member(network: u8, name: &str, host: u8) -> MemberSpec {
    MemberSpec {
        key: AttachmentKey {
            network: NetworkName::new(format!("net{network}")).unwrap(),
            container: ContainerId::new(name).unwrap(),
            ifname: IfName::new(format!("eth{network}")).unwrap(),
        },
        names: vec![name.to_owned(), format!("{name}-alias")],
        addrs: vec![ip(&format!("10.80.{network}.{host}")), ip(&format!("fd00:80:{network}::{host:x}"))],
        upstreams: Vec::new(),
        services: vec![Service { name: "http".to_owned(), proto: Proto::Tcp, port: 8080 }],
        listed_only: false,
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn server(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 53))
}

fn zone(changes: impl IntoIterator<Item = Change>) -> Zone {
    let mut zone = Zone::default();
    changes.into_iter().for_each(|change| zone.apply(&change));
    zone
}

/// Networks 1 and 2; `a` on 1, `b` on 2, `both` on both.
fn usual() -> Zone {
    zone([
        Change::NetworkPut(network(1)),
        Change::NetworkPut(network(2)),
        Change::MemberPut(member(1, "a", 10)),
        Change::MemberPut(member(2, "b", 11)),
        Change::MemberPut(member(1, "both", 12)),
        Change::MemberPut(member(2, "both", 12)),
    ])
}

/// What `from` is told at network `network`, in short.
fn ask(zone: &Zone, network: u8, from: &str, name: &str, kind: u16) -> String {
    let network = NetworkName::new(format!("net{network}")).unwrap();
    let Some(who) = zone.who(&network, ip(from)) else { return "silence".to_owned() };
    told(zone, &network, &who, name, kind)
}

fn told(zone: &Zone, network: &NetworkName, who: &Who<'_>, name: &str, kind: u16) -> String {
    let query = Query::asking(&wire_of(name).unwrap(), kind);
    let mut found = Found::default();
    match zone.answer(network, who, &query, &mut found) {
        Verdict::NoName => "no name".to_owned(),
        Verdict::Refused => "refused".to_owned(),
        Verdict::Forward(Upstream::Host) => "host's servers".to_owned(),
        Verdict::Forward(Upstream::Listed(servers)) => {
            let shown: Vec<String> = servers.addrs().iter().map(SocketAddr::to_string).collect();
            shown.join(" ")
        }
        Verdict::Answer => {
            let mut shown: Vec<String> = found.v4.iter().map(ToString::to_string).collect();
            shown.extend(found.v6.iter().map(ToString::to_string));
            shown.extend(found.names.iter().map(|name| text_of(name)));
            let port = |data: &Vec<u8>| u16::from_be_bytes([data[4], data[5]]);
            shown.extend(found.services.iter().map(|data| format!("{} {}", port(data), text_of(&data[6..]))));
            if shown.is_empty() { "no data".to_owned() } else { shown.join(" ") }
        }
    }
}

#[test]
fn members_are_found_by_all_their_names() {
    let zone = usual();
    let names = [
        "a",
        "A",
        "a-alias",
        "a.net1",
        "a.called1",
        "a.berth.internal",
        "a.net1.berth.internal",
        "A-Alias.Called1.Berth.Internal",
    ];
    for name in names {
        assert_eq!(ask(&zone, 1, "10.80.1.12", name, kind::A), "10.80.1.10", "{name}");
        assert_eq!(ask(&zone, 1, "fd00:80:1::a", name, kind::AAAA), "fd00:80:1::a", "{name}");
        for other in [15, kind::TXT, kind::SRV, 65, 65280] {
            assert_eq!(ask(&zone, 1, "10.80.1.10", name, other), "no data", "{name} {other}");
        }
        assert_eq!(ask(&zone, 1, "10.80.1.10", name, kind::ANY), "10.80.1.10", "{name}");
    }
}

#[test]
fn an_absent_family_is_no_data() {
    let mut spec = member(1, "four", 20);
    spec.addrs.truncate(1);
    let mut zone = usual();
    zone.apply(&Change::MemberPut(spec));
    assert_eq!(ask(&zone, 1, "10.80.1.20", "four", kind::AAAA), "no data");
}

#[test]
fn names_that_only_members_could_have_are_never_asked_for_elsewhere() {
    let zone = usual();
    for name in
        ["gone", "gone.net1", "gone.called1", "gone.berth.internal", "x.y.berth.internal", "b.net1", "b"]
    {
        assert_eq!(ask(&zone, 1, "10.80.1.10", name, kind::A), "no name", "{name}");
    }
    for name in ["berth.internal", "net1.berth.internal"] {
        assert_eq!(ask(&zone, 1, "10.80.1.10", name, kind::A), "no data", "{name}");
    }
    for name in ["example.org", "www.example.net1", "berth.internal.example.org", "xberth.internal"] {
        assert_eq!(ask(&zone, 1, "10.80.1.10", name, kind::A), "host's servers", "{name}");
    }
    // A resolver that walks down from the root asks of `org` what no container is asked.
    assert_eq!(ask(&zone, 1, "10.80.1.10", "org", kind::DS), "host's servers");
}

#[test]
fn only_members_and_the_host_are_answered_and_only_where_they_are() {
    let mut zone = usual();
    for (at, from) in
        [(1, "10.80.1.99"), (1, "10.80.2.11"), (2, "10.80.1.10"), (3, "10.80.1.10"), (1, "192.0.2.7")]
    {
        assert_eq!(ask(&zone, at, from, "a", kind::A), "silence", "{from} at {at}");
    }
    assert_eq!(ask(&zone, 1, "10.80.1.1", "a", kind::A), "10.80.1.10");
    // The host sees the names of the network that it asks at, no others.
    assert_eq!(ask(&zone, 2, "10.80.2.1", "a", kind::A), "no name");
    zone.apply(&Change::MemberPut(MemberSpec { listed_only: true, ..member(1, "far", 30) }));
    assert_eq!(ask(&zone, 1, "10.80.1.30", "a", kind::A), "silence");
    assert_eq!(ask(&zone, 1, "10.80.1.10", "far", kind::A), "10.80.1.30");
}

#[test]
fn a_container_on_two_networks_sees_both_from_both() {
    let mut zone = usual();
    for (at, from) in [(1, "10.80.1.12"), (2, "10.80.2.12")] {
        assert_eq!(ask(&zone, at, from, "a", kind::A), "10.80.1.10");
        assert_eq!(ask(&zone, at, from, "b.net2.berth.internal", kind::A), "10.80.2.11");
        assert_eq!(ask(&zone, at, from, "both.net1", kind::A), "10.80.1.12");
        let both = ask(&zone, at, from, "both", kind::A);
        assert!(both.contains("10.80.1.12") && both.contains("10.80.2.12"), "{both}");
    }
    // It leaves one of them, and with it that network's names.
    zone.apply(&Change::MemberGone(member(2, "both", 12).key));
    assert_eq!(ask(&zone, 1, "10.80.1.12", "b", kind::A), "no name");
    assert_eq!(ask(&zone, 2, "10.80.2.12", "b", kind::A), "silence");
    zone.apply(&Change::MemberPut(member(2, "both", 12)));
    zone.apply(&Change::NetworkGone(network(2).name));
    assert_eq!(ask(&zone, 1, "10.80.1.12", "b", kind::A), "no name");
}

#[test]
fn containers_behind_one_name_are_all_answered_and_none_twice() {
    let mut zone = usual();
    for host in [20, 21, 22] {
        let mut spec = member(1, &format!("web{host}"), host);
        spec.names.push("web".to_owned());
        spec.names.push("WEB".to_owned());
        spec.addrs.push(spec.addrs[0]);
        zone.apply(&Change::MemberPut(spec));
    }
    assert_eq!(ask(&zone, 1, "10.80.1.10", "web", kind::A), "10.80.1.20 10.80.1.21 10.80.1.22");
    zone.apply(&Change::MemberGone(member(1, "web21", 21).key));
    assert_eq!(ask(&zone, 1, "10.80.1.10", "web", kind::A), "10.80.1.20 10.80.1.22");
}

#[test]
fn addresses_have_names_and_those_of_own_subnets_are_never_asked_for_elsewhere() {
    let zone = usual();
    let ptr = |name: &str| ask(&zone, 1, "10.80.1.10", name, kind::PTR);
    assert_eq!(ptr("12.1.80.10.in-addr.arpa"), "both.net1.berth.internal");
    assert_eq!(ptr("1.1.80.10.in-addr.arpa"), "host.containers.internal");
    // Nobody's, and one of a network that the asker is not on: neither is told from the other.
    for name in ["99.1.80.10.in-addr.arpa", "11.2.80.10.in-addr.arpa", "99.2.80.10.in-addr.arpa"] {
        assert_eq!(ptr(name), "no name", "{name}");
    }
    assert_eq!(ptr("1.80.10.in-addr.arpa"), "no data");
    assert_eq!(ptr("80.10.in-addr.arpa"), "host's servers");
    assert_eq!(ptr("1.2.0.192.in-addr.arpa"), "host's servers");
    let of_v6 = "a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.8.0.0.0.0.d.f.ip6.arpa";
    assert_eq!(ptr(of_v6), "a.net1.berth.internal");
    assert_eq!(ask(&zone, 1, "10.80.1.10", of_v6, kind::A), "no data");
}

#[test]
fn services_are_found_below_every_name() {
    let zone = usual();
    for name in ["_http._tcp.a", "_HTTP._TCP.a.net1", "_http._tcp.a-alias.berth.internal"] {
        assert_eq!(ask(&zone, 1, "10.80.1.10", name, kind::SRV), "8080 a.net1.berth.internal", "{name}");
        assert_eq!(ask(&zone, 1, "10.80.1.10", name, kind::A), "no data", "{name}");
    }
    for name in ["_http._udp.a", "_ssh._tcp.a"] {
        assert_eq!(ask(&zone, 1, "10.80.1.10", name, kind::SRV), "no name", "{name}");
    }
}

#[test]
fn the_host_has_its_names() {
    let zone = usual();
    for name in ["host.containers.internal", "host.docker.internal"] {
        assert_eq!(ask(&zone, 1, "10.80.1.10", name, kind::A), "10.80.1.1");
        assert_eq!(ask(&zone, 2, "10.80.2.11", name, kind::AAAA), "fd00:80:2::1");
        assert_eq!(ask(&zone, 1, "10.80.1.10", name, kind::TXT), "no data");
    }
}

#[test]
fn internal_networks_ask_nobody() {
    let inside = |upstreams| MemberSpec { upstreams, ..member(1, "a", 10) };
    let mut zone = usual();
    zone.apply(&Change::NetworkPut(NetworkSpec {
        internal: true,
        upstreams: vec![server(1)],
        split: vec![("example.org".to_owned(), vec![server(2)])],
        ..network(1)
    }));
    zone.apply(&Change::MemberPut(inside(vec![server(3)])));
    for name in ["example.org", "www.example.net", "1.2.0.192.in-addr.arpa"] {
        assert_eq!(ask(&zone, 1, "10.80.1.10", name, kind::A), "refused", "{name}");
        assert_eq!(ask(&zone, 1, "10.80.1.1", name, kind::A), "refused", "the host, {name}");
    }
    assert_eq!(ask(&zone, 1, "10.80.1.10", "both", kind::A), "10.80.1.12");
    assert_eq!(ask(&zone, 1, "10.80.1.10", "gone", kind::A), "no name");
    // Who is on another network too asks by that one's servers.
    assert_eq!(ask(&zone, 1, "10.80.1.12", "example.org", kind::A), "host's servers");
}

#[test]
fn the_servers_asked_are_the_closest() {
    let mut zone = usual();
    zone.apply(&Change::NetworkPut(NetworkSpec {
        upstreams: vec![server(1), server(1)],
        split: vec![
            ("corp.example".to_owned(), vec![server(2)]),
            ("eu.corp.example".to_owned(), vec![server(3)]),
        ],
        ..network(1)
    }));
    let of = |zone: &Zone, name: &str| ask(zone, 1, "10.80.1.10", name, kind::A);
    assert_eq!(of(&zone, "example.org"), "192.0.2.1:53");
    assert_eq!(of(&zone, "corp.example"), "192.0.2.2:53");
    assert_eq!(of(&zone, "a.eu.corp.example"), "192.0.2.3:53");
    assert_eq!(of(&zone, "xeu.corp.example"), "192.0.2.2:53");
    zone.apply(&Change::MemberPut(MemberSpec { upstreams: vec![server(4)], ..member(1, "a", 10) }));
    assert_eq!(of(&zone, "example.org"), "192.0.2.4:53");
    assert_eq!(of(&zone, "corp.example"), "192.0.2.2:53");
}

#[test]
fn other_classes_are_refused() {
    let zone = usual();
    let name = NetworkName::new("net1").unwrap();
    let mut query = Query::asking(&wire_of("version.bind").unwrap(), kind::TXT);
    query.class = 3;
    let mut found = Found::default();
    let who = zone.who(&name, ip("10.80.1.10")).unwrap();
    assert_eq!(zone.answer(&name, &who, &query, &mut found), Verdict::Refused);
    assert_eq!(found.why, Some(Why::Class));
}

#[test]
fn a_change_is_not_seen_in_copies_made_before() {
    let before = usual();
    let mut after = before.clone();
    after.apply(&Change::MemberGone(member(1, "a", 10).key));
    assert_eq!(ask(&before, 1, "10.80.1.12", "a", kind::A), "10.80.1.10");
    assert_eq!(ask(&after, 1, "10.80.1.12", "a", kind::A), "no name");
}

#[test]
fn an_address_that_moved_on_is_not_taken_from_its_new_owner() {
    let mut zone = usual();
    zone.apply(&Change::MemberPut(member(1, "new", 10)));
    zone.apply(&Change::MemberGone(member(1, "a", 10).key));
    assert_eq!(ask(&zone, 1, "10.80.1.10", "new", kind::A), "10.80.1.10");
}

#[test]
fn members_may_come_before_their_network() {
    let mut zone = zone([Change::MemberPut(member(1, "a", 10))]);
    assert_eq!(ask(&zone, 1, "10.80.1.10", "a", kind::A), "silence");
    zone.apply(&Change::NetworkPut(network(1)));
    assert_eq!(ask(&zone, 1, "10.80.1.10", "a", kind::A), "10.80.1.10");
}

#[test]
fn everything_that_is_answered_is_listed() {
    let entries = usual().entries();
    let has = |name: &str, kind: &str, value: &str| {
        entries.iter().any(|entry| entry.name == name && entry.kind == kind && entry.value == value)
    };
    assert!(has("a", "A", "10.80.1.10"));
    assert!(has("a-alias", "AAAA", "fd00:80:1::a"));
    assert!(has("10.80.1.10", "PTR", "a.net1.berth.internal"));
    assert!(has("_http._tcp.a", "SRV", "0 0 8080 a.net1.berth.internal"));
    assert!(has("host.docker.internal", "A", "10.80.1.1"));
}

#[test]
fn equal_lists_of_servers_are_one() {
    let id = |servers: &[SocketAddr]| Servers::new(servers).unwrap().id();
    assert_eq!(id(&[server(1), server(2)]), id(&[server(1), server(2), server(1)]));
    assert_ne!(id(&[server(1), server(2)]), id(&[server(2), server(1)]));
    assert_eq!(Servers::new(&[]), None);
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    // An address is one container's at a time: whoever feeds the server sees to that.
    let one = (0..6_u8, 1..4_u8, 0..5_u8, any::<bool>()).prop_map(|(what, net, name, moved)| {
        let host = 10 + name + if moved { 5 } else { 0 };
        let spec = member(net, &format!("c{name}"), host);
        match what {
            0 => Change::NetworkPut(network(net)),
            1 => Change::NetworkGone(network(net).name),
            2 => Change::MemberGone(spec.key),
            _ => Change::MemberPut(spec),
        }
    });
    proptest::collection::vec(one, 0..60)
}

proptest! {
    /// Whatever happened before: what is there afterwards is what a server that starts now would answer.
    #[test]
    fn a_zone_changed_is_a_zone_made_anew(changes in changes()) {
        let changed = zone(changes.clone());
        // The changes that count: the last of each object, unless its network went after it.
        let mut anew = Zone::default();
        for net in 1..4 {
            let gone = changes.iter().rposition(|change| *change == Change::NetworkGone(network(net).name));
            let later = &changes[gone.map_or(0, |at| at + 1)..];
            if later.contains(&Change::NetworkPut(network(net))) {
                anew.apply(&Change::NetworkPut(network(net)));
            }
            for (at, change) in later.iter().enumerate() {
                let Change::MemberPut(spec) = change else { continue };
                let about = |other: &Change| match other {
                    Change::MemberPut(other) => other.key == spec.key,
                    Change::MemberGone(key) => *key == spec.key,
                    _ => false,
                };
                if spec.key.network == network(net).name && !later[at + 1..].iter().any(about) {
                    anew.apply(change);
                }
            }
        }
        prop_assert_eq!(changed.entries(), anew.entries());
        prop_assert_eq!(changed.sizes()[1..].to_vec(), anew.sizes()[1..].to_vec());
        for net in 1..4 {
            for host in 10..20 {
                for name in ["c0", "c1.net2", "c2.berth.internal", "nothing"] {
                    let from = format!("10.80.{net}.{host}");
                    prop_assert_eq!(
                        ask(&changed, net, &from, name, kind::A),
                        ask(&anew, net, &from, name, kind::A)
                    );
                }
            }
        }
    }
}
