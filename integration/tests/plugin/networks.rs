//! Networks and endpoints, as dockerd asks for them.

use berth_integration::Probe;
use serde_json::json;

use crate::caller::{about, endpoint, network, network_id, plugin_test};

#[test]
fn a_container_is_on_its_network_and_off_it_again() {
    plugin_test(|docker| {
        docker.create(1);
        let (one, two) = (docker.connect(1, 1, 2), docker.connect(1, 2, 3));
        assert_eq!(one.container.ping("10.80.1.3", 2), 2, "to the other container");
        assert_eq!(one.container.ping("10.80.1.1", 2), 2, "to the gateway");
        assert_eq!(docker.host.ping("10.80.1.3", 2), 2, "from the host");
        docker.well();
        // Another network is another world.
        docker.create(2);
        let far = docker.connect(2, 3, 2);
        assert_eq!(far.container.ping("10.80.1.2", 1), 0);
        for connected in [one, two, far] {
            docker.disconnect(connected);
        }
        docker.delete(1);
        docker.delete(2);
        docker.well();
    });
}

#[test]
fn what_was_given_comes_back_empty_and_what_was_not_is_told() {
    plugin_test(|docker| {
        docker.create(1);
        let created = docker.net("CreateEndpoint", &endpoint(1, 1, 7));
        let mac = created["Interface"]["MacAddress"].as_str().unwrap();
        assert!(mac.starts_with("02:") && mac.ends_with(":0a:50:01:07"), "{mac}");
        let mut wanted = endpoint(1, 2, 8);
        wanted["Interface"]["MacAddress"] = json!("02:00:00:00:00:08");
        assert_eq!(docker.net("CreateEndpoint", &wanted), json!({"Interface": {}}));
        let mut join = about(1, 2);
        join["SandboxKey"] = json!("/run/docker/netns/not-there-yet");
        join["Options"] = json!({"com.docker.network.endpoint.ifname": "lan0"});
        let joined = docker.net("Join", &join);
        assert_eq!(joined["Gateway"], "10.80.1.1");
        assert_eq!(joined["DisableGatewayService"], false);
        assert_eq!(joined["InterfaceName"]["DstPrefix"], "eth");
        assert_eq!(joined["InterfaceName"]["DstName"], "lan0");
        let link = docker
            .host
            .json(&format!("ip -j link show {}", joined["InterfaceName"]["SrcName"].as_str().unwrap()));
        assert_eq!(link[0]["address"], "02:00:00:00:00:08");
        docker.delete(1);
    });
}

#[test]
fn an_internal_network_has_no_way_out() {
    plugin_test(|docker| {
        let mut call = network(1, json!({}));
        call["Options"]["com.docker.network.internal"] = json!(true);
        docker.net("CreateNetwork", &call);
        let (one, two) = (docker.connect(1, 1, 2), docker.connect(1, 2, 3));
        assert_eq!(one.container.run("ip route show default"), "");
        assert_eq!(one.container.ping("10.80.1.3", 1), 1);
        // Asked to publish, it publishes nothing.
        docker.net("ProgramExternalConnectivity", &crate::caller::program(1, 1, crate::caller::tcp(8080)));
        assert_eq!(docker.berth(&["ports"]), json!([]));
        docker.disconnect(one);
        docker.disconnect(two);
        docker.delete(1);
    });
}

#[test]
fn both_families_reach_their_gateways() {
    plugin_test(|docker| {
        let mut call = network(1, json!({"mtu": "1400"}));
        call["IPv6Data"] =
            json!([{"Pool": "fd00:80:1::/64", "Gateway": "fd00:80:1::1/64", "AuxAddresses": {}}]);
        docker.net("CreateNetwork", &call);
        let mut wanted = endpoint(1, 1, 2);
        wanted["Interface"]["AddressIPv6"] = json!("fd00:80:1::2/64");
        let mac =
            docker.net("CreateEndpoint", &wanted)["Interface"]["MacAddress"].as_str().unwrap().to_owned();
        let connected = docker.join(1, 1, 2, &mac);
        connected.container.run("ip -6 address add fd00:80:1::2/64 dev eth0 nodad");
        assert_eq!(connected.container.ping("fd00:80:1::1", 1), 1);
        assert_eq!(connected.container.ping("10.80.1.1", 1), 1);
        assert_eq!(connected.container.json("ip -j link show eth0")[0]["mtu"], 1400);
        docker.disconnect(connected);
        docker.delete(1);
    });
}

