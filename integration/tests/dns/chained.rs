//! `rdns` behind other main plugins, and `dnsname`'s lists.

use berth_integration::{Cni, ConfList, Host, Snapshot};
use serde_json::{Value, json};

use crate::asking::dig;
use crate::common::{assert_as_before, berth_test};

/// The reference plugins and berth's in one directory, as on a node; berth's also as `dnsname`.
fn plugins(host: &Host) -> Cni<'_> {
    let plugins = host.cni().plugins().to_owned();
    for name in ["bridge", "host-local", "ptp"] {
        let link = plugins.join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(format!("/usr/lib/cni/{name}"), link).unwrap();
        }
    }
    let link = plugins.join("dnsname");
    if !link.exists() {
        std::os::unix::fs::symlink(berth_integration::berth_binary(), link).unwrap();
    }
    Cni::of(host, plugins)
}

fn main(host: &Host, kind: &str) -> Value {
    let ipam = match kind {
        "rbridge" => json!({"type": "ripam", "subnet": "10.80.1.0/24"}),
        _ => json!({"type": "host-local", "dataDir": host.dir().join("leases"), "subnet": "10.80.1.0/24"}),
    };
    // The reference would leave a table of rules behind if it masqueraded.
    json!({"type": kind, "bridge": "br1", "isGateway": true, "ipam": ipam})
}

fn list<'h>(host: &'h Host, plugins_of: &[Value], name: &str) -> ConfList<'h> {
    plugins(host)
        .list(json!({"cniVersion": "0.4.0", "name": "n1", "plugins": plugins_of}))
        .capability("aliases", json!({"n1": [format!("alias-of-{name}")]}))
        .capability("portMappings", json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]))
        .args(&format!("IgnoreUnknown=1;K8S_POD_NAME={name}"))
}

fn address(result: &Value) -> String {
    result["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap().to_owned()
}

/// Two containers of a list find each other, are checked, and leave nothing without anybody collecting.
fn find_each_other(host: &Host, chain: &[Value], domain: &str) -> Value {
    let gateway = std::net::Ipv4Addr::new(10, 80, 1, 1);
    let (web, db) = (host.container("web1"), host.container("db1"));
    // The port is the first one's.
    let without_ports: Vec<Value> = chain.iter().filter(|one| one["type"] != "rportmap").cloned().collect();
    let (of_web, of_db) = (list(host, chain, "web"), list(host, &without_ports, "db"));
    let result = of_web.add(&web, "web1", "eth0").unwrap();
    let other = of_db.add(&db, "db1", "eth0").unwrap();
    for name in ["web".to_owned(), "alias-of-web".to_owned(), format!("web.{domain}"), "web.n1".to_owned()] {
        assert_eq!(dig(&db, gateway, &format!("{name} A")), address(&result), "{name}");
    }
    assert_eq!(dig(&web, gateway, "db A"), address(&other));
    of_web.check(&web, "web1", "eth0").unwrap();
    of_db.check(&db, "db1", "eth0").unwrap();
    of_web.del(Some(&web), "web1", "eth0").unwrap();
    assert_eq!(dig(&db, gateway, "web A"), "NXDOMAIN");
    assert_eq!(dig(&db, gateway, "db A"), address(&other));
    of_db.del(Some(&db), "db1", "eth0").unwrap();
    result
}

fn nothing_is_left_behind_a_reference_bridge(host: &Host) {
    assert_eq!(host.processes(), [].into(), "the server goes with the last name");
    assert_eq!(host.berth(["network", "ls", "--json"]).run().trim(), "[]");
    // The reference never removes its bridge.
    host.run("ip link del br1");
    std::fs::remove_dir_all(host.dir().join("leases")).unwrap();
}

#[test]
fn names_behind_the_reference_bridge() {
    berth_test(|host| {
        let chain = [main(host, "bridge"), json!({"type": "rdns", "capabilities": {"aliases": true}})];
        let result = find_each_other(host, &chain, "berth.internal");
        assert_eq!(result["dns"]["nameservers"], json!(["10.80.1.1"]));
        nothing_is_left_behind_a_reference_bridge(host);
    });
}

#[test]
fn dnsnames_list_works_as_it_is() {
    berth_test(|host| {
        let dnsname = json!({"type": "dnsname", "domainName": "dns.podman", "multiDomain": true,
            "capabilities": {"aliases": true}});
        let result = find_each_other(host, &[main(host, "bridge"), dnsname], "dns.podman");
        assert_eq!(result["dns"]["search"], json!(["dns.podman"]));
        nothing_is_left_behind_a_reference_bridge(host);
    });
}

#[test]
fn ports_and_names_of_one_container_come_and_go_in_either_order() {
    berth_test(|host| {
        let before = Snapshot::of(host);
        let ports = json!({"type": "rportmap", "capabilities": {"portMappings": true}});
        let names = json!({"type": "rdns", "capabilities": {"aliases": true}});
        for main_plugin in ["bridge", "rbridge"] {
            for pair in [[ports.clone(), names.clone()], [names.clone(), ports.clone()]] {
                let [one, two] = pair;
                find_each_other(host, &[main(host, main_plugin), one, two], "berth.internal");
                host.gc();
                let _ = host.line("ip link del br1").output();
            }
        }
        std::fs::remove_dir_all(host.dir().join("leases")).unwrap();
        assert_as_before(host, &before);
    });
}

#[test]
fn a_gateway_that_is_no_bridges_address_is_refused_in_words() {
    berth_test(|host| {
        let ptp = json!({"type": "ptp", "ipam": {"type": "host-local", "dataDir": host.dir().join("leases"), "subnet": "10.80.1.0/24"}});
        let chain = list(host, &[ptp, json!({"type": "rdns"})], "web");
        let container = host.container("web1");
        let refused = chain.add(&container, "web1", "eth0").unwrap_err();
        assert!(refused.error.msg.contains("no bridge"), "{}", refused.error.msg);
        chain.del(Some(&container), "web1", "eth0").unwrap();
        std::fs::remove_dir_all(host.dir().join("leases")).unwrap();
    });
}

#[test]
fn what_a_runtime_no_longer_knows_loses_its_names() {
    berth_test(|host| {
        let chain = [main(host, "bridge"), json!({"type": "rdns"})];
        let web = host.container("web1");
        let of_web = list(host, &chain, "web");
        of_web.add(&web, "web1", "eth0").unwrap();
        let gc =
            json!({"cniVersion": "1.1.0", "name": "n1", "type": "rdns", "cni.dev/valid-attachments": []});
        plugins(host).conf(gc).run("GC").ok();
        assert_eq!(host.processes(), [].into());
        of_web.del(Some(&web), "web1", "eth0").unwrap();
        nothing_is_left_behind_a_reference_bridge(host);
    });
}
