//! `nft flush ruleset`: restored by the next call and by `berth gc`, whole or not at all.

use std::net::SocketAddr;
use std::time::Duration;

use berth_integration::{Host, Lan, Probe, Seat};
use serde_json::json;

use crate::common::{Member, Net, berth_lan_test, tcp};

const SILENCE: Duration = Duration::from_millis(300);

/// Two networks with a published port, as they are before the flush.
fn built<'h>(host: &'h Host, lan: &Lan, seat: &Seat) -> (Member<'h>, Member<'h>) {
    let (one, two) = (Net::new(host, 1), Net::new(host, 2));
    for net in [&one, &two] {
        lan.run(&format!("ip route add {} via {}", net.subnet4(), seat.v4));
        lan.run(&format!("ip route add {} via {}", net.subnet6(), seat.v6));
    }
    (one.publish("a", tcp(8080, 80)), two.join("c"))
}

/// Everything that a flush takes away is there again.
fn whole(lan: &Lan, seat: &Seat, a: &Member<'_>, c: &Member<'_>) {
    let _a = a.serve_tcp(80, "a");
    let _lan = lan.serve_tcp(81, "lan");
    // Published.
    lan.probe(&Probe::tcp(SocketAddr::new(seat.v4.into(), 8080))).all_from("a");
    lan.probe(&Probe::tcp(SocketAddr::new(seat.v6.into(), 8080))).all_from("a");
    // Masqueraded.
    let seen = c.probe(&Probe::tcp(SocketAddr::new(Lan::V4.into(), 81))).all_from("lan");
    assert_eq!(seen[0].seen_as.unwrap().ip(), seat.v4);
    // Isolated, and not exposed.
    for ip in [a.v4().into(), a.v6().into()] {
        c.probe(&Probe::tcp(SocketAddr::new(ip, 80)).timeout(SILENCE)).none();
        lan.probe(&Probe::tcp(SocketAddr::new(ip, 80)).timeout(SILENCE)).none();
    }
    // Guarded.
    c.run("ip address add 10.80.2.200/24 dev eth0");
    c.probe(&Probe::tcp(SocketAddr::new(Lan::V4.into(), 81)).from("10.80.2.200").timeout(SILENCE)).none();
    c.run("ip address del 10.80.2.200/24 dev eth0");
    a.checked().check().ok();
    c.checked().check().ok();
}

#[test]
fn a_flushed_ruleset_is_restored_by_gc() {
    berth_lan_test(|host, lan, seat| {
        let (a, c) = built(host, lan, seat);
        host.run("nft flush ruleset");
        host.berth(["gc"]).run();
        whole(lan, seat, &a, &c);
    });
}

#[test]
fn a_flushed_ruleset_is_restored_by_the_next_add() {
    berth_lan_test(|host, lan, seat| {
        let (a, c) = built(host, lan, seat);
        host.run("nft flush ruleset");
        let late = Net::new(host, 1).join("late");
        whole(lan, seat, &a, &c);
        late.checked().check().ok();
        drop(late);
    });
}

#[test]
fn a_flushed_ruleset_is_restored_by_the_next_del() {
    berth_lan_test(|host, lan, seat| {
        let (a, c) = built(host, lan, seat);
        let late = Net::new(host, 1).join("late");
        host.run("nft flush ruleset");
        late.leave();
        whole(lan, seat, &a, &c);
    });
}

#[test]
fn a_flushed_ruleset_is_restored_by_the_gc_of_a_runtime() {
    berth_lan_test(|host, lan, seat| {
        let (a, c) = built(host, lan, seat);
        host.run("nft flush ruleset");
        let valid = json!([{"containerID": "a", "ifname": "eth0"}]);
        Net::new(host, 1).call().key("cni.dev/valid-attachments", valid).run("GC").ok();
        whole(lan, seat, &a, &c);
    });
}

/// Catalogue row 19, and partly: one of the two tables, one chain, one set's elements.
#[test]
fn what_was_taken_out_of_the_ruleset_is_put_back() {
    for damage in [
        "nft delete table inet berth",
        "nft delete table bridge berth",
        "nft flush chain inet berth raw_pre",
        "nft flush chain inet berth forward_ours",
        "nft flush chain bridge berth guard",
        "nft flush set inet berth bridges",
        "nft flush map inet berth port_addr4",
        "nft flush set bridge berth guarded",
        "nft flush set bridge berth allowed4",
    ] {
        berth_lan_test(|host, lan, seat| {
            let (a, c) = built(host, lan, seat);
            host.run(damage);
            assert_ne!(host.berth(["doctor"]).output().code(), Some(0), "{damage}: doctor saw nothing");
            host.berth(["gc"]).run();
            whole(lan, seat, &a, &c);
        });
    }
}

/// Something that was added to berth's tables by hand opens a hole.
#[test]
fn a_rule_that_somebody_put_into_berths_chains_is_found_and_removed() {
    berth_lan_test(|host, lan, seat| {
        let (a, c) = built(host, lan, seat);
        host.run("nft insert rule inet berth forward_ours accept");
        assert_ne!(host.berth(["doctor"]).output().code(), Some(0));
        host.berth(["gc"]).run();
        whole(lan, seat, &a, &c);
    });
}

#[test]
fn del_after_a_flush_succeeds_and_leaves_nothing() {
    berth_lan_test(|host, lan, seat| {
        let (a, c) = built(host, lan, seat);
        host.run("nft flush ruleset");
        a.leave();
        c.leave();
    });
}

/// S4 in small: the rules are taken away again and again under traffic that must never arrive.
#[test]
fn flushes_and_repairs_under_fire_open_nothing_that_stays_open() {
    berth_lan_test(|host, lan, seat| {
        let (a, c) = built(host, lan, seat);
        for _ in 0..5 {
            host.run("nft flush ruleset");
            host.berth(["gc"]).run();
            let server = a.serve_tcp(80, "a");
            for ip in [a.v4().into(), a.v6().into()] {
                lan.probe(&Probe::tcp(SocketAddr::new(ip, 80)).timeout(SILENCE)).none();
                c.probe(&Probe::tcp(SocketAddr::new(ip, 80)).timeout(SILENCE)).none();
            }
            assert_eq!(server.heard(), []);
        }
        whole(lan, seat, &a, &c);
    });
}
