//! What is on the wire, and what is not.

use berth_integration::{Lan, eventually};
use serde_json::json;

use super::stage::{
    CLEAR, ENCRYPTED, Pair, Setup, datagram, delivered, encrypted_test, has_marker, is_esp, is_in_clear,
    is_udp_to, mark, passed, says,
};
use crate::stage::{Member, SOON};

#[test]
fn an_encrypted_network_beside_one_in_clear_where_the_kernel_can() {
    encrypted_test(Setup::default(), |pair| {
        let (one, two) = pair.both();
        one.berth("network create -d overlay blue --subnet 10.5.0.0/24");
        let open = [one.add("c1", "web"), two.add("c2", "db")];
        let secret = pair.members();
        open[0].reaches(&open[1]);

        names_are_known(pair, &secret, &open);
        nothing_is_shown(pair, &secret, &open);
        full_packets_pass(pair, &secret);
        nothing_goes_to_who_has_no_key(pair, &secret);
        nothing_in_clear_is_taken(pair, &secret, &open);
        secret.into_iter().chain(open).for_each(Member::del);
        nothing_is_left(pair);
    });
}

/// Each is answered on its own network, on both nodes.
fn names_are_known(pair: &Pair<'_>, secret: &[Member<'_>; 2], open: &[Member<'_>; 2]) {
    let (one, two) = pair.both();
    one.answers(&secret[0], "safe", &[&secret[1].address]);
    two.answers(&secret[1], "vault", &[&secret[0].address]);
    one.answers(&open[0], "db", &[&open[1].address]);
}

fn nothing_is_shown(pair: &Pair<'_>, secret: &[Member<'_>; 2], open: &[Member<'_>; 2]) {
    let (one, two) = pair.both();
    let wire = one.host.raw(&one.seat.ifname);
    assert_eq!(mark(&secret[0], &secret[1], 5), 5);
    let seen = passed(&wire);
    assert!(seen.iter().any(|frame| is_esp(frame)), "{} frames, none of ESP", seen.len());
    assert!(!seen.iter().any(|frame| is_in_clear(frame)), "in clear");
    // The same through the other network is seen.
    assert_eq!(mark(&open[0], &open[1], 5), 5);
    assert!(passed(&wire).iter().any(|frame| has_marker(frame) && is_udp_to(frame, CLEAR)));

    for node in [one, two] {
        says(node, |network| {
            let encrypted = &network["encrypted"];
            encrypted["peers"] == 1 && encrypted["published"] == true && encrypted["without"].is_null()
        });
    }
    let shown = one.berth("overlay status");
    assert!(shown.contains("encrypted"), "{shown}");
    let key = pair.public_key("n1");
    assert!(key.len() == 64 && !shown.contains(&key));
}

/// ESP in transport mode takes 38 bytes more, and a packet of just the size passes.
fn full_packets_pass(pair: &Pair<'_>, secret: &[Member<'_>; 2]) {
    let (one, _) = pair.both();
    assert_eq!(secret[0].container.json("ip -j link show eth0")[0]["mtu"], 1412);
    secret[0].container.run(&format!("ping -n -c 1 -W 5 -M do -s 1384 {}", secret[1].address));
    let ways = one.json("overlay ping");
    let way = ways.as_array().unwrap().iter().find(|way| way["network"] == "secret").unwrap();
    assert_eq!((&way["mtu"], &way["full_received"]), (&1412.into(), &way["full_sent"]), "{ways}");
}

