use berth_nft::Element;
use berth_store::Owner;
use berth_types::{AddressLease, MacAddr, Proto, PublishedPort};

use super::*;
use crate::attachment::{AttachmentRecord, Guard, PortSpec};
use crate::network::Reach;
use crate::published::PortsRecord;

fn key(container: &str) -> AttachmentKey {
    AttachmentKey {
        network: "n0".parse().unwrap(),
        container: container.parse().unwrap(),
        ifname: "eth0".parse().unwrap(),
    }
}

fn network(names: Option<NetworkNames>) -> NetworkRecord {
    NetworkRecord {
        version: 1,
        name: "n0".parse().unwrap(),
        bridge: "br0".parse().unwrap(),
        bridge_is_ours: true,
        reach: Reach::default(),
        gateway: true,
        gateways: ["10.80.0.1/24".parse().unwrap(), "fd00:80::1/64".parse().unwrap()].into(),
        subnets: ["10.80.0.0/24".parse().unwrap(), "fd00:80::/64".parse().unwrap()].into(),
        mac: MacAddr([2, 0, 0, 0, 0, 1]),
        mtu: None,
        promisc: false,
        vlan: None,
        announces: false,
        names,
        overlay: None,
        peers: crate::overlay::Peers::default(),
        pending: false,
    }
}

fn bridge(container: &str, names: Option<MemberNames>) -> Held {
    Held::Bridge(Box::new(AttachmentRecord {
        version: 1,
        key: key(container),
        bridge: "br0".parse().unwrap(),
        host_ifname: "veth1".parse().unwrap(),
        mac: MacAddr([2, 0, 0, 0, 0, 2]),
        leases: vec![AddressLease { address: "10.80.0.2/24".parse().unwrap(), gateway: None }],
        routes: Vec::new(),
        dns: berth_types::Dns::default(),
        port: PortSpec { hairpin: false, isolated: false, apart: false, trunk: false, guard: Guard::Full },
        published: Published::default(),
        bandwidth: None,
        names,
        peer: None,
        sandbox_path: "/run/netns/c1".into(),
        sandbox: None,
    }))
}

fn called(names: &[&str]) -> Option<MemberNames> {
    Some(MemberNames { names: names.iter().map(|&name| name.to_owned()).collect(), ..MemberNames::default() })
}

fn names_of(held: &Held, shown: Option<&Shown>) -> Vec<String> {
    let member = ServedMember::of(&network(Some(NetworkNames::usual())), held, shown).unwrap();
    member.names
}

fn row(held: &Held, state: AttachmentState, boot: &BootId) -> AttachmentRow {
    AttachmentRow {
        key: held.key().clone(),
        state,
        rules_gone: false,
        boot_id: boot.clone(),
        owner: Owner::current(),
        sandbox: None,
        host_ifname: None,
        payload: String::new(),
        created_ms: 0,
    }
}

#[test]
fn a_network_without_names_serves_nobody() {
    assert_eq!(ServedNetwork::of(&network(None), None), None);
    let held = bridge("c1", called(&["web"]));
    assert_eq!(ServedMember::of(&network(None), &held, None), None);
    let no_gateway = NetworkRecord { gateways: BTreeSet::new(), ..network(Some(NetworkNames::usual())) };
    assert_eq!(ServedNetwork::of(&no_gateway, None), None, "nobody could ask");
}

#[test]
fn a_network_is_asked_at_its_gateways_and_called_what_people_call_it() {
    let shown = Shown { name: "Front".to_owned(), ..Shown::default() };
    let served = ServedNetwork::of(&network(Some(NetworkNames::usual())), Some(&shown)).unwrap();
    assert_eq!(served.called, ["front", "n0"]);
    assert_eq!(served.listeners.len(), 2);
    assert_eq!((served.domain.as_str(), served.ttl), ("berth.internal", 0));
}

#[test]
fn a_container_has_its_own_names_and_those_its_engine_tells() {
    assert_eq!(names_of(&bridge("c1", called(&["web", "www"])), None), ["web", "www"]);
    let long = "0123456789ab".repeat(6).chars().take(64).collect::<String>();
    assert_eq!(names_of(&bridge(&long, called(&["web"])), None), ["web", "0123456789ab"]);
    assert_eq!(names_of(&bridge("c1", called(&[])), None), ["c1"], "better than none");

    let shown = Shown {
        name: "Web_1".to_owned(),
        container: long.clone(),
        aliases: vec!["db".to_owned(), "a b".to_owned()],
    };
    let held = bridge("endpoint", called(&[]));
    assert_eq!(names_of(&held, Some(&shown)), ["web_1", "db", "0123456789ab"]);
    let member = ServedMember::of(&network(Some(NetworkNames::usual())), &held, Some(&shown)).unwrap();
    assert_eq!((member.key.container.as_str(), member.record), (long.as_str(), key("endpoint")));
}

