//! The test kit itself: private hosts are private, cheap, and gone afterwards.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use berth_integration::{
    Cni, Container, Fault, Host, Lan, Machine, Probe, Snapshot, eventually, frame, host_test, lan_test, sweep,
};
use serde_json::json;

/// Joins a container to its host without any plugin: 10.80.0.2/24, gateway 10.80.0.1 on the host's `veth0`.
fn wire(host: &Host, container: &Container<'_>) {
    host.batch(&format!(
        "link add veth0 type veth peer name eth0 netns {}
         address add 10.80.0.1/24 dev veth0
         link set veth0 up",
        container.name()
    ));
    container.run("ip address add 10.80.0.2/24 dev eth0");
    container.run("ip link set eth0 up");
    container.run("ip route add default via 10.80.0.1");
}

#[test]
fn a_host_has_an_uplink_a_route_and_no_forwarding() {
    host_test(|host| {
        let links = host.json("ip -j link show");
        let names: Vec<_> =
            links.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap()).collect();
        assert!(["lo", "up0", "up1"].iter().all(|name| names.contains(name)), "{names:?}");
        assert!(host.run("ip route").starts_with("default via 192.0.2.1 dev up0"));
        assert_eq!(host.sysctl("net.ipv4.ip_forward"), "0");
        assert!(host.run("ls /sys/class/net").contains("up0"));
    });
}

/// The best of ten, which depends little on what else the machine does.
fn best(mut work: impl FnMut()) -> Duration {
    let mut cost = || {
        let started = Instant::now();
        work();
        started.elapsed()
    };
    (0..10).map(|_| cost()).min().expect("ten of them")
}

#[test]
fn a_host_costs_no_more_than_a_few_processes() {
    let host = Host::new();
    let process = best(|| drop(host.run("ip -j link show")));
    let another = best(|| drop(Host::new()));
    assert!(another < process * 20, "a host took {another:?}, and running `ip` {process:?}");
}

#[test]
fn files_written_in_a_host_are_not_on_the_machine() {
    host_test(|host| {
        let before = Snapshot::of(host);
        for file in ["/etc/berth-test", "/var/lib/berth-test", "/run/berth-test"] {
            host.run(&format!("touch {file}"));
            assert!(!Path::new(file).exists());
        }
        let seen = before.difference(&Snapshot::of(host));
        assert_eq!(seen.lines().count(), 3, "{seen}");
        assert!(seen.contains("+ file /etc/berth-test 0 bytes\n"), "{seen}");
        host.run("rm /etc/berth-test /var/lib/berth-test /run/berth-test");
    });
}

#[test]
fn state_directories_are_given_to_programs() {
    host_test(|host| {
        assert_eq!(host.run("echo $BERTH_STATE_DIR"), host.state_dir().to_str().unwrap());
        assert_eq!(host.run("echo $BERTH_RUN_DIR"), host.run_dir().to_str().unwrap());
    });
}

#[test]
fn hosts_do_not_see_each_other() {
    host_test(|host| {
        let other = Host::new();
        other.run("ip link add name br0 type bridge");
        other.run("ip netns add c0");
        assert!(!host.run("ip link").contains("br0"));
        assert_eq!(host.run("ip netns"), "");
        assert!(other.run("ip netns").contains("c0"));
    });
}

#[test]
fn a_container_is_an_empty_namespace_by_its_path() {
    host_test(|host| {
        let container = host.container("c0");
        assert_eq!(container.netns(), Path::new("/run/netns/c0"));
        assert!(host.run("ip netns exec c0 ip -o link").contains("lo: <LOOPBACK> "));
        assert_eq!(container.run("ip -o route"), "");
        assert_ne!(container.net_inode(), host.net_inode());
    });
}

#[test]
fn traffic_is_counted_and_the_client_is_seen() {
    host_test(|host| {
        let container = host.container("c0");
        wire(host, &container);
        {
            let _tcp = container.serve_tcp(80, "web");
            let udp = container.serve_udp(53, "dns");
            let _http = container.serve_http(8080, "page");
            let replies = host.probe(&Probe::tcp("10.80.0.2:80").times(5)).all_from("web");
            assert!(replies.iter().all(|reply| reply.seen_as.unwrap().ip().to_string() == "10.80.0.1"));
            host.probe(&Probe::udp("10.80.0.2:53").from("10.80.0.1:5000")).all_from("dns");
            assert_eq!(udp.heard()[0].peer.to_string(), "10.80.0.1:5000");
            host.probe(&Probe::http("10.80.0.2:8080")).all_from("page");
            host.probe(&Probe::tcp("10.80.0.2:80").from("192.0.2.2")).all_from("web");
            assert_eq!(host.ping("10.80.0.2", 3), 3);
            assert_eq!(host.scan("10.80.0.2".parse().unwrap(), 1..=1000, Duration::from_secs(2)), [80]);
        }
        host.probe(&Probe::tcp("10.80.0.2:80").times(2)).none();
        container.run("ip link del eth0");
    });
}

