//! Each difference planted on a host that is otherwise as recorded.

use berth_netlink::{Addr, BridgePort, Link, LinkKind, OperState};
use berth_nft::{Blocker, BlockerKind, Element, Foreign, RulesetState};
use berth_store::AttachmentState;
use berth_types::{AddressLease, Dns, Family, PublishedPort};

use super::read::{Ruleset, Seen};
use super::records::{Recorded, Row};
use super::*;
use crate::attachment::{Guard, PortSpec, attachment_alias, bridge_alias};
use crate::network::{NetworkRecord, Reach};
use crate::published::PortsRecord;

fn key(container: &str) -> AttachmentKey {
    AttachmentKey {
        network: "n0".parse().unwrap(),
        container: container.parse().unwrap(),
        ifname: "eth0".parse().unwrap(),
    }
}

fn network() -> NetworkRecord {
    NetworkRecord {
        version: 1,
        name: "n0".parse().unwrap(),
        bridge: "br0".parse().unwrap(),
        bridge_is_ours: true,
        reach: Reach { masquerade: true, ..Reach::default() },
        gateway: true,
        gateways: ["10.80.0.1/24".parse().unwrap()].into(),
        subnets: ["10.80.0.0/24".parse().unwrap()].into(),
        mac: "02:00:00:00:00:01".parse().unwrap(),
        mtu: None,
        promisc: false,
        vlan: None,
        announces: false,
        names: None,
        overlay: None,
        peers: crate::overlay::Peers::default(),
        pending: false,
    }
}

fn attachment(container: &str, address: &str) -> AttachmentRecord {
    AttachmentRecord {
        version: 1,
        key: key(container),
        bridge: "br0".parse().unwrap(),
        host_ifname: format!("veth{container}").parse().unwrap(),
        mac: "02:00:00:00:00:02".parse().unwrap(),
        leases: vec![AddressLease { address: address.parse().unwrap(), gateway: None }],
        routes: Vec::new(),
        dns: Dns::default(),
        port: PortSpec { hairpin: false, isolated: false, apart: false, trunk: false, guard: Guard::Full },
        published: Published { ports: vec![port()], ..Published::default() },
        bandwidth: None,
        names: None,
        peer: None,
        sandbox_path: "/run/netns/c1".into(),
        sandbox: None,
    }
}

fn port() -> PublishedPort {
    PublishedPort {
        proto: berth_types::Proto::Tcp,
        host_addr: "0.0.0.0".parse().unwrap(),
        host_port: 8080,
        target: "10.80.0.2".parse().unwrap(),
        target_port: 80,
        count: 1,
    }
}

fn row(held: Held) -> Row {
    Row {
        key: held.key().clone(),
        state: AttachmentState::Ready,
        this_boot: true,
        owner_lives: false,
        sandbox_gone: false,
        held: Ok(held),
    }
}

fn link(index: u32, name: &str, kind: LinkKind, alias: Option<String>) -> Link {
    Link {
        index,
        name: name.parse().unwrap(),
        kind,
        mac: None,
        mtu: 1500,
        up: true,
        promisc: false,
        master: None,
        alias,
        peer_index: None,
        link_netnsid: None,
        oper_state: OperState::Up,
        port: None,
        vlan_filtering: None,
        vxlan: None,
    }
}

fn addr(index: u32, text: &str) -> Addr {
    Addr { index, address: text.parse().unwrap(), scope: 0, tentative: false, dad_failed: false }
}

/// A host with one network and one attachment, where all is as recorded.
struct Case {
    recorded: Recorded,
    seen: Seen,
}

