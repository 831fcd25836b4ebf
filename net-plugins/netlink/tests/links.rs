//! Links, in private namespaces.

mod common;

use std::time::Duration;

use berth_netlink::{
    BridgePort, BridgeSpec, LOOPBACK_INDEX, LinkChange, LinkKind, Netlink, NetlinkError, OperState,
    PortChange, Sandbox, Side, VethSpec, VlanFlags, VlanTarget, vlan_filtering_supported,
};
use common::{BRIDGE_MAC, HOST_MAC, PEER_MAC, World, bridge, link, name, veth};
use rustix::io::Errno;

/// A port as the kernel makes it.
const OPEN_PORT: BridgePort = BridgePort {
    hairpin: false,
    isolated: false,
    learning: true,
    flood: true,
    mcast_flood: true,
    bcast_flood: true,
    neigh_suppress: false,
};

#[test]
fn a_new_namespace_has_loopback_alone() {
    let world = World::new();
    let links = world.on_host.links().unwrap();
    let [loopback] = links.as_slice() else { panic!("{links:?}") };
    assert_eq!((loopback.index, loopback.name.as_str()), (LOOPBACK_INDEX, "lo"));
    assert_eq!((&loopback.kind, loopback.up), (&LinkKind::Loopback, false));
    world.on_host.link_set_up(LOOPBACK_INDEX).unwrap();
    assert!(link(&world.on_host, "lo").up);
}

#[test]
fn an_absent_link_is_none_and_not_an_error() {
    let world = World::new();
    assert_eq!(world.on_host.link_by_name(&name("nosuch0")).unwrap(), None);
    assert_eq!(world.on_host.link_by_index(4711).unwrap(), None);
    assert!(!world.on_host.link_del(4711).unwrap());
    assert!(world.on_host.link_set_up(4711).unwrap_err().is_absent());
}

#[test]
fn a_bridge_is_created_as_asked() {
    let world = World::new();
    let spec =
        BridgeSpec { mtu: Some(1400), alias: Some("berth blue".to_owned()), promisc: true, ..bridge("cni0") };
    let created = world.on_host.bridge_add(&spec).unwrap();
    let read = link(&world.on_host, "cni0");
    assert_eq!(created, read);
    assert_eq!((&read.kind, read.mtu, read.mac), (&LinkKind::Bridge, 1400, Some(BRIDGE_MAC)));
    assert_eq!((read.alias.as_deref(), read.promisc, read.up), (Some("berth blue"), true, false));
    assert_eq!(world.on_host.link_by_index(created.index).unwrap(), Some(read));
}

#[test]
fn a_bridges_name_that_is_taken_is_told_apart() {
    let world = World::new();
    world.on_host.bridge_add(&bridge("cni0")).unwrap();
    let err = world.on_host.bridge_add(&bridge("cni0")).unwrap_err();
    assert!(
        matches!(&err, NetlinkError::NameTaken { name, side: Side::Host } if name.as_str() == "cni0"),
        "{err}"
    );
    assert!(err.is_exists());
    assert_eq!(err.to_string(), "interface name `cni0` is taken on the host");
}

#[test]
fn a_bridge_keeps_its_address_when_ports_come() {
    for mac in [Some(BRIDGE_MAC), None] {
        let world = World::new();
        let created = world.on_host.bridge_add(&BridgeSpec { mac, ..bridge("cni0") }).unwrap();
        // The lowest address there is: a bridge that follows its ports would take it.
        let spec =
            VethSpec { host_mac: Some(HOST_MAC), master: Some(created.index), ..veth("veth0", "eth0") };
        world.on_host.veth_add(&spec, &world.container).unwrap();
        let mac = created.mac.unwrap();
        assert_eq!(link(&world.on_host, "cni0").mac, Some(mac));
        assert_ne!(mac, HOST_MAC);
    }
}

