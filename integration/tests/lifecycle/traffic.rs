//! Who reaches whom.

use std::time::Duration;

use berth_integration::{Lan, Probe};
use serde_json::json;

use crate::common::{Net, berth_lan_test, berth_test, tcp, with_and_without_firewall};

/// How long a probe waits that should fail.
const SILENCE: Duration = Duration::from_millis(300);

#[test]
fn containers_of_a_network_reach_each_other() {
    with_and_without_firewall(|host, _, _| {
        let net = Net::new(host, 1);
        let (a, b) = (net.join("a"), net.join("b"));
        let _tcp = a.serve_tcp(80, "a");
        let _udp = a.serve_udp(53, "a");
        let _udp6 = a.serve_udp_on(format!("[{}]:53", a.v6()).parse().unwrap(), "a6");
        let (v4, v6) = (a.v4(), a.v6());
        let seen = b.probe(&Probe::tcp(format!("{v4}:80")).times(5)).all_from("a");
        assert!(seen.iter().all(|reply| reply.seen_as.unwrap().ip() == b.v4()), "{seen:?}");
        let seen = b.probe(&Probe::tcp(format!("[{v6}]:80")).times(5)).all_from("a");
        assert!(seen.iter().all(|reply| reply.seen_as.unwrap().ip() == b.v6()), "{seen:?}");
        b.probe(&Probe::udp(format!("{v4}:53")).times(5)).all_from("a");
        b.probe(&Probe::udp(format!("[{v6}]:53")).times(5)).all_from("a6");
        assert_eq!((b.ping(v4, 2), b.ping(v6, 2)), (2, 2));
    });
}

#[test]
fn a_container_and_its_host_reach_each_other() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let a = net.join("a");
        let _inside = a.serve_tcp(80, "a");
        let _outside = host.serve_tcp(81, "host");
        host.probe(&Probe::tcp(format!("{}:80", a.v4())).times(3)).all_from("a");
        host.probe(&Probe::tcp(format!("[{}]:80", a.v6())).times(3)).all_from("a");
        a.probe(&Probe::tcp(format!("{}:81", net.gateway4())).times(3)).all_from("host");
        a.probe(&Probe::tcp(format!("[{}]:81", net.gateway6())).times(3)).all_from("host");
    });
}

#[test]
fn what_leaves_a_network_is_masqueraded() {
    with_and_without_firewall(|host, lan, seat| {
        let a = Net::new(host, 1).join("a");
        let _tcp = lan.serve_tcp(80, "lan");
        let _udp = lan.serve_udp(53, "lan");
        let seen = a.probe(&Probe::tcp(format!("{}:80", Lan::V4)).times(3)).all_from("lan");
        assert!(seen.iter().all(|reply| reply.seen_as.unwrap().ip() == seat.v4), "{seen:?}");
        let seen = a.probe(&Probe::tcp(format!("[{}]:80", Lan::V6)).times(3)).all_from("lan");
        assert!(seen.iter().all(|reply| reply.seen_as.unwrap().ip() == seat.v6), "{seen:?}");
        let seen = a.probe(&Probe::udp(format!("{}:53", Lan::V4)).times(3)).all_from("lan");
        assert!(seen.iter().all(|reply| reply.seen_as.unwrap().ip() == seat.v4), "{seen:?}");
        assert_eq!((a.ping(Lan::V4, 2), a.ping(Lan::V6, 2)), (2, 2));
    });
}

#[test]
fn a_network_without_masquerade_is_routed_both_ways() {
    with_and_without_firewall(|host, lan, seat| {
        let net = Net::new(host, 1).with("ipMasq", json!(false));
        let a = net.join("a");
        lan.run(&format!("ip route add {} via {}", net.subnet4(), seat.v4));
        lan.run(&format!("ip route add {} via {}", net.subnet6(), seat.v6));
        let _lan = lan.serve_tcp(80, "lan");
        let _a = a.serve_tcp(80, "a");
        let seen = a.probe(&Probe::tcp(format!("{}:80", Lan::V4))).all_from("lan");
        assert_eq!(seen[0].seen_as.unwrap().ip(), a.v4());
        // The kernel asks for no neighbour before the LAN's own link-local addresses are settled.
        let seen = a.reach(&Probe::tcp(format!("[{}]:80", Lan::V6)));
        assert_eq!(seen.seen_as.unwrap().ip(), a.v6());
        lan.probe(&Probe::tcp(format!("{}:80", a.v4())).times(3)).all_from("a");
        lan.probe(&Probe::tcp(format!("[{}]:80", a.v6())).times(3)).all_from("a");
    });
}

