//! Plans, without a kernel: what they look like, in which order, and that they can be taken back from any point.

use std::collections::BTreeSet;

use berth_netlink::{Link, LinkKind, OperState};
use berth_types::{AddressLease, AttachmentKey, Dns, PublishedPort};
use proptest::prelude::*;

use super::*;
use crate::attachment::{AttachmentRecord, AttachmentSpec, ContainerLink, DuplicateDetection, PortSpec};
use crate::execute::{Apply, Undo, execute};
use crate::network::{Reach, Vlan};
use crate::request::Addresses;

fn key() -> AttachmentKey {
    AttachmentKey {
        network: "n0".parse().unwrap(),
        container: "c1".parse().unwrap(),
        ifname: "eth0".parse().unwrap(),
    }
}

fn network(reach: Reach) -> NetworkSpec {
    NetworkSpec {
        name: "n0".parse().unwrap(),
        bridge: "br0".parse().unwrap(),
        mtu: Some(1400),
        gateway: true,
        other_address: OtherAddress::Refuse,
        promisc: false,
        reach,
        vlan: None,
        names: None,
        overlay: None,
    }
}

fn leases() -> Vec<AddressLease> {
    let lease = |address: &str, gateway: &str| AddressLease {
        address: address.parse().unwrap(),
        gateway: Some(gateway.parse().unwrap()),
    };
    vec![lease("10.80.0.2/24", "10.80.0.1"), lease("fd80::2/64", "fd80::1")]
}

fn mac() -> MacAddr {
    "02:00:00:00:00:01".parse().unwrap()
}

fn observed() -> Observed {
    Observed {
        uplinks: vec!["up0".parse().unwrap()],
        ra_uplinks: vec!["up0".parse().unwrap()],
        ..Observed::default()
    }
}

fn link(kind: LinkKind) -> Link {
    Link {
        index: 7,
        name: "br0".parse().unwrap(),
        kind,
        mac: Some(mac()),
        mtu: 1400,
        up: true,
        promisc: false,
        master: None,
        alias: None,
        peer_index: None,
        link_netnsid: None,
        oper_state: OperState::Up,
        port: None,
        vlan_filtering: None,
        vxlan: None,
    }
}

fn record() -> AttachmentRecord {
    let Addresses { leases, routes, dns } = crate::addressing::complete(
        Addresses { leases: leases(), routes: Vec::new(), dns: Dns::default() },
        true,
        true,
    );
    let port = PublishedPort {
        proto: berth_types::Proto::Udp,
        host_addr: "0.0.0.0".parse().unwrap(),
        host_port: 5353,
        target: "10.80.0.2".parse().unwrap(),
        target_port: 53,
        count: 1,
    };
    AttachmentRecord {
        version: AttachmentRecord::VERSION,
        key: key(),
        bridge: "br0".parse().unwrap(),
        host_ifname: "veth00000001".parse().unwrap(),
        mac: mac(),
        leases,
        routes,
        dns,
        port: PortSpec { hairpin: false, isolated: false, apart: false, trunk: false, guard: Guard::Full },
        published: Published { ports: vec![port], ..Published::default() },
        bandwidth: None,
        names: None,
        peer: None,
        sandbox_path: "/run/netns/c0".into(),
        sandbox: None,
    }
}

fn spec(record: &AttachmentRecord) -> AttachmentSpec {
    AttachmentSpec {
        key: record.key.clone(),
        mac: record.mac,
        leases: record.leases.clone(),
        routes: record.routes.clone(),
        port: record.port,
        container_link: ContainerLink::Up,
        duplicate_detection: DuplicateDetection::Off,
        ports: record.published.ports.clone(),
        bandwidth: record.bandwidth,
    }
}

fn whole_plan(reach: Reach, observed: &Observed) -> Plan {
    let record = record();
    let (mut plan, network) = plan_network(&network(reach), record.joining(), mac(), observed).unwrap();
    plan.append(plan_attachment(&spec(&record), &record, &network, None));
    plan.append(plan_published(&record.key, &record.published, Some(&network.bridge)));
    plan
}

#[test]
fn the_first_attachment_of_a_masqueraded_network() {
    let reach = Reach { masquerade: true, ..Reach::default() };
    insta::assert_snapshot!(whole_plan(reach, &observed()));
}

#[test]
fn an_internal_network_without_traffic_between_containers() {
    let reach = Reach { internal: true, between_containers: false, ..Reach::default() };
    let (plan, _) = plan_network(&network(reach), record().joining(), mac(), &observed()).unwrap();
    insta::assert_snapshot!(plan);
}

