//! Podman on its CNI backend, with the networks it writes itself and with networks for berth's own types.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use berth_integration::engine::{Podman, Suite, answer, berth, engine_test, no_answer};
use berth_integration::{Host, Probe};
use serde_json::{Value, json};

const PROGRAMS: [&str; 5] = ["podman", "conmon", "runc", "iptables", "busybox"];

fn podman_test(test: impl FnOnce(&Host, &Podman<'_>)) {
    engine_test(&PROGRAMS, |host| {
        let podman = Podman::new(host, Suite::chosen());
        test(host, &podman);
        podman.assert_idle();
    });
}

#[test]
fn containers_on_a_network_that_podman_wrote_reach_each_other() {
    podman_test(|host, podman| {
        podman.run("network create n1");
        podman.start("a", "--network n1");
        podman.start("b", "--network n1");
        let (a, b) = (podman.address("a", "n1"), podman.address("b", "n1"));
        assert_ne!(a, b);
        assert_attachments(host, 2);
        assert_eq!(podman.fetch("a", b), "b");
        assert_eq!(podman.fetch("b", a), "a");
        podman.run("rm -f -t 0 a b");
    });
}

#[test]
fn what_podman_shows_is_what_the_container_has() {
    podman_test(|_, podman| {
        podman.run("network create --subnet 10.89.7.0/24 n1");
        podman.start("a", "--network n1");
        let shown = podman.attachment("a", "n1");
        assert_eq!((&shown["Gateway"], &shown["IPPrefixLen"]), (&json!("10.89.7.1"), &json!(24)), "{shown}");
        let inside = podman.exec("a", "ip addr show eth0");
        let address = format!("inet {}/24 ", shown["IPAddress"].as_str().unwrap());
        assert!(inside.contains(&address), "{inside}");
        assert!(inside.contains(shown["MacAddress"].as_str().unwrap()), "{inside}");
        assert!(podman.exec("a", "ip route").starts_with("default via 10.89.7.1 dev eth0"));
        podman.run("rm -f -t 0 a");
    });
}

#[test]
fn a_published_port_is_reached_at_every_address_of_the_host() {
    podman_test(|host, podman| {
        podman.run("network create n1");
        podman.start("a", "--network n1 -p 8080:80");
        assert_eq!(answer(host, "192.0.2.2:8080"), "a");
        assert_eq!(answer(host, "127.0.0.1:8080"), "a");
        podman.run("rm -f -t 0 a");
        no_answer(host, "192.0.2.2:8080");
        no_answer(host, "127.0.0.1:8080");
    });
}

#[test]
fn a_port_published_at_one_address_is_not_at_another() {
    podman_test(|host, podman| {
        podman.run("network create n1");
        podman.start("a", "--network n1 -p 127.0.0.1:8080:80");
        assert_eq!(answer(host, "127.0.0.1:8080"), "a");
        no_answer(host, "192.0.2.2:8080");
        podman.run("rm -f -t 0 a");
    });
}

#[test]
fn a_container_reaches_published_ports_even_its_own() {
    podman_test(|_, podman| {
        podman.run("network create n1");
        podman.start("a", "--network n1 -p 8080:80");
        podman.start("b", "--network n1");
        assert_eq!(podman.fetch("b", "192.0.2.2:8080"), "a");
        assert_eq!(podman.fetch("a", "192.0.2.2:8080"), "a");
        podman.run("rm -f -t 0 a b");
    });
}

#[test]
fn a_neighbour_on_the_lan_reaches_a_published_port() {
    engine_test(&PROGRAMS, |host| {
        let lan = berth_integration::Lan::new();
        let seat = lan.join(host);
        {
            let podman = Podman::new(host, Suite::chosen());
            podman.run("network create --subnet 10.89.7.0/24 --subnet fd00:89::/64 --ipv6 n1");
            podman.start("a", "--network n1 -p 8080:80");
            assert_eq!(answer(&lan, format!("{}:8080", seat.v4)), "a");
            assert_eq!(answer(&lan, format!("[{}]:8080", seat.v6)), "a");
            podman.run("rm -f -t 0 a");
            no_answer(&lan, format!("{}:8080", seat.v4));
            no_answer(&lan, format!("[{}]:8080", seat.v6));
        }
        host.run(&format!("ip link delete {}", seat.ifname));
    });
}

#[test]
fn a_range_of_ports_and_both_protocols_are_published() {
    podman_test(|host, podman| {
        podman.run("network create n1");
        podman.start("a", "--network n1 -p 9000-9020:80-100 -p 9000:53/udp");
        assert_eq!(answer(host, "192.0.2.2:9000"), "a");
        no_answer(host, "192.0.2.2:9001");
        podman.run("rm -f -t 0 a");
    });
}

#[test]
fn a_static_address_is_honoured_and_refused_when_taken() {
    podman_test(|_, podman| {
        podman.run("network create --subnet 10.89.7.0/24 n1");
        podman.start("a", "--network n1 --ip 10.89.7.77 --mac-address 92:d0:c6:0a:29:35");
        assert_eq!(podman.address("a", "n1"), "10.89.7.77".parse::<IpAddr>().unwrap());
        assert_eq!(podman.attachment("a", "n1")["MacAddress"], "92:d0:c6:0a:29:35");
        let refused = podman.refuses("b", "--network n1 --ip 10.89.7.77");
        assert!(refused.contains("10.89.7.77"), "{refused}");
        podman.run("rm -f -t 0 b");
        podman.start("c", "--network n1");
        assert_eq!(podman.fetch("c", "10.89.7.77"), "a");
        podman.run("rm -f -t 0 a c");
    });
}

#[test]
fn a_published_port_that_another_container_has_is_refused() {
    podman_test(|host, podman| {
        if Suite::chosen() == Suite::Reference {
            // The reference lets both succeed.
            return;
        }
        podman.run("network create n1");
        podman.start("a", "--network n1 -p 8080:80");
        let refused = podman.refuses("b", "--network n1 -p 8080:80");
        assert!(refused.contains("8080"), "{refused}");
        let holder = podman.run("inspect --format {{.Id}} a");
        assert!(refused.contains(&holder[..12]), "the holder {holder} is not named: {refused}");
        podman.run("rm -f -t 0 b");
        assert_eq!(answer(host, "192.0.2.2:8080"), "a");
        podman.run("rm -f -t 0 a");
    });
}

#[test]
fn a_published_port_that_a_program_listens_on_is_refused() {
    podman_test(|host, podman| {
        if Suite::chosen() == Suite::Reference {
            // The reference takes it away from the program; it is podman's own socket that is refused then.
            return;
        }
        podman.run("network create n1");
        let server = host.serve_http(8080, "server");
        let refused = podman.refuses("a", "--network n1 -p 8080:80");
        assert!(refused.contains("8080"), "{refused}");
        assert_eq!(answer(host, "192.0.2.2:8080"), "server");
        assert_attachments(host, 0);
        podman.run("rm -f -t 0 a");
        drop(server);
        podman.start("a", "--network n1 -p 8080:80");
        assert_eq!(answer(host, "192.0.2.2:8080"), "a");
        podman.run("rm -f -t 0 a");
    });
}

#[test]
fn datagrams_reach_a_published_port() {
    podman_test(|host, podman| {
        podman.run("network create n1");
        podman.start("a", "--network n1 -p 5353:53/udp");
        let server = podman.place("a").serve_udp(53, "a");
        host.probe(&Probe::udp("192.0.2.2:5353").times(3)).all_from("a");
        host.probe(&Probe::udp("127.0.0.1:5353")).all_from("a");
        drop(server);
        podman.run("rm -f -t 0 a");
    });
}

#[test]
fn a_network_with_both_families_gives_both() {
    podman_test(|host, podman| {
        podman.run("network create --subnet 10.89.7.0/24 --subnet fd00:89::/64 --ipv6 n1");
        podman.start("a", "--network n1 -p 8080:80");
        podman.start("b", "--network n1");
        let a = podman.attachment("a", "n1");
        let v6 = a["GlobalIPv6Address"].as_str().unwrap();
        assert!(v6.starts_with("fd00:89::"), "{a}");
        assert_eq!(podman.fetch("b", podman.address("a", "n1")), "a");
        assert_eq!(podman.fetch("b", format!("[{v6}]")), "a");
        assert_eq!(answer(host, "192.0.2.2:8080"), "a");
        podman.run("rm -f -t 0 a b");
    });
}

#[test]
fn a_container_on_two_networks_has_an_interface_on_each() {
    podman_test(|host, podman| {
        podman.run("network create --subnet 10.89.7.0/24 n1");
        podman.run("network create --subnet 10.89.8.0/24 n2");
        podman.start("a", "--network n1,n2 -p 8080:80");
        podman.start("b", "--network n1");
        podman.start("c", "--network n2");
        assert_eq!(answer(host, "192.0.2.2:8080"), "a");
        assert_eq!(podman.fetch("b", podman.address("a", "n1")), "a");
        assert_eq!(podman.fetch("c", podman.address("a", "n2")), "a");
        podman.run("rm -f -t 0 a b c");
    });
}

#[test]
fn networks_are_isolated_from_each_other() {
    podman_test(|_, podman| {
        if Suite::chosen() == Suite::Reference {
            // The reference has no isolation between bridges.
            return;
        }
        podman.run("network create n1");
        podman.run("network create n2");
        podman.start("a", "--network n1");
        podman.start("b", "--network n2");
        assert!(!podman.pings("a", podman.address("b", "n2")));
        assert!(!podman.pings("b", podman.address("a", "n1")));
        podman.run("rm -f -t 0 a b");
    });
}

#[test]
fn a_network_is_connected_and_disconnected_while_the_container_runs() {
    podman_test(|_, podman| {
        podman.run("network create n1");
        podman.run("network create n2");
        podman.start("a", "--network n1");
        podman.start("b", "--network n2");
        podman.run("network connect n2 a");
        assert_eq!(podman.fetch("a", podman.address("b", "n2")), "b");
        podman.run("network disconnect n2 a");
        assert!(!podman.exec("a", "ip link").contains("eth1"));
        podman.run("rm -f -t 0 a b");
    });
}

#[test]
fn a_second_network_is_connected_to_a_container_with_a_published_port() {
    podman_test(|host, podman| {
        podman.run("network create n1");
        podman.run("network create n2");
        podman.start("a", "--network n1 -p 8080:80");
        // Podman publishes the ports on each network; its conmon holds a socket on them by now.
        podman.run("network connect n2 a");
        assert_eq!(answer(host, "192.0.2.2:8080"), "a");
        podman.run("network disconnect n2 a");
        assert_eq!(answer(host, "192.0.2.2:8080"), "a");
        podman.run("network connect n2 a");
        podman.run("network disconnect n1 a");
        assert_eq!(answer(host, "192.0.2.2:8080"), "a");
        podman.run("rm -f -t 0 a");
    });
}

#[test]
fn an_internal_network_reaches_its_members_and_nothing_else() {
    podman_test(|_, podman| {
        podman.run("network create --internal n1");
        podman.start("a", "--network n1");
        podman.start("b", "--network n1");
        assert_eq!(podman.fetch("a", podman.address("b", "n1")), "b");
        assert_eq!(
            podman.exec("a", "ip route").lines().filter(|route| route.starts_with("default")).count(),
            0
        );
        assert!(!podman.pings("a", "192.0.2.2"));
        podman.run("rm -f -t 0 a b");
    });
}

#[test]
fn a_container_comes_back_after_stop_and_start() {
    podman_test(|host, podman| {
        podman.run("network create n1");
        podman.start("a", "--network n1 -p 8080:80");
        for _ in 0..3 {
            podman.run("stop -t 0 a");
            no_answer(host, "192.0.2.2:8080");
            podman.run("start a");
            assert_eq!(answer(host, "192.0.2.2:8080"), "a");
        }
        podman.run("restart -t 0 a");
        assert_eq!(answer(host, "192.0.2.2:8080"), "a");
        podman.run("rm -f -t 0 a");
    });
}

#[test]
fn a_container_that_dies_is_taken_off_the_network_by_itself() {
    podman_test(|host, podman| {
        podman.run("network create --subnet 10.89.7.0/30 n1");
        podman.start("a", "--network n1 -p 8080:80");
        assert_eq!(answer(host, "192.0.2.2:8080"), "a");
        podman.run("kill a");
        podman.run("wait a");
        // The only address is free again, though the dead container is still known.
        podman.start("b", "--network n1");
        assert_eq!(podman.address("b", "n1").to_string(), "10.89.7.2");
        podman.run("rm -f -t 0 a b");
    });
}

#[test]
fn reload_repairs_a_flushed_packet_filter() {
    podman_test(|host, podman| {
        podman.run("network create n1");
        podman.start("a", "--network n1 -p 8080:80");
        let before = podman.address("a", "n1");
        host.run("nft flush ruleset");
        no_answer(host, "192.0.2.2:8080");
        podman.run("network reload a");
        assert_eq!(answer(host, "192.0.2.2:8080"), "a");
        assert_eq!(podman.address("a", "n1"), before);
        podman.run("rm -f -t 0 a");
    });
}

#[test]
fn gc_repairs_a_flushed_packet_filter() {
    podman_test(|host, podman| {
        if Suite::chosen() == Suite::Reference {
            // The reference has no such command.
            return;
        }
        podman.run("network create n1");
        podman.start("a", "--network n1 -p 8080:80");
        host.run("nft flush ruleset");
        berth(host, ["gc"]).run();
        assert_eq!(answer(host, "192.0.2.2:8080"), "a");
        assert_attachments(host, 1);
        podman.run("rm -f -t 0 a");
    });
}

#[test]
fn podmans_isolation_option_is_understood() {
    podman_test(|_, podman| {
        podman.run("network create --opt isolate=true n1");
        podman.run("network create --opt isolate=true n2");
        podman.start("a", "--network n1");
        podman.start("b", "--network n1");
        podman.start("c", "--network n2");
        assert_eq!(podman.fetch("a", podman.address("b", "n1")), "b");
        assert!(!podman.pings("a", podman.address("c", "n2")));
        podman.run("rm -f -t 0 a b c");
    });
}

#[test]
fn the_mtu_of_a_network_is_the_containers() {
    podman_test(|_, podman| {
        podman.run("network create --opt mtu=1400 n1");
        podman.start("a", "--network n1");
        assert!(podman.exec("a", "ip link show eth0").contains(" mtu 1400 "));
        podman.run("rm -f -t 0 a");
    });
}

#[test]
fn host_local_serves_another_main_plugin() {
    podman_test(|host, podman| {
        podman.run("network create -d macvlan -o parent=up0 --subnet 10.89.7.0/24 n1");
        podman.start("a", "--network n1");
        podman.start("b", "--network n1 --ip 10.89.7.9");
        assert_eq!(podman.fetch("a", "10.89.7.9"), "b");
        assert_eq!(podman.fetch("b", podman.address("a", "n1")), "a");
        podman.run("rm -f -t 0 a b");
        assert_attachments(host, 0);
    });
}

#[test]
fn containers_started_at_once_get_different_addresses_and_ports() {
    podman_test(|host, podman| {
        podman.run("network create n1");
        let names = ["a", "b", "c", "d", "e", "f"];
        let starting: Vec<_> = names
            .iter()
            .zip(8080..)
            .map(|(name, port)| podman.start_cmd(name, &format!("--network n1 -p {port}:80")).spawn())
            .collect();
        for start in starting {
            start.wait(Duration::from_secs(30)).success();
        }
        let addresses: BTreeSet<_> = names.iter().map(|name| podman.address(name, "n1")).collect();
        assert_eq!(addresses.len(), names.len());
        for (name, port) in names.iter().zip(8080..) {
            assert_eq!(&answer(host, format!("192.0.2.2:{port}")), name);
        }
        podman.run("rm -f -t 0 a b c d e f");
    });
}

#[track_caller]
fn assert_attachments(host: &Host, count: usize) {
    if Suite::chosen() == Suite::Berth {
        let attachments: Value = serde_json::from_str(&berth(host, ["ps", "--json"]).run()).unwrap();
        assert_eq!(attachments.as_array().map(Vec::len), Some(count), "{attachments}");
    }
}

/// A network for berth's own types, as a person writes it.
fn handwritten() -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "hand",
        "plugins": [
            {
                "type": "rbridge",
                "bridge": "hand0",
                "isDefaultGateway": true,
                "ipMasq": true,
                "hairpinMode": true,
                "capabilities": {"ips": true, "mac": true},
                "ipam": {"type": "ripam", "ranges": [[{"subnet": "10.99.0.0/24"}]]},
            },
            {"type": "rportmap", "capabilities": {"portMappings": true}},
        ],
    })
}