impl Case {
    fn new() -> Self {
        let (network, attachment) = (network(), attachment("c1", "10.80.0.2/24"));
        let held = Held::Bridge(Box::new(attachment.clone()));
        let bridge = link(2, "br0", LinkKind::Bridge, Some(bridge_alias(&network.name)));
        let port = BridgePort { learning: true, flood: true, ..BridgePort::default() };
        let veth = Link {
            master: Some(2),
            port: Some(port),
            ..link(3, "vethc1", LinkKind::Veth, Some(attachment_alias(&attachment.key)))
        };
        let mut wanted = elements::of_network(&network);
        wanted.extend(elements::of_held(&held));
        let switches = [
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "0"),
            ("net/ipv6/conf/br0/accept_ra", "0"),
            ("net/ipv4/conf/br0/route_localnet", "1"),
            ("net/ipv4/conf/br0/rp_filter", "2"),
            ("net/ipv4/conf/all/rp_filter", "0"),
        ];
        Self {
            recorded: Recorded { networks: vec![network], rows: vec![row(held)], ..Recorded::default() },
            seen: Seen {
                links: Some(vec![
                    link(1, "lo", LinkKind::Loopback, None),
                    bridge,
                    veth,
                    link(4, "eth0", LinkKind::Device, None),
                ]),
                addrs: vec![addr(2, "10.80.0.1/24"), addr(4, "192.0.2.7/24")],
                routes: vec![
                    ("0.0.0.0/0".parse().unwrap(), 4),
                    ("192.0.2.0/24".parse().unwrap(), 4),
                    ("10.80.0.0/24".parse().unwrap(), 2),
                    ("10.0.0.0/8".parse().unwrap(), 4),
                ],
                switches: switches.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
                ruleset: Some(Ruleset { state: RulesetState::Current, elements: wanted, strays: Vec::new() }),
                foreign: Foreign::default(),
            },
        }
    }

    fn network(&mut self) -> &mut NetworkRecord {
        &mut self.recorded.networks[0]
    }

    fn row(&mut self) -> &mut Row {
        &mut self.recorded.rows[0]
    }

    fn link(&mut self, name: &str) -> &mut Link {
        self.seen.links.as_mut().unwrap().iter_mut().find(|link| link.name.as_str() == name).unwrap()
    }

    fn unlink(&mut self, name: &str) {
        self.seen.links.as_mut().unwrap().retain(|link| link.name.as_str() != name);
    }

    fn add_link(&mut self, link: Link) {
        self.seen.links.as_mut().unwrap().push(link);
    }

    fn ruleset(&mut self) -> &mut Ruleset {
        self.seen.ruleset.as_mut().unwrap()
    }

    fn switch(&mut self, key: &str, value: &str) {
        self.seen.switches.insert(key.to_owned(), value.to_owned());
    }

    fn findings(&self) -> Vec<Finding> {
        Diagnosis::of(compared(&self.recorded, &self.seen)).findings
    }
}

/// What is found, as `severity code`, after `plant` changed the host.
fn found(plant: impl FnOnce(&mut Case)) -> Vec<String> {
    let mut case = Case::new();
    plant(&mut case);
    case.findings().iter().map(|finding| format!("{} {}", finding.severity, finding.code)).collect()
}

#[test]
fn a_host_as_recorded_has_no_findings() {
    assert_eq!(Case::new().findings(), []);
}

#[test]
fn an_empty_host_has_no_findings_whatever_others_do_there() {
    let mut seen = Case::new().seen;
    seen.links.as_mut().unwrap().retain(|link| link.alias.is_none());
    seen.ruleset = Some(Ruleset { state: RulesetState::Absent, elements: [].into(), strays: Vec::new() });
    seen.switches.insert("net/ipv4/ip_forward".to_owned(), "0".to_owned());
    seen.foreign.blockers.push(forward_policy());
    assert_eq!(compared(&Recorded::default(), &seen), []);
}

