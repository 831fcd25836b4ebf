//! Forwarding that berth turned on is for containers: the host does not become a router, and keeps its own routes.

use std::time::Duration;

use berth_integration::{Host, Lan, Probe, Seat, eventually, frame};
use serde_json::json;

use crate::common::{Net, berth_lan_test};
use crate::packet::{SILENCE, host_mac, link_local, mac_of, router_advertisement};

/// A machine on a second link of the host: 203.0.113.1 and fd00:cb00:7171::1, the host being .2 and ::2.
fn second_neighbour(host: &Host) -> Host {
    let other = Host::bare();
    host.batch(&format!("link add nic1 type veth peer name nic0 netns {}", other.net_path().display()));
    host.batch(
        "link set nic1 up
         address add 203.0.113.2/24 dev nic1
         address add fd00:cb00:7171::2/64 dev nic1 nodad",
    );
    other.batch(
        "link set nic0 up
         address add 203.0.113.1/24 dev nic0
         address add fd00:cb00:7171::1/64 dev nic0 nodad
         route add 198.51.100.0/24 via 203.0.113.2
         route add fd00:c633::/64 via fd00:cb00:7171::2",
    );
    other
}

fn route_to_second(lan: &Lan, seat: &Seat) {
    lan.run(&format!("ip route add 203.0.113.0/24 via {}", seat.v4));
    lan.run(&format!("ip route add fd00:cb00:7171::/64 via {}", seat.v6));
}

/// S10.
#[test]
fn a_host_with_containers_does_not_forward_between_its_neighbours() {
    berth_lan_test(|host, lan, seat| {
        let other = second_neighbour(host);
        route_to_second(lan, seat);
        let a = Net::new(host, 1).join("a");
        let _lan = lan.serve_tcp(80, "lan");
        let _other = other.serve_tcp(80, "other");
        assert_eq!(host.sysctl("net.ipv4.ip_forward"), "1");
        lan.probe(&Probe::tcp("203.0.113.1:80").times(3).timeout(SILENCE)).none();
        lan.probe(&Probe::tcp("[fd00:cb00:7171::1]:80").times(3).timeout(SILENCE)).none();
        other.probe(&Probe::tcp(format!("{}:80", Lan::V4)).times(3).timeout(SILENCE)).none();
        other.probe(&Probe::tcp(format!("[{}]:80", Lan::V6)).times(3).timeout(SILENCE)).none();
        assert_eq!((lan.ping("203.0.113.1", 1), other.ping(Lan::V6, 1)), (0, 0));
        // Containers reach both.
        a.probe(&Probe::tcp("203.0.113.1:80")).all_from("other");
        a.probe(&Probe::tcp(format!("{}:80", Lan::V4))).all_from("lan");
        host.run("ip link del nic1");
    });
}

/// S10: a link that came after the first network may be another engine's bridge, and is left alone until the ruleset is
/// looked at again.
#[test]
fn a_link_that_came_later_is_not_forwarded_to_after_the_next_collection() {
    berth_lan_test(|host, lan, seat| {
        let other = second_neighbour(host);
        route_to_second(lan, seat);
        let net = Net::new(host, 1);
        let _a = net.join("a");
        // The addresses move to a link over the one that was there. (A late veth would be a container's.)
        host.batch(
            "address flush dev nic1
             link add nic2 link nic1 type macvlan mode bridge
             link set nic2 up
             address add 203.0.113.2/24 dev nic2
             address add fd00:cb00:7171::2/64 dev nic2 nodad",
        );
        let _other = other.serve_tcp(80, "other");
        lan.reach(&Probe::tcp("203.0.113.1:80"));
        host.berth(["gc"]).run();
        lan.probe(&Probe::tcp("203.0.113.1:80").times(3).timeout(SILENCE)).none();
        lan.probe(&Probe::tcp("[fd00:cb00:7171::1]:80").times(3).timeout(SILENCE)).none();
        host.run("ip link del nic1");
    });
}

/// S10: who wants a router has one.
#[test]
fn a_host_that_was_a_router_before_stays_one() {
    berth_lan_test(|host, lan, seat| {
        host.set_sysctl("net.ipv4.ip_forward", "1");
        host.set_sysctl("net.ipv6.conf.all.forwarding", "1");
        let other = second_neighbour(host);
        route_to_second(lan, seat);
        let _other = other.serve_tcp(80, "other");
        // The links' own addresses take a second.
        lan.reach(&Probe::tcp("[fd00:cb00:7171::1]:80"));
        let a = Net::new(host, 1).join("a");
        lan.probe(&Probe::tcp("203.0.113.1:80").times(3)).all_from("other");
        lan.probe(&Probe::tcp("[fd00:cb00:7171::1]:80").times(3)).all_from("other");
        a.leave();
        host.berth(["gc"]).run();
        lan.probe(&Probe::tcp("203.0.113.1:80").times(3)).all_from("other");
        host.run("ip link del nic1");
        host.set_sysctl("net.ipv4.ip_forward", "0");
        host.set_sysctl("net.ipv6.conf.all.forwarding", "0");
    });
}

/// S11 (docker/for-linux#1373).
#[test]
fn a_default_route_by_router_advertisement_survives_ipv6_forwarding() {
    berth_lan_test(|host, lan, seat| {
        advertised(host, lan, seat);
    });
}

fn advertised(host: &Host, lan: &Lan, seat: &Seat) {
    // The prefix is not used for addresses: only the route is of interest.
    host.set_sysctl(&format!("net.ipv6.conf.{}.autoconf", seat.ifname), "0");
    let router = lan.raw("lan0");
    let packet = frame::V6 {
        src_mac: router.mac(),
        dst_mac: host_mac(host, seat),
        src: link_local(mac_of(lan, "lan0")),
        dst: link_local(host_mac(host, seat)),
    };
    let advertise = |lifetime| {
        router.send(&router_advertisement(&packet, "fd00:d00d::".parse().unwrap(), lifetime));
    };
    let default = || host.run("ip -6 route show default");
    let wait_for_route = || {
        eventually(Duration::from_secs(5), || {
            advertise(1800);
            let routes = default();
            if routes.contains("proto ra") { Ok(()) } else { Err(format!("no route: {routes:?}")) }
        });
    };
    wait_for_route();
    let net = Net::new(host, 1);
    let a = net.join("a");
    assert_eq!(host.sysctl("net.ipv6.conf.all.forwarding"), "1");
    assert!(default().contains("proto ra"), "lost when forwarding was turned on: {:?}", default());
    // And the next ones are listened to.
    host.run("ip -6 route flush proto ra");
    wait_for_route();
    a.leave();
    host.berth(["gc"]).run();
    assert!(default().contains("proto ra"), "lost when forwarding was turned off: {:?}", default());
    host.run("ip -6 route flush proto ra");
    host.run("ip -6 route del fd00:d00d::/64");
    host.set_sysctl(&format!("net.ipv6.conf.{}.autoconf", seat.ifname), "1");
}

/// S10: a layer-2 network asks for no forwarding at all.
#[test]
fn a_network_without_a_gateway_turns_nothing_on() {
    berth_lan_test(|host, _, _| {
        let net = Net::new(host, 1).with("isDefaultGateway", json!(false)).with("ipMasq", json!(false));
        let _a = net.join("a");
        assert_eq!(host.sysctl("net.ipv4.ip_forward"), "0");
        assert_eq!(host.sysctl("net.ipv6.conf.all.forwarding"), "0");
    });
}
