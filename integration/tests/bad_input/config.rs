//! Configurations of the right form that make no sense.

use berth_integration::Snapshot;
use serde_json::{Value, json};

use crate::common::{Net, berth_test};
use crate::refusal::{refused, refused_quietly};

#[test]
fn versions_that_are_not_spoken_are_refused() {
    berth_test(|host| {
        let container = host.container("a");
        for version in
            ["9.9.9", "1.2.0", "0.5.0", "1", "1.0", "v1.0.0", "1.0.0 ", "latest", "-1.0.0", "1.0.0.0"]
        {
            for command in ["ADD", "DEL", "STATUS"] {
                let call = Net::new(host, 1).call_for(&container).key("cniVersion", json!(version));
                refused(host, &call, command, 1, version);
            }
        }
        for version in [json!(1), json!(["1.0.0"]), json!({}), json!(true)] {
            let call = Net::new(host, 1).call_for(&container).key("cniVersion", version.clone());
            refused_quietly(&call, "ADD", &[1, 6, 7], &version.to_string());
        }
    });
}

#[test]
fn verbs_newer_than_the_configuration_are_refused() {
    berth_test(|host| {
        let container = host.container("a");
        for (version, command) in
            [("0.3.1", "CHECK"), ("1.0.0", "GC"), ("1.0.0", "STATUS"), ("0.1.0", "STATUS")]
        {
            let call = Net::new(host, 1).call_for(&container).key("cniVersion", json!(version));
            refused(host, &call, command, 1, command);
        }
    });
}

