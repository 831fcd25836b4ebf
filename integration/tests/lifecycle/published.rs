//! Published ports: from where they are reached, and as whom the client is seen.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use berth_integration::{Lan, Probe};
use serde_json::{Value, json};

use crate::common::{Net, berth_lan_test, berth_test, tcp, udp, with_and_without_firewall};

const SILENCE: Duration = Duration::from_millis(300);

#[test]
fn a_port_is_reached_from_the_lan() {
    with_and_without_firewall(|host, lan, seat| {
        let a = Net::new(host, 1).publish("a", tcp(8080, 80));
        let _a = a.serve_tcp(80, "a");
        for to in [SocketAddr::new(seat.v4.into(), 8080), SocketAddr::new(seat.v6.into(), 8080)] {
            lan.probe(&Probe::tcp(to).times(5)).all_from("a");
        }
    });
}

#[test]
fn a_port_is_reached_from_the_host_by_every_address_it_has() {
    with_and_without_firewall(|host, _, seat| {
        let net = Net::new(host, 1);
        let a = net.publish("a", tcp(8080, 80));
        let _a = a.serve_tcp(80, "a");
        let addresses: [IpAddr; 5] = [
            seat.v4.into(),
            seat.v6.into(),
            "192.0.2.2".parse().unwrap(),
            net.gateway4().into(),
            net.gateway6().into(),
        ];
        for ip in addresses {
            host.probe(&Probe::tcp(SocketAddr::new(ip, 8080)).times(3)).all_from("a");
        }
    });
}

#[test]
fn a_port_is_reached_from_the_host_by_localhost() {
    with_and_without_firewall(|host, _, _| {
        let a = Net::new(host, 1).publish("a", tcp(8080, 80));
        let _a = a.serve_tcp(80, "a");
        host.probe(&Probe::tcp("127.0.0.1:8080").times(5)).all_from("a");
    });
}

#[test]
fn a_container_reaches_itself_and_its_peer_by_the_hosts_address() {
    with_and_without_firewall(|host, _, seat| {
        let net = Net::new(host, 1);
        let (a, b) = (net.publish("a", tcp(8080, 80)), net.join("b"));
        let _a = a.serve_tcp(80, "a");
        for to in [SocketAddr::new(seat.v4.into(), 8080), SocketAddr::new(seat.v6.into(), 8080)] {
            a.probe(&Probe::tcp(to).times(3)).all_from("a");
            b.probe(&Probe::tcp(to).times(3)).all_from("a");
        }
    });
}

#[test]
fn another_network_reaches_a_port_by_the_hosts_address() {
    with_and_without_firewall(|host, _, seat| {
        let (a, c) = (Net::new(host, 1).publish("a", tcp(8080, 80)), Net::new(host, 2).join("c"));
        let _a = a.serve_tcp(80, "a");
        for to in [SocketAddr::new(seat.v4.into(), 8080), SocketAddr::new(seat.v6.into(), 8080)] {
            c.probe(&Probe::tcp(to).times(3)).all_from("a");
        }
    });
}

#[test]
fn a_udp_port_is_reached_from_the_lan_the_host_and_a_peer() {
    with_and_without_firewall(|host, lan, seat| {
        let net = Net::new(host, 1);
        let (a, b) = (net.publish("a", udp(5353, 53)), net.join("b"));
        let _v4 = a.serve_udp(53, "a");
        let _v6 = a.serve_udp_on(SocketAddr::new(a.v6().into(), 53), "a");
        for to in [SocketAddr::new(seat.v4.into(), 5353), SocketAddr::new(seat.v6.into(), 5353)] {
            lan.probe(&Probe::udp(to).times(3)).all_from("a");
            b.probe(&Probe::udp(to).times(3)).all_from("a");
        }
        host.probe(&Probe::udp(SocketAddr::new(seat.v4.into(), 5353)).times(3)).all_from("a");
        host.probe(&Probe::udp("127.0.0.1:5353").times(3)).all_from("a");
    });
}