#[test]
fn a_network_that_stands_needs_nothing() {
    let reach = Reach { masquerade: true, ..Reach::default() };
    let joining = record();
    let (_, record) = plan_network(&network(reach), joining.joining(), mac(), &observed()).unwrap();
    let after = Observed {
        bridge: Some(Link { alias: Some("berth n0".to_owned()), ..link(LinkKind::Bridge) }),
        bridge_addresses: record.gateways.iter().copied().collect(),
        network: Some(record.clone()),
        forwarding: Forwarding { v4: true, v6: true },
        ..observed()
    };
    let (plan, again) = plan_network(&network(reach), joining.joining(), mac(), &after).unwrap();
    assert_eq!((plan.to_string().as_str(), again), ("", record));
}

#[test]
fn the_guard_and_the_rules_come_before_the_link_is_up() {
    let plan = whole_plan(Reach::default(), &observed());
    let at = |wanted: &dyn Fn(&Step) -> bool| plan.steps().iter().position(wanted).unwrap();
    let up = |name: &'static str| move |step: &Step| matches!(step, Step::LinkUp { link } if link.as_str() == name);
    let holds = |element: Element| move |step: &Step| matches!(step, Step::ElementsAdd(elements) if elements.contains(&element));
    assert!(at(&holds(Element::Bridge("br0".parse().unwrap()))) < at(&up("br0")));
    assert!(at(&holds(Element::Guarded("veth00000001".parse().unwrap()))) < at(&up("veth00000001")));
    let accept_ra =
        |step: &Step| matches!(step, Step::Sysctl { key, .. } if key.as_str().ends_with("br0/accept_ra"));
    assert!(at(&accept_ra) < at(&up("br0")));
    let closed = Element::ClosedRouter { family: Family::V4, link: "up0".parse().unwrap() };
    let forward = |step: &Step| matches!(step, Step::Sysctl { key, .. } if *key == switch::forward_v4());
    assert!(at(&holds(closed)) < at(&forward));
    let localnet =
        |step: &Step| matches!(step, Step::Sysctl { key, .. } if key.as_str().ends_with("route_localnet"));
    assert!(
        at(&holds(Element::Port { port: record().published.ports[0], owner: elements::owner_mark(&key()) }))
            < at(&localnet)
    );
}

#[test]
fn only_an_address_that_may_have_had_another_mac_is_announced() {
    let announced = |record: &AttachmentRecord, observed: &Observed| {
        let spec = AttachmentSpec { mac: record.mac, ..spec(record) };
        let (_, network) =
            plan_network(&network(Reach::default()), record.joining(), mac(), observed).unwrap();
        let plan = plan_attachment(&spec, record, &network, None);
        let told = plan.steps().iter().any(|step| matches!(step, Step::Announce { .. }));
        assert_eq!(told, network.announces);
        (told, network)
    };
    let own = record();
    let usual = AttachmentRecord { mac: crate::attachment::mac_of(&key(), &own.leases).unwrap(), ..record() };
    assert!(!announced(&usual, &observed()).0);
    let (told, network) = announced(&own, &observed());
    assert!(told);
    // Whoever has the address next must be announced too.
    let after = Observed { network: Some(network), ..observed() };
    assert!(announced(&usual, &after).0);
}

#[test]
fn existing_non_bridge_with_our_name_is_refused() {
    let observed = Observed { bridge: Some(link(LinkKind::Veth)), ..observed() };
    let err = plan_network(&network(Reach::default()), record().joining(), mac(), &observed).unwrap_err();
    assert!(err.to_string().contains("\"br0\" already exists but is not a bridge"), "{err}");
}

#[test]
fn another_address_on_the_bridge_is_refused_or_replaced() {
    let other = "10.9.0.1/24".parse().unwrap();
    let observed =
        Observed { bridge: Some(link(LinkKind::Bridge)), bridge_addresses: vec![other], ..observed() };
    let refused = plan_network(&network(Reach::default()), record().joining(), mac(), &observed).unwrap_err();
    assert!(matches!(refused, PlanError::OtherAddress { found, .. } if found == other));
    let force = NetworkSpec { other_address: OtherAddress::Replace, ..network(Reach::default()) };
    let (plan, _) = plan_network(&force, record().joining(), mac(), &observed).unwrap();
    assert!(plan.steps().contains(&Step::AddrDel { link: "br0".parse().unwrap(), address: other }));
}

