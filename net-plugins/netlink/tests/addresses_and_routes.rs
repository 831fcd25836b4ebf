//! Addresses, routes and neighbours, in private namespaces.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod common;

use std::net::IpAddr;

use berth_netlink::{
    AddrFlags, FdbSpec, FdbTable, LOOPBACK_INDEX, NeighSpec, ROUTE_PROTOCOL, RouteFilter, RouteSpec, VethSpec,
};
use berth_types::{Family, MacAddr};
use common::{PEER_MAC, World, bridge, link, name, veth};
use ipnetwork::IpNetwork;

const NODAD: AddrFlags = AddrFlags { nodad: true, noprefixroute: false, deprecated: false };

fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A container's interface with addresses of both families, up.
fn attached() -> (World, u32) {
    let world = World::new();
    let pair = world.on_host.veth_add(&veth("veth0", "eth0"), &world.container).unwrap();
    world.on_host.link_set_up(pair.host_index).unwrap();
    let index = link(&world.in_container, "eth0").index;
    for address in ["10.9.0.2/24", "fd09::2/64"] {
        assert!(world.in_container.addr_add(index, net(address), NODAD).unwrap());
    }
    world.in_container.link_set_up(index).unwrap();
    (world, index)
}

#[test]
fn an_address_is_added_once_and_removed_once() {
    let (world, index) = attached();
    for address in ["10.9.0.2/24", "fd09::2/64"] {
        assert!(!world.in_container.addr_add(index, net(address), NODAD).unwrap());
        let addrs = world.in_container.addrs(index).unwrap();
        let addr = addrs.iter().find(|addr| addr.address == net(address)).unwrap();
        assert_eq!((addr.index, addr.scope, addr.tentative, addr.dad_failed), (index, 0, false, false));
        assert!(world.in_container.addr_del(index, net(address)).unwrap());
        assert!(!world.in_container.addr_del(index, net(address)).unwrap());
    }
    assert!(!world.in_container.addr_del(4711, net("10.9.0.2/24")).unwrap());
    assert!(world.in_container.addr_add(4711, net("10.9.0.2/24"), NODAD).unwrap_err().is_absent());
}

#[test]
fn addresses_are_listed_by_link_and_all_together() {
    let (world, index) = attached();
    world.in_container.link_set_up(LOOPBACK_INDEX).unwrap();
    let of_loopback = world.in_container.addrs(LOOPBACK_INDEX).unwrap();
    assert_eq!(
        of_loopback.iter().map(|a| a.address).collect::<Vec<_>>(),
        [net("127.0.0.1/8"), net("::1/128")]
    );
    assert_eq!(of_loopback[0].scope, 254);
    let all = world.in_container.addrs_all().unwrap();
    assert_eq!(all.len(), of_loopback.len() + world.in_container.addrs(index).unwrap().len());
    assert_eq!(world.in_container.addrs(4711).unwrap(), []);
}

#[test]
fn an_address_without_its_prefix_route_has_none() {
    let (world, index) = attached();
    let flags = AddrFlags { nodad: true, noprefixroute: true, deprecated: false };
    for (address, family) in [("10.8.0.2/24", Family::V4), ("fd08::2/64", Family::V6)] {
        world.in_container.addr_add(index, net(address), flags).unwrap();
        let routes = world.in_container.routes(RouteFilter { family, table: Some(254) }).unwrap();
        let subnet = IpNetwork::new(net(address).network(), net(address).prefix()).unwrap();
        assert!(routes.iter().all(|route| route.dst != subnet), "{routes:?}");
    }
}

#[test]
fn routes_are_added_replaced_and_deleted() {
    let (world, index) = attached();
    let netlink = &world.in_container;
    for (family, dst, gateway, other) in [
        (Family::V4, "0.0.0.0/0", "10.9.0.1", "10.9.0.3"),
        (Family::V4, "192.0.2.7/24", "10.9.0.1", "10.9.0.3"),
        (Family::V6, "::/0", "fd09::1", "fd09::3"),
        (Family::V6, "2001:db8::/32", "fd09::1", "fd09::3"),
    ] {
        let spec = RouteSpec { gateway: Some(ip(gateway)), oif: Some(index), ..RouteSpec::new(net(dst)) };
        let find = || {
            let routes = netlink.routes(RouteFilter { family, table: Some(254) }).unwrap();
            let dst = IpNetwork::new(net(dst).network(), net(dst).prefix()).unwrap();
            routes.into_iter().filter(|r| r.dst == dst && r.protocol == ROUTE_PROTOCOL).collect::<Vec<_>>()
        };
        assert!(netlink.route_add(&spec).unwrap());
        assert!(!netlink.route_add(&spec).unwrap());
        let replacement =
            RouteSpec { gateway: Some(ip(other)), mtu: Some(1300), advmss: Some(1200), ..spec.clone() };
        netlink.route_replace(&replacement).unwrap();
        netlink.route_replace(&replacement).unwrap();
        let found = find();
        let [route] = found.as_slice() else { panic!("{dst}: {found:?}") };
        assert_eq!((route.gateway, route.oif, route.is_unicast), (Some(ip(other)), Some(index), true));
        assert_eq!((route.mtu, route.advmss), (Some(1300), Some(1200)));
        assert!(netlink.route_del(&RouteSpec::new(net(dst))).unwrap());
        assert!(!netlink.route_del(&RouteSpec::new(net(dst))).unwrap());
        assert_eq!(find(), []);
    }
}