#[test]
fn one_port_on_two_host_addresses_leads_to_two_containers() {
    berth_lan_test(|host, lan, seat| {
        let net = Net::new(host, 1);
        let on = |ip: String| json!([{"hostPort": 8080, "containerPort": 80, "hostIP": ip}]);
        let (a, b) = (net.publish("a", on(seat.v4.to_string())), net.publish("b", on("192.0.2.2".into())));
        let _a = a.serve_tcp(80, "a");
        let _b = b.serve_tcp(80, "b");
        host.probe(&Probe::tcp("192.0.2.2:8080").times(3)).all_from("b");
        lan.probe(&Probe::tcp(SocketAddr::new(seat.v4.into(), 8080)).times(3)).all_from("a");
        // By IPv6 it was not published at all.
        lan.probe(&Probe::tcp(SocketAddr::new(seat.v6.into(), 8080)).timeout(SILENCE)).none();
    });
}

#[test]
fn an_unspecified_host_address_means_its_own_family() {
    berth_lan_test(|host, lan, seat| {
        let net = Net::new(host, 1);
        let ports = json!([
            {"hostPort": 8004, "containerPort": 80, "hostIP": "0.0.0.0"},
            {"hostPort": 8006, "containerPort": 80, "hostIP": "::"},
        ]);
        let a = net.publish("a", ports);
        let _a = a.serve_tcp(80, "a");
        let at = |ip: IpAddr, port| Probe::tcp(SocketAddr::new(ip, port)).timeout(SILENCE);
        lan.probe(&at(seat.v4.into(), 8004)).all_from("a");
        lan.probe(&at(seat.v6.into(), 8006)).all_from("a");
        lan.probe(&at(seat.v6.into(), 8004)).none();
        lan.probe(&at(seat.v4.into(), 8006)).none();
    });
}

#[test]
fn two_hundred_ports_of_one_container_all_lead_to_it() {
    berth_lan_test(|host, lan, seat| {
        let ports: Vec<Value> = (0..200)
            .map(|n| json!({"hostPort": 20_000 + n, "containerPort": 1000 + n, "protocol": "tcp"}))
            .collect();
        let a = Net::new(host, 1).publish("a", ports.into());
        let servers: Vec<_> = (0..200_u16).map(|n| a.serve_tcp(1000 + n, &n.to_string())).collect();
        let open = lan.scan(seat.v4.into(), 19_990..=20_210, Duration::from_secs(1));
        assert_eq!(open, (20_000..20_200).collect::<Vec<_>>());
        for n in [0, 99, 199] {
            lan.probe(&Probe::tcp(SocketAddr::new(seat.v4.into(), 20_000 + n))).all_from(&n.to_string());
        }
        drop(servers);
    });
}

#[test]
fn tcp_and_udp_of_one_number_lead_to_different_containers() {
    berth_lan_test(|host, lan, seat| {
        let net = Net::new(host, 1);
        let (a, b) = (net.publish("a", tcp(5353, 53)), net.publish("b", udp(5353, 53)));
        let _a = a.serve_tcp(53, "a");
        let _b = b.serve_udp(53, "b");
        let to = SocketAddr::new(seat.v4.into(), 5353);
        lan.probe(&Probe::tcp(to).times(2)).all_from("a");
        lan.probe(&Probe::udp(to).times(2)).all_from("b");
    });
}

#[test]
fn an_sctp_port_is_published_and_taken_back() {
    berth_test(|host| {
        let ports = json!([{"hostPort": 3868, "containerPort": 3868, "protocol": "sctp"}]);
        let a = Net::new(host, 1).publish("a", ports);
        assert!(host.run("nft list table inet berth").contains("sctp . 3868"));
        a.checked().check().ok();
    });
}

#[test]
fn a_port_is_free_again_after_del() {
    berth_lan_test(|host, lan, seat| {
        let net = Net::new(host, 1);
        let a = net.publish("a", tcp(8080, 80));
        a.leave();
        lan.probe(&Probe::tcp(SocketAddr::new(seat.v4.into(), 8080)).timeout(SILENCE)).none();
        let b = net.publish("b", tcp(8080, 80));
        let _b = b.serve_tcp(80, "b");
        lan.probe(&Probe::tcp(SocketAddr::new(seat.v4.into(), 8080)).times(3)).all_from("b");
    });
}