#[test]
fn raw_frames_reach_the_other_side_as_written() {
    host_test(|host| {
        let container = host.container("c0");
        wire(host, &container);
        let (ours, theirs) = (host.raw("veth0"), container.raw("eth0"));
        let packet = frame::V4 {
            src_mac: frame::mac("02:00:00:00:00:66"),
            dst_mac: theirs.mac(),
            src: "10.80.0.66".parse().unwrap(),
            dst: "10.80.0.2".parse().unwrap(),
        };
        let datagram = packet.udp(1000, 2000, b"forged");
        ours.send(&datagram);
        let seen = theirs.recv(Duration::from_secs(2), |seen| seen.ends_with(b"forged"));
        assert_eq!(seen.unwrap(), datagram);
        // The kernel takes the checksums for right: an echo request is answered.
        let own = frame::V4 { src_mac: ours.mac(), src: "10.80.0.1".parse().unwrap(), ..packet };
        ours.send(&own.ping(7));
        let reply = |seen: &[u8]| seen.get(23) == Some(&1) && seen.get(34) == Some(&0);
        assert!(ours.recv(Duration::from_secs(2), reply).is_some());
        // And so is the first segment of a connection to a port where nobody listens, by a reset.
        ours.send(&own.tcp_syn(4000, 4001));
        let reset =
            |seen: &[u8]| seen.get(23) == Some(&6) && seen.get(47).is_some_and(|flags| flags & 4 != 0);
        assert!(ours.recv(Duration::from_secs(2), reset).is_some());
        container.run("ip link del eth0");
    });
}

#[test]
fn forged_announcements_are_believed_by_a_host_without_protection() {
    lan_test(|host, lan, seat| {
        let server = lan.serve_tcp(80, "lan");
        host.reach(&Probe::tcp(format!("{}:{}", Lan::V4, server.port())).from(seat.v4));
        host.reach(&Probe::tcp(format!("[{}]:{}", Lan::V6, server.port())).from(seat.v6));
        let evil = frame::mac("02:00:00:00:00:66");
        let attacker = lan.raw("lan0");
        let target = frame::mac(host.json("ip -j link show lan0")[0]["address"].as_str().unwrap());
        let packet = frame::V6 { src_mac: evil, dst_mac: target, src: Lan::V6, dst: seat.v6 };
        // Again and again: for a second after an entry was confirmed the kernel ignores ARP (`locktime`, arp(7)).
        eventually(Duration::from_secs(5), || {
            attacker.send(&frame::arp_reply(evil, Lan::V4, target, seat.v4));
            attacker.send(&packet.neighbour_advertisement(Lan::V6, evil));
            let table = host.run("ip neighbour show dev lan0");
            let fooled = table.lines().filter(|line| line.contains("02:00:00:00:00:66")).count();
            if fooled == 2 { Ok(()) } else { Err(table) }
        });
    });
}

#[test]
fn hosts_on_a_lan_reach_each_other_and_the_neighbour() {
    lan_test(|host, lan, seat| {
        let other = Host::new();
        let there = lan.join(&other);
        assert_eq!((seat.ifname.as_str(), there.ifname.as_str()), ("lan0", "lan0"));
        let _other = other.serve_tcp(80, "other");
        let _lan = lan.serve_tcp(80, "lan");
        host.reach(&Probe::tcp(format!("{}:80", there.v4)));
        host.reach(&Probe::tcp(format!("[{}]:80", there.v6)));
        host.probe(&Probe::tcp(format!("{}:80", Lan::V4)).times(3)).all_from("lan");
        assert_eq!(lan.ping(seat.v4, 2), 2);
    });
}

#[test]
fn everything_left_behind_is_found() {
    let host = Host::new();
    let before = Snapshot::of(&host);
    host.run("ip link add name br9 type bridge");
    host.run("ip address add 10.9.0.1/24 dev lo");
    host.run("ip route add 10.10.0.0/24 via 192.0.2.9 table 77");
    host.run("ip neighbour add 192.0.2.77 lladdr 02:00:00:00:00:01 dev up0 nud permanent");
    host.run("nft add table ip other");
    host.run("nft 'add table inet berth ; add set inet berth s { type inet_service ; elements = { 80 } ; }'");
    host.run("mkdir /run/berth-x && mount -t tmpfs none /run/berth-x");
    host.set_sysctl("net.ipv4.conf.up0.route_localnet", "1");
    fs::write(host.state_dir().join("stray"), "x").unwrap();
    let left = before.difference(&Snapshot::of(&host));
    let sections: std::collections::BTreeSet<_> =
        left.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    for section in ["address", "file", "link", "mount", "neighbour", "nft", "route", "switch"] {
        assert!(sections.contains(section), "{section} is not in\n{left}");
    }
    assert!(left.contains("+ nft inet berth: set s "), "{left}");
}

#[test]
fn a_container_that_was_not_detached_fails_the_test() {
    let outcome = std::panic::catch_unwind(|| {
        host_test(|host| {
            let container = host.container("c0");
            wire(host, &container);
        });
    });
    let message = *outcome.unwrap_err().downcast::<String>().unwrap();
    assert!(
        message.contains("container c0 was dropped with") && message.contains("+ link eth0"),
        "{message}"
    );
}