#[test]
fn a_pair_is_created_in_both_places_with_all_its_settings() {
    let world = World::new();
    let cni0 = world.on_host.bridge_add(&bridge("cni0")).unwrap();
    let spec = VethSpec {
        host_alias: Some("berth blue c1 eth0".to_owned()),
        host_mac: Some(HOST_MAC),
        peer_mac: Some(PEER_MAC),
        mtu: Some(1450),
        master: Some(cni0.index),
        port: PortChange { hairpin: Some(true), isolated: Some(true), ..PortChange::default() },
        ..veth("veth0", "eth0")
    };
    let pair = world.on_host.veth_add(&spec, &world.container).unwrap();

    let host = link(&world.on_host, "veth0");
    assert_eq!(
        (host.index, &host.kind, host.mac, host.mtu),
        (pair.host_index, &LinkKind::Veth, Some(HOST_MAC), 1450)
    );
    assert_eq!((host.master, host.alias.as_deref()), (Some(cni0.index), Some("berth blue c1 eth0")));
    let port = BridgePort { hairpin: true, isolated: true, ..OPEN_PORT };
    assert_eq!((host.port, host.up), (Some(port), false));

    let peer = link(&world.in_container, "eth0");
    assert_eq!((peer.mac, peer.mtu, peer.up, peer.master), (Some(PEER_MAC), 1450, false, None));
    assert_eq!((host.peer_index, peer.peer_index), (Some(peer.index), Some(host.index)));
    assert!(host.link_netnsid.is_some() && peer.link_netnsid.is_some());
    assert!(pair.peer_index.is_none() || pair.peer_index == Some(peer.index));

    world.on_host.link_set_up(cni0.index).unwrap();
    world.on_host.link_set_up(host.index).unwrap();
    world.in_container.link_set_up(peer.index).unwrap();
    assert!(world.on_host.link_await_up(host.index, Duration::from_secs(20)).unwrap());
    assert_eq!(link(&world.on_host, "veth0").oper_state, OperState::Up);
    let details = |sandbox, device| common::output(sandbox, "ip", &["-d", "link", "show", "dev", device]);
    assert!(
        details(&world.host, "veth0").contains("addrgenmode none"),
        "no link-local address on the host's end"
    );
    assert!(details(&world.container, "eth0").contains("addrgenmode eui64"));
}

#[test]
fn a_pair_tells_on_which_side_its_name_is_taken() {
    let world = World::new();
    world.on_host.veth_add(&veth("veth0", "eth0"), &world.container).unwrap();
    for (host, peer, expected, taken) in [
        ("veth0", "eth1", Side::Host, "veth0"),
        ("veth1", "eth0", Side::Sandbox, "eth0"),
        ("veth0", "eth0", Side::Host, "veth0"),
    ] {
        let err = world.on_host.veth_add(&veth(host, peer), &world.container).unwrap_err();
        match &err {
            NetlinkError::NameTaken { name, side } => assert_eq!((*side, name.as_str()), (expected, taken)),
            other => panic!("{other}"),
        }
    }
    assert_eq!(world.on_host.links().unwrap().len(), 2, "nothing is left of the attempts");
    assert_eq!(world.in_container.links().unwrap().len(), 2);
}

#[test]
fn a_pair_that_cannot_be_finished_is_not_left_behind() {
    let world = World::new();
    // A link without a master is no port, so its port settings are refused by the second message.
    let port = PortChange { hairpin: Some(true), ..PortChange::default() };
    let spec = VethSpec { port, ..veth("veth0", "eth0") };
    world.on_host.veth_add(&spec, &world.container).unwrap_err();
    let spec = VethSpec { master: Some(4711), ..veth("veth0", "eth0") };
    world.on_host.veth_add(&spec, &world.container).unwrap_err();
    assert_eq!(world.on_host.links().unwrap().len(), 1);
    assert_eq!(world.in_container.links().unwrap().len(), 1);
}

