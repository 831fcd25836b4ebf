//! What listens on, or is published on, the host's loopback stays there.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use berth_integration::{Host, Lan, Place, Probe, Seat, frame};
use serde_json::{Value, json};

use crate::common::{Net, berth_lan_test, tcp, with_and_without_firewall};
use crate::packet::{SILENCE, host_mac, mac_of, opened, syns, udp6};

fn on_localhost() -> Value {
    json!([{"hostPort": 8080, "containerPort": 80, "hostIP": "127.0.0.1"}])
}

/// Makes `place` send what is for 127.0.0.1 out by `ifname` to `gateway`, as an attacker's machine would.
fn route_loopback_out(place: &Place, ifname: &str, gateway: Ipv4Addr) {
    place.run("ip rule add prio 10 from all to 127.0.0.1 lookup 77");
    place.run(&format!("ip route add 127.0.0.1 via {gateway} dev {ifname} table 77"));
    place.run("ip rule add prio 20 from all lookup local");
    place.run("ip rule del prio 0");
    place.set_sysctl(&format!("net.ipv4.conf.{ifname}.route_localnet"), "1");
}

/// Takes back what [`route_loopback_out`] did.
fn route_loopback_in(place: &Place) {
    place.run("ip rule add prio 0 from all lookup local protocol kernel");
    place.run("ip rule del prio 20");
    place.run("ip rule del prio 10");
    place.run("ip route flush table 77");
}

/// SYNs to 127.0.0.1:`port` from the LAN, to the host's MAC address, that opened a connection.
fn opened_from_lan(host: &Host, lan: &Lan, seat: &Seat, port: u16) -> usize {
    let attacker = lan.raw("lan0");
    let frames = syns(attacker.mac(), host_mac(host, seat), Lan::V4, Ipv4Addr::LOCALHOST, port);
    opened(&attacker, frames, port)
}

/// S2 (moby#41872, #45610).
#[test]
fn a_port_published_on_localhost_is_not_reached_from_the_lan() {
    with_and_without_firewall(|host, lan, seat| {
        let a = Net::new(host, 1).publish("a", on_localhost());
        let server = a.serve_tcp(80, "a");
        host.probe(&Probe::tcp("127.0.0.1:8080").times(3)).all_from("a");
        // An uplink that somebody else has opened for loopback addresses, as kube-proxy did.
        for switch in ["0", "1"] {
            host.set_sysctl(&format!("net.ipv4.conf.{}.route_localnet", seat.ifname), switch);
            let heard = server.heard().len();
            assert_eq!(opened_from_lan(host, lan, seat, 8080), 0, "route_localnet={switch}");
            lan.probe(&Probe::tcp(SocketAddr::new(seat.v4.into(), 8080)).timeout(SILENCE)).none();
            assert_eq!(server.heard().len(), heard, "route_localnet={switch}");
        }
        host.set_sysctl(&format!("net.ipv4.conf.{}.route_localnet", seat.ifname), "0");
        // The same frames to an address of the host find a published port: the test sees what there is to see.
        let b = Net::new(host, 1).publish("b", tcp(8081, 80));
        let _b = b.serve_tcp(80, "b");
        let attacker = lan.raw("lan0");
        let frames = syns(attacker.mac(), host_mac(host, seat), Lan::V4, seat.v4, 8081);
        assert!(opened(&attacker, frames, 8081) > 0);
    });
}