#[test]
fn a_process_left_behind_fails_the_test_and_is_killed() {
    let pid = std::sync::atomic::AtomicI32::new(0);
    let outcome = std::panic::catch_unwind(|| {
        host_test(|host| {
            let id = host.run("sleep 1000 >/dev/null 2>&1 & echo $!");
            pid.store(id.parse().unwrap(), std::sync::atomic::Ordering::Relaxed);
        });
    });
    assert!(outcome.unwrap_err().downcast::<String>().unwrap().contains("processes still in a host"));
    let proc = format!("/proc/{}/ns/mnt", pid.into_inner());
    eventually(Duration::from_secs(5), || match fs::metadata(&proc) {
        Ok(_) => Err("still there".to_owned()),
        Err(_) => Ok(()),
    });
}

#[test]
fn a_panic_leaves_nothing_on_the_machine() {
    let machine = Machine::observe();
    let dir = std::sync::Mutex::new(None);
    let outcome = std::panic::catch_unwind(|| {
        let host = Host::new();
        *dir.lock().unwrap() = Some(host.dir().to_owned());
        let container = host.container("c0");
        wire(&host, &container);
        let _busy = host.cmd("sleep").arg("1000").spawn();
        panic!("as a failing test does");
    });
    assert!(outcome.is_err());
    assert!(!dir.into_inner().unwrap().unwrap().exists());
    assert_eq!(machine.difference(&Machine::observe()), "");
}

#[test]
fn a_program_that_hangs_is_killed_and_named() {
    let host = Host::new();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        host.cmd("sleep").arg("1000").deadline(Duration::from_millis(50)).run()
    }));
    let message = *outcome.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("`sleep 1000` was still running after 50ms"), "{message}");
}

#[test]
fn a_sweep_hits_every_call_once_and_ends() {
    host_test(|host| {
        let file = host.dir().join("swept");
        let line = format!("echo a >> {0}; echo b >> {0}", file.display());
        let mut left = Vec::new();
        let faults = sweep(host, Fault::Kill, &["write"], |injection| {
            let _ = fs::remove_file(&file);
            let ran = host.cmd("busybox").args(["sh", "-c", &line]).inject(injection).output();
            assert_eq!(injection.happened(), ran.signal() == Some(9), "{ran}");
            left.push(fs::read_to_string(&file).unwrap());
        });
        assert_eq!((faults, left), (2, vec![String::new(), "a\n".to_owned(), "a\nb\n".to_owned()]));
        let faults = sweep(host, Fault::Error("ENOSPC"), &["write"], |injection| {
            host.cmd("busybox").args(["sh", "-c", &line]).inject(injection).output();
        });
        assert!(faults >= 2, "{faults}");
        fs::remove_file(host.dir().join("swept")).unwrap();
    });
}

#[test]
fn a_list_is_called_as_libcni_does() {
    host_test(|host| {
        // A plugin that writes down how it was called and answers with its previous result and its own name.
        let plugins = host.dir().join("fake");
        let log = host.dir().join("calls");
        fs::create_dir(&plugins).unwrap();
        let script = format!(
            "#!/bin/sh\nread -r conf\necho \"${{0##*/}} $CNI_COMMAND $CNI_CONTAINERID $conf\" >> {}\n\
             test $CNI_COMMAND != ADD || echo \"{{\\\"by\\\":\\\"${{0##*/}}\\\"}}\"\n",
            log.display()
        );
        for name in ["one", "two"] {
            let path = plugins.join(name);
            fs::write(&path, &script).unwrap();
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        let list = Cni::of(host, &plugins)
            .list(json!({"name": "net", "plugins": [
                {"type": "one"}, {"type": "two", "capabilities": {"portMappings": true}}]}))
            .capability("portMappings", json!([]))
            .capability("dns", json!({}));
        let container = host.container("c0");
        assert_eq!(list.add(&container, "id", "eth0").unwrap(), json!({"by": "two"}));
        list.check(&container, "id", "eth0").unwrap();
        list.del(None, "id", "eth0").unwrap();
        let head = r#""cniVersion":"1.0.0","#;
        let one = |prev: &str| format!(r#"{{{head}"name":"net",{prev}"type":"one"}}"#);
        let two = |prev: &str| {
            format!(
                r#"{{"capabilities":{{"portMappings":true}},{head}"name":"net",{prev}"runtimeConfig":{{"portMappings":[]}},"type":"two"}}"#
            )
        };
        let (by_one, by_two) = (r#""prevResult":{"by":"one"},"#, r#""prevResult":{"by":"two"},"#);
        let expected = [
            format!("one ADD id {}", one("")),
            format!("two ADD id {}", two(by_one)),
            format!("one CHECK id {}", one(by_two)),
            format!("two CHECK id {}", two(by_two)),
            format!("two DEL id {}", two(by_two)),
            format!("one DEL id {}", one(by_two)),
        ];
        assert_eq!(fs::read_to_string(log).unwrap().lines().collect::<Vec<_>>(), expected);
    });
}