#[test]
fn links_that_differ_are_found() {
    type Plant = fn(&mut Case);
    let cases: &[(Plant, &str)] = &[
        (|case| case.link("br0").up = false, "repairable bridge-down"),
        (|case| case.link("br0").alias = None, "note bridge-tag-missing"),
        (
            |case| case.link("br0").kind = LinkKind::Other("dummy".to_owned()),
            "needs a person bridge-replaced",
        ),
        (|case| case.unlink("br0"), "needs a person bridge-missing"),
        (|case| case.seen.addrs.clear(), "repairable gateway-address-missing"),
        (|case| case.seen.addrs[0].dad_failed = true, "needs a person gateway-address-duplicate"),
        (|case| case.unlink("vethc1"), "repairable link-missing"),
        (|case| case.link("vethc1").up = false, "repairable link-down"),
        (|case| case.link("vethc1").master = None, "repairable link-off-bridge"),
        (|case| case.link("vethc1").master = Some(4), "repairable link-off-bridge"),
        (|case| case.link("vethc1").alias = None, "note link-tag-missing"),
        (|case| case.link("vethc1").alias = Some("mine".to_owned()), "needs a person link-taken"),
        (|case| case.link("vethc1").kind = LinkKind::Vxlan, "needs a person link-taken"),
        (
            |case| case.add_link(link(9, "veth9", LinkKind::Veth, Some("berth n0 gone eth0".to_owned()))),
            "repairable link-without-record",
        ),
        (
            |case| case.add_link(link(9, "bifb9", LinkKind::Ifb, Some("berth n0 gone eth0".to_owned()))),
            "repairable link-without-record",
        ),
        (
            |case| case.add_link(link(9, "br9", LinkKind::Bridge, Some("berth n9".to_owned()))),
            "repairable bridge-without-record",
        ),
    ];
    for (plant, expected) in cases {
        assert_eq!(found(plant), [*expected]);
    }
}

#[test]
fn a_missing_bridge_that_nobody_needs_is_for_gc() {
    let planted = found(|case| {
        case.unlink("br0");
        case.unlink("vethc1");
        case.recorded.rows.clear();
        let network = case.network().clone();
        case.ruleset().elements = elements::of_network(&network);
    });
    assert_eq!(planted, ["repairable bridge-missing"]);
}

#[test]
fn links_of_others_and_of_a_call_under_way_are_no_findings() {
    let planted = found(|case| {
        case.add_link(link(9, "veth9", LinkKind::Veth, Some("somebody's".to_owned())));
        case.add_link(link(10, "docker0", LinkKind::Bridge, None));
        case.add_link(link(11, "veth11", LinkKind::Veth, Some("berth n0 c2 eth0".to_owned())));
        let mut busy = row(Held::Bridge(Box::new(attachment("c2", "10.80.0.3/24"))));
        (busy.state, busy.owner_lives) = (AttachmentState::Pending, true);
        let Ok(held) = &busy.held else { panic!("it is held") };
        let some: Vec<Element> = elements::of_held(held).into_iter().take(2).collect();
        case.ruleset().elements.extend(some);
        case.recorded.rows.push(busy);
    });
    assert_eq!(planted, [] as [&str; 0]);
}

#[test]
fn records_that_nobody_stands_behind_are_found() {
    type Plant = fn(&mut Case);
    let cases: &[(Plant, &str)] = &[
        (|case| case.row().state = AttachmentState::Pending, "repairable attachment-half-built"),
        (|case| case.row().state = AttachmentState::Deleting, "repairable attachment-half-removed"),
        (|case| case.row().this_boot = false, "repairable attachment-of-earlier-boot"),
        (
            |case| case.row().held = Err("no version".to_owned()),
            "needs a person attachment-record-unreadable",
        ),
        (|case| case.recorded.old_networks.push("n9".parse().unwrap()), "repairable network-of-earlier-boot"),
        (|case| case.recorded.leases.push(lease("gone", true)), "repairable lease-without-owner"),
    ];
    for (plant, expected) in cases {
        let planted = found(plant);
        // What an unreadable record asked for cannot be known.
        assert_eq!(
            planted.iter().filter(|found| !found.contains("element-")).collect::<Vec<_>>(),
            [*expected]
        );
    }
}

fn lease(container: &str, is_dead: bool) -> Lease {
    Lease { owner: key(container), address: "10.80.0.9".parse().unwrap(), is_dead }
}

#[test]
fn a_lease_of_a_living_or_recorded_owner_is_no_finding() {
    // `ripam` behind another main plugin leaves leases without an attachment of berth's.
    assert!(found(|case| case.recorded.leases = vec![lease("other", false), lease("c1", true)]).is_empty());
}

#[test]
fn ports_of_a_container_that_is_gone_are_found() {
    let plant = |gone: bool| {
        found(|case| {
            let published =
                Published { ports: vec![PublishedPort { host_port: 9, ..port() }], ..Published::default() };
            let held = Held::Ports(PortsRecord { published, ..PortsRecord::new(key("c2")) });
            case.ruleset().elements.extend(elements::of_held(&held));
            case.recorded.rows.push(Row { sandbox_gone: gone, ..row(held) });
        })
    };
    assert_eq!(plant(true), ["repairable ports-without-sandbox"]);
    assert!(plant(false).is_empty());
}

