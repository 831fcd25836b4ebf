//! What is on the wire, and what is not.

use berth_integration::eventually;

use super::stage::{
    CLEAR, ENCRYPTED, Setup, datagram, delivered, encrypted_test, has_marker, is_esp, is_udp_to, mark,
    passed, says,
};
use crate::stage::{Member, SOON};

#[test]
fn an_encrypted_network_beside_one_in_clear_shows_nothing_where_the_kernel_can() {
    encrypted_test(Setup::default(), |pair| {
        let (one, two) = pair.both();
        one.berth("network create -d overlay blue --subnet 10.5.0.0/24");
        let open = [one.add("c1", "web"), two.add("c2", "db")];
        let secret = [one.add_to("secret", "c3", "vault"), two.add_to("secret", "c4", "key")];
        secret[0].reaches(&secret[1]);
        open[0].reaches(&open[1]);

        let wire = one.host.raw(&one.seat.ifname);
        assert_eq!(mark(&secret[0], &secret[1], 5), 5);
        let seen = passed(&wire);
        assert!(seen.iter().any(|frame| is_esp(frame)), "{} frames, none of ESP", seen.len());
        assert!(!seen.iter().any(|frame| has_marker(frame) || is_udp_to(frame, ENCRYPTED)), "in clear");
        // The same through the other network is seen.
        assert_eq!(mark(&open[0], &open[1], 5), 5);
        let seen = passed(&wire);
        assert!(seen.iter().any(|frame| has_marker(frame) && is_udp_to(frame, CLEAR)));
        drop(wire);

        // ESP in transport mode takes 38 bytes more, and a packet of just the size passes.
        assert_eq!(secret[0].container.json("ip -j link show eth0")[0]["mtu"], 1412);
        let full = format!("ping -n -c 1 -W 5 -M do -s 1384 {}", secret[1].address);
        secret[0].container.run(&full);
        let ways = one.json("overlay ping");
        let way = ways.as_array().unwrap().iter().find(|way| way["network"] == "secret").unwrap();
        assert_eq!((&way["mtu"], &way["full_received"]), (&1412.into(), &way["full_sent"]), "{ways}");
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

        secret.into_iter().chain(open).for_each(Member::del);
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
    });
}

/// Somebody who can send with a node's address is that node on a network in clear, and nobody on an encrypted one.
#[test]
fn nothing_in_clear_is_taken_or_sent_where_the_kernel_can() {
    encrypted_test(Setup::default(), |pair| {
        let (one, two) = pair.both();
        one.berth("network create -d overlay blue --subnet 10.5.0.0/24");
        let open = [one.add("c1", "web"), two.add("c2", "db")];
        let secret = [one.add_to("secret", "c3", "vault"), two.add_to("secret", "c4", "key")];
        secret[0].reaches(&secret[1]);
        open[1].reaches(&open[0]);
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

        // Without rules, without states and without anybody who puts them right, nothing leaves.
        pair.nodes[0].daemon.crash();
        let (one, _) = pair.both();
        one.host.run("ip xfrm state flush");
        let wire = one.host.raw(&one.seat.ifname);
        assert_eq!(mark(&secret[0], &secret[1], 3), 0);
        let seen = passed(&wire);
        assert!(!seen.iter().any(|frame| is_udp_to(frame, ENCRYPTED) || has_marker(frame)), "in clear");
        drop(wire);

        pair.nodes[0].daemon.start();
        pair.nodes[0].is_connected();
        let (one, _) = pair.both();
        one.host.gc();
        secret[0].reaches(&secret[1]);
        let wire = one.host.raw(&one.seat.ifname);
        assert_eq!(mark(&secret[0], &secret[1], 3), 3);
        assert!(
            !passed(&wire).iter().any(|frame| is_udp_to(frame, ENCRYPTED) || has_marker(frame)),
            "in clear"
        );
        secret.into_iter().chain(open).for_each(Member::del);
    });
}

#[test]
fn tunnels_over_ipv6_are_encrypted_where_the_kernel_can() {
    encrypted_test(Setup { over_v6: true, ..Setup::default() }, |pair| {
        let (one, two) = pair.both();
        let secret = [one.add_to("secret", "c3", "vault"), two.add_to("secret", "c4", "key")];
        secret[0].reaches(&secret[1]);
        let wire = one.host.raw(&one.seat.ifname);
        assert_eq!(mark(&secret[0], &secret[1], 5), 5);
        let seen = passed(&wire);
        assert!(seen.iter().any(|frame| is_esp(frame)));
        assert!(!seen.iter().any(|frame| has_marker(frame) || is_udp_to(frame, ENCRYPTED)), "in clear");
        assert_eq!(secret[0].container.json("ip -j link show eth0")[0]["mtu"], 1392);
        secret[0].container.run(&format!("ping -n -c 1 -W 5 -M do -s 1364 {}", secret[1].address));
        secret.into_iter().for_each(Member::del);
    });
}
