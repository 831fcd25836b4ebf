//! Overlays, without a kernel: their plans, their elements, and what is found wrong of their devices.

use berth_netlink::{OperState, Vxlan};
use berth_nft::Element;
use berth_types::AddressLease;

use super::*;
use crate::elements;
use crate::execute::{Apply, Undo, execute};
use crate::network::{NetworkSpec, OtherAddress, Reach};
use crate::plan::{Joining, Observed, plan_network};
use crate::step::{Plan, Step};

fn port() -> OverlayPort {
    OverlayPort {
        vni: Vni::new(1_048_577).unwrap(),
        port: 4789,
        local: "192.0.2.1".parse().unwrap(),
        mtu: 1450,
        mac: "0a:00:00:00:00:05".parse().unwrap(),
        addresses: ["10.200.0.5/24".parse().unwrap(), "fd00:200::5/64".parse().unwrap()].into(),
        flood: false,
        encrypted: false,
    }
}

fn spec() -> NetworkSpec {
    NetworkSpec {
        name: "blue".parse().unwrap(),
        bridge: "br0".parse().unwrap(),
        mtu: Some(9000),
        gateway: true,
        other_address: OtherAddress::Refuse,
        promisc: false,
        reach: Reach { masquerade: true, ..Reach::default() },
        vlan: None,
        names: None,
        overlay: Some(port()),
    }
}

fn leases() -> Vec<AddressLease> {
    let lease = |address: &str, gateway: &str| AddressLease {
        address: address.parse().unwrap(),
        gateway: Some(gateway.parse().unwrap()),
    };
    vec![lease("10.200.0.9/24", "10.200.0.1"), lease("fd00:200::9/64", "fd00:200::1")]
}

fn peers() -> Peers {
    Peers { vteps: ["192.0.2.2".parse().unwrap()].into(), macs: [MacAddr([0x0a, 0, 0, 0, 0, 6])].into() }
}

fn planned(spec: &NetworkSpec, observed: &Observed) -> Result<(Plan, NetworkRecord), crate::plan::PlanError> {
    let (leases, peers) = (leases(), peers());
    let joining = Joining { leases: &leases, peers: Some(&peers), ..Joining::default() };
    plan_network(spec, joining, MacAddr([2, 0, 0, 0, 0, 1]), observed)
}

fn link(name: &str, index: u32, kind: LinkKind) -> Link {
    Link {
        index,
        name: name.parse().unwrap(),
        kind,
        mac: Some(port().mac),
        mtu: 1450,
        up: true,
        promisc: false,
        master: None,
        alias: Some("berth blue".to_owned()),
        peer_index: None,
        link_netnsid: None,
        oper_state: OperState::Up,
        port: None,
        vlan_filtering: None,
        vxlan: None,
    }
}

fn bridge() -> Link {
    link("br0", 7, LinkKind::Bridge)
}

fn device() -> Link {
    Link {
        master: Some(7),
        alias: Some("berth blue vxlan".to_owned()),
        port: Some(BridgePort { neigh_suppress: true, ..BridgePort::default() }),
        vxlan: Some(Vxlan { vni: 1_048_577, port: 4789, local: Some(port().local), learning: false }),
        ..link("bvx1048577", 8, LinkKind::Vxlan)
    }
}

/// The host with the network on it as it should be.
fn standing() -> Observed {
    let (_, record) = planned(&spec(), &Observed::default()).unwrap();
    Observed {
        bridge: Some(bridge()),
        vxlan: Some(device()),
        bridge_addresses: record.bridge_addresses().into_iter().collect(),
        network: Some(record),
        forwarding: crate::plan::Forwarding { v4: true, v6: true },
        ..Observed::default()
    }
}

#[test]
fn an_overlay_is_a_bridge_with_one_more_port() {
    let (plan, record) = planned(&spec(), &Observed::default()).unwrap();
    insta::assert_snapshot!(plan);
    assert_eq!((record.mtu, record.mac), (Some(1450), port().mac), "the overlay's, not the network's");
    let (plan, again) = planned(&spec(), &standing()).unwrap();
    assert_eq!((plan.to_string().as_str(), again), ("", record));
}