#[test]
fn one_address_of_two_attachments_is_for_a_person() {
    let planted = found(|case| {
        let mut second = attachment("c2", "10.80.0.2/24");
        second.published = Published::default();
        let veth = Link {
            master: Some(2),
            ..link(5, "vethc2", LinkKind::Veth, Some(attachment_alias(&second.key)))
        };
        case.add_link(veth);
        let held = Held::Bridge(Box::new(second));
        case.ruleset().elements.extend(elements::of_held(&held));
        case.recorded.rows.push(row(held));
    });
    assert_eq!(planted, ["needs a person address-given-twice"]);
}

#[test]
fn a_ruleset_that_differs_is_one_finding() {
    for (state, expected) in [
        (RulesetState::Absent, "repairable ruleset-missing"),
        (RulesetState::Outdated, "repairable ruleset-outdated"),
        (RulesetState::Altered, "repairable ruleset-altered"),
    ] {
        let planted = found(|case| {
            case.switch("net/ipv4/conf/br0/route_localnet", "0");
            case.ruleset().state = state;
            if state == RulesetState::Absent {
                case.ruleset().elements.clear();
            }
        });
        assert_eq!(planted, [expected]);
    }
}

#[test]
fn every_element_that_is_missing_is_found_by_itself() {
    for element in Case::new().seen.ruleset.unwrap().elements {
        let planted = found(|case| assert!(case.ruleset().elements.remove(&element)));
        assert_eq!(planted, ["repairable element-missing"], "{element}");
    }
}

#[test]
fn elements_nobody_asked_for_are_found() {
    let stranger = Element::Port { port: PublishedPort { host_port: 22, ..port() }, owner: 7 };
    assert_eq!(found(|case| case.ruleset().elements.extend([stranger])), ["repairable element-unknown"]);
    assert_eq!(
        found(|case| case.ruleset().strays.push("owner4: 00".to_owned())),
        ["repairable element-stray"]
    );
    let eth0 = Element::ClosedRouter { family: Family::V4, link: "eth0".parse().unwrap() };
    assert_eq!(found(|case| case.ruleset().elements.extend([eth0.clone()])), ["note uplink-closed"]);
    let missing = found(|case| case.recorded.closed.extend([eth0]));
    assert_eq!(missing, ["repairable element-missing"]);
}

#[test]
fn switches_that_were_changed_are_found() {
    assert_eq!(found(|case| case.switch("net/ipv4/ip_forward", "0")), ["repairable forwarding-off"]);
    // Neither the other family's switch nor a network without a way out needs forwarding.
    assert!(found(|case| case.switch("net/ipv6/conf/all/forwarding", "0")).is_empty());
    let internal = found(|case| {
        case.switch("net/ipv4/ip_forward", "0");
        case.network().reach.internal = true;
        let network = case.network().clone();
        case.ruleset().elements.extend(elements::of_network(&network));
    });
    assert!(!internal.contains(&"repairable forwarding-off".to_owned()));
    let advertised = found(|case| case.switch("net/ipv6/conf/br0/accept_ra", "1"));
    assert_eq!(advertised, ["repairable router-advertisements-accepted"]);
}

#[test]
fn localhost_is_exposed_only_while_the_ruleset_is_gone() {
    let planted = found(|case| {
        case.ruleset().state = RulesetState::Absent;
        case.ruleset().elements.clear();
    });
    assert_eq!(planted, ["repairable localhost-exposed", "repairable ruleset-missing"]);
}

#[test]
fn routes_that_take_a_networks_addresses_are_for_a_person() {
    for dst in ["10.80.0.0/24", "10.80.0.128/25", "10.80.0.2/32"] {
        assert_eq!(
            found(|case| case.seen.routes.push((dst.parse().unwrap(), 4))),
            ["needs a person route-overlaps"]
        );
    }
    for dst in ["10.80.0.0/16", "10.81.0.0/24", "fd00::/8"] {
        assert!(found(|case| case.seen.routes.push((dst.parse().unwrap(), 4))).is_empty(), "{dst}");
    }
}

