//! The inputs. Each is what somebody has in `/etc/cni/net.d`.

use serde_json::{Value, json};

use crate::Case;

fn bridge(more: Value) -> Value {
    let mut plugin = json!({
        "type": "bridge",
        "bridge": "cni0",
        "ipam": {"type": "host-local", "subnet": "10.60.0.0/24"},
    });
    for (key, value) in more.as_object().unwrap() {
        plugin[key] = value.clone();
    }
    plugin
}

fn ports() -> Value {
    json!([
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 8053, "containerPort": 53, "protocol": "udp", "hostIP": "192.0.2.2"},
    ])
}

#[test]
fn a_bridge_and_nothing_said() {
    Case::new(json!([bridge(json!({}))])).agrees();
}

#[test]
fn a_gateway() {
    Case::new(json!([bridge(json!({"isGateway": true, "ipMasq": true}))])).agrees();
}

#[test]
fn a_default_gateway() {
    Case::new(json!([bridge(json!({"isDefaultGateway": true, "ipMasq": true, "hairpinMode": true}))]))
        .agrees();
}

#[test]
fn every_version_of_the_specification() {
    for version in ["0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"] {
        let list = json!([bridge(json!({"isDefaultGateway": true, "dns": {"nameservers": ["192.0.2.53"]}}))]);
        Case::new(list).version(version).agrees();
    }
}

