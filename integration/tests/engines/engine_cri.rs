//! containerd's side of Kubernetes: sandboxes with host ports. Two networks are attached at once, `lo` and `eth0`, and port
//! mappings come with keys in Go's spelling.

use std::net::IpAddr;
use std::time::Duration;

use berth_integration::engine::{Containerd, Suite, answer, engine_test, no_answer};
use berth_integration::{Host, eventually};
use serde_json::{Value, json};

use crate::cri::{
    Cri, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceOption, PodSandboxConfig,
    PodSandboxMetadata, PortMapping,
};

const PROGRAMS: [&str; 4] = ["containerd", "ctr", "runc", "busybox"];

/// A runtime and a kubelet's connection to it.
struct Node<'h> {
    host: &'h Host,
    containerd: Containerd<'h>,
    cri: Cri,
}

fn cri_test(list: Value, test: impl FnOnce(&mut Node<'_>)) {
    engine_test(&PROGRAMS, |host| {
        let containerd = Containerd::new(host, Suite::chosen(), &list);
        let cri = Cri::new(&containerd.socket());
        let mut node = Node { host, containerd, cri };
        node.ready();
        test(&mut node);
    });
}

/// A list for the reference plugins, as kubeadm's pages have it.
fn reference_list() -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "ipMasq": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": "10.85.0.0/24"}], [{"subnet": "fd00:85::/64"}]],
                    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
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

impl Node<'_> {
    fn ready(&self) {
        eventually(Duration::from_secs(10), || match self.cri.network_complaint() {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }

    fn pod(&self, name: &str, ports: &[(i32, i32)]) -> PodSandboxConfig {
        let mapping = |(host_port, container_port): &(i32, i32)| PortMapping {
            protocol: 0,
            container_port: *container_port,
            host_port: *host_port,
            host_ip: String::new(),
        };
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.to_owned(),
                uid: format!("uid-{name}"),
                namespace: "default".to_owned(),
                attempt: 0,
            }),
            hostname: name.to_owned(),
            port_mappings: ports.iter().map(mapping).collect(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("/{}", self.containerd.cgroup().name()),
                security_context: None,
            }),
            ..PodSandboxConfig::default()
        }
    }

    fn run(&self, name: &str, ports: &[(i32, i32)]) -> String {
        self.cri.run(&self.pod(name, ports)).unwrap()
    }

    fn end(&self, id: &str) {
        self.cri.stop(id).unwrap();
        self.cri.remove(id).unwrap();
    }
}

fn sandbox_comes_and_goes(node: &mut Node<'_>) {
    let id = node.run("a", &[(8080, 80)]);
    let addresses = node.cri.addresses(&id).unwrap();
    assert_eq!(addresses.first(), Some(&"10.85.0.2".parse::<IpAddr>().unwrap()));
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    assert!(addresses[1].is_ipv6(), "{addresses:?}");
    assert_eq!(answer(node.host, "10.85.0.2:80"), "a");
    assert_eq!(answer(node.host, format!("[{}]:80", addresses[1])), "a");
    assert_eq!(answer(node.host, "192.0.2.2:8080"), "a");
    assert_eq!(answer(node.host, "127.0.0.1:8080"), "a");
    node.cri.stop(&id).unwrap();
    no_answer(node.host, "192.0.2.2:8080");
    // A kubelet stops what it is not sure to have stopped.
    node.cri.stop(&id).unwrap();
    node.cri.remove(&id).unwrap();
    node.cri.remove(&id).unwrap();
}

#[test]
fn a_sandbox_with_a_host_port_comes_and_goes() {
    cri_test(own_list(), sandbox_comes_and_goes);
}

#[test]
fn a_sandbox_of_a_reference_list_comes_and_goes() {
    cri_test(reference_list(), sandbox_comes_and_goes);
}

#[test]
fn loopback_is_up_in_a_sandbox() {
    cri_test(own_list(), |node| {
        let id = node.run("a", &[]);
        let names = node.host.run("ls /run/netns");
        let inside = node.host.json(&format!("ip -n {} -j address", names.trim()));
        let lo = inside.as_array().unwrap().iter().find(|link| link["ifname"] == "lo").unwrap();
        assert!(lo["flags"].to_string().contains("UP"), "{lo}");
        assert!(lo["addr_info"].to_string().contains("127.0.0.1"), "{lo}");
        node.end(&id);
    });
}

#[test]
fn sandboxes_reach_each_other_and_the_host() {
    cri_test(own_list(), |node| {
        let (a, b) = (node.run("a", &[]), node.run("b", &[]));
        let to = node.cri.addresses(&b).unwrap()[0];
        let netns = node.host.run("ls /run/netns");
        for name in netns.lines() {
            for target in [to.to_string(), "192.0.2.2".to_owned()] {
                let ping = format!("ip netns exec {name} ping -n -c 1 -W 1 {target}");
                assert!(node.host.line(&ping).output().status.success(), "{name} does not reach {target}");
            }
        }
        node.end(&a);
        node.end(&b);
    });
}

