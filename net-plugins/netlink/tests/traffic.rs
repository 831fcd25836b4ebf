//! Packets: a container reaches its bridge, announcements arrive, and links are shaped.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod common;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use berth_netlink::{
    AddrFlags, LinkChange, LinkKind, NetlinkError, Tbf, VethSpec, announce::announce, sysctl,
    traffic_shaping_supported,
};
use berth_types::Family;
use common::{PEER_MAC, World, bridge, link, name, output, veth};

const NODAD: AddrFlags = AddrFlags { nodad: true, noprefixroute: false, deprecated: false };

/// Much more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A bridge with 10.9.0.1 and fd09::1, and a container behind it with .2 and ::2. All links are up.
fn attached() -> World {
    let world = World::new();
    let cni0 = world.on_host.bridge_add(&bridge("cni0")).unwrap();
    let spec = VethSpec { peer_mac: Some(PEER_MAC), master: Some(cni0.index), ..veth("veth0", "eth0") };
    let pair = world.on_host.veth_add(&spec, &world.container).unwrap();
    let eth0 = link(&world.in_container, "eth0").index;
    for (netlink, index, addresses) in [
        (&world.on_host, cni0.index, ["10.9.0.1/24", "fd09::1/64"]),
        (&world.in_container, eth0, ["10.9.0.2/24", "fd09::2/64"]),
    ] {
        for address in addresses {
            netlink.addr_add(index, address.parse().unwrap(), NODAD).unwrap();
        }
    }
    world.on_host.link_set_up(cni0.index).unwrap();
    world.on_host.link_set_up(pair.host_index).unwrap();
    world.in_container.link_set_up(eth0).unwrap();
    // The bridge has no carrier before its first port has, and takes no IPv6 packets before that is in effect.
    for index in [pair.host_index, cni0.index] {
        assert!(world.on_host.link_await_up(index, PATIENCE).unwrap());
    }
    world
}

