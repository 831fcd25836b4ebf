//! `roverlay` as a runtime calls it, with packets on two hosts: ports, bandwidth, both families, networks kept apart or inside,
//! forged packets, CHECK after damage, GC.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use berth_integration::{Probe, berthd_binary, eventually, frame};
use serde_json::json;

use crate::stage::{Member, Node, SOON, Stage, stage_test};

fn tcp(host_port: u16) -> serde_json::Value {
    json!({"portMappings": [{"hostPort": host_port, "containerPort": 80, "protocol": "tcp"}]})
}

fn unreachable(from: &berth_integration::Place, to: String) {
    from.probe(&Probe::tcp(to).timeout(Duration::from_millis(300))).none();
}

#[test]
fn ports_families_and_bandwidth_are_those_of_a_bridge_on_every_host() {
    stage_test(2, |stage| {
        let [one, two] = &stage.nodes[..] else { panic!("two nodes") };
        one.berth("network create -d overlay blue --subnet 10.5.0.0/24 --subnet fd05::/64");
        let web = one.add_with(one.call().key("runtimeConfig", tcp(8080)), "c1", "web");
        let db = two.add("c2", "db");
        assert_eq!((web.addresses.len(), db.addresses.len()), (2, 2), "{:?}", web.addresses);
        let _web = web.container.serve_tcp(80, "web");
        let at = |address: &str, port: u16| match address.parse::<IpAddr>().unwrap() {
            IpAddr::V4(v4) => format!("{v4}:{port}"),
            IpAddr::V6(v6) => format!("[{v6}]:{port}"),
        };
        for address in &web.addresses {
            db.container.reach(&Probe::tcp(at(address, 80)));
            assert_eq!(db.container.ping(address, 1), 1);
        }
        // A published port: from another host, from a container of it, and from the container's own network and host.
        let (v4, v6) = (one.seat.v4.to_string(), one.seat.v6.to_string());
        for address in [&v4, &v6] {
            two.host.reach(&Probe::tcp(at(address, 8080)));
            db.container.reach(&Probe::tcp(at(address, 8080)));
            one.host.reach(&Probe::tcp(at(address, 8080)));
        }
        let taken = two.try_with(two.call().key("runtimeConfig", tcp(8080)), "c3", "other");
        let other = taken.expect("the port is free on another host");
        let refused = one.try_with(one.call().key("runtimeConfig", tcp(8080)), "c4", "late").unwrap_err();
        assert!(refused.msg.contains("8080"), "{refused}");

        let limits = json!({"bandwidth": {
            "ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 8_000_000, "egressBurst": 800_000,
        }});
        let slow = one.add_with(one.call().key("runtimeConfig", limits), "c5", "slow");
        let began = Instant::now();
        send(&slow, &db, 2_000_000);
        // A megabyte a second, and what the burst lets through at once.
        assert!(began.elapsed() > Duration::from_secs(1), "{:?}", began.elapsed());
        [web, db, other, slow].into_iter().for_each(Member::del);
        unreachable(two.host, at(&v4, 8080));
    });
}

/// Sends so many bytes over TCP from one member to another.
fn send(from: &Member<'_>, to: &Member<'_>, bytes: usize) {
    let server = to.container.line("timeout 30 busybox nc -l -p 5001 -e cat").spawn();
    let to = &to.address;
    eventually(SOON, || {
        let line =
            format!("head -c {bytes} /dev/zero | timeout 25 busybox nc {to} 5001 | head -c {bytes} | wc -c");
        let ran = from.container.cmd("sh").args(["-c", &line]).output();
        let back = ran.stdout.trim().parse().unwrap_or(0);
        if back == bytes { Ok(()) } else { Err(ran.to_string()) }
    });
    drop(server);
}

#[test]
fn networks_are_kept_apart_and_inside_and_nobody_is_believed_to_be_another() {
    stage_test(3, |stage| {
        let [one, two, outside] = &stage.nodes[..] else { panic!("three nodes") };
        one.berth("network create -d overlay blue --subnet 10.5.0.0/24");
        one.berth("network create -d overlay red --subnet 10.6.0.0/24");
        one.berth("network create -d overlay cell --subnet 10.7.0.0/24 --internal");
        let [web, db] = [one.add("c1", "web"), two.add("c2", "db")];
        let [red_one, red_two] = [one.add_to("red", "r1", "web"), two.add_to("red", "r2", "db")];
        let [cell_one, cell_two] = [one.add_to("cell", "i1", "web"), two.add_to("cell", "i2", "db")];
        for (from, to) in [(&web, &db), (&red_one, &red_two), (&cell_one, &cell_two)] {
            from.reaches(to);
        }
        let apart =
            [(&web, &red_one), (&web, &red_two), (&red_two, &db), (&cell_one, &db), (&web, &cell_two)];
        for (from, to) in apart {
            assert_eq!(from.container.ping(&to.address, 1), 0, "{} to {}", from.address, to.address);
        }
        let _outside = outside.host.serve_tcp(7, "outside");
        let there = format!("{}:7", outside.seat.v4);
        web.container.reach(&Probe::tcp(&there));
        unreachable(&cell_one.container, there);
        // Each network's names are its own.
        one.answers(&web, "db", &[&db.address]);
        let line = "dig +short +tries=1 +time=2 @10.6.0.1 db";
        assert_eq!(red_one.container.line(line).run().trim(), red_two.address);

        forged(stage, &web, &db);
        let all = [web, db, red_one, red_two, cell_one, cell_two];
        all.into_iter().for_each(Member::del);
    });
}