#[test]
fn a_host_port_that_is_taken_is_refused_with_its_holder() {
    cri_test(own_list(), |node| {
        if Suite::chosen() == Suite::Reference {
            // The reference lets both succeed.
            return;
        }
        let a = node.run("a", &[(8080, 80)]);
        let refused = node.cri.run(&node.pod("b", &[(8080, 80)])).unwrap_err();
        assert!(refused.message().contains("8080"), "{refused}");
        assert!(refused.message().contains(&a[..12]), "the holder {a} is not named: {refused}");
        assert_eq!(answer(node.host, "192.0.2.2:8080"), "a");
        node.end(&a);
        let b = node.run("b", &[(8080, 80)]);
        assert_eq!(answer(node.host, "192.0.2.2:8080"), "b");
        node.end(&b);
    });
}

#[test]
fn a_sandbox_outlives_a_crash_of_the_runtime_and_is_removed_after_it() {
    cri_test(own_list(), |node| {
        let id = node.run("a", &[(8080, 80)]);
        node.containerd.crash();
        assert_eq!(answer(node.host, "192.0.2.2:8080"), "a");
        node.containerd.start();
        node.ready();
        assert_eq!(answer(node.host, "192.0.2.2:8080"), "a");
        node.end(&id);
    });
}

#[test]
fn a_sandbox_whose_processes_were_killed_is_removed_without_a_trace() {
    cri_test(own_list(), |node| {
        let id = node.run("a", &[(8080, 80)]);
        let processes = node.containerd.cgroup().processes();
        for pid in processes {
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        node.end(&id);
        no_answer(node.host, "192.0.2.2:8080");
    });
}

#[test]
fn a_sandbox_on_the_hosts_network_is_left_alone() {
    cri_test(own_list(), |node| {
        let mut pod = node.pod("a", &[]);
        // runc sets a host name only where the pod has one of its own.
        pod.hostname.clear();
        let options = NamespaceOption { network: 2 };
        pod.linux.as_mut().unwrap().security_context =
            Some(LinuxSandboxSecurityContext { namespace_options: Some(options) });
        let id = node.cri.run(&pod).unwrap();
        assert_eq!(
            node.host.run("ip -br link show type veth").lines().count(),
            2,
            "only the uplink is there"
        );
        node.end(&id);
    });
}

#[test]
fn rbridge_alone_publishes_and_shapes() {
    let mut list = own_list();
    match Suite::chosen() {
        Suite::Berth => {
            let mut bridge = list["plugins"][0].clone();
            bridge["capabilities"] = json!({"portMappings": true, "bandwidth": true});
            list["plugins"] = json!([bridge]);
        }
        Suite::Reference => {
            let plugins = list["plugins"].as_array_mut().unwrap();
            plugins.push(json!({"type": "bandwidth", "capabilities": {"bandwidth": true}}));
        }
    }
    cri_test(list, |node| {
        let mut pod = node.pod("a", &[(8080, 80)]);
        pod.annotations.insert("kubernetes.io/ingress-bandwidth".to_owned(), "8M".to_owned());
        pod.annotations.insert("kubernetes.io/egress-bandwidth".to_owned(), "4M".to_owned());
        let id = node.cri.run(&pod).unwrap();
        assert_eq!(answer(node.host, "192.0.2.2:8080"), "a");
        let shapers = node.host.run("tc qdisc show");
        for rate in ["rate 8Mbit", "rate 4Mbit"] {
            assert!(shapers.contains(rate), "{rate}: {shapers}");
        }
        node.end(&id);
        assert!(!node.host.run("tc qdisc show").contains("rate "), "shapers are left");
    });
}

#[test]
fn a_full_pool_refuses_and_the_next_sandbox_after_a_removal_fits() {
    let mut list = own_list();
    list["plugins"][0]["ipam"] =
        json!({"type": list["plugins"][0]["ipam"]["type"], "subnet": "10.85.0.0/30"});
    cri_test(list, |node| {
        let a = node.run("a", &[]);
        let refused = node.cri.run(&node.pod("b", &[])).unwrap_err();
        assert!(refused.message().contains("10.85.0."), "{refused}");
        node.end(&a);
        let b = node.run("b", &[]);
        assert_eq!(answer(node.host, "10.85.0.2:80"), "b");
        node.end(&b);
    });
}

#[test]
fn sandboxes_started_at_once_get_different_addresses() {
    cri_test(own_list(), |node| {
        let socket = node.containerd.socket();
        let pods: Vec<_> = (0..6).map(|i| node.pod(&format!("p{i}"), &[(9000 + i, 80)])).collect();
        let ids: Vec<_> = std::thread::scope(|scope| {
            let start = |pod| {
                let socket = &socket;
                scope.spawn(move || Cri::new(socket).run(pod).unwrap())
            };
            let starting: Vec<_> = pods.iter().map(start).collect();
            starting.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let mut addresses: Vec<_> = ids.iter().map(|id| node.cri.addresses(id).unwrap()[0]).collect();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), ids.len());
        for i in 0..6 {
            assert_eq!(answer(node.host, format!("192.0.2.2:{}", 9000 + i)), format!("p{i}"));
        }
        for id in &ids {
            node.end(id);
        }
    });
}