#[test]
fn tables_metrics_and_scopes_are_kept() {
    let (world, index) = attached();
    let spec = RouteSpec {
        oif: Some(index),
        table: Some(1000),
        priority: Some(77),
        scope: Some(253),
        source: Some(ip("10.9.0.2")),
        ..RouteSpec::new(net("198.51.100.0/24"))
    };
    world.in_container.route_add(&spec).unwrap();
    let filter = |table| RouteFilter { family: Family::V4, table };
    let routes = world.in_container.routes(filter(Some(1000))).unwrap();
    let [route] = routes.as_slice() else { panic!("{routes:?}") };
    assert_eq!(
        (route.table, route.priority, route.scope, route.source),
        (1000, 77, 253, Some(ip("10.9.0.2")))
    );
    assert!(world.in_container.routes(filter(None)).unwrap().contains(route));
    assert_eq!(world.in_container.routes(filter(Some(999))).unwrap(), []);
    assert!(world.in_container.route_del(&spec).unwrap());
}

#[test]
fn a_gateway_that_is_on_no_link_needs_to_be_called_onlink() {
    let (world, index) = attached();
    let spec =
        RouteSpec { gateway: Some(ip("169.254.1.1")), oif: Some(index), ..RouteSpec::new(net("0.0.0.0/0")) };
    let err = world.in_container.route_add(&spec).unwrap_err();
    let source = std::error::Error::source(&err).unwrap().to_string();
    assert!(source.contains("invalid gateway"), "{source}");
    assert_eq!(err.to_string(), format!("add route to 0.0.0.0/0 via 169.254.1.1 by link number {index}"));
    assert!(world.in_container.route_add(&RouteSpec { onlink: true, ..spec }).unwrap());
}

#[test]
fn an_ipv4_route_can_go_by_an_ipv6_gateway() {
    let (world, index) = attached();
    let spec =
        RouteSpec { gateway: Some(ip("fd09::1")), oif: Some(index), ..RouteSpec::new(net("0.0.0.0/0")) };
    assert!(world.in_container.route_add(&spec).unwrap());
    let lookup = world.in_container.route_get(ip("192.0.2.1")).unwrap().unwrap();
    assert_eq!((lookup.gateway, lookup.source), (Some(ip("fd09::1")), Some(ip("10.9.0.2"))));
}

#[test]
fn the_kernel_tells_how_it_would_reach_an_address() {
    let (world, index) = attached();
    let netlink = &world.in_container;
    netlink.link_set_up(LOOPBACK_INDEX).unwrap();
    for (near, far, own, gateway) in
        [("10.9.0.9", "192.0.2.1", "10.9.0.2", "10.9.0.1"), ("fd09::9", "2001:db8::1", "fd09::2", "fd09::1")]
    {
        assert_eq!(netlink.route_get(ip(far)).unwrap(), None);
        assert_eq!(netlink.resolve_link_toward(ip(far)).unwrap(), None);
        let default = if ip(far).is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        netlink.route_add(&RouteSpec { gateway: Some(ip(gateway)), ..RouteSpec::new(net(default)) }).unwrap();

        let lookup = netlink.route_get(ip(near)).unwrap().unwrap();
        assert_eq!((lookup.oif, lookup.gateway, lookup.is_local), (index, None, false));
        let lookup = netlink.route_get(ip(far)).unwrap().unwrap();
        assert_eq!((lookup.oif, lookup.gateway, lookup.source), (index, Some(ip(gateway)), Some(ip(own))));
        let loopback = if ip(far).is_ipv4() { "127.0.0.1" } else { "::1" };
        let lookup = netlink.route_get(ip(loopback)).unwrap().unwrap();
        assert_eq!((lookup.oif, lookup.is_local), (LOOPBACK_INDEX, true));
        assert_eq!(netlink.resolve_link_toward(ip(far)).unwrap().unwrap().name, name("eth0"));
    }
}

#[test]
fn neighbours_are_replaced_and_deleted() {
    let (world, index) = attached();
    for addr in [ip("10.9.0.7"), ip("fd09::7")] {
        let other = MacAddr([2, 0, 0, 0, 0, 9]);
        for mac in [PEER_MAC, other] {
            world.in_container.neigh_replace(&NeighSpec { index, addr, mac }).unwrap();
        }
        let neighs = world.in_container.neighs(index).unwrap();
        let neigh = neighs.iter().find(|neigh| neigh.addr == addr).unwrap();
        assert_eq!((neigh.mac, neigh.permanent), (Some(other), true));
        assert!(world.in_container.neigh_del(index, addr).unwrap());
        assert!(!world.in_container.neigh_del(index, addr).unwrap());
    }
}

#[test]
fn forwarding_entries_are_replaced_and_deleted() {
    let world = World::new();
    let cni0 = world.on_host.bridge_add(&bridge("cni0")).unwrap();
    let spec = VethSpec { master: Some(cni0.index), ..veth("veth0", "eth0") };
    let index = world.on_host.veth_add(&spec, &world.container).unwrap().host_index;
    let entry = FdbSpec { index, mac: PEER_MAC, vtep: None, table: FdbTable::Bridge };
    world.on_host.fdb_replace(&entry).unwrap();
    world.on_host.fdb_replace(&entry).unwrap();
    let shown = common::output(&world.host, "bridge", &["fdb", "show", "dev", "veth0"]);
    let wanted = format!("{PEER_MAC} master cni0 static");
    assert_eq!(shown.lines().filter(|line| line.trim() == wanted).count(), 1, "{shown}");
    assert!(world.on_host.fdb_del(&entry).unwrap());
    assert!(!world.on_host.fdb_del(&entry).unwrap());
}
