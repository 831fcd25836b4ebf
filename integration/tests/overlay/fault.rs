//! What goes on while the control plane does not, and what is put right after.

use std::time::{Duration, Instant};

use berth_integration::eventually;

use crate::stage::{Member, SOON, Stage, stage_test};

/// Sends an echo each 10 ms from one member to another until `during` is over; how many were lost.
pub(crate) fn lost_during(from: &Member<'_>, to: &Member<'_>, during: impl FnOnce()) -> usize {
    // Quiet: with nobody reading what it says of each answer, it would stop when the pipe is full.
    let line = ["-n", "-q", "-i", "0.01", "-w", "600", &to.address];
    let began = Instant::now();
    let ping = from.container.cmd("ping").args(line).deadline(Duration::from_secs(600)).spawn();
    std::thread::sleep(Duration::from_millis(300));
    during();
    ping.signal(rustix::process::Signal::INT);
    let ran = ping.wait(Duration::from_secs(10));
    let summary = ran.stdout.lines().find(|line| line.contains("packets transmitted")).unwrap_or_default();
    let numbers: Vec<usize> = summary.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [sent, received, ..] = numbers[..] else { panic!("ping said: {ran}") };
    // On a busy machine they come less often, but all the time.
    let enough = began.elapsed().as_millis() / 500;
    assert!(u128::try_from(received).unwrap() > enough, "{summary} in {:?}", began.elapsed());
    // The last one may be on its way when it is told to end.
    sent.saturating_sub(received).saturating_sub(1)
}

/// A network with a member on each of the first two nodes that reach each other.
fn two<'s>(stage: &Stage<'s>) -> (Member<'s>, Member<'s>) {
    stage.nodes[0].berth("network create -d overlay blue --subnet 10.5.0.0/24");
    let members = (stage.nodes[0].add("c1", "web"), stage.nodes[1].add("c2", "db"));
    members.0.reaches(&members.1);
    members.1.reaches(&members.0);
    members
}

#[test]
fn an_agent_that_was_killed_finds_what_it_missed_and_its_network_goes_on_without_it() {
    stage_test(2, |stage| {
        let (web, db) = two(stage);
        stage.nodes[0].daemon.crash();
        let mut members = Vec::new();
        let lost = lost_during(&web, &db, || {
            // Nobody is told of this one, nor of the end of the other.
            members.push(stage.nodes[0].add("c3", "alone"));
            members.push(stage.nodes[1].add("c4", "missed"));
        });
        assert_eq!(lost, 0);
        let [alone, missed] = &members[..] else { panic!("two members") };
        stage.nodes[0].daemon.start();
        stage.nodes[0].is_connected();
        missed.reaches(alone);
        alone.reaches(missed);
        assert_eq!(stage.nodes[0].dig(&web, "missed"), missed.address);
        [web, db].into_iter().chain(members).for_each(Member::del);
    });
}

#[test]
fn entries_that_somebody_deletes_are_put_right_and_counted() {
    stage_test(2, |stage| {
        let (web, db) = two(stage);
        let host = stage.nodes[0].host;
        let device = host.run("ip -br link show type vxlan").split_whitespace().next().unwrap().to_owned();
        host.run(&format!("ip link del {device}"));
        web.reaches(&db);
        db.reaches(&web);
        eventually(SOON, || match stage.nodes[0].status()["counters"]["repaired"].as_u64() {
            Some(count) if count > 0 => Ok(()),
            other => Err(format!("{other:?} entries were repaired")),
        });
        // Whatever is changed of the device or the bridge is heard of: the look that comes once a minute is not waited for.
        let bridge = device.replace("bvx", "bbr");
        for (damage, wanted) in [
            (format!("bridge link set dev {device} learning on"), "learning off"),
            (format!("bridge link set dev {device} flood on"), " flood off"),
            (format!("bridge link set dev {device} neigh_suppress off"), "neigh_suppress on"),
            (format!("ip link set {device} type bridge_slave isolated on"), "isolated off"),
            (format!("ip link set {device} type vxlan learning"), "nolearning"),
            (format!("ip link set {device} mtu 1400"), "mtu 1450"),
            (format!("ip link set {bridge} mtu 1400"), "mtu 1450"),
            (format!("ip link set {bridge} address 02:00:00:00:00:99"), "link/ether"),
        ] {
            let link = if damage.contains(&bridge) { &bridge } else { &device };
            host.run(&damage);
            eventually(SOON, || {
                // One that cannot be changed is made anew: for a moment there is none.
                let now = host.line(&format!("ip -d link show {link}")).output().stdout;
                let is_right = now.contains(wanted) && !now.contains("02:00:00:00:00:99");
                if is_right { Ok(()) } else { Err(format!("`{damage}` is still so: {now}")) }
            });
        }
        web.reaches(&db);
        [web, db].into_iter().for_each(Member::del);
    });
}

#[test]
fn history_that_was_compacted_and_a_lease_that_was_revoked_change_nothing() {
    stage_test(2, |stage| {
        let (web, db) = two(stage);
        let (etcd, node) = (&stage.etcd, &stage.nodes[0]);
        stage.nodes[1].daemon.signal(rustix::process::Signal::STOP);
        let third = node.add("c3", "third");
        etcd.compact();
        for lease in etcd.ctl(&["lease", "list"]).lines().skip(1) {
            etcd.ctl(&["lease", "revoke", lease.trim()]);
        }
        let lost = lost_during(&web, &db, || {
            stage.nodes[1].daemon.signal(rustix::process::Signal::CONT);
            stage.nodes.iter().for_each(crate::stage::Node::is_connected);
            db.reaches(&third);
            eventually(SOON, || {
                let nodes = node.status()["nodes"].clone();
                let alive = nodes.as_array().unwrap().iter().filter(|node| node["alive"] == true).count();
                if alive == 2 { Ok(()) } else { Err(format!("{nodes}")) }
            });
        });
        assert_eq!(lost, 0);
        [web, db, third].into_iter().for_each(Member::del);
    });
}

