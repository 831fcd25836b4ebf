//! What keeps it going: keys that turn, agents that end, hosts that begin anew, and what others take away.

use std::time::Duration;

use berth_integration::engine::{reboot, reboots_are_over};
use berth_integration::{eventually, patience};

use super::stage::{Setup, encrypted_test, mark, ping_line, received, says};
use crate::stage::{Member, Node, SOON};

/// The numbers of a host's states.
fn numbers(node: &Node<'_>) -> Vec<String> {
    let text = node.host.run("ip xfrm state list nokeys");
    let spis = text.split("spi ").skip(1).filter_map(|rest| rest.split_whitespace().next());
    let mut spis: Vec<String> = spis.map(str::to_owned).collect();
    spis.sort();
    spis
}

#[test]
fn keys_turn_again_and_again_and_nothing_is_lost_where_the_kernel_can() {
    encrypted_test(Setup { period: Some(6), ..Setup::default() }, |pair| {
        let (one, two) = pair.both();
        let secret = [one.add_to("secret", "c3", "vault"), two.add_to("secret", "c4", "key")];
        secret[0].reaches(&secret[1]);
        secret[1].reaches(&secret[0]);
        let before = numbers(one);
        // Three that come in and one that goes out.
        assert_eq!(before.len(), 4, "{before:?}");
        assert_eq!(mark(&secret[0], &secret[1], 120), 120, "over four generations");
        let after = numbers(one);
        assert!(
            after.len() >= 4 && !after.iter().any(|number| before.contains(number)),
            "{before:?} {after:?}"
        );
        assert_eq!(one.status()["counters"]["repaired"], 0, "a turn is no damage");
        secret.into_iter().for_each(Member::del);
    });
}

#[test]
fn states_that_somebody_takes_away_come_back_with_other_keys_where_the_kernel_can() {
    encrypted_test(Setup::default(), |pair| {
        let (one, two) = pair.both();
        let secret = [one.add_to("secret", "c3", "vault"), two.add_to("secret", "c4", "key")];
        secret[0].reaches(&secret[1]);
        let (key, spis) = (pair.public_key("n1"), numbers(one));
        one.host.run("ip xfrm state flush");
        secret[0].reaches(&secret[1]);
        secret[1].reaches(&secret[0]);
        let new = pair.public_key("n1");
        assert!(!new.is_empty() && new != key);
        assert!(!numbers(one).iter().any(|number| spis.contains(number)));
        // Policies have no counters: they are just there again.
        two.host.run("ip xfrm policy flush");
        eventually(SOON, || match two.host.run("ip xfrm policy").matches("udp dport 4799").count() {
            3 => Ok(()),
            other => Err(format!("{other} policies")),
        });
        assert_eq!(pair.public_key("n1"), new);
        assert_eq!(mark(&secret[0], &secret[1], 3), 3);
        assert!(one.status()["counters"]["repaired"].as_u64().unwrap() > 0);
        secret.into_iter().for_each(Member::del);
    });
}

#[test]
fn an_agent_that_ends_and_one_that_begins_change_nothing_where_the_kernel_can() {
    encrypted_test(Setup::default(), |pair| {
        let (one, two) = pair.both();
        let secret = [one.add_to("secret", "c3", "vault"), two.add_to("secret", "c4", "key")];
        secret[0].reaches(&secret[1]);
        let (key, spis) = (pair.public_key("n1"), numbers(one));
        let pings = secret[0].container.line(&ping_line(&secret[1], 75)).spawn();
        pair.nodes[0].daemon.crash();
        pair.nodes[0].daemon.start();
        pair.nodes[0].is_connected();
        let pings = pings.wait(patience(Duration::from_secs(60)));
        assert_eq!(received(&pings.stdout), 75, "{pings}");
        assert_eq!((pair.public_key("n1"), numbers(&pair.nodes[0])), (key.clone(), spis));

        // A host that begins anew has new keys, and the others take them.
        let [at_one, at_two] = secret;
        at_one.del();
        pair.nodes[0].daemon.crash();
        let host = pair.nodes[0].host;
        reboot(host);
        host.run("ip xfrm state flush; ip xfrm policy flush");
        std::fs::remove_dir_all(host.run_dir()).unwrap();
        std::fs::create_dir(host.run_dir()).unwrap();
        pair.nodes[0].daemon.start();
        pair.nodes[0].is_connected();
        let at_one = pair.nodes[0].add_to("secret", "c5", "vault");
        at_one.reaches(&at_two);
        at_two.reaches(&at_one);
        assert_ne!(pair.public_key("n1"), key);
        [at_one, at_two].into_iter().for_each(Member::del);
        reboots_are_over(host);
    });
}

#[test]
fn a_network_whose_record_is_another_is_cut_off_where_the_kernel_can() {
    encrypted_test(Setup::default(), |pair| {
        let (one, two) = pair.both();
        let secret = [one.add_to("secret", "c3", "vault"), two.add_to("secret", "c4", "key")];
        secret[0].reaches(&secret[1]);
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
        secret.into_iter().for_each(Member::del);
    });
}