#[test]
fn deleting_one_end_takes_the_other() {
    let world = World::new();
    let pair = world.on_host.veth_add(&veth("veth0", "eth0"), &world.container).unwrap();
    assert!(world.on_host.link_del(pair.host_index).unwrap());
    assert!(!world.on_host.link_del(pair.host_index).unwrap());
    assert_eq!(world.in_container.link_by_name(&name("eth0")).unwrap(), None);
}

#[test]
fn every_setting_of_a_link_can_be_changed() {
    let world = World::new();
    let cni0 = world.on_host.bridge_add(&bridge("cni0")).unwrap();
    let index = world.on_host.veth_add(&veth("veth0", "eth0"), &world.container).unwrap().host_index;
    let netlink = &world.on_host;
    netlink.link_set_mtu(index, 1280).unwrap();
    netlink.link_set_mac(index, HOST_MAC).unwrap();
    netlink.link_set_promisc(index, true).unwrap();
    netlink.link_set_alias(index, "berth x").unwrap();
    netlink.link_set_master(index, Some(cni0.index)).unwrap();
    netlink.link_set_up(index).unwrap();
    let read = link(netlink, "veth0");
    assert_eq!((read.mtu, read.mac, read.promisc, read.up), (1280, Some(HOST_MAC), true, true));
    assert_eq!((read.alias.as_deref(), read.master), (Some("berth x"), Some(cni0.index)));

    let change = LinkChange {
        up: Some(false),
        promisc: Some(false),
        alias: Some(String::new()),
        master: Some(0),
        ..LinkChange::default()
    };
    netlink.link_change(index, &change).unwrap();
    let read = link(netlink, "veth0");
    assert_eq!((read.up, read.promisc, read.alias, read.master, read.port), (false, false, None, None, None));
    assert_eq!(read.mtu, 1280, "what is not named stays");
}

#[test]
fn settings_of_a_port_are_changed_one_by_one() {
    let world = World::new();
    let cni0 = world.on_host.bridge_add(&bridge("cni0")).unwrap();
    let spec = VethSpec { master: Some(cni0.index), ..veth("veth0", "eth0") };
    let index = world.on_host.veth_add(&spec, &world.container).unwrap().host_index;
    let port = || link(&world.on_host, "veth0").port.unwrap();
    assert_eq!(port(), OPEN_PORT);
    let change = PortChange { learning: Some(false), flood: Some(false), ..PortChange::default() };
    world.on_host.bridge_port_set(index, change).unwrap();
    assert_eq!(port(), BridgePort { learning: false, flood: false, ..OPEN_PORT });
    let change = PortChange { hairpin: Some(true), isolated: Some(true), ..PortChange::default() };
    world.on_host.bridge_port_set(index, change).unwrap();
    assert_eq!(
        port(),
        BridgePort { hairpin: true, isolated: true, learning: false, flood: false, ..OPEN_PORT }
    );
    assert!(world.on_host.bridge_port_set(cni0.index, change).is_err(), "a bridge is no port");
}

#[test]
fn vlans_work_where_the_probe_says_so_and_are_unsupported_elsewhere() {
    let world = World::new();
    let supported = vlan_filtering_supported().unwrap();
    let created = world.on_host.bridge_add(&BridgeSpec { vlan_filtering: true, ..bridge("vlans0") });
    let target = |index| VlanTarget::Port(index);
    if supported {
        assert_eq!(created.as_ref().unwrap().vlan_filtering, Some(true));
    } else {
        assert!(matches!(created, Err(NetlinkError::Unsupported { .. })), "{created:?}");
        assert_eq!(world.on_host.link_by_name(&name("vlans0")).unwrap(), None, "nothing is left behind");
    }
    let master = created.unwrap_or_else(|_| world.on_host.bridge_add(&bridge("cni0")).unwrap());
    let spec = VethSpec { master: Some(master.index), ..veth("veth0", "eth0") };
    let port = world.on_host.veth_add(&spec, &world.container).unwrap().host_index;
    let flags = VlanFlags { pvid: true, untagged: true };
    let single = world.on_host.bridge_vlan_add(target(port), 7..=7, flags);
    let range = world.on_host.bridge_vlan_add(target(port), 10..=20, VlanFlags::default());
    let own = world.on_host.bridge_vlan_add(VlanTarget::Bridge(master.index), 7..=7, VlanFlags::default());
    for outcome in [single, range, own] {
        match outcome {
            Ok(()) => assert!(supported),
            Err(err) => assert!(!supported && matches!(err, NetlinkError::Unsupported { .. }), "{err:?}"),
        }
    }
    if supported {
        let shown = common::output(&world.host, "bridge", &["vlan", "show", "dev", "veth0"]);
        assert!(shown.contains("7 PVID Egress Untagged") && shown.contains("20"), "{shown}");
        assert!(world.on_host.bridge_vlan_del(target(port), 10..=20).unwrap());
    }
}