#[test]
fn strangers_are_kept_out_before_the_device_is_up_and_the_device_is_made_whole() {
    let (plan, _) = planned(&spec(), &Observed::default()).unwrap();
    let at = |wanted: &dyn Fn(&Step) -> bool| plan.steps().iter().position(wanted).unwrap();
    let rules = at(&|step| {
        matches!(step, Step::ElementsAdd(all) if all.contains(&Element::VxlanPort(4789))
            && all.contains(&Element::Vtep("192.0.2.2".parse().unwrap())))
    });
    let made = at(&|step| matches!(step, Step::VxlanAdd { .. }));
    let up = at(&|step| matches!(step, Step::LinkUp { link } if link.as_str() == "bvx1048577"));
    assert!(rules < made && made < up);
}

#[test]
fn what_is_wrong_is_found_told_and_put_right() {
    let settings = |port: BridgePort| Link { port: Some(port), ..device() };
    let quiet = BridgePort { neigh_suppress: true, ..BridgePort::default() };
    let elsewhere = Vxlan { local: Some("192.0.2.9".parse().unwrap()), ..device().vxlan.unwrap() };
    let cases = [
        (Some(bridge()), None, "bvx1048577 is gone", "vxlan add"),
        (
            Some(bridge()),
            Some(Link { mtu: 1500, ..device() }),
            "bvx1048577 has MTU 1500, not 1450",
            "vxlan set",
        ),
        (
            Some(bridge()),
            Some(Link { up: false, ..device() }),
            "bvx1048577 is down",
            "link set bvx1048577 up",
        ),
        (
            Some(bridge()),
            Some(Link { master: None, ..device() }),
            "bvx1048577 is not a port of br0",
            "vxlan set",
        ),
        (
            Some(bridge()),
            Some(settings(BridgePort { learning: true, ..quiet })),
            "bvx1048577 has other settings as the bridge's port",
            "vxlan set",
        ),
        (
            Some(bridge()),
            Some(Link { vxlan: Some(elsewhere), ..device() }),
            "bvx1048577 is not VNI 1048577 on UDP port 4789 from 192.0.2.1",
            "link delete bvx1048577",
        ),
        (
            Some(Link { mtu: 1500, ..bridge() }),
            Some(device()),
            "br0 has MTU 1500, not 1450",
            "link set br0 mac",
        ),
        (
            Some(Link { mac: Some(MacAddr([2; 6])), ..bridge() }),
            Some(device()),
            "br0 has not this host's MAC address 0a:00:00:00:00:05",
            "link set br0 mac",
        ),
    ];
    for (bridge, vxlan, told, step) in cases {
        let observed = Observed { bridge, vxlan, ..standing() };
        let (plan, record) = planned(&spec(), &observed).unwrap();
        let links: Vec<Link> = observed.bridge.into_iter().chain(observed.vxlan).collect();
        let found = faults(&record, &links);
        let said: Vec<String> =
            found.iter().map(|OverlayFault { link, what }| format!("{link} {what}")).collect();
        assert_eq!(said, [told]);
        assert!(plan.to_string().starts_with(step), "{told}: {plan}");
    }
    let (_, record) = planned(&spec(), &standing()).unwrap();
    assert_eq!(faults(&record, &[bridge(), device()]), []);
}

#[test]
fn a_foreign_link_or_bridge_in_the_way_is_refused_and_so_is_another_number() {
    let refused = |spec: &NetworkSpec, observed: &Observed| planned(spec, observed).unwrap_err().to_string();
    let foreign = Observed { vxlan: Some(Link { alias: None, ..device() }), ..standing() };
    assert!(refused(&spec(), &foreign).starts_with("link `bvx1048577` (vxlan) stands where"));
    let bridge = Observed { bridge: Some(Link { alias: None, ..bridge() }), ..Observed::default() };
    assert!(refused(&spec(), &bridge).starts_with("bridge `br0` is not berth's: an overlay network needs"));
    let other = OverlayPort { vni: Vni::new(5).unwrap(), ..port() };
    let other = NetworkSpec { overlay: Some(other), ..spec() };
    assert!(
        refused(&other, &standing())
            .starts_with("network `blue` has VNI 1048577 on UDP port 4789 here, not 5")
    );
}

#[test]
fn a_device_whose_maker_was_killed_before_it_had_its_alias_is_known() {
    let mut observed = standing();
    observed.vxlan = Some(Link { alias: None, up: false, ..device() });
    observed.network.as_mut().unwrap().pending = true;
    let (plan, _) = planned(&spec(), &observed).unwrap();
    let text = plan.to_string();
    assert!(text.contains("vxlan set") && text.contains("link set bvx1048577 up"), "{text}");
}