#[test]
fn an_engines_own_number_is_no_name() {
    let Held::Bridge(mut record) = bridge(&"e".repeat(64), called(&[])) else { unreachable!() };
    record.peer = Some("bp1".parse().unwrap());
    assert_eq!(names_of(&Held::Bridge(record), None), Vec::<String>::new());
}

#[test]
fn a_port_has_a_name_where_it_is_published_or_labelled() {
    let service = |name: &str, port| ServiceName { name: name.to_owned(), proto: Proto::Tcp, port };
    let of_network =
        NetworkNames { services: vec![service("http", 80), service("https", 443)], ..NetworkNames::usual() };
    let port = PublishedPort {
        proto: Proto::Tcp,
        host_addr: "0.0.0.0".parse().unwrap(),
        host_port: 8079,
        target: "10.80.0.2".parse().unwrap(),
        target_port: 79,
        count: 3,
    };
    let own = MemberNames { services: vec![service("db", 5432)], ..MemberNames::default() };
    let held =
        bridge("c1", Some(own)).with_published(Published { ports: vec![port], ..Published::default() });
    let member = ServedMember::of(&network(Some(of_network)), &held, None).unwrap();
    assert_eq!(member.services, [service("db", 5432), service("http", 80)]);
}

#[test]
fn who_was_attached_by_another_plugin_has_the_addresses_it_brought() {
    let addrs = vec!["10.99.0.7".parse().unwrap()];
    let names = MemberNames { addrs: addrs.clone(), ..called(&["web"]).unwrap() };
    let held = Held::Ports(PortsRecord { names: Some(Box::new(names)), ..PortsRecord::new(key("c1")) });
    let alone = NetworkNames { source: NamesSource::Alone, ..NetworkNames::usual() };
    let other = NetworkRecord { subnets: BTreeSet::new(), ..network(Some(alone)) };
    assert_eq!(ServedMember::of(&other, &held, None).unwrap().addrs, addrs);
    let subnets = ServedNetwork::of(&other, None).unwrap().subnets;
    assert_eq!(subnets, network(None).subnets, "those of its gateways");
}

#[test]
fn only_what_is_ready_in_this_boot_is_answered() {
    let (now, before) = (BootId::new("now"), BootId::new("before"));
    let held = bridge("c1", called(&["web"]));
    let networks = [network(Some(NetworkNames::usual()))];
    let members = |state, boot: &BootId| {
        let rows = [(row(&held, state, boot), held.clone())];
        served(&networks, &rows, &crate::shown::Names::default(), &now).members.len()
    };
    assert_eq!(members(AttachmentState::Ready, &now), 1);
    assert_eq!(members(AttachmentState::Ready, &before), 0);
    assert_eq!(members(AttachmentState::Pending, &now), 0);
    assert_eq!(members(AttachmentState::Deleting, &now), 0);
}

#[test]
fn records_of_before_names_are_read() {
    let network = r#"{"version":1,"name":"n0","bridge":"br0","bridge_is_ours":true,
        "reach":{"masquerade":true,"between_containers":true,"isolated":true,"internal":false},
        "gateway":true,"gateways":["10.80.0.1/24"],"subnets":["10.80.0.0/24"],"mac":"02:00:00:00:00:01",
        "mtu":null,"promisc":false,"vlan":null,"announces":false,"pending":false}"#;
    let network: NetworkRecord = serde_json::from_str(network).unwrap();
    assert_eq!(network.names, None);
    let ports = r#"{"kind":"ports","version":1,"key":{"network":"n0","container":"c1","ifname":"eth0"},
        "published":{"ports":[],"hairpin":[],"masquerade_all":[]}}"#;
    let ports: Held = serde_json::from_str(ports).unwrap();
    assert_eq!(ports, Held::Ports(PortsRecord::new(key("c1"))));
    let text = serde_json::to_string(&bridge("c1", None)).unwrap();
    assert!(!text.contains("names"), "what has no names is written as before: {text}");
}

#[test]
fn questions_to_servers_of_elsewhere_go_to_the_gateway_of_their_family() {
    let gateway: IpAddr = "10.80.0.1".parse().unwrap();
    let answers_for = ["192.0.2.53".parse().unwrap(), "2001:db8::53".parse().unwrap()].into();
    let names = NetworkNames { answers_for, alternates: [(gateway, 1053)].into(), ..NetworkNames::usual() };
    let led = |network: &NetworkRecord| -> Vec<String> {
        let all = crate::elements::of_names(network).into_iter();
        all.filter(|element| matches!(element, Element::Led { .. })).map(|one| one.to_string()).collect()
    };
    let both = network(Some(names));
    let v4 = "questions from br0 to 192.0.2.53 led to 10.80.0.1:1053";
    assert_eq!(led(&both), [v4, "questions from br0 to 2001:db8::53 led to [fd00:80::1]:53"]);
    let v4_only = NetworkRecord { gateways: ["10.80.0.1/24".parse().unwrap()].into(), ..both.clone() };
    assert_eq!(led(&v4_only), [v4]);
    let declared_again = both.with_names(Some(NetworkNames::usual()));
    assert_eq!(led(&declared_again).len(), 2, "found since, and kept");
}