#[test]
fn a_subnet_that_overlaps_another_network_is_refused_by_name() {
    let (_, mut held) =
        plan_network(&network(Reach::default()), record().joining(), mac(), &observed()).unwrap();
    held.name = "other".parse().unwrap();
    held.bridge = "br9".parse().unwrap();
    let observed = Observed { others: vec![held.clone()], ..observed() };
    let err = plan_network(&network(Reach::default()), record().joining(), mac(), &observed).unwrap_err();
    assert!(err.to_string().contains("network `other` on bridge `br9`"), "{err}");
    held.bridge = "br0".parse().unwrap();
    let shared = Observed { others: vec![held], ..observed };
    assert!(plan_network(&network(Reach::default()), record().joining(), mac(), &shared).is_ok());
}

#[test]
fn vlans_are_refused_by_name_where_the_kernel_has_none_and_planned_where_it_has() {
    let vlan = Vlan { pvid: Some(7), trunk: vec![(10, 20)], keep_default: false };
    let with_vlan = NetworkSpec { vlan: Some(vlan.clone()), ..network(Reach::default()) };
    let err = plan_network(&with_vlan, record().joining(), mac(), &observed()).unwrap_err();
    assert!(err.to_string().contains("CONFIG_BRIDGE_VLAN_FILTERING"), "{err}");
    let able = Observed { vlan_filtering: true, ..observed() };
    let (mut plan, network) = plan_network(&with_vlan, record().joining(), mac(), &able).unwrap();
    plan.append(plan_attachment(&spec(&record()), &record(), &network, Some(&vlan)));
    insta::assert_snapshot!(plan);
}

/// A kernel of named objects; a step that fails does nothing.
#[derive(Default)]
struct Model {
    objects: BTreeSet<String>,
    fails_at: Option<usize>,
    done: usize,
}

#[derive(Debug, thiserror::Error)]
#[error("told to fail")]
struct Told;

impl Model {
    fn add(&mut self, object: String, undo: Undo) -> Undo {
        if self.objects.insert(object) { undo } else { Undo::Nothing }
    }
}

impl Apply for Model {
    type Error = Told;

    fn apply(&mut self, step: &Step) -> Result<Undo, Told> {
        if self.fails_at == Some(self.done) {
            return Err(Told);
        }
        self.done += 1;
        Ok(match step {
            Step::BridgeAdd { name, .. }
            | Step::VethAdd { host: name, .. }
            | Step::Shape { ifb: name, .. } => self.add(format!("link {name}"), Undo::LinkDel(name.clone())),
            Step::Sysctl { key, value, .. } => self.add(
                format!("{key}={value}"),
                Undo::SysctlRestore { key: key.clone(), value: value.clone() },
            ),
            Step::AddrAdd { link, address, .. } => {
                let undo = Undo::AddrDel { link: link.clone(), address: *address };
                self.add(format!("address {address} {link}"), undo)
            }
            Step::ElementsAdd(elements) => {
                self.objects.extend(elements.iter().map(|element| format!("element {element}")));
                Undo::ElementsRemove(elements.clone())
            }
            // What is inside the pair goes with it.
            _ => Undo::Nothing,
        })
    }

    fn undo(&mut self, undo: &Undo) -> Result<(), Told> {
        let gone: Vec<String> = match undo {
            Undo::Nothing | Undo::AddrAdd { .. } => Vec::new(),
            Undo::LinkDel(name) => vec![format!("link {name}")],
            Undo::SysctlRestore { key, value } => vec![format!("{key}={value}")],
            Undo::AddrDel { link, address } => vec![format!("address {address} {link}")],
            Undo::ElementsRemove(elements) => {
                elements.iter().map(|element| format!("element {element}")).collect()
            }
        };
        self.objects.retain(|object| !gone.contains(object));
        Ok(())
    }
}

proptest! {
    #[test]
    fn a_plan_that_fails_anywhere_leaves_nothing(
        fails_at in 0_usize..40,
        masquerade: bool,
        between_containers: bool,
        isolated: bool,
        internal: bool,
    ) {
        let plan = whole_plan(Reach { masquerade, between_containers, isolated, internal }, &observed());
        let mut kernel = Model { fails_at: Some(fails_at), ..Model::default() };
        match execute(&mut kernel, &plan) {
            Err(err) => prop_assert!(err.left.is_empty()),
            Ok(applied) => {
                prop_assert!(fails_at >= plan.steps().len());
                prop_assert_eq!(applied.undo(&mut kernel), Vec::<String>::new());
            }
        }
        prop_assert_eq!(kernel.objects, BTreeSet::new());
    }
}