/// A top-level key, a value that it must not have, and a word the refusal must have.
fn senseless() -> Vec<(&'static str, Value, &'static str)> {
    let ipam = |value: Value| {
        let mut ipam = json!({"type": "ripam"});
        for (key, value) in value.as_object().unwrap() {
            ipam[key] = value.clone();
        }
        ipam
    };
    let ports = |value: Value| json!({"portMappings": [value]});
    vec![
        ("bridge", json!(7), "bridge"),
        ("bridge", json!(["br1"]), "bridge"),
        ("isGateway", json!("yes"), "isGateway"),
        ("isDefaultGateway", json!(1), "isDefaultGateway"),
        ("ipMasq", json!("true"), "ipMasq"),
        ("icc", json!("no"), "icc"),
        ("isolation", json!({}), "isolation"),
        ("internal", json!("x"), "internal"),
        ("antiSpoofing", json!("off"), "antiSpoofing"),
        ("mtu", json!("1500"), "mtu"),
        ("mtu", json!(-1), "mtu"),
        ("mtu", json!(1), "mtu"),
        ("mtu", json!(67), "mtu"),
        ("mtu", json!(65_536), "mtu"),
        ("mtu", json!(4_294_967_296_u64), "mtu"),
        ("mtu", json!(1500.5), "mtu"),
        ("vlan", json!(4095), "4095"),
        ("vlan", json!(-1), "vlan"),
        ("vlan", json!(70_000), "vlan"),
        ("vlanTrunk", json!([{"minID": 20, "maxID": 10}]), "minID"),
        ("vlanTrunk", json!([{"id": 5000}]), "5000"),
        ("vlanTrunk", json!([{}]), "vlanTrunk"),
        ("vlanTrunk", json!("all"), "vlanTrunk"),
        ("ipam", json!("ripam"), "ipam"),
        ("ipam", json!({"type": 7}), "type"),
        ("ipam", ipam(json!({})), ""),
        ("ipam", ipam(json!({"ranges": []})), ""),
        ("ipam", ipam(json!({"ranges": [[]]})), "range"),
        ("ipam", ipam(json!({"ranges": "all"})), "ranges"),
        ("ipam", ipam(json!({"subnet": "x"})), "x"),
        ("ipam", ipam(json!({"subnet": "10.80.1.0"})), "10.80.1.0"),
        ("ipam", ipam(json!({"subnet": "10.80.1.0/33"})), "10.80.1.0/33"),
        ("ipam", ipam(json!({"subnet": "10.80.1.7/24"})), "host bits"),
        ("ipam", ipam(json!({"subnet": "10.80.1.0/31"})), "too small"),
        ("ipam", ipam(json!({"subnet": "10.80.1.0/32"})), "too small"),
        ("ipam", ipam(json!({"subnet": "fd00:80:1::/128"})), "too small"),
        ("ipam", ipam(json!({"subnet": "10.80.1.0/24", "rangeStart": "10.99.0.1"})), "10.99.0.1"),
        ("ipam", ipam(json!({"subnet": "10.80.1.0/24", "rangeEnd": "10.99.0.1"})), "10.99.0.1"),
        (
            "ipam",
            ipam(json!({"subnet": "10.80.1.0/24", "rangeStart": "10.80.1.9", "rangeEnd": "10.80.1.3"})),
            "10.80.1.3",
        ),
        ("ipam", ipam(json!({"subnet": "10.80.1.0/24", "rangeStart": "fd00::1"})), "fd00::1"),
        ("ipam", ipam(json!({"subnet": "10.80.1.0/24", "gateway": "nowhere"})), "nowhere"),
        (
            "ipam",
            ipam(json!({"ranges": [[{"subnet": "10.80.1.0/24"}, {"subnet": "10.80.1.128/25"}]]})),
            "overlap",
        ),
        (
            "ipam",
            ipam(json!({"ranges": [[{"subnet": "10.80.1.0/24"}], [{"subnet": "10.80.0.0/16"}]]})),
            "overlap",
        ),
        ("ipam", ipam(json!({"ranges": [[{"subnet": "10.80.1.0/24"}, {"subnet": "fd00::/64"}]]})), "mixed"),
        ("ipam", ipam(json!({"subnet": "10.80.1.0/24", "routes": [{"dst": "everywhere"}]})), "everywhere"),
        ("ipam", ipam(json!({"subnet": "10.80.1.0/24", "routes": [{"dst": "0.0.0.0/0", "gw": "x"}]})), "x"),
        ("runtimeConfig", ports(json!({"hostPort": 0, "containerPort": 80})), "host port"),
        ("runtimeConfig", ports(json!({"hostPort": 8080})), "container port"),
        ("runtimeConfig", ports(json!({"hostPort": 8080, "containerPort": 0})), "container port"),
        ("runtimeConfig", ports(json!({"hostPort": 65_536, "containerPort": 80})), "65536"),
        ("runtimeConfig", ports(json!({"hostPort": -1, "containerPort": 80})), "-1"),
        ("runtimeConfig", ports(json!({"hostPort": "8080", "containerPort": 80})), "portMappings"),
        ("runtimeConfig", ports(json!({"hostPort": 8080, "containerPort": 80, "protocol": "icmp"})), "icmp"),
        (
            "runtimeConfig",
            ports(json!({"hostPort": 8080, "containerPort": 80, "protocol": "tcp;drop"})),
            "tcp;drop",
        ),
        (
            "runtimeConfig",
            ports(json!({"hostPort": 8080, "containerPort": 80, "hostIP": "localhost"})),
            "localhost",
        ),
        (
            "runtimeConfig",
            ports(json!({"hostPort": 8080, "containerPort": 80, "hostIP": "10.0.0.0/8"})),
            "10.0.0.0/8",
        ),
        ("runtimeConfig", json!({"portMappings": {"8080": 80}}), "portMappings"),
        ("runtimeConfig", json!({"mac": "02:00:00:00:00"}), "mac"),
        ("runtimeConfig", json!({"ips": ["10.80.1.300"]}), "10.80.1.300"),
        ("runtimeConfig", json!({"bandwidth": {"ingressRate": -1}}), "bandwidth"),
        ("runtimeConfig", json!({"bandwidth": {"ingressRate": 1000}}), "Burst"),
        ("runtimeConfig", json!({"ipRanges": [[{"subnet": "x"}]]}), "x"),
        ("runtimeConfig", json!([]), "runtimeConfig"),
        ("prevResult", json!("x"), "prevResult"),
        ("prevResult", json!({"ips": [{"address": "x"}]}), "x"),
        ("dns", json!("8.8.8.8"), "dns"),
        ("args", json!({"cni": {"ips": "10.80.1.3"}}), "ips"),
        ("args", json!({"cni": {"mac": "x"}}), "mac"),
    ]
}