#[test]
fn containers_of_different_networks_do_not_reach_each_other() {
    with_and_without_firewall(|host, _, _| {
        let (a, c) = (Net::new(host, 1).join("a"), Net::new(host, 2).join("c"));
        let _a = a.serve_tcp(80, "a");
        let _c = c.serve_tcp(80, "c");
        for (from, to) in [(&a, &c), (&c, &a)] {
            from.probe(&Probe::tcp(format!("{}:80", to.v4())).times(2).timeout(SILENCE)).none();
            from.probe(&Probe::tcp(format!("[{}]:80", to.v6())).times(2).timeout(SILENCE)).none();
            assert_eq!((from.ping(to.v4(), 1), from.ping(to.v6(), 1)), (0, 0));
        }
    });
}

#[test]
fn networks_that_both_gave_up_isolation_reach_each_other() {
    with_and_without_firewall(|host, _, _| {
        let open = |number| Net::new(host, number).with("isolation", json!(false));
        let (a, b, closed) = (open(1).join("a"), open(2).join("b"), Net::new(host, 3).join("c"));
        let _a = a.serve_tcp(80, "a");
        b.probe(&Probe::tcp(format!("{}:80", a.v4())).times(3)).all_from("a");
        b.probe(&Probe::tcp(format!("[{}]:80", a.v6())).times(3)).all_from("a");
        // One side's word is not enough.
        closed.probe(&Probe::tcp(format!("{}:80", a.v4())).timeout(SILENCE)).none();
        closed.probe(&Probe::tcp(format!("[{}]:80", a.v6())).timeout(SILENCE)).none();
    });
}

#[test]
fn an_internal_network_is_for_its_members_only() {
    with_and_without_firewall(|host, lan, _| {
        let net = Net::new(host, 1).with("internal", json!(true));
        let (a, b) = (net.join("a"), net.join("b"));
        let _a = a.serve_tcp(80, "a");
        let _lan = lan.serve_tcp(80, "lan");
        b.probe(&Probe::tcp(format!("{}:80", a.v4())).times(3)).all_from("a");
        b.probe(&Probe::tcp(format!("[{}]:80", a.v6())).times(3)).all_from("a");
        b.probe(&Probe::tcp(format!("{}:80", Lan::V4)).times(2).timeout(SILENCE)).none();
        b.probe(&Probe::tcp(format!("[{}]:80", Lan::V6)).times(2).timeout(SILENCE)).none();
        assert_eq!((b.ping(Lan::V4, 1), b.ping(Lan::V6, 1)), (0, 0));
    });
}

#[test]
fn without_icc_containers_reach_the_outside_but_not_each_other() {
    with_and_without_firewall(|host, lan, _| {
        let net = Net::new(host, 1).with("icc", json!(false));
        let (a, b) = (net.join("a"), net.join("b"));
        let _a = a.serve_tcp(80, "a");
        let _lan = lan.serve_tcp(80, "lan");
        b.probe(&Probe::tcp(format!("{}:80", Lan::V4)).times(3)).all_from("lan");
        b.probe(&Probe::tcp(format!("[{}]:80", Lan::V6)).times(3)).all_from("lan");
        host.probe(&Probe::tcp(format!("{}:80", a.v4()))).all_from("a");
        b.probe(&Probe::tcp(format!("{}:80", a.v4())).times(2).timeout(SILENCE)).none();
        b.probe(&Probe::tcp(format!("[{}]:80", a.v6())).times(2).timeout(SILENCE)).none();
        assert_eq!((b.ping(a.v4(), 1), b.ping(a.v6(), 1)), (0, 0));
    });
}

#[test]
fn a_network_of_one_family_works_without_the_other() {
    for (family, subnet) in [("v4", "10.80.1.0/24"), ("v6", "fd00:80:1::/64")] {
        berth_lan_test(|host, lan, _| {
            let net =
                Net::new(host, 1).with("ipam", json!({"type": "ripam", "ranges": [[{"subnet": subnet}]]}));
            let (a, b) = (net.publish("a", tcp(8080, 80)), net.join("b"));
            let _a = a.serve_tcp(80, "a");
            let _lan = lan.serve_tcp(80, "lan");
            let (peer, out) = match family {
                "v4" => (format!("{}:80", a.v4()), format!("{}:80", Lan::V4)),
                _ => (format!("[{}]:80", a.v6()), format!("[{}]:80", Lan::V6)),
            };
            b.probe(&Probe::tcp(peer).times(2)).all_from("a");
            b.probe(&Probe::tcp(out).times(2)).all_from("lan");
        });
    }
}

#[test]
fn a_container_has_both_addresses_and_both_default_routes() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let a = net.join("a");
        let routes = a.json("ip -j route show default");
        assert_eq!(routes[0]["gateway"], json!(net.gateway4().to_string()), "{routes}");
        let routes = a.json("ip -6 -j route show default");
        assert_eq!(routes[0]["gateway"], json!(net.gateway6().to_string()), "{routes}");
        let links = a.json("ip -j address show dev eth0");
        let global: Vec<_> = links[0]["addr_info"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|addr| addr["scope"] == "global")
            .map(|addr| addr["local"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(global, [a.v4().to_string(), a.v6().to_string()]);
    });
}