/// A node of an earlier version, or on a kernel that cannot, and a container on it: as the cluster has them.
fn nothing_goes_to_who_has_no_key(pair: &Pair<'_>, secret: &[Member<'_>; 2]) {
    let (one, _) = pair.both();
    let (node, container) = ("/berth/v1/nodes/n3", "/berth/v1/ep/secret/c/n3/c5/eth0");
    let mut record = pair.record("/berth/v1/nodes/n2");
    assert!(record.as_object_mut().unwrap().remove("public_key").is_some());
    record["name"] = json!("n3");
    record["identity"] = json!("of a test");
    record["vtep4"] = json!(Lan::V4);
    let mut attachment = pair.record("/berth/v1/ep/secret/c/n2/c4/eth0");
    attachment["node"] = json!("n3");
    attachment["of"]["container"]["id"] = json!("c5");
    attachment["mac"] = json!("02:00:00:00:00:05");
    attachment["addresses"] = json!(["10.6.0.200"]);
    attachment["names"] = json!(["old"]);
    let wire = pair.lan.raw("lan0");
    pair.etcd.ctl(&["put", node, &record.to_string()]);
    pair.etcd.ctl(&["put", container, &attachment.to_string()]);
    says(one, |network| network["encrypted"]["without"] == json!(["n3"]));
    one.answers(&secret[0], "old", &["10.6.0.200"]);
    let shown = one.host.berth(["overlay", "status"]).output();
    assert!(shown.stdout.contains("node `n3` has no key: nothing is sent to it"), "{shown}");

    secret[0].container.line("ping -n -c 2 -i 0.2 -W 1 10.6.0.200").output();
    // Nor what somebody on the host sends there, as if there were an entry.
    let say = |port| {
        let line = format!("echo 'marked by a test' > /dev/udp/{}/{port}", Lan::V4);
        one.host.cmd("bash").args(["-c", &line]).output();
    };
    say(ENCRYPTED);
    say(CLEAR + 1);
    let from_here = |frame: &&Vec<u8>| frame.get(26..30) == Some(&one.seat.v4.octets()[..]);
    let seen: Vec<Vec<u8>> = passed(&wire).iter().filter(from_here).cloned().collect();
    let marked: Vec<bool> =
        seen.iter().filter(|frame| has_marker(frame)).map(|frame| is_udp_to(frame, CLEAR + 1)).collect();
    assert_eq!(marked, [true], "what is not for an encrypted network passes");
    assert!(!seen.iter().any(|frame| is_esp(frame) || is_udp_to(frame, ENCRYPTED)));

    pair.etcd.ctl(&["del", container]);
    pair.etcd.ctl(&["del", node]);
    says(one, |network| network["encrypted"]["without"].is_null());
}

/// Somebody who can send with a node's address is that node on a network in clear, and nobody on an encrypted one.
fn nothing_in_clear_is_taken(pair: &Pair<'_>, secret: &[Member<'_>; 2], open: &[Member<'_>; 2]) {
    let (one, two) = pair.both();
    let all = one.status()["networks"].as_array().cloned().unwrap();
    let vni = |name: &str| {
        let network = all.iter().find(|network| network["name"] == name).unwrap();
        u32::try_from(network["vni"].as_u64().unwrap()).unwrap()
    };
    let (blue, hidden) = (vni("blue"), vni("secret"));

    let eth0 = open[0].container.raw("eth0");
    pair.forge((two, one), CLEAR, blue, &datagram(&open[1], &open[0]));
    assert_eq!(delivered(&eth0), 20, "a network in clear is open to it");
    drop(eth0);
    let eth0 = secret[0].container.raw("eth0");
    let forged = datagram(&secret[1], &secret[0]);
    for port in [ENCRYPTED, CLEAR] {
        pair.forge((two, one), port, hidden, &forged);
        assert_eq!(delivered(&eth0), 0, "port {port}");
    }
    // Nor without any rule: the policies hold by themselves.
    one.host.run("nft flush ruleset");
    pair.forge((two, one), ENCRYPTED, hidden, &forged);
    assert_eq!(delivered(&eth0), 0, "without the ruleset");
    drop(eth0);
    assert_eq!(mark(&secret[0], &secret[1], 3), 3, "what is encrypted goes on");
    one.host.gc();
}

/// With the networks everything goes that was there for them.
fn nothing_is_left(pair: &Pair<'_>) {
    let (one, two) = pair.both();
    for network in ["secret", "blue"] {
        eventually(SOON, || {
            let ran = one.host.berth(["network", "rm", network]).output();
            if ran.status.success() { Ok(()) } else { Err(ran.to_string()) }
        });
    }
    for node in [one, two] {
        eventually(SOON, || {
            let left = node.host.run("ip xfrm state list nokeys; ip xfrm policy");
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
        assert!(!node.host.run_dir().join("overlay.key").exists());
    }
}