fn forward_policy() -> Blocker {
    Blocker {
        family: "ip".to_owned(),
        table: "filter".to_owned(),
        chain: "FORWARD".to_owned(),
        hook: "forward".to_owned(),
        kind: BlockerKind::Policy,
        accepts_mark: false,
    }
}

#[test]
fn foreign_firewalls_are_named_with_the_one_rule_that_helps() {
    let mut case = Case::new();
    case.seen.foreign.blockers.push(forward_policy());
    let plain = case.findings();
    case.seen.foreign.docker_user.push("ip".to_owned());
    let docker = case.findings();
    let text = |findings: &[Finding]| {
        findings
            .iter()
            .map(|f| format!("{} {} {}\n  {}\n", f.severity, f.object, f.what, f.fix))
            .collect::<String>()
    };
    insta::assert_snapshot!(text(&plain) + &text(&docker), @r#"
    needs a person chain FORWARD of table ip filter drops what containers send and receive, by its policy
      nft insert rule ip filter FORWARD 'meta mark & 0x00f00000 == 0x00b00000 counter accept comment "berth"', and the same in that firewall's own configuration
    needs a person chain FORWARD of table ip filter drops what containers send and receive, by its policy
      iptables -I DOCKER-USER -m mark --mark 0x00b00000/0x00f00000 -m comment --comment berth -j ACCEPT
    "#);
}

#[test]
fn a_firewall_that_accepts_the_mark_or_may_not_concern_containers_is_no_fault() {
    let with = |change: fn(&mut Blocker)| {
        found(|case| {
            let mut blocker = forward_policy();
            change(&mut blocker);
            case.seen.foreign.blockers.push(blocker);
        })
    };
    assert!(with(|blocker| blocker.accepts_mark = true).is_empty());
    assert_eq!(with(|blocker| blocker.kind = BlockerKind::Sometimes { rules: 2 }), ["note foreign-firewall"]);
    assert_eq!(with(|blocker| blocker.hook = "input".to_owned()), ["note foreign-firewall"]);
    assert_eq!(with(|blocker| blocker.hook = "prerouting".to_owned()), ["needs a person foreign-firewall"]);
    assert_eq!(
        found(|case| case.seen.foreign.legacy_tables.push("filter".to_owned())),
        ["note legacy-iptables"]
    );
    assert!(found(|case| case.seen.foreign.legacy_tables.push("nat".to_owned())).is_empty());
}

#[test]
fn what_cannot_be_read_is_not_compared() {
    let planted = found(|case| {
        case.seen.links = None;
        case.seen.ruleset = None;
        case.seen.switches.clear();
    });
    assert!(planted.is_empty());
}

#[test]
fn the_worst_finding_comes_first_and_decides() {
    let finding = |severity, code| {
        Words { object: &"x", what: String::new(), cause: "", fix: String::new() }.finding(severity, code)
    };
    let diagnosis = Diagnosis::of(vec![
        finding(Severity::Note, "a"),
        finding(Severity::Person, "c"),
        finding(Severity::Repairable, "b"),
        finding(Severity::Person, "c"),
    ]);
    assert_eq!(diagnosis.findings.iter().map(|finding| finding.code).collect::<Vec<_>>(), ["c", "b", "a"]);
    assert_eq!(diagnosis.worst(), Some(Severity::Person));
    assert!(Diagnosis::of(vec![finding(Severity::Note, "a")]).is_clean());
}

#[test]
fn a_fight_names_the_other_program_and_the_pause() {
    let fight = FightView {
        what: "the ruleset".to_owned(),
        by: Some("firewalld".to_owned()),
        pid: Some(4711),
        repairs: 5,
        pause_s: 2,
    };
    let told = fought(fight.clone());
    assert_eq!((told.severity, told.code), (Severity::Person, "fight"));
    assert!(told.what.contains("5 times") && told.what.contains("`firewalld` (process 4711)"), "{told:?}");
    assert!(told.fix.contains("every 2 s"), "{told:?}");
    let nobody = fought(FightView { by: None, pid: None, ..fight });
    assert!(nobody.what.contains("the kernel does not name"), "{nobody:?}");
}