#[test]
fn a_container_on_two_networks_reaches_the_peers_on_each() {
    berth_test(|host| {
        let (one, two) = (Net::new(host, 1), Net::new(host, 2).with("isDefaultGateway", json!(false)));
        let two = two.with("isGateway", json!(true));
        let a = one.join("a");
        let second = two.call().container(&a).id("a").ifname("eth1");
        second.add().ok();
        let (b, c) = (one.join("b"), two.join("c"));
        let _b = b.serve_tcp(80, "b");
        let _c = c.serve_tcp(80, "c");
        a.probe(&Probe::tcp(format!("{}:80", b.v4())).times(2)).all_from("b");
        a.probe(&Probe::tcp(format!("{}:80", c.v4())).times(2)).all_from("c");
        second.del().ok();
        // The other network's attachment is as it was.
        a.probe(&Probe::tcp(format!("{}:80", b.v4())).times(2)).all_from("b");
        a.probe(&Probe::tcp(format!("{}:80", c.v4())).timeout(SILENCE)).none();
        a.checked().check().ok();
    });
}

#[test]
fn a_container_has_two_interfaces_on_one_network() {
    berth_test(|host| {
        let net = Net::new(host, 1).with("isDefaultGateway", json!(false)).with("isGateway", json!(true));
        let a = net.join("a");
        let second = net.call().container(&a).id("a").ifname("eth1");
        let addresses = second.add();
        assert_ne!(addresses.addresses()[0], format!("{}/24", a.v4()));
        addresses.ok();
        second.del().ok();
        assert_eq!(host.ping(a.v4(), 1), 1);
    });
}

#[test]
fn the_mtu_is_that_of_both_ends_and_carries_packets_of_that_size() {
    berth_test(|host| {
        let net = Net::new(host, 1).with("mtu", json!(9000));
        let (a, b) = (net.join("a"), net.join("b"));
        for link in
            [a.json("ip -j link show eth0"), host.json(&format!("ip -j link show {}", a.host_ifname()))]
        {
            assert_eq!(link[0]["mtu"], json!(9000), "{link}");
        }
        let peer = a.v4().to_string();
        let ran =
            b.cmd("ping").args(["-n", "-c", "2", "-i", "0.05", "-M", "do", "-s", "8972", &peer]).output();
        assert!(ran.status.success(), "{ran}");
    });
}

#[test]
fn a_requested_address_and_mac_are_given() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let asked = |name: &str, change: fn(berth_integration::Call<'_>) -> berth_integration::Call<'_>| {
            let container = host.container(name);
            let call = change(net.call_for(&container));
            let ran = call.add();
            let mac = ran.json["interfaces"][2]["mac"].clone();
            let address = ran.addresses()[0].clone();
            ran.ok();
            call.del().ok();
            (address, mac)
        };
        let wanted = ("10.80.1.77/24".to_owned(), json!("02:00:00:00:00:77"));
        let env = asked("a", |call| call.args("IP=10.80.1.77;MAC=02:00:00:00:00:77"));
        let args = asked("b", |call| {
            call.key("args", json!({"cni": {"ips": ["10.80.1.77"], "mac": "02:00:00:00:00:77"}}))
        });
        let runtime = asked("c", |call| {
            call.key("runtimeConfig", json!({"ips": ["10.80.1.77/24"], "mac": "02:00:00:00:00:77"}))
        });
        assert_eq!([env, args, runtime], [wanted.clone(), wanted.clone(), wanted]);
    });
}

/// Rates are measured loosely: the point is that the limit is there, not how exact the kernel's scheduler is.
#[test]
fn bandwidth_is_limited_where_the_kernel_can_and_refused_where_not() {
    berth_test(|host| {
        let can = host.line("tc qdisc add dev up1 root tbf rate 1mbit burst 2kb latency 25ms").output();
        host.line("tc qdisc del dev up1 root").output();
        let ifb = host.line("ip link add probe0 type ifb").output().status.success();
        host.line("ip link del probe0").output();
        let net = Net::new(host, 1);
        let container = host.container("a");
        let limits = json!({"bandwidth": {
            "ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 8_000_000, "egressBurst": 800_000}});
        let call = net.call_for(&container).key("runtimeConfig", limits);
        let ran = call.add();
        if !can.status.success() || !ifb {
            let error = ran.err();
            assert!([2, 107].contains(&error.code), "{error}");
            return;
        }
        ran.ok();
        let shaped = |host: &berth_integration::Host| host.run("tc qdisc show").matches("tbf").count();
        assert_eq!(shaped(host), 2);
        call.del().ok();
        assert_eq!(shaped(host), 0);
    });
}