#[test]
fn waiting_for_a_link_ends_when_it_passes_packets_and_not_before() {
    let world = World::new();
    let pair = world.on_host.veth_add(&veth("veth0", "eth0"), &world.container).unwrap();
    let peer = link(&world.in_container, "eth0").index;
    world.on_host.link_set_up(pair.host_index).unwrap();
    let wait = |millis| world.on_host.link_await_up(pair.host_index, Duration::from_millis(millis)).unwrap();
    assert!(!wait(0) && !wait(20), "the other end is down");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let netlink = Netlink::open_in(&world.host).unwrap();
            netlink.link_await_up(pair.host_index, Duration::from_secs(20)).unwrap()
        });
        world.in_container.link_set_up(peer).unwrap();
        assert!(waiting.join().unwrap());
    });
    assert!(wait(0));
    // What was received while waiting does not disturb a list.
    assert_eq!(world.on_host.links().unwrap().len(), 2);
    assert!(!world.on_host.link_await_up(4711, Duration::ZERO).unwrap());
}

#[test]
fn a_namespace_that_is_gone_cannot_be_entered() {
    let path = { Sandbox::anonymous().unwrap().path().to_owned() };
    // The descriptor's number may be in use again, but not for a namespace that is not ours.
    if let Err(err) = Sandbox::open(&path) {
        assert!(err.is_gone(), "{err}");
    }
}

#[test]
fn the_kernels_own_words_are_in_the_error() {
    let world = World::new();
    let index = world.on_host.veth_add(&veth("veth0", "eth0"), &world.container).unwrap().host_index;
    let err = world.on_host.link_set_mtu(index, 1_000_000).unwrap_err();
    assert_eq!(err.errno(), Some(Errno::INVAL));
    let source = std::error::Error::source(&err).unwrap().to_string();
    assert!(source.contains("mtu greater than device maximum"), "{source}");
    assert_eq!(err.to_string(), format!("set the MTU of link number {index}"));
}

#[test]
fn lists_are_whole_while_links_come_and_go() {
    let world = World::new();
    let stop = std::sync::atomic::AtomicBool::new(false);
    // Enough links for several pieces of a list.
    for number in 0..120 {
        world
            .on_host
            .bridge_add(&BridgeSpec { alias: Some("x".repeat(200)), ..bridge(&format!("b{number}")) })
            .unwrap();
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let churn = Netlink::open_in(&world.host).unwrap();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let created = churn.bridge_add(&bridge("churn0")).unwrap();
                churn.link_del(created.index).unwrap();
            }
        });
        let mut whole = 0;
        for _ in 0..40 {
            match world.on_host.links() {
                Ok(links) => {
                    let fixed = links.iter().filter(|link| link.name.as_str() != "churn0").count();
                    assert_eq!(fixed, 121);
                    whole += 1;
                }
                Err(err) => assert!(matches!(err, NetlinkError::Interrupted { .. }), "{err}"),
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(whole > 0, "no list was whole");
    });
}