/// Whether `fact` comes true. Packets are handled when the kernel gets to it, and it tells nobody.
fn eventually(fact: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if fact() {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

fn socket(addr: &str) -> UdpSocket {
    let socket = UdpSocket::bind((addr.parse::<IpAddr>().unwrap(), 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[test]
fn a_container_and_its_bridge_exchange_packets() {
    let world = attached();
    for (bridge, container) in [("10.9.0.1", "10.9.0.2"), ("fd09::1", "fd09::2")] {
        let server = world.host.run(|| socket(bridge)).unwrap();
        let client = world.container.run(|| socket(container)).unwrap();
        // A socket stays in its namespace, so from here on threads do not matter.
        let mut buffer = [0; 16];
        client.send_to(b"ping", server.local_addr().unwrap()).unwrap();
        let (length, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from), (b"ping".as_slice(), client.local_addr().unwrap()));
        server.send_to(b"pong", from).unwrap();
        let (length, from): (usize, SocketAddr) = client.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from.ip()), (b"pong".as_slice(), bridge.parse::<IpAddr>().unwrap()));
    }
}

#[test]
fn an_announcement_corrects_what_neighbours_know() {
    let world = attached();
    let cni0 = link(&world.on_host, "cni0").index;
    let eth0 = link(&world.in_container, "eth0").index;
    let addrs: Vec<IpAddr> = vec!["10.9.0.2".parse().unwrap(), "fd09::2".parse().unwrap()];
    // The host learns the container's address by talking to it.
    for (bridge, container) in [("10.9.0.1", "10.9.0.2"), ("fd09::1", "fd09::2")] {
        let server = world.container.run(|| socket(container)).unwrap();
        let client = world.host.run(|| socket(bridge)).unwrap();
        client.send_to(b"x", server.local_addr().unwrap()).unwrap();
        server.recv_from(&mut [0; 1]).unwrap();
    }
    let known = |addr: &IpAddr| {
        world.on_host.neighs(cni0).unwrap().into_iter().find(|n| n.addr == *addr).unwrap().mac
    };
    assert!(addrs.iter().all(|addr| known(addr) == Some(PEER_MAC)));
    // IPv4 believes a change only after `locktime` has passed since the last one.
    world
        .host
        .run(|| {
            let key = sysctl::SysctlKey::new(["net", "ipv4", "neigh", "cni0", "locktime"]).unwrap();
            sysctl::write(&key, "0").unwrap();
        })
        .unwrap();

    let moved = berth_types::MacAddr([2, 0, 0, 0, 0, 0x77]);
    world.container.run(|| announce(eth0, moved, &addrs)).unwrap().unwrap();
    for addr in &addrs {
        assert!(eventually(|| known(addr) == Some(moved)), "{addr}");
    }
}

#[test]
fn an_announcement_on_a_link_that_is_not_there_is_an_error() {
    let world = World::new();
    let addr = "10.9.0.2".parse().unwrap();
    let err = world.container.run(|| announce(4711, PEER_MAC, &[addr])).unwrap().unwrap_err();
    assert_eq!(err.to_string(), "announce 10.9.0.2 on link number 4711");
    world.container.run(|| announce(4711, PEER_MAC, &[])).unwrap().unwrap();
}

#[test]
fn the_kernel_announces_addresses_itself_when_told_to() {
    let world = World::new();
    let cni0 = world.on_host.bridge_add(&bridge("cni0")).unwrap();
    let spec = VethSpec { peer_mac: Some(PEER_MAC), master: Some(cni0.index), ..veth("veth0", "eth0") };
    let pair = world.on_host.veth_add(&spec, &world.container).unwrap();
    let eth0 = link(&world.in_container, "eth0").index;
    world.on_host.addr_add(cni0.index, "10.9.0.1/24".parse().unwrap(), NODAD).unwrap();
    world.on_host.link_set_up(cni0.index).unwrap();
    world.on_host.link_set_up(pair.host_index).unwrap();
    world
        .host
        .run(|| {
            for (family, switch) in
                [(Family::V4, "arp_accept"), (Family::V6, "accept_untracked_na"), (Family::V6, "forwarding")]
            {
                let key = sysctl::SysctlKey::of_link(family, &name("cni0"), switch).unwrap();
                sysctl::write(&key, "1").unwrap();
            }
        })
        .unwrap();

    let key = |family, switch| sysctl::SysctlKey::of_link(family, &name("eth0"), switch).unwrap();
    world.container.run(|| sysctl::write(&key(Family::V6, "ndisc_notify"), "1")).unwrap().unwrap();
    for address in ["10.9.0.2/24", "fd09::2/64"] {
        world.in_container.addr_add(eth0, address.parse().unwrap(), NODAD).unwrap();
    }
    let change = LinkChange { up: Some(true), arp_notify: Some(true), ..LinkChange::default() };
    world.in_container.link_change(eth0, &change).unwrap();
    let read = world.container.run(|| sysctl::read(&key(Family::V4, "arp_notify"))).unwrap();
    assert_eq!(read.unwrap(), "1");
    // The bridge has no carrier before its first port has, and takes no IPv6 packets before that is in effect.
    for index in [pair.host_index, cni0.index] {
        assert!(world.on_host.link_await_up(index, PATIENCE).unwrap());
    }

    world.in_container.link_announce(eth0, PEER_MAC).unwrap();
    let knows = |addr: &str| {
        let neighs = world.on_host.neighs(cni0.index).unwrap();
        neighs
            .iter()
            .any(|neigh| neigh.addr == addr.parse::<IpAddr>().unwrap() && neigh.mac == Some(PEER_MAC))
    };
    assert!(eventually(|| knows("10.9.0.2")), "{:?}", world.on_host.neighs(cni0.index));
    assert!(eventually(|| knows("fd09::2")), "{:?}", world.on_host.neighs(cni0.index));
}

#[test]
fn a_bucket_is_as_the_bandwidth_plugin_makes_it() {
    let world = World::new();
    let index = world.on_host.veth_add(&veth("veth0", "eth0"), &world.container).unwrap().host_index;
    assert_eq!(world.on_host.tbf_get(index).unwrap(), None);
    world.on_host.tbf_set(index, 8_000_000, 800_000).unwrap();
    // 1 MB/s for 25 ms, and the burst.
    let wanted = Tbf { rate: 1_000_000, burst: 100_000, limit: 125_000 };
    assert_eq!(world.on_host.tbf_get(index).unwrap(), Some(wanted));
    let shown = output(&world.host, "tc", &["qdisc", "show", "dev", "veth0", "root"]);
    assert!(shown.contains("qdisc tbf 1: root"), "{shown}");
    assert!(
        shown.contains("rate 8Mbit") && shown.contains("burst 100000b") && shown.contains("lat 25ms"),
        "{shown}"
    );

    world.on_host.tbf_set(index, 100_000_000_000, 80_000_000).unwrap();
    let tbf = world.on_host.tbf_get(index).unwrap().unwrap();
    assert_eq!(tbf.rate, 12_500_000_000);
    let shown = output(&world.host, "tc", &["qdisc", "show", "dev", "veth0", "root"]);
    assert!(shown.contains("rate 100Gbit") && shown.contains("lat 25ms"), "{shown}");

    assert!(world.on_host.tbf_del(index).unwrap());
    assert!(!world.on_host.tbf_del(index).unwrap());
    assert_eq!(world.on_host.tbf_get(index).unwrap(), None);
}

#[test]
fn a_bucket_of_nothing_is_refused() {
    let world = World::new();
    for (rate, burst) in [(0, 1000), (7, 1000), (1000, 0), (1000, 7)] {
        let err = world.on_host.tbf_set(1, rate, burst).unwrap_err();
        assert!(matches!(err, NetlinkError::Invalid { .. }), "{err}");
    }
    assert!(world.on_host.tbf_set(4711, 1000, 1000).unwrap_err().is_absent());
}

#[test]
fn what_arrives_is_led_through_one_block_however_often_it_is_asked() {
    let world = World::new();
    let index = world.on_host.veth_add(&veth("veth0", "eth0"), &world.container).unwrap().host_index;
    let first = world.on_host.ifb_add(&name("bwp0"), Some("berth blue c1"), Some(1400)).unwrap();
    let second = world.on_host.ifb_add(&name("bwp1"), None, None).unwrap();
    assert_eq!((&first.kind, first.mtu, first.up), (&LinkKind::Ifb, 1400, false));
    assert_eq!(link(&world.on_host, "bwp0").alias.as_deref(), Some("berth blue c1"));
    assert!(world.on_host.ifb_add(&name("bwp0"), None, None).unwrap_err().is_exists());
    for (block, text) in [(first.index, "bwp0"), (first.index, "bwp0"), (second.index, "bwp1")] {
        world.on_host.ingress_redirect(index, block).unwrap();
        let shown = output(&world.host, "tc", &["filter", "show", "dev", "veth0", "ingress"]);
        assert_eq!(shown.matches("mirred").count(), 1, "{shown}");
        assert!(shown.contains(&format!("Egress Redirect to device {text}")), "{shown}");
        assert!(shown.contains("protocol all pref 1 u32"), "{shown}");
    }
}

#[test]
fn packets_pass_a_shaped_link_and_are_counted() {
    let world = attached();
    let veth0 = link(&world.on_host, "veth0").index;
    let block = world.on_host.ifb_add(&name("bwp0"), None, None).unwrap().index;
    world.on_host.link_set_up(block).unwrap();
    world.on_host.tbf_set(veth0, 80_000_000, 800_000).unwrap();
    world.on_host.tbf_set(block, 80_000_000, 800_000).unwrap();
    world.on_host.ingress_redirect(veth0, block).unwrap();
    let server = world.host.run(|| socket("10.9.0.1")).unwrap();
    let client = world.container.run(|| socket("10.9.0.2")).unwrap();
    for _ in 0..5 {
        client.send_to(&[7; 1000], server.local_addr().unwrap()).unwrap();
        server.recv_from(&mut [0; 1000]).unwrap();
        server.send_to(&[7; 1000], client.local_addr().unwrap()).unwrap();
        client.recv_from(&mut [0; 1000]).unwrap();
    }
    for device in ["veth0", "bwp0"] {
        let shown = output(&world.host, "tc", &["-s", "qdisc", "show", "dev", device, "root"]);
        let sent: u64 = shown.split("Sent ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!(sent > 5000, "{device}: {shown}");
    }
}

#[test]
fn this_kernels_ability_to_shape_is_known_and_agrees_with_trying() {
    let world = World::new();
    let tried = world.on_host.ifb_add(&name("bwp0"), None, None).map(|block| {
        world.on_host.tbf_set(block.index, 1_000_000, 100_000).is_ok()
            && world.on_host.ingress_redirect(block.index, block.index).is_ok()
    });
    assert_eq!(traffic_shaping_supported().unwrap(), tried.unwrap_or(false));
}
