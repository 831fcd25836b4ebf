//! Real engines on one network of several hosts: podman on one, containerd's `ctr` on another.

use berth_integration::engine::{Berthd, Containerd, Podman, Suite, answer, berth, engine_test, no_answer};
use berth_integration::{Host, Lan, eventually};
use serde_json::{Value, json};

use crate::control::etcd::Etcd;
use crate::stage::SOON;

const PODMAN: [&str; 4] = ["podman", "conmon", "runc", "busybox"];
const CTR: [&str; 4] = ["containerd", "ctr", "runc", "busybox"];

/// The network `blue` for an engine; `ctr` says nothing of names, so that its list does.
fn list(aliases: &[&str]) -> Value {
    let mut plugin = json!({"type": "roverlay", "capabilities": {"portMappings": true}});
    if !aliases.is_empty() {
        plugin = json!({"type": "roverlay", "runtimeConfig": {"aliases": aliases}});
    }
    json!({"cniVersion": "1.0.0", "name": "blue", "plugins": [plugin]})
}

/// An agent on `host` that has joined, with its records where engines' plugins keep them.
fn joined<'h>(host: &'h Host, endpoint: &str, name: &str) -> Berthd<'h> {
    let daemon = Berthd::new(host, &["--roles", "overlay,dns"]);
    berth(host, ["node", "join", "--etcd", &format!("http://{endpoint}"), "--name", name]).run();
    eventually(SOON, || {
        let ran = berth(host, ["overlay", "status", "--json"]).output();
        let status: Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
        if status["connected"] == true { Ok(()) } else { Err(format!("{name}: {status}")) }
    });
    daemon
}

fn left(host: &Host, mut daemon: Berthd<'_>) {
    berth(host, ["node", "leave"]).run();
    daemon.stop();
}

#[test]
fn podman_and_ctr_are_on_one_network_of_two_hosts() {
    if Suite::chosen() == Suite::Reference {
        // The reference has no overlay.
        return;
    }
    engine_test(&PODMAN, |one| {
        engine_test(&CTR, |two| {
            let lan = Lan::new();
            let (seat, _) = (lan.join(one), lan.join(two));
            let etcd = Etcd::at(&lan, &Lan::V4.to_string());
            let daemons = [joined(one, &etcd.endpoint, "n1"), joined(two, &etcd.endpoint, "n2")];
            berth(one, ["network", "create", "-d", "overlay", "blue", "--subnet", "10.5.0.0/24"]).run();

            let podman = Podman::new(one, Suite::Berth);
            podman.write_network(&list(&[]));
            podman.start("web", "--network blue -p 8080:80");
            let containerd = Containerd::new(two, Suite::Berth, &list(&["db"]));
            let running = containerd.run("db");
            let address = podman.address("web", "blue").to_string();

            // By name, each from the other's host; podman has the resolver written down, `ctr` has not.
            assert_eq!(podman.fetch("web", "db"), "db");
            let said = eventually(SOON, || {
                let said = containerd.exec("db", "nslookup web 10.5.0.1");
                if said.contains(&address) { Ok(said) } else { Err(said) }
            });
            assert!(said.contains("web"), "{said}");
            assert_eq!(containerd.exec("db", &format!("wget -q -O - http://{address}/")), "web");
            // A published port, from another host and from the container on it.
            let published = format!("{}:8080", seat.v4);
            assert_eq!(answer(two, &published), "web");
            assert_eq!(containerd.exec("db", &format!("wget -q -O - http://{published}/")), "web");

            podman.run("rm -f -t 0 web");
            no_answer(two, &published);
            containerd.end("db", running);
            podman.assert_idle();
            drop((podman, containerd));
            for (host, daemon) in [one, two].into_iter().zip(daemons) {
                left(host, daemon);
            }
            drop(etcd);
        });
    });
}
