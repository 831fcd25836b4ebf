//! What is reached from the LAN: published ports, by the addresses they are published on, and nothing else.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use berth_integration::{Host, Lan, Probe, Seat};
use serde_json::json;

use crate::common::{Net, berth_lan_test, tcp, udp, with_and_without_firewall};
use crate::packet::SILENCE;

/// The neighbour sends what is for the network by the host.
fn route_by_host(lan: &Lan, seat: &Seat, net: &Net<'_>) {
    lan.run(&format!("ip route add {} via {}", net.subnet4(), seat.v4));
    lan.run(&format!("ip route add {} via {}", net.subnet6(), seat.v6));
}

/// S1 (CVE-2025-67499): a port that is published here is not taken from traffic to another host.
#[test]
fn a_resolver_elsewhere_answers_though_its_port_is_published_here() {
    with_and_without_firewall(|host, lan, _| {
        let net = Net::new(host, 1);
        let (a, b) = (net.publish("a", udp(53, 53)), net.join("b"));
        let ours = a.serve_udp(53, "ours");
        let _v4 = lan.serve_udp_on(SocketAddr::new(Lan::V4.into(), 53), "lan");
        let _v6 = lan.serve_udp_on(SocketAddr::new(Lan::V6.into(), 53), "lan");
        for to in [SocketAddr::new(Lan::V4.into(), 53), SocketAddr::new(Lan::V6.into(), 53)] {
            for from in [&a, &b] {
                from.probe(&Probe::udp(to).times(5)).all_from("lan");
            }
            host.probe(&Probe::udp(to).times(5)).all_from("lan");
        }
        assert_eq!(ours.heard(), []);
    });
}

/// S1: not even when somebody asks for it.
#[test]
fn a_port_on_another_hosts_address_is_not_taken_from_it() {
    berth_lan_test(|host, lan, _| {
        let net = Net::new(host, 1);
        let (a, b) = (host.container("a"), net.join("b"));
        let theirs =
            json!([{"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": Lan::V4.to_string()}]);
        let call = net.publishing(&a, theirs);
        // Refused or without effect, both are fine.
        let ran = call.add();
        let _ours = a.serve_udp(53, "ours");
        let _lan = lan.serve_udp_on(SocketAddr::new(Lan::V4.into(), 53), "lan");
        let to = SocketAddr::new(Lan::V4.into(), 53);
        b.probe(&Probe::udp(to).times(5)).all_from("lan");
        host.probe(&Probe::udp(to).times(5)).all_from("lan");
        if ran.succeeded() {
            call.del().ok();
        }
    });
}

