//! Port 53 of the gateway, where somebody else wants it.

use serde_json::{Value, json};

use crate::asking::{called, dig, join, named};
use crate::common::{Member, Net, berth_test, udp};

#[test]
fn a_resolver_of_the_host_on_every_address_keeps_its_port_and_names_are_answered() {
    berth_test(|host| {
        let tcp = host.serve_tcp(53, "resolver");
        let udp = host.serve_udp(53, "resolver");
        let net = named(host, 1);
        let web = join(&net, "web1", "web");
        let client = join(&net, "client1", "client");
        for gateway in [net.gateway4().into(), std::net::IpAddr::from(net.gateway6())] {
            assert_eq!(dig(&client, gateway, "web A"), web.v4().to_string());
            assert_eq!(dig(&client, gateway, "web A +tcp"), web.v4().to_string());
        }
        assert_eq!(dig(host, net.gateway4(), "web A"), web.v4().to_string(), "from the host, too");
        assert!(udp.heard().is_empty(), "{:?}", udp.heard());

        let status: Value = serde_json::from_str(&host.berth(["status", "--json"]).run()).unwrap();
        let listening = status["names"]["listening"].as_array().unwrap();
        assert_eq!(listening.len(), 2, "{status}");
        assert!(listening.iter().all(|one| !one["addr"].as_str().unwrap().ends_with(":53")), "{status}");
        let said = host.berth(["status"]).run();
        assert!(said.contains("port 53 is another program's, led to "), "{said}");
        let doctor = host.berth(["doctor", "--json"]).output();
        assert_eq!(doctor.code(), Some(0), "{doctor}");
        assert!(doctor.stdout.contains("names-alternate-port"), "{doctor}");

        // Laid again after a flush, like everything else.
        host.run("nft flush ruleset");
        host.gc();
        assert_eq!(dig(&client, net.gateway4(), "web A"), web.v4().to_string());
        drop((tcp, udp));
    });
}

#[test]
fn a_container_that_publishes_port_53_does_not_take_the_networks_questions() {
    berth_test(|host| {
        let net = named(host, 1);
        let web = join(&net, "web1", "web");
        let container = host.container("pihole1");
        let pihole = Member::add(called(&net.publishing(&container, udp(53, 53)), "pihole"), container);
        let other = Net::new(host, 2).join("other");
        assert_eq!(dig(&web, net.gateway4(), "pihole A"), pihole.v4().to_string());
        let server = pihole.serve_udp(53, "pihole");
        host.probe(&berth_integration::Probe::udp("192.0.2.2:53").from("192.0.2.2")).all_from("pihole");
        assert_eq!(server.heard().len(), 1);
        drop(other);
    });
}

#[test]
fn the_port_is_used_again_by_a_server_that_finds_it_free() {
    berth_test(|host| {
        let taken = host.serve_udp(53, "resolver");
        let net = named(host, 1).with("ipam", json!({"type": "ripam", "subnet": "10.80.1.0/24"}));
        let web = join(&net, "web1", "web");
        assert_eq!(dig(&web, net.gateway4(), "web A"), web.v4().to_string());
        drop(taken);
        host.run(&format!("kill -9 {}", host.processes().first().unwrap()));
        host.gc();
        assert_eq!(dig(&web, net.gateway4(), "web A"), web.v4().to_string());
        let status = host.berth(["status"]).run();
        assert!(!status.contains("another program's"), "{status}");
        assert!(host.berth(["doctor"]).output().status.success());
    });
}