#[test]
fn both_families_with_routes() {
    let ipam = json!({
        "type": "host-local",
        "ranges": [[{"subnet": "10.60.0.0/24"}], [{"subnet": "fd00:60::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": "203.0.113.0/24", "gw": "10.60.0.9"}],
    });
    Case::new(json!([bridge(json!({"isGateway": true, "ipam": ipam}))])).agrees();
}

#[test]
fn both_families_and_a_default_gateway() {
    let ipam =
        json!({"type": "host-local", "ranges": [[{"subnet": "10.60.0.0/24"}], [{"subnet": "fd00:60::/64"}]]});
    Case::new(json!([bridge(json!({"isDefaultGateway": true, "ipam": ipam}))])).agrees();
}

#[test]
fn a_range_in_a_subnet() {
    let ipam = json!({
        "type": "host-local",
        "subnet": "10.60.0.0/16",
        "rangeStart": "10.60.5.10",
        "rangeEnd": "10.60.5.12",
        "gateway": "10.60.255.254",
    });
    Case::new(json!([bridge(json!({"isGateway": true, "ipam": ipam}))])).agrees();
}

#[test]
fn several_ranges_of_one_family() {
    let ipam = json!({
        "type": "host-local",
        "ranges": [[{"subnet": "10.60.0.0/30"}, {"subnet": "10.61.0.0/24"}]],
    });
    Case::new(json!([bridge(json!({"isGateway": true, "ipam": ipam, "forceAddress": true}))])).agrees();
}

#[test]
fn an_exhausted_range() {
    let ipam = json!({"type": "host-local", "subnet": "10.60.0.0/30"});
    Case::new(json!([bridge(json!({"isGateway": true, "ipam": ipam}))])).agrees();
}

#[test]
fn a_subnet_too_small() {
    let ipam = json!({"type": "host-local", "subnet": "10.60.0.0/31"});
    let refused = json!([bridge(json!({"isGateway": true, "ipam": ipam}))]);
    Case::new(refused).is_refused();
}

#[test]
fn layer_two_only() {
    Case::new(json!([{"type": "bridge", "bridge": "cni0", "ipam": {}}])).version("0.3.1").agrees();
}

#[test]
fn mtu_and_promiscuity() {
    Case::new(json!([bridge(json!({"isGateway": true, "mtu": 1400, "promiscMode": true}))])).agrees();
}

#[test]
fn an_interface_of_another_name() {
    Case::new(json!([bridge(json!({"isDefaultGateway": true}))])).ifname("net7").agrees();
}

#[test]
fn an_address_asked_for_in_the_arguments() {
    Case::new(json!([bridge(json!({"isGateway": true}))])).args("IgnoreUnknown=1;IP=10.60.0.77").agrees();
}

#[test]
fn an_address_asked_for_by_capability() {
    let list = json!([bridge(json!({"isGateway": true, "capabilities": {"ips": true}}))]);
    Case::new(list).capability("ips", json!(["10.60.0.78"])).agrees();
}

#[test]
fn an_address_asked_for_by_capability_with_its_prefix() {
    let list = json!([bridge(json!({"isGateway": true, "capabilities": {"ips": true}}))]);
    Case::new(list).capability("ips", json!(["10.60.0.78/24"])).agrees();
}

#[test]
fn an_address_outside_of_the_subnet() {
    Case::new(json!([bridge(json!({"isGateway": true}))])).args("IP=10.61.0.77").is_refused();
}

#[test]
fn the_gateways_address() {
    Case::new(json!([bridge(json!({"isGateway": true}))])).args("IP=10.60.0.1").is_refused();
}

#[test]
fn a_hardware_address_by_capability() {
    let list = json!([bridge(json!({"isGateway": true, "capabilities": {"mac": true}}))]);
    Case::new(list).capability("mac", json!("02:42:0a:3c:00:07")).agrees();
}

#[test]
fn a_hardware_address_in_the_arguments() {
    Case::new(json!([bridge(json!({"isGateway": true}))]))
        .args("IgnoreUnknown=1;MAC=02:42:0a:3c:00:08")
        .agrees();
}

#[test]
fn ranges_by_capability() {
    let list = json!([bridge(json!({
        "isGateway": true,
        "ipam": {"type": "host-local"},
        "capabilities": {"ipRanges": true},
    }))]);
    Case::new(list).capability("ipRanges", json!([[{"subnet": "10.62.0.0/24"}]])).agrees();
}

#[test]
fn names_of_the_list_and_of_the_ipam() {
    let dns = json!({"nameservers": ["192.0.2.53"], "domain": "a.test", "search": ["b.test"], "options": ["ndots:2"]});
    Case::new(json!([bridge(json!({"isGateway": true, "dns": dns}))])).agrees();
}

#[test]
fn published_ports() {
    let list = json!([
        bridge(json!({"isDefaultGateway": true, "ipMasq": true})),
        {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true},
    ]);
    let one = Case::new(list).capability("portMappings", ports());
    one.only_first().agrees();
}

#[test]
fn published_ports_in_gos_spelling() {
    let list = json!([
        bridge(json!({"isDefaultGateway": true})),
        {"type": "portmap", "capabilities": {"portMappings": true}},
    ]);
    let mapping = json!([{"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}]);
    Case::new(list).capability("portMappings", mapping).only_first().agrees();
}

#[test]
fn podmans_chain() {
    let list = json!([
        bridge(json!({
            "isGateway": true,
            "ipMasq": true,
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "routes": [{"dst": "0.0.0.0/0"}],
                "ranges": [[{"subnet": "10.60.0.0/24", "gateway": "10.60.0.1"}]],
            },
            "capabilities": {"ips": true},
        })),
        {"type": "portmap", "capabilities": {"portMappings": true}},
        {"type": "firewall", "backend": ""},
        {"type": "tuning"},
    ]);
    Case::new(list).version("0.4.0").capability("portMappings", ports()).only_first().agrees();
}

#[test]
fn tuning_after_a_bridge() {
    let list = json!([
        bridge(json!({"isGateway": true})),
        {"type": "tuning", "mtu": 1300, "mac": "02:42:0a:3c:00:09", "sysctl": {"net.core.somaxconn": "500"}},
    ]);
    Case::new(list).only_first().agrees();
}

#[test]
fn bandwidth_after_a_bridge() {
    let list = json!([
        bridge(json!({"isGateway": true})),
        {"type": "bandwidth", "ingressRate": 8_000_000, "ingressBurst": 800_000},
    ]);
    Case::new(list).agrees();
}

#[test]
fn a_point_to_point_link_with_host_local_and_ports() {
    let list = json!([
        {
            "type": "ptp",
            "ipMasq": false,
            "ipam": {"type": "host-local", "subnet": "10.60.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]},
        },
        {"type": "portmap", "capabilities": {"portMappings": true}},
    ]);
    Case::new(list).capability("portMappings", ports()).only_first().agrees();
}

#[test]
fn macvlan_with_host_local() {
    let list = json!([{
        "type": "macvlan",
        "master": "up0",
        "ipam": {"type": "host-local", "subnet": "10.60.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]},
    }]);
    Case::new(list).agrees();
}

#[test]
fn a_bridge_with_static_addresses() {
    let ipam = json!({
        "type": "static",
        "addresses": [{"address": "10.60.0.40/24", "gateway": "10.60.0.1"}, {"address": "fd00:60::40/64"}],
        "routes": [{"dst": "0.0.0.0/0"}],
    });
    Case::new(json!([bridge(json!({"isGateway": true, "ipam": ipam}))])).only_first().agrees();
}

#[test]
fn loopback() {
    Case::new(json!([{"type": "loopback"}])).ifname("lo").agrees();
}

#[test]
fn loopback_as_containerd_has_it() {
    Case::new(json!([{"type": "loopback"}])).version("0.3.1").ifname("lo").agrees();
}

#[test]
fn an_unknown_ipam_plugin() {
    let list = json!([bridge(json!({"ipam": {"type": "no-such-plugin"}}))]);
    Case::new(list).is_refused();
}