#[test]
fn a_node_that_was_removed_for_ever_and_returns_has_what_it_had() {
    stage_test(2, |stage| {
        let (web, db) = two(stage);
        stage.nodes[1].daemon.crash();
        stage.nodes[0].berth("node rm n2");
        eventually(SOON, || match web.container.ping(&db.address, 1) {
            0 => Ok(()),
            _ => Err("a removed node's container is reached".to_owned()),
        });
        stage.nodes[1].daemon.start();
        stage.nodes[1].is_connected();
        web.reaches(&db);
        assert_eq!(stage.nodes[0].dig(&web, "db"), db.address);
        [web, db].into_iter().for_each(Member::del);
    });
}

#[test]
fn an_address_that_is_another_hosts_at_once_leads_there() {
    stage_test(2, |stage| {
        let (web, db) = two(stage);
        let address = db.address.clone();
        db.del();
        let container = stage.nodes[0].host.container("c5");
        let call = stage.nodes[0].call().id("c5").container(&container).args(&format!("IP={address}"));
        call.add().ok();
        eventually(SOON, || match web.container.ping(&address, 1) {
            1 => Ok(()),
            _ => Err(format!("{address} is not reached on its new host")),
        });
        call.del().ok();
        web.del();
    });
}

#[test]
fn a_host_that_has_another_address_is_found_there() {
    stage_test(2, |stage| {
        let (web, db) = two(stage);
        let host = stage.nodes[1].host;
        let seat = stage.nodes[1].seat.clone();
        // As after a reboot: another address, and the agent begins anew.
        stage.nodes[1].daemon.crash();
        host.batch(&format!(
            "address del {1}/24 dev {0}
             address add 198.51.100.99/24 dev {0}",
            seat.ifname, seat.v4
        ));
        stage.nodes[1].daemon.start();
        stage.nodes[1].is_connected();
        web.reaches(&db);
        db.reaches(&web);
        stage.nodes[0].knows("n2", "198.51.100.99");
        [web, db].into_iter().for_each(Member::del);
    });
}

#[test]
fn a_partition_costs_no_packet() {
    stage_test(2, |stage| {
        let (web, db) = two(stage);
        let host = stage.nodes[1].host;
        let mut more = Vec::new();
        let lost = lost_during(&web, &db, || {
            let rules = "table inet cut {\n chain out {\n type filter hook output priority 0\n tcp dport 2379 drop\n }\n}\n";
            host.cmd("nft").args(["-f", "-"]).stdin(rules).run();
            more.push(stage.nodes[0].add("c3", "meanwhile"));
            // Longer than the node's lease.
            std::thread::sleep(Duration::from_secs(15));
            host.run("nft delete table inet cut");
            stage.nodes.iter().for_each(crate::stage::Node::is_connected);
            db.reaches(&more[0]);
        });
        assert_eq!(lost, 0);
        [web, db].into_iter().chain(more).for_each(Member::del);
    });
}

#[test]
fn a_network_with_room_needs_nobody_and_one_without_says_so_at_once() {
    stage_test(1, |stage| {
        let node = &mut stage.nodes[0];
        // Blocks of four addresses: one is the node's.
        node.berth("network create -d overlay blue --subnet 10.5.0.0/28");
        let first = node.add("c0", "first");
        node.daemon.crash();
        let mut members = vec![first];
        let refused = (1..20).find_map(|number| {
            let began = Instant::now();
            let (member, ran) = node.try_add(&format!("c{number}"), "more");
            if ran.succeeded() {
                members.push(member);
                return None;
            }
            assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
            Some(ran.err())
        });
        let refused = refused.expect("a subnet of sixteen addresses is full after twenty");
        assert!(refused.msg.contains("nobody to get more"), "{refused}");
        node.daemon.start();
        node.is_connected();
        let (more, ran) = node.try_add("c30", "again");
        ran.ok();
        members.push(more);
        members.into_iter().for_each(Member::del);
    });
}

#[test]
fn two_hosts_with_one_identity_are_told_apart() {
    stage_test(2, |stage| {
        let (web, db) = two(stage);
        // The second host's records become a copy of the first's, as of a cloned machine.
        let (from, to) = (stage.nodes[0].host.state_dir(), stage.nodes[1].host.state_dir());
        stage.nodes[1].daemon.stop();
        let kept = to.with_extension("kept");
        std::fs::rename(&to, &kept).unwrap();
        std::fs::create_dir(&to).unwrap();
        for entry in std::fs::read_dir(&from).unwrap().flatten() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
        stage.nodes[1].daemon.start();
        eventually(SOON, || match stage.nodes[1].status()["trouble"].as_str() {
            Some(trouble) if trouble.contains("node name `n1`") => Ok(()),
            other => Err(format!("the copy says {other:?}")),
        });
        stage.nodes[0].is_connected();
        stage.nodes[1].daemon.stop();
        std::fs::remove_dir_all(&to).unwrap();
        std::fs::rename(&kept, &to).unwrap();
        stage.nodes[1].daemon.start();
        stage.nodes[1].is_connected();
        web.reaches(&db);
        [web, db].into_iter().for_each(Member::del);
    });
}