#[test]
fn values_that_make_no_sense_are_named() {
    berth_test(|host| {
        let container = host.container("a");
        let before = Snapshot::of(host);
        let mut wrong = Vec::new();
        for (key, value, word) in senseless() {
            let ran = Net::new(host, 1).call_for(&container).key(key, value.clone()).add();
            if ran.succeeded() {
                wrong.push(format!("{key}: {value} was accepted"));
                Net::new(host, 1).call_for(&container).del().ok();
                continue;
            }
            let error = ran.err();
            if error.code != 7 || !error.to_string().to_lowercase().contains(&word.to_lowercase()) {
                wrong.push(format!("{key}: {value}: {error}, expected code 7 and `{word}`"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        before.assert_same(&Snapshot::of(host));
    });
}

#[test]
fn keys_that_exclude_each_other_are_refused() {
    berth_test(|host| {
        let container = host.container("a");
        let net = Net::new(host, 1).with("hairpinMode", json!(true)).with("promiscMode", json!(true));
        refused(host, &net.call_for(&container), "ADD", 7, "hairpin and promiscuous");
        let net = Net::new(host, 1).with("disableContainerInterface", json!(true));
        refused(host, &net.call_for(&container), "ADD", 7, "no interface but addresses");
    });
}

/// The kernel of the machine may be without it.
#[test]
fn vlans_work_or_are_refused_by_name() {
    berth_test(|host| {
        let container = host.container("a");
        let before = Snapshot::of(host);
        let call = Net::new(host, 1).with("vlan", json!(100)).call_for(&container);
        let ran = call.add();
        if ran.succeeded() {
            call.del().ok();
            return;
        }
        let error = ran.err();
        assert_eq!(error.code, 2, "{error}");
        assert!(error.to_string().contains("VLAN_FILTERING"), "{error}");
        before.assert_same(&Snapshot::of(host));
    });
}

#[test]
fn a_configuration_without_a_name_is_refused() {
    berth_test(|host| {
        let container = host.container("a");
        for conf in [
            json!({"cniVersion": "1.0.0", "type": "rbridge"}),
            json!({"cniVersion": "1.0.0", "type": "rbridge", "name": ""}),
            json!({"cniVersion": "1.0.0", "type": "rbridge", "name": null}),
        ] {
            let call = host.cni().exact("rbridge", conf.clone()).container(&container);
            refused(host, &call, "ADD", 7, &conf.to_string());
        }
    });
}

/// A DEL is for cleaning up: what only an ADD needs may be damaged.
#[test]
fn a_del_with_a_damaged_configuration_still_takes_the_attachment_away() {
    berth_test(|host| {
        for (key, value) in [
            ("mtu", json!(1)),
            ("vlan", json!(5000)),
            ("ipam", json!({"type": "ripam", "subnet": "nonsense"})),
            ("ipam", json!({})),
            ("runtimeConfig", json!({"portMappings": [{"hostPort": 0}]})),
            ("prevResult", json!({"ips": "?"})),
        ] {
            let before = Snapshot::of(host);
            let container = host.container("a");
            let call = Net::new(host, 1).call_for(&container);
            call.add().ok();
            call.clone().key(key, value.clone()).del().ok();
            drop(container);
            crate::common::assert_as_before(host, &before);
        }
    });
}