#[test]
fn who_asks_for_the_network_as_a_plain_bridge_leaves_it_an_overlay() {
    let plain = NetworkSpec { overlay: None, ..spec() };
    let (plan, record) = planned(&plain, &standing()).unwrap();
    assert_eq!((plan.to_string().as_str(), record.overlay), ("", Some(port())));
}

#[test]
fn containers_kept_apart_are_kept_apart_from_other_hosts() {
    let apart = NetworkSpec { reach: Reach { between_containers: false, ..spec().reach }, ..spec() };
    let (_, record) = planned(&apart, &Observed::default()).unwrap();
    let elements = elements::of_network(&record);
    assert!(elements.contains(&Element::ApartAcross(port().device())));
    assert!(
        elements.contains(&Element::HostAcross(MacAddr([0x0a, 0, 0, 0, 0, 6]))),
        "the other host is answered"
    );
}

#[test]
fn an_alias_gives_its_network_back() {
    let name: NetworkName = "blue".parse().unwrap();
    assert_eq!(network_of_vxlan(&vxlan_alias(&name)), Some(name));
    for foreign in ["berth blue", "berth blue c1 eth0", "berth vxlan", "blue vxlan", "berth #00 vxlan"] {
        assert_eq!(network_of_vxlan(foreign), None, "{foreign}");
    }
    assert_eq!(crate::attachment::key_of_alias("berth blue vxlan"), None);
}

#[test]
fn records_of_earlier_versions_have_no_overlay() {
    let (_, record) = planned(&NetworkSpec { overlay: None, ..spec() }, &Observed::default()).unwrap();
    let text = serde_json::to_string(&record).unwrap();
    assert!(!text.contains("overlay") && !text.contains("peers"), "{text}");
    assert_eq!(serde_json::from_str::<NetworkRecord>(&text).unwrap(), record);
    let (_, record) = planned(&spec(), &Observed::default()).unwrap();
    let text = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<NetworkRecord>(&text).unwrap(), record);
}

/// Links alone; a step fails where it is told to.
#[derive(Default)]
struct Links {
    there: BTreeSet<IfName>,
    fails_at: usize,
    done: usize,
}

#[derive(Debug, thiserror::Error)]
#[error("told to fail")]
struct Told;

impl Apply for Links {
    type Error = Told;

    fn apply(&mut self, step: &Step) -> Result<Undo, Told> {
        if self.fails_at == self.done {
            return Err(Told);
        }
        self.done += 1;
        let made = match step {
            Step::BridgeAdd { name, .. } => name.clone(),
            Step::VxlanAdd { overlay, .. } => overlay.device(),
            _ => return Ok(Undo::Nothing),
        };
        assert!(self.there.insert(made.clone()));
        Ok(Undo::LinkDel(made))
    }

    fn undo(&mut self, undo: &Undo) -> Result<(), Told> {
        if let Undo::LinkDel(name) = undo {
            assert!(self.there.remove(name));
        }
        Ok(())
    }
}

#[test]
fn a_plan_that_fails_at_any_step_leaves_no_link() {
    let (plan, _) = planned(&spec(), &Observed::default()).unwrap();
    for fails_at in 0..=plan.steps().len() {
        let mut kernel = Links { fails_at, ..Links::default() };
        if let Ok(applied) = execute(&mut kernel, &plan) {
            assert_eq!(kernel.there.len(), 2);
            assert_eq!(applied.undo(&mut kernel), Vec::<String>::new());
        }
        assert_eq!(kernel.there, BTreeSet::new(), "failed at {fails_at}");
    }
}

#[test]
fn an_encrypted_network_is_kept_from_clear_before_its_device_is_there() {
    let encrypted = OverlayPort { port: 4799, encrypted: true, ..port() };
    let (plan, record) =
        planned(&NetworkSpec { overlay: Some(encrypted), ..spec() }, &Observed::default()).unwrap();
    let place = |which: fn(&Step) -> bool| plan.steps().iter().position(which).unwrap();
    let kept =
        place(|step| matches!(step, Step::ElementsAdd(all) if all.contains(&Element::EncryptedPort(4799))));
    assert!(kept < place(|step| matches!(step, Step::VxlanAdd { .. })), "{plan}");
    assert!(plan.to_string().contains(" encrypted"), "{plan}");
    assert!(elements::of_network(&record).contains(&Element::EncryptedPort(4799)));
    let old: OverlayPort = serde_json::from_value({
        let mut value = serde_json::to_value(port()).unwrap();
        value.as_object_mut().unwrap().remove("encrypted");
        value
    })
    .unwrap();
    assert_eq!(old, port(), "a record of an earlier version");
}
