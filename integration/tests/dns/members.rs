//! What members are told, and what nobody else is.

use std::time::Duration;

use berth_integration::{Lan, Place, Probe, Servers, Snapshot, eventually};
use serde_json::json;

use crate::asking::{called, dig, is_answered, join, named, with_block};
use crate::common::{Member, Net, assert_as_before, berth_lan_test, berth_test, tcp};

#[test]
fn a_name_leads_to_its_container_in_every_form() {
    berth_test(|host| {
        let net = named(host, 1);
        let web = join(&net, "web1", "web");
        let client = join(&net, "client1", "client");
        let gateway = net.gateway4();
        for name in ["web", "WEB", "web.n1", "web.berth.internal", "web.n1.berth.internal"] {
            assert_eq!(dig(&client, gateway, &format!("{name} A")), web.v4().to_string(), "{name}");
        }
        assert_eq!(dig(&client, gateway, "web AAAA"), web.v6().to_string());
        assert_eq!(dig(&client, net.gateway6(), "web A +tcp"), web.v4().to_string());
        assert_eq!(dig(&client, gateway, "web MX"), "nothing", "the name is there, with other types");
        assert!(dig(&client, gateway, &format!("-x {}", web.v4())).starts_with("web."));
        assert_eq!(
            dig(&client, gateway, "-x 10.80.1.77"),
            "NXDOMAIN",
            "its own subnet is nobody else's to tell"
        );
        assert_eq!(dig(host, gateway, "web A"), web.v4().to_string(), "the host may ask, too");
    });
}

#[test]
fn the_result_names_the_gateway_and_nobody_beside_it() {
    berth_test(|host| {
        let net =
            named(host, 1).with("dns", json!({"nameservers": ["192.0.2.53"], "search": ["corp.example"]}));
        let web = join(&net, "web1", "web");
        let dns = &web.result()["dns"];
        assert_eq!(dns["nameservers"], json!(["10.80.1.1", "fd00:80:1::1"]));
        assert_eq!(dns["search"], json!(["berth.internal", "corp.example"]));
    });
}

#[test]
fn a_network_without_names_starts_no_server() {
    berth_test(|host| {
        let a = Net::new(host, 1).join("a");
        assert!(!host.run_dir().join("dns.sock").exists());
        assert_eq!(host.processes(), [].into());
        drop(a);
    });
}

#[test]
fn several_containers_behind_one_name_are_all_told() {
    berth_test(|host| {
        let net = named(host, 1);
        let one = join(&net, "one", "web");
        let container = host.container("two");
        let call = called(&net.call_for(&container), "other")
            .key("runtimeConfig", json!({"aliases": {"n1": ["web", "w.w"]}}));
        let two = Member::add(call, container);
        let mut both = [one.v4().to_string(), two.v4().to_string()];
        both.sort();
        assert_eq!(dig(&one, net.gateway4(), "web A"), both.join("\n"));
        assert_eq!(dig(&one, net.gateway4(), "w.w A"), two.v4().to_string(), "an alias with a dot");
        two.leave();
        assert_eq!(dig(&one, net.gateway4(), "web A"), one.v4().to_string());
        assert_eq!(dig(&one, net.gateway4(), "other A"), "NXDOMAIN");
    });
}

#[test]
fn a_container_on_two_networks_sees_the_names_of_both_and_no_other_does() {
    berth_test(|host| {
        let (front, back) = (named(host, 1), named(host, 2));
        let web = join(&front, "web1", "web");
        let db = join(&back, "db1", "db");
        let middle = host.container("middle1");
        let on_front = called(&front.call_for(&middle), "middle");
        let on_back = called(&back.call_for(&middle), "middle").ifname("eth1");
        on_front.add().ok();
        on_back.add().ok();
        for gateway in [front.gateway4(), back.gateway4()] {
            assert_eq!(dig(&middle, gateway, "web A"), web.v4().to_string());
            assert_eq!(dig(&middle, gateway, "db A"), db.v4().to_string());
        }
        assert_eq!(dig(&web, front.gateway4(), "db A"), "NXDOMAIN");
        assert_eq!(dig(&web, front.gateway4(), &format!("-x {}", db.v4())), "NXDOMAIN");
        on_back.del().ok();
        assert_eq!(dig(&middle, front.gateway4(), "db A"), "NXDOMAIN");
        on_front.del().ok();
    });
}

