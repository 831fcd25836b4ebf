//! What keeps it going: keys that turn, agents that end, hosts that begin anew, and what others take away.

use std::time::Duration;

use berth_integration::engine::{reboot, reboots_are_over};
use berth_integration::{eventually, patience};

use super::stage::{
    Pair, Setup, encrypted_test, is_esp, is_in_clear, mark, passed, ping_line, received, says,
};
use crate::stage::{Member, Node, SOON};

/// The numbers of a host's states.
fn numbers(node: &Node<'_>) -> Vec<String> {
    let text = node.host.run("ip xfrm state list nokeys");
    let spis = text.split("spi ").skip(1).filter_map(|rest| rest.split_whitespace().next());
    let mut spis: Vec<String> = spis.map(str::to_owned).collect();
    spis.sort();
    spis
}

/// Over IPv6, which is carried by other code of the kernel.
#[test]
fn keys_turn_again_and_again_and_nothing_is_lost_where_the_kernel_can() {
    encrypted_test(Setup { over_v6: true, period: Some(6) }, |pair| {
        let secret = pair.members();
        let (one, _) = pair.both();
        let before = numbers(one);
        // Three that come in and one that goes out.
        assert_eq!(before.len(), 4, "{before:?}");
        let wire = one.host.raw(&one.seat.ifname);
        assert_eq!(mark(&secret[0], &secret[1], 120), 120, "over four generations");
        let seen = passed(&wire);
        drop(wire);
        assert!(seen.iter().any(|frame| is_esp(frame)), "{} frames, none of ESP", seen.len());
        assert!(!seen.iter().any(|frame| is_in_clear(frame)), "in clear");
        let after = numbers(one);
        assert!(
            after.len() >= 4 && !after.iter().any(|number| before.contains(number)),
            "{before:?} {after:?}"
        );
        assert_eq!(one.status()["counters"]["repaired"], 0, "a turn is no damage");
        assert_eq!(secret[0].container.json("ip -j link show eth0")[0]["mtu"], 1392);
        secret[0].container.run(&format!("ping -n -c 1 -W 5 -M do -s 1364 {}", secret[1].address));
        secret.into_iter().for_each(Member::del);
    });
}

#[test]
fn what_ends_and_what_is_taken_away_comes_back_where_the_kernel_can() {
    encrypted_test(Setup::default(), |pair| {
        let secret = pair.members();
        states_come_back_with_other_keys(pair, &secret);
        another_record_cuts_it_off(pair, &secret);
        an_agent_that_begins_changes_nothing(pair, &secret);
        let [at_one, at_two] = secret;
        at_one.del();
        a_host_begins_anew(pair, at_two);
    });
}

fn states_come_back_with_other_keys(pair: &Pair<'_>, secret: &[Member<'_>; 2]) {
    let (one, two) = pair.both();
    let (key, spis) = (pair.public_key("n1"), numbers(one));
    one.host.run("ip xfrm state flush");
    secret[0].reaches(&secret[1]);
    secret[1].reaches(&secret[0]);
    let new = pair.public_key("n1");
    assert!(!new.is_empty() && new != key);
    assert!(!numbers(one).iter().any(|number| spis.contains(number)));
    // Policies have no counters: they are just there again.
    two.host.run("ip xfrm policy flush");
    eventually(SOON, || match two.host.run("ip xfrm policy").matches("dport 4799").count() {
        3 => Ok(()),
        other => Err(format!("{other} policies")),
    });
    assert_eq!(pair.public_key("n1"), new);
    assert_eq!(mark(&secret[0], &secret[1], 3), 3);
    assert!(one.status()["counters"]["repaired"].as_u64().unwrap() > 0);
}

fn another_record_cuts_it_off(pair: &Pair<'_>, secret: &[Member<'_>; 2]) {
    let (one, _) = pair.both();
    let path = "/berth/v1/nets/secret";
    let record = pair.etcd.ctl(&["get", "--print-value-only", path]);
    let record = record.trim();
    let clear = record.replace("\"encrypted\":true", "\"encrypted\":false");
    assert_ne!(clear, record);
    pair.etcd.ctl(&["put", path, &clear]);
    says(one, |network| network["trouble"].as_str().is_some_and(|text| text.contains("cut off")));
    let wait = |wanted| {
        eventually(SOON, || match mark(&secret[0], &secret[1], 1) {
            found if found == wanted => Ok(()),
            other => Err(format!("{other} answered")),
        });
    };
    wait(0);
    pair.etcd.ctl(&["put", path, record]);
    says(one, |network| network["trouble"].is_null());
    wait(1);
}

fn an_agent_that_begins_changes_nothing(pair: &mut Pair<'_>, secret: &[Member<'_>; 2]) {
    let (key, spis) = (pair.public_key("n1"), numbers(&pair.nodes[0]));
    let pings = secret[0].container.line(&ping_line(&secret[1], 75)).spawn();
    pair.nodes[0].daemon.crash();
    pair.nodes[0].daemon.start();
    pair.nodes[0].is_connected();
    let pings = pings.wait(patience(Duration::from_secs(60)));
    assert_eq!(received(&pings.stdout), 75, "{pings}");
    assert_eq!((pair.public_key("n1"), numbers(&pair.nodes[0])), (key, spis));
}

/// A host without states, and without anybody who puts that right, lets nothing out: by its policies alone, and by its rules
/// alone. One that begins anew has new keys, and the others take them.
fn a_host_begins_anew(pair: &mut Pair<'_>, at_two: Member<'_>) {
    let key = pair.public_key("n1");
    let at_one = pair.nodes[0].add_to("secret", "c5", "vault");
    at_one.reaches(&at_two);
    pair.nodes[0].daemon.crash();
    let host = pair.nodes[0].host;
    host.run("nft flush ruleset; ip xfrm state flush");
    let wire = host.raw(&pair.nodes[0].seat.ifname);
    let nothing_leaves = || {
        assert_eq!(mark(&at_one, &at_two, 2), 0);
        assert!(!passed(&wire).iter().any(|frame| is_in_clear(frame)), "in clear");
    };
    nothing_leaves();
    host.gc();
    host.run("ip xfrm policy flush");
    nothing_leaves();
    drop(wire);

    at_one.del();
    reboot(host);
    host.run("ip xfrm state flush; ip xfrm policy flush");
    std::fs::remove_dir_all(host.run_dir()).unwrap();
    std::fs::create_dir(host.run_dir()).unwrap();
    pair.nodes[0].daemon.start();
    pair.nodes[0].is_connected();
    let at_one = pair.nodes[0].add_to("secret", "c6", "vault");
    at_one.reaches(&at_two);
    at_two.reaches(&at_one);
    assert_ne!(pair.public_key("n1"), key);
    pair.nodes[1].answers(&at_two, "vault", &[&at_one.address]);
    [at_one, at_two].into_iter().for_each(Member::del);
    reboots_are_over(host);
}