/// Frames with another's address or Ethernet address do not leave the host.
fn forged(stage: &Stage<'_>, web: &Member<'_>, db: &Member<'_>) {
    let evil = stage.nodes[0].add("c9", "evil");
    evil.reaches(db);
    let v4 = |member: &Member<'_>| member.address.parse().unwrap();
    let (at, from) = (db.container.raw("eth0"), evil.container.raw("eth0"));
    let marker = b"marked by the test";
    let arrived = |src_mac, src| {
        let packet = frame::V4 { src_mac, dst_mac: db.mac(), src, dst: v4(db) };
        (0..10).for_each(|_| from.send(&packet.udp(999, 999, marker)));
        let marked = |frame: &[u8]| {
            frame.get(23) == Some(&17) && frame.windows(marker.len()).any(|window| window == marker)
        };
        at.count(Duration::from_millis(200), marked)
    };
    assert_eq!(arrived(evil.mac(), v4(&evil)), 10, "its own");
    assert_eq!(arrived(evil.mac(), v4(web)), 0, "another's address");
    assert_eq!(arrived(web.mac(), v4(web)), 0, "another's Ethernet address");
    drop((at, from));
    evil.del();
}

#[test]
fn check_finds_damage_and_gc_takes_whom_the_runtime_does_not_list() {
    stage_test(2, |stage| {
        let [one, two] = &mut stage.nodes[..] else { panic!("two nodes") };
        one.berth("network create -d overlay blue --subnet 10.5.0.0/24");
        let (web, gone, db) = (one.add("c1", "web"), one.add("c2", "gone"), two.add("c3", "db"));
        db.reaches(&gone);
        web.call.check().ok();
        // While the agent runs it is faster than any CHECK.
        one.daemon.crash();
        let device = device(one);
        for (damage, wanted) in [
            (format!("ip link set {device} mtu 1400"), "MTU 1400"),
            (format!("bridge link set dev {device} learning on"), "other settings"),
            (format!("ip link set {device} down"), "is down"),
            (format!("ip link del {device}"), "is gone"),
        ] {
            one.host.run(&damage);
            let found = web.call.check().err();
            assert!(format!("{found}").contains(wanted), "`{damage}`: {found}");
            one.host.gc();
            web.call.check().ok();
        }
        web.container.run("ip address flush dev eth0");
        let found = web.call.check().err();
        assert!(format!("{found}").contains(&web.address), "{found}");
        one.daemon.start();
        one.is_connected();

        // The runtime knows `c1` alone: the other is taken off, here and everywhere.
        let valid = json!([{"containerID": "c1", "ifname": "eth0"}]);
        let gc = one.call().key("cniVersion", json!("1.1.0"));
        let gc = gc.key("cni.dev/valid-attachments", valid).env_remove("CNI_CONTAINERID");
        gc.env_remove("CNI_IFNAME").env_remove("CNI_NETNS").run("GC").ok();
        is_forgotten(two, &gone.address);
        two.answers(&db, "gone", &[]);
        gone.del();

        // Whom the keeper collects, the others hear of at once, too.
        let dead = one.add("c4", "dead");
        db.reaches(&dead);
        let keeper = one.host.cmd(berthd_binary()).args(["--roles", "keeper"]).spawn();
        let address = dead.address.clone();
        dead.container.remove();
        is_forgotten(two, &address);
        two.answers(&db, "dead", &[]);
        keeper.signal(rustix::process::Signal::TERM);
        keeper.wait(SOON);
        [web, db].into_iter().for_each(Member::del);
    });
}

/// Waits until a node's kernel has nothing of an address: sooner than by the look that comes once a minute.
fn is_forgotten(node: &Node<'_>, address: &str) {
    eventually(SOON, || {
        let entries = node.host.run("ip neigh show nud permanent");
        if entries.contains(&format!("{address} ")) { Err(entries) } else { Ok(()) }
    });
}

/// The VXLAN device of a node's only network.
fn device(node: &Node<'_>) -> String {
    let links = node.host.run("ip -br link show type vxlan");
    links.split_whitespace().next().unwrap().to_owned()
}