#[test]
fn nobody_from_outside_has_an_answer() {
    berth_lan_test(|host, lan, seat| {
        let net = named(host, 1);
        let web = join(&net, "web1", "web");
        let other = Net::new(host, 2).join("stranger");
        lan.run(&format!("ip route add {} via {}", net.subnet4(), seat.v4));
        let outsiders: [(&Place, _); 2] =
            [(lan, "a machine on the LAN"), (&other, "another network's container")];
        for (place, who) in outsiders {
            assert!(!is_answered(place, net.gateway4(), "web A"), "{who} had an answer");
            assert!(!is_answered(place, net.gateway4(), "web A +tcp"), "{who} had an answer by TCP");
        }
        lan.probe(&Probe::udp(format!("{}:53", seat.v4)).times(2).timeout(Duration::from_millis(300))).none();
        assert_eq!(dig(&web, net.gateway4(), "web A"), web.v4().to_string());
        lan.run(&format!("ip route del {} via {}", net.subnet4(), seat.v4));
    });
}

#[test]
fn an_internal_network_has_names_and_no_packet_leaves_for_others() {
    berth_lan_test(|host, lan, _| {
        let _servers = Servers::new(host, &format!("nameserver {}\n", Lan::V4));
        let upstream = lan.serve_udp(53, "upstream");
        let net = named(host, 1).with("internal", json!(true));
        let (web, db) = (join(&net, "web1", "web"), join(&net, "db1", "db"));
        assert_eq!(dig(&web, net.gateway4(), "db A"), db.v4().to_string());
        assert_eq!(dig(&web, net.gateway4(), "example.com A"), "REFUSED");
        assert!(upstream.heard().is_empty(), "{:?}", upstream.heard());
    });
}

#[test]
fn a_published_port_with_a_name_is_found_by_it() {
    berth_test(|host| {
        let net =
            with_block(host, 1, json!({"services": {"http": "80/tcp"}, "domain": "lab.test", "ttl": 4}));
        let container = host.container("web1");
        let web = Member::add(called(&net.publishing(&container, tcp(8080, 80)), "web"), container);
        let quiet = join(&net, "quiet1", "quiet");
        let found = dig(&quiet, net.gateway4(), "_http._tcp.web SRV");
        assert!(found.contains(" 80 web."), "{found}");
        assert_eq!(dig(&quiet, net.gateway4(), "_http._tcp.quiet SRV"), "NXDOMAIN");
        assert_eq!(dig(&quiet, net.gateway4(), "web.lab.test A"), web.v4().to_string());
    });
}

#[test]
fn a_thousand_names_are_there_when_add_returns_and_gone_when_del_returns() {
    berth_test(|host| {
        let net = named(host, 1);
        let client = join(&net, "client1", "client");
        let container = host.container("box");
        let gateway = net.gateway4();
        for round in 0..1000 {
            let name = format!("n{round}");
            let call = called(&net.call_for(&container), &name);
            let result = call.add().ok();
            let addr = result["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap().to_owned();
            assert_eq!(ask(&client, gateway, &name), Some(addr), "{name}");
            call.del().ok();
            assert_eq!(ask(&client, gateway, &name), None, "{name}");
        }
    });
}

/// One question by UDP, as small as can be: a thousand processes of `dig` would be most of the test.
fn ask(place: &Place, server: std::net::Ipv4Addr, name: &str) -> Option<String> {
    place.inside(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.connect((server, 53)).unwrap();
        let mut question = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, u8::try_from(name.len()).unwrap()];
        question.extend(name.as_bytes());
        question.extend([0, 0, 1, 0, 1]);
        socket.send(&question).unwrap();
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer).unwrap();
        assert_eq!(answer[..2], [7, 7]);
        match (answer[3] & 15, answer[7]) {
            (0, 1) => {
                let [a, b, c, d] = answer[length - 4..length] else { unreachable!() };
                Some(format!("{a}.{b}.{c}.{d}"))
            }
            (3, 0) => None,
            other => panic!("{name}: code {} with {} answers", other.0, other.1),
        }
    })
}

#[test]
fn a_host_that_had_names_is_as_it_was() {
    berth_test(|host| {
        let before = Snapshot::of(host);
        let net = named(host, 1);
        let web = join(&net, "web1", "web");
        assert_eq!(dig(&web, net.gateway4(), "web A"), web.v4().to_string());
        web.leave();
        assert_as_before(host, &before);
        eventually(Duration::from_secs(5), || match host.processes() {
            none if none.is_empty() => Ok(()),
            left => Err(format!("the server is still there: {left:?}")),
        });
    });
}
