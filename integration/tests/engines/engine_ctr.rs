//! `ctr run --cni`: the plainest runtime. It deletes with an empty namespace path, and not at all when it is detached.

use std::time::Duration;

use berth_integration::engine::{Containerd, Suite, answer, berth, engine_test, no_answer};
use berth_integration::{Host, eventually};
use serde_json::{Value, json};

const PROGRAMS: [&str; 4] = ["containerd", "ctr", "runc", "busybox"];

fn ctr_test(list: Value, test: impl FnOnce(&Host, &Containerd<'_>)) {
    engine_test(&PROGRAMS, |host| {
        let containerd = Containerd::new(host, Suite::chosen(), &list);
        test(host, &containerd);
    });
}

/// A list for the reference plugins, as found on the web.
fn reference_list() -> Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "ctrnet",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "ipMasq": true,
                "ipam": {
                    "type": "host-local",
                    "subnet": "10.88.0.0/24",
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

/// The same with berth's own types.
fn own_list() -> Value {
    let mut list = reference_list();
    list["plugins"][0]["type"] = json!("rbridge");
    list["plugins"][0]["ipam"]["type"] = json!("ripam");
    list["plugins"][1]["type"] = json!("rportmap");
    Suite::chosen().list(list)
}

fn comes_and_goes(host: &Host, containerd: &Containerd<'_>) {
    let first = containerd.run("a");
    let second = containerd.run("b");
    let inside = containerd.exec("a", "ip addr show eth0");
    assert!(inside.contains("inet 10.88.0.2/24 "), "{inside}");
    assert!(containerd.exec("a", "ip route").starts_with("default via 10.88.0.1 dev eth0"));
    assert_eq!(answer(host, "10.88.0.2:80"), "a");
    assert_eq!(answer(host, "10.88.0.3:80"), "b");
    assert!(containerd.exec("a", "ping -c 1 -W 1 10.88.0.3").contains(" 0% packet loss"));
    containerd.end("a", first);
    no_answer(host, "10.88.0.2:80");
    assert_eq!(answer(host, "10.88.0.3:80"), "b");
    containerd.end("b", second);
}

#[test]
fn containers_of_a_reference_list_come_and_go() {
    ctr_test(reference_list(), comes_and_goes);
}

#[test]
fn containers_of_berths_own_types_come_and_go() {
    ctr_test(own_list(), comes_and_goes);
}

#[test]
fn a_deletion_without_a_namespace_leaves_nothing() {
    ctr_test(own_list(), |host, containerd| {
        let links = || host.run("ip -br link show type veth").lines().count();
        let before = links();
        let running = containerd.run("a");
        assert_eq!(links(), before + 1);
        containerd.end("a", running);
        // The reference leaves the link to the kernel, which is in no hurry.
        eventually(Duration::from_secs(5), || {
            if links() == before { Ok(()) } else { Err("a link is left".to_owned()) }
        });
        if Suite::chosen() == Suite::Berth {
            let left = host_json(host, &["ps", "--json"]);
            assert_eq!(left, json!([]));
        }
        // The address is free again: a pool of one address serves one container after the other.
        let mut list = own_list();
        list["plugins"][0]["ipam"]["subnet"] = json!("10.88.1.0/30");
        list["plugins"][0]["bridge"] = json!("cni1");
        list["name"] = json!("small");
        containerd.write_network(&list);
        for _ in 0..3 {
            let running = containerd.run("b");
            assert_eq!(answer(host, "10.88.1.2:80"), "b");
            containerd.end("b", running);
        }
    });
}

#[test]
fn what_a_detached_container_leaves_is_collected() {
    ctr_test(own_list(), |host, containerd| {
        containerd.run_detached("a");
        assert_eq!(answer(host, "10.88.0.2:80"), "a");
        // `ctr` forgets the container without a DEL.
        containerd.remove_detached("a");
        if Suite::chosen() == Suite::Berth {
            assert_eq!(host_json(host, &["ps", "--json"]).as_array().map(Vec::len), Some(1));
            berth(host, ["gc"]).run();
            assert_eq!(host_json(host, &["ps", "--json"]), json!([]));
        }
        // libcni's cached result stays, as nobody called DEL; the address is free.
        let running = containerd.run("b");
        containerd.end("b", running);
    });
}

#[test]
fn a_failing_attachment_starts_nothing_and_leaves_nothing() {
    let mut list = own_list();
    list["plugins"][0]["ipam"]["subnet"] = json!("10.88.0.0/33");
    ctr_test(list, |host, containerd| {
        let complaint = containerd.refuses("a");
        assert!(complaint.contains("10.88.0.0/33"), "{complaint}");
        if Suite::chosen() == Suite::Berth {
            assert_eq!(host_json(host, &["ps", "--json"]), json!([]));
        }
    });
}

fn host_json(host: &Host, args: &[&str]) -> Value {
    serde_json::from_str(&berth(host, args.iter().copied()).run()).unwrap()
}
