//! Between networks: not by any address, route or frame.

use std::net::{IpAddr, SocketAddr};

use berth_integration::{Lan, Probe, RawSocket, frame};
use serde_json::json;

use crate::common::{Net, tcp, udp, with_and_without_firewall};
use crate::packet::{SILENCE, link_local, mac_of, udp6};

/// Frames with this payload that `socket` gets.
fn arrived(socket: &RawSocket, payload: &[u8]) -> usize {
    socket.count(SILENCE, |frame| frame.windows(payload.len()).any(|part| part == payload))
}

/// S14: by the other's address, whatever the next hop.
#[test]
fn no_next_hop_leads_to_another_networks_container() {
    with_and_without_firewall(|host, _, _| {
        let (one, two) = (Net::new(host, 1), Net::new(host, 2));
        let (a, c) = (one.join("a"), two.join("c"));
        let server = a.serve_udp(53, "a");
        let (victim, attacker) = (a.raw("eth0"), c.raw("eth0"));
        let next_hops = [
            mac_of(host, "br2"),
            mac_of(host, "br1"),
            a.mac(),
            mac_of(host, &a.host_ifname()),
            frame::BROADCAST,
        ];
        for dst_mac in next_hops {
            for src in [c.v4(), one.gateway4(), two.gateway4()] {
                let packet = frame::V4 { src_mac: attacker.mac(), dst_mac, src, dst: a.v4() };
                attacker.send(&packet.udp(1000, 53, b"crossing4"));
            }
            for src in [c.v6(), one.gateway6(), two.gateway6(), link_local(attacker.mac())] {
                let packet = frame::V6 { src_mac: attacker.mac(), dst_mac, src, dst: a.v6() };
                attacker.send(&udp6(&packet, 1000, 53, b"crossing6"));
            }
        }
        assert_eq!(arrived(&victim, b"crossing"), 0);
        assert_eq!(server.heard(), []);
        // The attacker routes by the other network's gateway.
        c.run(&format!("ip route add {} dev eth0", one.gateway4()));
        c.run(&format!("ip route add {} via {}", one.subnet4(), one.gateway4()));
        c.probe(&Probe::udp(SocketAddr::new(a.v4().into(), 53)).times(2).timeout(SILENCE)).none();
        c.run(&format!("ip route del {}", one.subnet4()));
        c.run(&format!("ip route del {}", one.gateway4()));
        assert_eq!(server.heard(), []);
    });
}

/// S14: by a link-local address.
#[test]
fn no_link_local_address_leads_to_another_networks_container() {
    with_and_without_firewall(|host, _, _| {
        let (a, c) = (Net::new(host, 1).join("a"), Net::new(host, 2).join("c"));
        let target = format!("{}%eth0", link_local(a.mac()));
        let ran = c.cmd("ping").args(["-n", "-c", "2", "-i", "0.05", "-W", "1", &target]).output();
        assert!(!ran.stdout.contains(" bytes from "), "{ran}");
        let (victim, attacker) = (a.raw("eth0"), c.raw("eth0"));
        for dst_mac in [mac_of(host, "br2"), mac_of(host, "br1"), a.mac(), frame::BROADCAST] {
            let src = link_local(attacker.mac());
            let packet = frame::V6 { src_mac: attacker.mac(), dst_mac, src, dst: link_local(a.mac()) };
            attacker.send(&udp6(&packet, 1000, 53, b"crossing6"));
        }
        assert_eq!(arrived(&victim, b"crossing6"), 0);
    });
}