#[test]
fn a_handwritten_network_of_berths_types_works_in_podman() {
    podman_test(|host, podman| {
        podman.write_network(&Suite::chosen().list(handwritten()));
        podman.start("a", "--network hand -p 8080:80 --ip 10.99.0.50");
        podman.start("b", "--network hand");
        assert_eq!(podman.address("a", "hand").to_string(), "10.99.0.50");
        assert_eq!(podman.fetch("b", "10.99.0.50"), "a");
        assert_eq!(answer(host, "192.0.2.2:8080"), "a");
        podman.run("rm -f -t 0 a b");
        no_answer(host, "192.0.2.2:8080");
    });
}

#[test]
fn rbridge_publishes_ports_by_itself() {
    podman_test(|host, podman| {
        if Suite::chosen() == Suite::Reference {
            // The reference bridge does not.
            return;
        }
        let mut list = handwritten();
        let mut bridge = list["plugins"][0].clone();
        bridge["capabilities"]["portMappings"] = json!(true);
        list["plugins"] = json!([bridge]);
        podman.write_network(&list);
        podman.start("a", "--network hand -p 8080:80");
        podman.start("b", "--network hand");
        assert_eq!(answer(host, "192.0.2.2:8080"), "a");
        assert_eq!(podman.fetch("b", "192.0.2.2:8080"), "a");
        podman.run("rm -f -t 0 a b");
    });
}

#[test]
fn an_exhausted_network_refuses_and_keeps_nothing() {
    podman_test(|_, podman| {
        podman.run("network create --subnet 10.89.7.0/30 n1");
        podman.start("a", "--network n1");
        let refused = podman.refuses("b", "--network n1");
        assert!(refused.contains("10.89.7."), "{refused}");
        podman.run("rm -f -t 0 b a");
        podman.start("c", "--network n1");
        assert_eq!(podman.address("c", "n1").to_string(), "10.89.7.2");
        podman.run("rm -f -t 0 c");
    });
}
