//! `rhost` and `rnone`.

use berth_integration::Snapshot;
use serde_json::json;

use crate::common::berth_test;

#[test]
fn the_hosts_own_network_is_described_and_left_as_it_is() {
    berth_test(|host| {
        let before = Snapshot::of(host);
        let own = host.net_path();
        let call = host.cni().conf(json!({"type": "rhost"})).env("CNI_NETNS", own.to_str().unwrap());
        let ran = call.add();
        assert!(ran.addresses().contains(&"192.0.2.2/24".to_owned()), "{}", ran.json);
        let result = ran.ok();
        call.clone().key("prevResult", result).check().ok();
        call.del().ok();
        before.assert_same(&Snapshot::of(host));
    });
}

#[test]
fn rhost_refuses_a_namespace_of_its_own() {
    berth_test(|host| {
        let container = host.container("a");
        let error = host.cni().conf(json!({"type": "rhost"})).container(&container).add().err();
        assert_eq!(error.code, 8, "{error}");
        assert!(error.msg.contains("/run/netns/a"), "{error}");
    });
}

#[test]
fn rnone_brings_loopback_up_and_takes_it_down_again() {
    berth_test(|host| {
        let container = host.container("a");
        let call = host.cni().conf(json!({"type": "rnone"})).container(&container).ifname("lo");
        let ran = call.add();
        assert_eq!(ran.addresses(), ["127.0.0.1/8", "::1/128"]);
        let result = ran.ok();
        assert_eq!((container.ping("127.0.0.1", 1), container.ping("::1", 1)), (1, 1));
        assert!(!container.run("ip -o link").contains("eth"));
        call.clone().key("prevResult", result.clone()).check().ok();
        container.run("ip link set lo down");
        assert_eq!(call.clone().key("prevResult", result).check().err().code, 109);
        container.run("ip link set lo up");
        call.del().ok();
    });
}

#[test]
fn rnone_is_deleted_without_a_namespace() {
    berth_test(|host| {
        let call = host.cni().conf(json!({"type": "rnone"})).ifname("lo");
        call.del().ok();
        call.env("CNI_NETNS", "/run/netns/gone").del().ok();
    });
}

#[test]
fn rnone_behind_another_plugin_passes_its_result_on() {
    berth_test(|host| {
        let container = host.container("a");
        let before = json!({"cniVersion": "1.0.0", "interfaces": [{"name": "x0"}], "ips": [{"address": "10.9.0.2/24"}]});
        let call = host.cni().conf(json!({"type": "rnone", "prevResult": before})).container(&container);
        let result = call.add().ok();
        assert_eq!(result["ips"], before["ips"]);
        call.del().ok();
    });
}

/// S48: the loopback of whoever is at that path by now, above all the host's own, is not berth's to take down.
#[test]
fn rnone_never_takes_the_hosts_loopback_down() {
    berth_test(|host| {
        let own = host.net_path();
        let call = host.cni().conf(json!({"type": "rnone"})).env("CNI_NETNS", own.to_str().unwrap());
        call.del().ok();
        assert!(host.run("ip -o link show lo").contains("UP"));
        assert_eq!(host.ping("127.0.0.1", 1), 1);
    });
}