/// S14: by multicast and broadcast.
#[test]
fn multicast_and_broadcast_stay_on_their_network() {
    with_and_without_firewall(|host, _, _| {
        let (one, two) = (Net::new(host, 1), Net::new(host, 2));
        let (a, c, peer) = (one.join("a"), two.join("c"), two.join("peer"));
        let (victim, attacker, near) = (a.raw("eth0"), c.raw("eth0"), peer.raw("eth0"));
        for (mac, dst) in [
            ("01:00:5e:00:00:fb", "224.0.0.251"),
            ("01:00:5e:01:01:01", "239.1.1.1"),
            ("ff:ff:ff:ff:ff:ff", "255.255.255.255"),
            ("ff:ff:ff:ff:ff:ff", "10.80.1.255"),
            ("ff:ff:ff:ff:ff:ff", "10.80.2.255"),
        ] {
            let packet = frame::V4 {
                src_mac: attacker.mac(),
                dst_mac: frame::mac(mac),
                src: c.v4(),
                dst: dst.parse().unwrap(),
            };
            attacker.send(&packet.udp(5353, 5353, b"to-all"));
        }
        for (mac, dst) in [("33:33:00:00:00:01", "ff02::1"), ("33:33:00:00:00:fb", "ff0e::fb")] {
            let packet = frame::V6 {
                src_mac: attacker.mac(),
                dst_mac: frame::mac(mac),
                src: c.v6(),
                dst: dst.parse().unwrap(),
            };
            attacker.send(&udp6(&packet, 5353, 5353, b"to-all"));
        }
        assert_eq!(arrived(&victim, b"to-all"), 0);
        // Its own network hears it: the frames are good ones.
        assert!(arrived(&near, b"to-all") > 0);
    });
}

/// S14: what is published of another network is reached as published, and only that.
#[test]
fn another_networks_gateway_opens_nothing_but_published_ports() {
    with_and_without_firewall(|host, _, _| {
        let (one, two) = (Net::new(host, 1), Net::new(host, 2));
        let (a, c) = (one.publish("a", tcp(8080, 80)), two.join("c"));
        let _published = a.serve_tcp(80, "a");
        let hidden = a.serve_tcp(22, "a");
        for gateway in [IpAddr::from(one.gateway4()), one.gateway6().into()] {
            c.probe(&Probe::tcp(SocketAddr::new(gateway, 8080)).times(2)).all_from("a");
            for port in [22, 80] {
                c.probe(&Probe::tcp(SocketAddr::new(gateway, port)).timeout(SILENCE)).none();
            }
        }
        assert_eq!(hidden.heard(), []);
    });
}

