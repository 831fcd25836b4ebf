//! Names inside containers of real engines.

use std::time::Duration;

use berth_integration::engine::{Containerd, Podman, Suite, berth, engine_test, stage_test};
use berth_integration::{Debian, eventually};
use serde_json::json;

use crate::asking::dig;

/// podman finds a plugin called `dnsname` and writes it into its networks.
#[test]
fn podmans_containers_find_each_other_by_name_and_alias() {
    engine_test(&["podman", "runc", "busybox", "conmon"], |host| {
        let podman = Podman::new(host, Suite::Berth);
        podman.run("network create --subnet 10.89.7.0/24 n1");
        assert!(podman.read_network("n1").to_string().contains("\"dnsname\""));
        podman.start("client", "--network n1");
        for _ in 0..5 {
            podman.start("web", "--network n1 --network-alias www");
            let addr = podman.address("web", "n1").to_string();
            for name in ["web", "www", "web.dns.podman"] {
                let found = podman.exec("client", &format!("nslookup {name} 10.89.7.1"));
                assert!(found.contains(&addr), "{name}: {found}");
            }
            assert_eq!(podman.fetch("client", "web"), "web", "as programs ask");
            podman.run("rm -f -t 0 web");
            assert_eq!(
                dig(&podman.place("client"), "10.89.7.1".parse::<std::net::IpAddr>().unwrap(), "web A"),
                "NXDOMAIN"
            );
        }
        podman.run("rm -f -t 0 client");
        podman.assert_idle();
    });
}

#[test]
fn ctrs_containers_are_found_by_the_number_containerd_gives_them() {
    let list = json!({"cniVersion": "1.0.0", "name": "ctrnet", "plugins": [
        {"type": "rbridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "embeddedDNS": true,
         "ipam": {"type": "ripam", "subnet": "10.88.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}}]});
    engine_test(&["containerd", "ctr", "runc", "busybox"], |host| {
        let containerd = Containerd::new(host, Suite::Berth, &list);
        let first = containerd.run("a");
        let second = containerd.run("b");
        let listed = berth(host, ["dns", "ls", "--json"]).run();
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        let first_one = listed.as_array().unwrap().iter().find(|one| one["value"] == "10.88.0.2").unwrap();
        let name = first_one["name"].as_str().unwrap();
        assert!(name.ends_with("-a"), "{listed}");
        let found = containerd.exec("b", &format!("nslookup {name} 10.88.0.1"));
        assert!(found.contains("10.88.0.2"), "{found}");
        containerd.end("a", first);
        let gone = dig(host, std::net::Ipv4Addr::new(10, 88, 0, 1), &format!("{name} A"));
        assert_eq!(gone, "NXDOMAIN");
        containerd.end("b", second);
    });
}

fn dockerd_asks_berth_for_the_rest(debian: Debian) {
    stage_test(debian, &[], |stage| {
        if !stage.is_berth() {
            return;
        }
        stage.types(
            "docker network create -d DRIVER --subnet 10.81.0.0/24 -o domain=lab.test app
             docker run -d --name web --network app --network-alias www --dns 10.81.0.1 busybox
             docker run -d --name client --network app --dns 10.81.0.1 busybox",
        );
        let docker = &stage.docker;
        let addr = docker.address("web", "app").to_string();
        // berth learns of names from Docker's events.
        eventually(Duration::from_secs(20), || {
            let found = docker.output("exec client nslookup web.lab.test 127.0.0.11");
            if found.stdout.contains(&addr) { Ok(()) } else { Err(found.to_string()) }
        });
        // Debian 13's host has no `dig`.
        let at_gateway = |name: &str| docker.output(&format!("exec client nslookup {name} 10.81.0.1")).stdout;
        for name in ["web", "www", "web.app", "www.lab.test"] {
            let found = at_gateway(name);
            assert!(found.contains(&addr), "{name}: {found}");
        }
        assert_eq!(
            docker.exec("client", "nslookup web 127.0.0.11").matches(&addr).count(),
            1,
            "dockerd's own"
        );
        stage.types("docker rm -f web");
        let gone = at_gateway("web");
        assert!(gone.contains("NXDOMAIN"), "{gone}");
        stage.types(
            "docker rm -f client
             docker network rm app",
        );
    });
}

#[test]
fn docker_20_10_asks_berth_for_the_rest() {
    dockerd_asks_berth_for_the_rest(Debian::V12);
}

#[test]
fn docker_26_1_asks_berth_for_the_rest() {
    dockerd_asks_berth_for_the_rest(Debian::V13);
}
