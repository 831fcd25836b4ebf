//! CHECK and STATUS.

use std::fs;

use berth_integration::Host;
use serde_json::json;

use crate::common::{Member, Net, berth_test, tcp};

#[test]
fn an_attachment_that_nobody_touched_passes() {
    berth_test(|host| {
        let a = Net::new(host, 1).publish("a", tcp(8080, 80));
        a.checked().check().ok();
        // Later plugins of a chain may have done their own.
        a.run("ip address add 10.99.0.1/24 dev eth0");
        a.run("ip route add 10.98.0.0/24 via 10.99.0.7");
        a.run("ip link set eth0 address 02:00:00:00:00:99");
        a.checked().check().ok();
    });
}

#[test]
fn whatever_is_missing_is_named() {
    type Damage = fn(&Host, &Member<'_>);
    let damages: [(&str, &str, Damage); 9] = [
        ("interface", "eth0", |_, a| drop(a.run("ip link set eth0 name eth7"))),
        ("address", "10.80.1.2", |_, a| drop(a.run("ip address del 10.80.1.2/24 dev eth0"))),
        ("address6", "fd00:80:1::2", |_, a| drop(a.run("ip address del fd00:80:1::2/64 dev eth0"))),
        ("route", "0.0.0.0/0", |_, a| drop(a.run("ip route del default"))),
        ("port of the bridge", "veth", |host, a| {
            host.run(&format!("ip link set {} nomaster", a.host_ifname()));
        }),
        ("host link down", "down", |host, a| {
            drop(host.run(&format!("ip link set {} down", a.host_ifname())))
        }),
        ("bridge down", "br1", |host, _| drop(host.run("ip link set br1 down"))),
        ("bridge address", "10.80.1.1", |host, _| drop(host.run("ip address del 10.80.1.1/24 dev br1"))),
        ("ruleset", "8080", |host, _| drop(host.run("nft flush ruleset"))),
    ];
    for (what, named, damage) in damages {
        berth_test(|host| {
            let a = Net::new(host, 1).publish("a", tcp(8080, 80));
            damage(host, &a);
            let ran = a.checked().check();
            assert!(!ran.succeeded(), "{what}: {}", ran.ran);
            let error = ran.err();
            assert_eq!(error.code, 109, "{what}: {error}");
            assert!(error.to_string().contains(named), "{what}: {named} is not in {error}");
            if what == "interface" {
                a.run("ip link set eth7 name eth0");
            }
        });
    }
}

#[test]
fn a_container_that_was_never_added_fails() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let a = net.join("a");
        let other = host.container("b");
        let call = net.call_for(&other).key("prevResult", a.result().clone());
        let error = call.check().err();
        assert!([3, 109].contains(&error.code), "{error}");
    });
}

#[test]
fn check_without_the_result_of_add_is_refused() {
    berth_test(|host| {
        let a = Net::new(host, 1).join("a");
        assert_eq!(a.call().check().err().code, 7);
    });
}

/// S48.
#[test]
fn check_of_a_namespace_that_is_another_by_now_fails() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let mut first = host.container("a");
        let call = net.call_for(&first);
        let result = call.add().ok();
        first.unpin();
        let second = host.container("a");
        let error = call.clone().key("prevResult", result).check().err();
        assert!([106, 109].contains(&error.code), "{error}");
        drop(second);
        call.env("CNI_NETNS", "").del().ok();
    });
}

#[test]
fn a_network_that_can_take_containers_is_ready() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        net.call().run("STATUS").ok();
        let _a = net.join("a");
        net.call().run("STATUS").ok();
    });
}

#[test]
fn a_network_whose_pool_is_exhausted_is_not_available() {
    berth_test(|host| {
        let net = Net::new(host, 1).with("ipam", json!({"type": "ripam", "subnet": "10.80.1.0/30"}));
        let a = net.join("a");
        let error = net.call().run("STATUS").err();
        assert_eq!(error.code, 50, "{error}");
        assert!(error.to_string().contains("n1"), "{error}");
        a.leave();
        net.call().run("STATUS").ok();
    });
}

#[test]
fn a_network_whose_ipam_plugin_is_missing_is_not_available() {
    berth_test(|host| {
        let net = Net::new(host, 1).with("ipam", json!({"type": "no-such-plugin"}));
        assert_eq!(net.call().run("STATUS").err().code, 50);
    });
}

#[test]
fn status_changes_nothing() {
    berth_test(|host| {
        let before = berth_integration::Snapshot::of(host);
        let files = || fs::read_dir(host.run_dir()).unwrap().count();
        Net::new(host, 1).call().run("STATUS").ok();
        before.assert_same(&berth_integration::Snapshot::of(host));
        assert!(!host.run("nft list tables").contains("berth"));
        // At most the empty records.
        assert!(files() <= 4);
    });
}