/// S12: a port taken by two would silently go to one of them.
#[test]
fn a_port_of_another_container_is_refused_and_the_holder_named() {
    berth_lan_test(|host, lan, seat| {
        let net = Net::new(host, 1);
        let a = net.publish("holder-a", tcp(8080, 80));
        let _a = a.serve_tcp(80, "a");
        let container = host.container("b");
        let error = net.publishing(&container, tcp(8080, 81)).add().err();
        assert_eq!(error.code, 100, "{error}");
        assert!(error.to_string().contains("holder-a") && error.to_string().contains("8080"), "{error}");
        // On one address of those the other has all of.
        let one = json!([{"hostPort": 8080, "containerPort": 80, "hostIP": seat.v4.to_string()}]);
        assert_eq!(net.publishing(&container, one).add().err().code, 100);
        lan.probe(&Probe::tcp(SocketAddr::new(seat.v4.into(), 8080)).times(2)).all_from("a");
    });
}

/// S12.
#[test]
fn a_port_that_a_process_listens_on_is_refused_and_the_process_named() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let container = host.container("a");
        for (server, ports, probe) in [
            (host.serve_tcp(8080, "host"), tcp(8080, 80), Probe::tcp("192.0.2.2:8080")),
            (host.serve_udp(5353, "host"), udp(5353, 53), Probe::udp("192.0.2.2:5353")),
        ] {
            let error = net.publishing(&container, ports).add().err();
            assert_eq!(error.code, 100, "{error}");
            let own = std::process::id().to_string();
            assert!(error.to_string().contains(&own), "the process {own} is not named: {error}");
            host.probe(&probe).all_from("host");
            drop(server);
        }
    });
}

/// Of many ports the sockets of the host are listed first; what is refused is the same.
#[test]
fn of_many_ports_the_one_that_a_process_listens_on_is_found() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let container = host.container("a");
        for protocol in ["tcp", "udp"] {
            let ports: Vec<Value> = (8000..8100)
                .map(|port| json!({"hostPort": port, "containerPort": 80, "protocol": protocol}))
                .collect();
            let call = net.publishing(&container, json!(ports));
            let server = match protocol {
                "tcp" => host.serve_tcp(8050, "host"),
                _ => host.serve_udp(8050, "host"),
            };
            let error = call.add().err();
            assert_eq!(error.code, 100, "{error}");
            assert!(error.to_string().contains(&format!("8050/{protocol}")), "{error}");
            drop(server);
            call.add().ok();
            call.del().ok();
        }
    });
}

#[test]
fn the_neighbour_is_reached_on_the_port_that_is_published_here() {
    berth_lan_test(|host, lan, _| {
        let net = Net::new(host, 1);
        let (a, b) = (net.publish("a", tcp(80, 80)), net.join("b"));
        let _a = a.serve_tcp(80, "a");
        let _lan = lan.serve_tcp(80, "lan");
        for from in [&a, &b] {
            from.probe(&Probe::tcp(SocketAddr::new(Lan::V4.into(), 80)).times(3)).all_from("lan");
            from.probe(&Probe::tcp(SocketAddr::new(Lan::V6.into(), 80)).times(3)).all_from("lan");
        }
        host.probe(&Probe::tcp(SocketAddr::new(Lan::V4.into(), 80)).times(3)).all_from("lan");
    });
}

/// Distributions set it, and dockerd leaves it: a source must be routed back by the link it came in.
#[test]
fn strict_reverse_path_checks_of_the_host_are_in_nobodys_way() {
    berth_lan_test(|host, lan, seat| {
        for links in ["all", "default"] {
            host.set_sysctl(&format!("net.ipv4.conf.{links}.rp_filter"), "1");
        }
        let net = Net::new(host, 1);
        let (a, b) = (net.publish("a", tcp(8080, 80)), net.join("b"));
        let c = Net::new(host, 2).join("c");
        let _a = a.serve_tcp(80, "a");
        let _lan = lan.serve_tcp(80, "lan");
        let published = Probe::tcp(SocketAddr::new(seat.v4.into(), 8080)).times(3);
        for from in [&a, &b, &c] {
            from.probe(&published).all_from("a");
            from.probe(&Probe::tcp(SocketAddr::new(Lan::V4.into(), 80)).times(3)).all_from("lan");
        }
        lan.probe(&published).all_from("a");
        host.probe(&published).all_from("a");
        host.probe(&Probe::tcp("127.0.0.1:8080").times(3)).all_from("a");
        for links in ["all", "default"] {
            host.set_sysctl(&format!("net.ipv4.conf.{links}.rp_filter"), "0");
        }
    });
}