/// S14: nothing leaves an internal network.
#[test]
fn an_internal_network_has_no_way_out() {
    with_and_without_firewall(|host, lan, seat| {
        let inner = Net::new(host, 1).with("internal", json!(true));
        let outer = Net::new(host, 2);
        let (i, o) = (
            inner.join("i"),
            outer.publish(
                "o",
                json!([
                    {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
                    {"hostPort": 53, "containerPort": 53, "protocol": "udp"},
                ]),
            ),
        );
        let servers =
            [lan.serve_tcp(80, "lan"), lan.serve_udp(53, "lan"), o.serve_tcp(80, "o"), o.serve_udp(53, "o")];
        let targets = [
            IpAddr::from(Lan::V4),
            Lan::V6.into(),
            o.v4().into(),
            o.v6().into(),
            seat.v4.into(),
            seat.v6.into(),
            outer.gateway4().into(),
            outer.gateway6().into(),
        ];
        for ip in targets {
            for port in [80, 8080] {
                i.probe(&Probe::tcp(SocketAddr::new(ip, port)).timeout(SILENCE)).none();
            }
            i.probe(&Probe::udp(SocketAddr::new(ip, 53)).timeout(SILENCE)).none();
        }
        for ip in &targets[..4] {
            assert_eq!(i.ping(ip, 1), 0, "{ip}");
        }
        for server in &servers {
            assert_eq!(server.heard(), []);
        }
        // Nor by a default route and a forged sender.
        let raw = i.raw("eth0");
        let packet =
            frame::V4 { src_mac: raw.mac(), dst_mac: mac_of(host, "br1"), src: i.v4(), dst: Lan::V4 };
        let outside = lan.raw("lan0");
        raw.send(&packet.udp(1000, 53, b"escaping"));
        raw.send(&frame::V4 { src: seat.v4, ..packet }.udp(1000, 53, b"escaping"));
        assert_eq!(arrived(&outside, b"escaping"), 0);
    });
}

/// S14: nothing enters one, not even by a published port.
#[test]
fn an_internal_network_has_no_way_in() {
    with_and_without_firewall(|host, lan, seat| {
        let net = Net::new(host, 1).with("internal", json!(true));
        let container = host.container("i");
        let call = net.publishing(&container, tcp(8080, 80));
        // Refused or without effect.
        let ran = call.add();
        let server = container.serve_tcp(80, "i");
        let o = Net::new(host, 2).join("o");
        lan.run(&format!("ip route add {} via {}", net.subnet4(), seat.v4));
        lan.run(&format!("ip route add {} via {}", net.subnet6(), seat.v6));
        for ip in [IpAddr::from(seat.v4), seat.v6.into()] {
            lan.probe(&Probe::tcp(SocketAddr::new(ip, 8080)).timeout(SILENCE)).none();
            o.probe(&Probe::tcp(SocketAddr::new(ip, 8080)).timeout(SILENCE)).none();
        }
        for address in ran.addresses() {
            let ip: IpAddr = address.split('/').next().unwrap().parse().unwrap();
            lan.probe(&Probe::tcp(SocketAddr::new(ip, 80)).timeout(SILENCE)).none();
            o.probe(&Probe::tcp(SocketAddr::new(ip, 80)).timeout(SILENCE)).none();
        }
        assert_eq!(server.heard(), []);
        if ran.succeeded() {
            call.del().ok();
        }
    });
}

/// S15 (moby#53723): without icc a peer's published port is reached, and nothing else of it.
#[test]
fn without_icc_a_peer_is_reached_by_its_published_port_only() {
    with_and_without_firewall(|host, _, seat| {
        let net = Net::new(host, 1).with("icc", json!(false));
        let (a, b) = (net.publish("a", tcp(8080, 80)), net.join("b"));
        let server = a.serve_tcp(80, "a");
        for ip in [IpAddr::from(seat.v4), seat.v6.into()] {
            b.probe(&Probe::tcp(SocketAddr::new(ip, 8080)).times(2)).all_from("a");
            a.probe(&Probe::tcp(SocketAddr::new(ip, 8080)).times(2)).all_from("a");
        }
        let heard = server.heard().len();
        for ip in [IpAddr::from(a.v4()), a.v6().into()] {
            b.probe(&Probe::tcp(SocketAddr::new(ip, 80)).timeout(SILENCE)).none();
        }
        assert_eq!(server.heard().len(), heard);
    });
}

/// S15: not by a frame, and not by way of the host either.
#[test]
fn without_icc_no_frame_and_no_detour_leads_to_a_peer() {
    with_and_without_firewall(|host, _, _| {
        let net = Net::new(host, 1).with("icc", json!(false));
        let (a, b) = (net.publish("a", udp(5353, 53)), net.join("b"));
        let server = a.serve_udp(53, "a");
        let (victim, attacker) = (a.raw("eth0"), b.raw("eth0"));
        for dst_mac in [a.mac(), mac_of(host, "br1"), frame::BROADCAST] {
            let packet = frame::V4 { src_mac: attacker.mac(), dst_mac, src: b.v4(), dst: a.v4() };
            attacker.send(&packet.udp(1000, 53, b"detour4"));
            let packet = frame::V6 { src_mac: attacker.mac(), dst_mac, src: b.v6(), dst: a.v6() };
            attacker.send(&udp6(&packet, 1000, 53, b"detour6"));
        }
        assert_eq!(arrived(&victim, b"detour"), 0);
        assert_eq!(server.heard(), []);
        b.run(&format!("ip route add {} via {}", a.v4(), net.gateway4()));
        b.probe(&Probe::udp(SocketAddr::new(a.v4().into(), 53)).timeout(SILENCE)).none();
        assert_eq!(server.heard(), []);
    });
}