/// The last endpoint's link may still be going while the next one is made.
#[test]
fn an_address_is_the_next_endpoints_as_soon_as_the_last_is_gone() {
    plugin_test(|docker| {
        docker.net("CreateNetwork", &network(1, json!({})));
        let other = docker.connect(1, 100, 9);
        for round in 1..=10 {
            let one = docker.connect(1, round, 2);
            assert_eq!(other.container.ping("10.80.1.2", 1), 1, "round {round}");
            docker.disconnect(one);
            docker.well();
        }
        docker.disconnect(other);
        // The network waits for what is going of it.
        docker.delete(1);
        assert!(!docker.host.run("ip -o link").contains("veth"), "a link is left");
    });
}

#[test]
fn the_options_do_what_they_say() {
    plugin_test(|docker| {
        docker.net(
            "CreateNetwork",
            &network(
                1,
                json!({
                    "com.docker.network.bridge.name": "mybridge",
                    "com.docker.network.bridge.enable_icc": "false",
                    "com.docker.network.bridge.host_binding_ipv4": "127.0.0.1",
                }),
            ),
        );
        let (one, two) = (docker.connect(1, 1, 2), docker.connect(1, 2, 3));
        docker.host.run("ip link show mybridge");
        assert_eq!(one.container.ping("10.80.1.3", 1), 0, "kept apart");
        assert_eq!(one.container.ping("10.80.1.1", 1), 1);
        let _server = two.container.serve_http(80, "two");
        docker.net("ProgramExternalConnectivity", &crate::caller::program(1, 2, crate::caller::tcp(8080)));
        docker.host.probe(&Probe::http("127.0.0.1:8080")).all_from("two");
        docker.host.probe(&Probe::http("192.0.2.2:8080")).none();
        for connected in [one, two] {
            docker.disconnect(connected);
        }
        docker.delete(1);
    });
}

#[test]
fn a_refused_network_leaves_nothing_and_says_why() {
    plugin_test(|docker| {
        docker.create(1);
        let long = "x".repeat(200);
        let with = |change: fn(&mut serde_json::Value)| {
            let mut call = network(2, json!({}));
            call["IPv4Data"][0]["Gateway"] = json!("");
            change(&mut call);
            call
        };
        for (call, words) in [
            (
                with(|call| call["IPv4Data"][0]["Pool"] = json!("10.80.1.128/25")),
                "overlaps 10.80.1.0/24 of network",
            ),
            (
                with(|call| call["IPv4Data"][0]["Pool"] = json!("192.0.2.0/25")),
                "overlaps route 192.0.2.0/24 by `up0`",
            ),
            (with(|call| call["IPv4Data"][0]["Pool"] = json!("somewhere")), "subnet `somewhere` is none"),
            (
                with(|call| call["IPv4Data"][0]["Gateway"] = json!("10.99.0.1/24")),
                "gateway 10.99.0.1 is not in subnet",
            ),
            (network(2, json!({"colour": "red"})), "unknown option `colour`; known are bridge"),
            (network(2, json!({"mtu": "9"})), "option `mtu` takes 68 to 65535"),
            (network(2, json!({"bridge": "up0"})), "up0"),
            (network(2, json!({"bridge": format!("br-{:.12}", network_id(1))})), "is network `000000000001"),
            (network(2, json!({"bridge": long})), "option `bridge` takes"),
        ] {
            let refused = docker.net_refuses("CreateNetwork", &call);
            assert!(refused.contains(words), "{refused}");
        }
        assert_eq!(docker.berth(&["network", "ls"]).as_array().unwrap().len(), 1);
        // Asked for again as it is, it is there; as another, it is refused.
        docker.create(1);
        let other = docker.net_refuses("CreateNetwork", &network(1, json!({"icc": "false"})));
        assert!(other.contains("exists already with other settings"), "{other}");
        docker.well();
        docker.delete(1);
        // Once it is gone, its subnet is free.
        docker.net("CreateNetwork", &with(|call| call["IPv4Data"][0]["Pool"] = json!("10.80.2.0/23")));
        docker.delete(2);
    });
}

#[test]
fn none_gives_nothing_and_host_says_what_to_do() {
    plugin_test(|docker| {
        let call = |plugin: &str, method: &str, body: &serde_json::Value| {
            crate::caller::answer(docker.host, plugin, method, &body.to_string())
        };
        for method in ["CreateNetwork", "CreateEndpoint", "Leave", "DeleteEndpoint", "DeleteNetwork"] {
            let answer = call("rnone", &format!("NetworkDriver.{method}"), &about(1, 1));
            assert_eq!((answer.status, answer.text.as_str()), (200, "{}"), "{method}");
        }
        let joined = call("rnone", "NetworkDriver.Join", &about(1, 1));
        assert_eq!(joined.text, r#"{"DisableGatewayService":true}"#);
        let refused = call("rhost", "NetworkDriver.CreateNetwork", &network(1, json!({}))).refused();
        assert!(refused.contains("--network host"), "{refused}");
    });
}