/// S2, from the other side.
#[test]
fn a_port_published_on_localhost_is_not_reached_from_containers() {
    with_and_without_firewall(|host, _, seat| {
        let (one, two) = (Net::new(host, 1), Net::new(host, 2));
        let a = one.publish("a", on_localhost());
        let server = a.serve_tcp(80, "a");
        let (b, c) = (one.join("b"), two.join("c"));
        for (from, net) in [(&b, &one), (&c, &two)] {
            for ip in [seat.v4, net.gateway4()] {
                from.probe(&Probe::tcp(SocketAddr::new(ip.into(), 8080)).timeout(SILENCE)).none();
            }
            let raw = from.raw("eth0");
            let frames = syns(raw.mac(), mac_of(host, &net.bridge()), from.v4(), Ipv4Addr::LOCALHOST, 8080);
            assert_eq!(opened(&raw, frames, 8080), 0);
            route_loopback_out(from, "eth0", net.gateway4());
            from.probe(&Probe::tcp("127.0.0.1:8080").from(from.v4()).timeout(SILENCE)).none();
        }
        assert_eq!(server.heard(), []);
        for from in [&b, &c] {
            route_loopback_in(from);
        }
    });
}

/// S6 (CVE-2020-8558). See docs/adr/0001-route-localnet-on-the-bridge.md for the switch on berth's own bridge.
#[test]
fn loopback_services_stay_private() {
    with_and_without_firewall(|host, lan, seat| {
        let net = Net::new(host, 1);
        let a = net.publish("a", tcp(8080, 80));
        let tcp_canary = host.serve_tcp_on("127.0.0.1:9999".parse().unwrap(), "canary");
        let udp_canary = host.serve_udp_on("127.0.0.1:9998".parse().unwrap(), "canary");
        let udp6_canary = host.serve_udp_on("[::1]:9998".parse().unwrap(), "canary");
        assert_eq!(host.sysctl("net.ipv4.conf.br1.route_localnet"), "1", "the test is about the worst case");
        assert_eq!(opened_from_lan(host, lan, seat, 9999), 0);
        let inside = a.raw("eth0");
        let gateway = mac_of(host, "br1");
        let frames = syns(inside.mac(), gateway, a.v4(), Ipv4Addr::LOCALHOST, 9999);
        assert_eq!(opened(&inside, frames, 9999), 0);
        let outside = lan.raw("lan0");
        for (socket, target, src, src6) in
            [(&outside, host_mac(host, seat), Lan::V4, Lan::V6), (&inside, gateway, a.v4(), a.v6())]
        {
            let src_mac = socket.mac();
            let packet = frame::V4 { src_mac, dst_mac: target, src, dst: Ipv4Addr::LOCALHOST };
            let packet6 = frame::V6 { src_mac, dst_mac: target, src: src6, dst: Ipv6Addr::LOCALHOST };
            for n in 0..10 {
                socket.send(&packet.udp(30_000 + n, 9998, b"knock"));
                socket.send(&udp6(&packet6, 30_000 + n, 9998, b"knock"));
            }
        }
        route_loopback_out(&a, "eth0", net.gateway4());
        a.probe(&Probe::tcp("127.0.0.1:9999").from(a.v4()).timeout(SILENCE)).none();
        assert_eq!((tcp_canary.heard(), udp_canary.heard(), udp6_canary.heard()), (vec![], vec![], vec![]));
        // They do answer whom they are for.
        host.probe(&Probe::tcp("127.0.0.1:9999")).all_from("canary");
        route_loopback_in(&a);
    });
}

/// S6: the switch is on the bridge alone, and gone with it.
#[test]
fn no_other_link_lets_loopback_addresses_in() {
    berth_lan_test(|host, _, _| {
        let localnet = || host.run("grep -l 1 /proc/sys/net/ipv4/conf/*/route_localnet || true");
        let a = Net::new(host, 1).publish("a", tcp(8080, 80));
        assert_eq!(localnet(), "/proc/sys/net/ipv4/conf/br1/route_localnet");
        a.leave();
        Net::new(host, 2).join("b").leave();
        host.berth(["gc"]).run();
        assert_eq!(localnet(), "");
    });
}

/// S6: without a published port there is no need for it at all.
#[test]
fn a_network_without_published_ports_has_no_switch_for_loopback_addresses() {
    berth_lan_test(|host, _, _| {
        let _a = Net::new(host, 1).join("a");
        assert_eq!(host.run("grep -l 1 /proc/sys/net/ipv4/conf/*/route_localnet || true"), "");
    });
}