/// S3 (moby#48724): direct routed access to a container's address, published or not.
#[test]
fn a_containers_address_is_not_reached_by_a_route_from_the_lan() {
    with_and_without_firewall(|host, lan, seat| {
        let net = Net::new(host, 1);
        let a = net.publish(
            "a",
            json!([
                {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
                {"hostPort": 5353, "containerPort": 53, "protocol": "udp"},
            ]),
        );
        let published = a.serve_tcp(80, "a");
        let other = a.serve_tcp(22, "a");
        let datagrams = a.serve_udp(53, "a");
        let datagrams6 = a.serve_udp_on(SocketAddr::new(a.v6().into(), 53), "a");
        route_by_host(lan, seat, &net);
        for ip in [IpAddr::from(a.v4()), a.v6().into()] {
            assert!(lan.scan(ip, 1..=1024, Duration::from_millis(100)).is_empty(), "{ip}");
            assert!(lan.scan(ip, 8080..=8080, Duration::from_millis(100)).is_empty(), "{ip}");
            lan.probe(&Probe::udp(SocketAddr::new(ip, 53)).times(2).timeout(SILENCE)).none();
            assert_eq!(lan.ping(ip, 1), 0, "{ip}");
        }
        assert_eq!((published.heard(), other.heard()), (vec![], vec![]));
        assert_eq!((datagrams.heard(), datagrams6.heard()), (vec![], vec![]));
        // The published ones are reached the way they are published.
        lan.probe(&Probe::tcp(SocketAddr::new(seat.v4.into(), 8080))).all_from("a");
        lan.probe(&Probe::udp(SocketAddr::new(seat.v4.into(), 5353))).all_from("a");
        // Of the gateway address, too, the neighbour learns nothing.
        for gateway in [IpAddr::from(net.gateway4()), net.gateway6().into()] {
            assert_eq!(lan.ping(gateway, 1), 0, "{gateway}");
        }
    });
}

/// S3: every port number, once.
#[test]
fn of_all_ports_of_a_host_only_the_published_one_is_open() {
    berth_lan_test(|host, lan, seat| {
        let net = Net::new(host, 1);
        let a = net.publish("a", tcp(8080, 80));
        let _servers = [a.serve_tcp(80, "a"), a.serve_tcp(8080, "a"), a.serve_tcp(65535, "a")];
        // Closed ports of the host answer at once, so this is quick.
        let open = lan.scan(seat.v4.into(), 1..=u16::MAX, Duration::from_secs(1));
        assert_eq!(open, [8080]);
    });
}

/// S5 and S3: from the first instant of an attachment to the last.
#[test]
fn there_is_no_instant_at_which_a_coming_or_going_container_is_exposed() {
    berth_lan_test(|host, lan, seat| {
        let (net, other) = (Net::new(host, 1), Net::new(host, 2));
        route_by_host(lan, seat, &net);
        let container = host.container("a");
        // Listening before the container has an address: whatever arrives is heard.
        let server = container.serve_udp(53, "a");
        let server6 = container.serve_udp_on("[::]:54".parse().unwrap(), "a");
        let c = other.join("c");
        let call = net.publishing(&container, udp(5353, 53)).args("IP=10.80.1.50,fd00:80:1::50");
        let stop = AtomicBool::new(false);
        let attackers = [lan.inside(sockets), c.inside(sockets)];
        std::thread::scope(|scope| {
            let flood = scope.spawn(|| {
                let mut sent = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    for (v4, v6) in &attackers {
                        // Unreachable while there is no route: that is what is hoped for.
                        let _ = v4.send_to(b"knock", "10.80.1.50:53");
                        let _ = v6.send_to(b"knock", "[fd00:80:1::50]:54");
                        sent += 2;
                    }
                    std::thread::yield_now();
                }
                sent
            });
            for _ in 0..25 {
                call.add().ok();
                call.del().ok();
            }
            stop.store(true, Ordering::Relaxed);
            assert!(flood.join().unwrap() > 1000);
        });
        assert_eq!((server.heard(), server6.heard()), (vec![], vec![]));
    });
}

fn sockets() -> (std::net::UdpSocket, std::net::UdpSocket) {
    let v4 = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let v6 = std::net::UdpSocket::bind("[::]:0").unwrap();
    for socket in [&v4, &v6] {
        socket.set_nonblocking(true).unwrap();
    }
    (v4, v6)
}

/// S7 (CVE-2021-20199): who is let in by address must be known by address.
#[test]
fn a_published_server_sees_its_clients_real_address() {
    with_and_without_firewall(|host, lan, seat| {
        let net = Net::new(host, 1);
        let a = net.publish(
            "a",
            json!([
                {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
                {"hostPort": 5353, "containerPort": 53, "protocol": "udp"},
            ]),
        );
        let _tcp = a.serve_tcp(80, "a");
        let _udp = a.serve_udp(53, "a");
        let seen = |from: &Host, probe: Probe| from.probe(&probe).all_from("a")[0].seen_as.unwrap().ip();
        let at = |ip: IpAddr, port| SocketAddr::new(ip, port);
        assert_eq!(seen(lan, Probe::tcp(at(seat.v4.into(), 8080))), IpAddr::from(Lan::V4));
        assert_eq!(seen(lan, Probe::tcp(at(seat.v6.into(), 8080))), IpAddr::from(Lan::V6));
        assert_eq!(seen(lan, Probe::udp(at(seat.v4.into(), 5353))), IpAddr::from(Lan::V4));
        // A container of a network that is not masqueraded is seen by its own address too.
        let c = Net::new(host, 2).with("ipMasq", json!(false)).join("c");
        let reply = c.probe(&Probe::tcp(at(seat.v4.into(), 8080))).all_from("a");
        assert_eq!(reply[0].seen_as.unwrap().ip(), IpAddr::from(c.v4()));
        // The exceptions: a loopback address cannot be answered from another machine, and a peer must answer by the host.
        assert_eq!(seen(host, Probe::tcp("127.0.0.1:8080")), IpAddr::from(net.gateway4()));
        let b = net.join("b");
        let reply = b.probe(&Probe::tcp(at(seat.v4.into(), 8080))).all_from("a");
        assert_eq!(reply[0].seen_as.unwrap().ip(), IpAddr::from(net.gateway4()));
    });
}
