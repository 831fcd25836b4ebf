//! `rportmap` behind another main plugin.

use std::net::SocketAddr;
use std::time::Duration;

use berth_integration::{Cni, ConfList, Host, Probe, Snapshot};
use serde_json::{Value, json};

use crate::common::{assert_as_before, berth_lan_test};

const SILENCE: Duration = Duration::from_millis(300);

/// A list of `main` and `rportmap`, with one TCP port published.
fn chain(host: &Host, main: Value) -> ConfList<'_> {
    // The reference plugins and berth's in one directory, as on a node.
    let plugins = host.dir().join("cni-bin");
    let _ = host.cni();
    for name in ["bridge", "ptp", "host-local"] {
        let link = plugins.join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(format!("/usr/lib/cni/{name}"), link).unwrap();
        }
    }
    Cni::of(host, plugins)
        .list(json!({"name": "n1", "plugins": [
            main, {"type": "rportmap", "capabilities": {"portMappings": true}}]}))
        .capability("portMappings", json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]))
}

fn ranges(host: &Host, kind: &str) -> Value {
    json!({"type": kind, "dataDir": host.dir().join("leases").to_str().unwrap(), "ranges": [
        [{"subnet": "10.80.1.0/24"}], [{"subnet": "fd00:80:1::/64"}]]})
}

fn reached_everywhere(host: &Host, main: impl Fn(&Host) -> Value) {
    let list = chain(host, main(host));
    let (a, b) = (host.container("a"), host.container("b"));
    list.add(&a, "a", "eth0").unwrap();
    let _a = a.serve_tcp(80, "a");
    host.probe(&Probe::tcp("127.0.0.1:8080").times(3)).all_from("a");
    host.probe(&Probe::tcp("192.0.2.2:8080").times(3)).all_from("a");
    a.probe(&Probe::tcp("192.0.2.2:8080").times(3)).all_from("a");
    list.check(&a, "a", "eth0").unwrap();
    list.del(Some(&a), "a", "eth0").unwrap();
    drop(b);
}

fn bridge(host: &Host) -> Value {
    // As the reference asks for where a container is to reach itself.
    json!({"type": "bridge", "bridge": "br1", "isDefaultGateway": true, "hairpinMode": true, "ipam": ranges(host, "host-local")})
}

fn rbridge(host: &Host) -> Value {
    json!({"type": "rbridge", "bridge": "br1", "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true, "ipam": ranges(host, "ripam")})
}

fn ptp(host: &Host) -> Value {
    // Without these its container knows the way to its gateway only.
    let mut ipam = ranges(host, "host-local");
    ipam["routes"] = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
    json!({"type": "ptp", "ipam": ipam})
}

#[test]
fn a_port_behind_the_reference_bridge_is_reached_and_taken_back() {
    berth_lan_test(|host, _, _| {
        let before = Snapshot::of(host);
        reached_everywhere(host, bridge);
        // The reference never removes its bridge.
        host.run("ip link del br1");
        assert_as_before(host, &before);
    });
}

#[test]
fn a_port_behind_the_reference_ptp_is_reached_and_taken_back() {
    berth_lan_test(|host, _, _| {
        let before = Snapshot::of(host);
        let list = chain(host, ptp(host));
        let a = host.container("a");
        list.add(&a, "a", "eth0").unwrap();
        let _a = a.serve_tcp(80, "a");
        host.probe(&Probe::tcp("192.0.2.2:8080").times(3)).all_from("a");
        list.del(Some(&a), "a", "eth0").unwrap();
        drop(a);
        assert_as_before(host, &before);
    });
}

#[test]
fn a_port_behind_rbridge_is_reached_and_taken_back() {
    berth_lan_test(|host, _, _| {
        let before = Snapshot::of(host);
        reached_everywhere(host, rbridge);
        assert_as_before(host, &before);
    });
}

#[test]
fn the_lan_reaches_a_port_behind_any_main_plugin_and_only_the_port() {
    for (main, name) in [(rbridge as fn(&Host) -> Value, "rbridge"), (bridge, "bridge")] {
        berth_lan_test(|host, lan, seat| {
            let list = chain(host, main(host));
            let a = host.container("a");
            list.add(&a, "a", "eth0").unwrap();
            let server = a.serve_tcp(80, "a");
            for to in [SocketAddr::new(seat.v4.into(), 8080), SocketAddr::new(seat.v6.into(), 8080)] {
                // The reference's bridge looks for duplicates of its own address first.
                lan.reach(&Probe::tcp(to));
                let seen = lan.probe(&Probe::tcp(to).times(3)).all_from("a");
                assert!(seen.iter().all(|reply| reply.seen_as.unwrap().ip() != seat.v4), "{name}: {seen:?}");
            }
            drop(server);
            list.del(Some(&a), "a", "eth0").unwrap();
            lan.probe(&Probe::tcp(SocketAddr::new(seat.v4.into(), 8080)).timeout(SILENCE)).none();
            if name == "bridge" {
                host.run("ip link del br1");
            }
        });
    }
}

#[test]
fn del_behind_another_plugin_needs_neither_namespace_nor_result() {
    berth_lan_test(|host, _, _| {
        let before = Snapshot::of(host);
        let list = chain(host, rbridge(host));
        let a = host.container("a");
        list.add(&a, "a", "eth0").unwrap();
        a.remove();
        let _ = std::fs::remove_dir_all(host.dir().join("cni-cache"));
        list.del(None, "a", "eth0").unwrap();
        assert_as_before(host, &before);
    });
}

#[test]
fn rportmap_alone_is_refused() {
    berth_lan_test(|host, _, _| {
        let a = host.container("a");
        let ports = json!({"portMappings": [{"hostPort": 8080, "containerPort": 80}]});
        let call = host.cni().conf(json!({"type": "rportmap", "runtimeConfig": ports})).container(&a);
        assert_eq!(call.add().err().code, 7);
    });
}
