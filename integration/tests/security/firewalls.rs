//! Other people's firewalls: they win, are never edited, and the one in the way is named.

use std::net::SocketAddr;

use berth_integration::{Lan, Probe};

use crate::common::{Net, accept_mark, berth_lan_test, foreign_firewall, tcp};
use crate::packet::SILENCE;

/// S8 (CVE-2019-9946): an administrator's drop rule holds, wherever it is.
#[test]
fn an_administrators_drop_rule_filters_published_ports_at_every_hook_and_priority() {
    berth_lan_test(|host, lan, seat| {
        let a = Net::new(host, 1).publish("a", tcp(8080, 80));
        let server = a.serve_tcp(80, "a");
        let probes = [SocketAddr::new(seat.v4.into(), 8080), SocketAddr::new(seat.v6.into(), 8080)];
        for (hook, priority, port) in [
            ("prerouting", -310, 8080),
            ("prerouting", -300, 8080),
            ("prerouting", -150, 8080),
            ("prerouting", -90, 80),
            ("forward", -200, 80),
            ("forward", -10, 80),
            ("forward", 0, 80),
            ("forward", 300, 80),
            ("postrouting", 0, 80),
            ("postrouting", 200, 80),
        ] {
            host.run(&format!(
                "nft 'add table inet admin ; \
                 add chain inet admin c {{ type filter hook {hook} priority {priority} ; }} ; \
                 add rule inet admin c tcp dport {port} drop'"
            ));
            let heard = server.heard().len();
            for to in probes {
                lan.probe(&Probe::tcp(to).timeout(SILENCE)).none();
            }
            assert_eq!(server.heard().len(), heard, "{hook} {priority}");
            host.run("nft delete table inet admin");
        }
        for to in probes {
            lan.probe(&Probe::tcp(to)).all_from("a");
        }
    });
}

/// S8: the original host port can be filtered behind the translation, by what connection tracking remembers.
#[test]
fn an_administrator_can_filter_by_the_published_port_and_the_clients_address() {
    berth_lan_test(|host, lan, seat| {
        let a = Net::new(host, 1).publish("a", tcp(8080, 80));
        let _a = a.serve_tcp(80, "a");
        host.run(&format!(
            "nft 'add table inet admin ; \
             add chain inet admin c {{ type filter hook forward priority 0 ; }} ; \
             add rule inet admin c tcp dport 80 ct original proto-dst 8080 ip saddr {} drop'",
            Lan::V4
        ));
        lan.probe(&Probe::tcp(SocketAddr::new(seat.v4.into(), 8080)).timeout(SILENCE)).none();
        host.probe(&Probe::tcp("127.0.0.1:8080")).all_from("a");
        host.run("nft delete table inet admin");
    });
}

/// S9: a foreign drop policy stands in the way until one rule is added, and berth adds none itself.
#[test]
fn a_foreign_drop_policy_blocks_until_the_mark_is_accepted_and_is_not_edited() {
    berth_lan_test(|host, lan, seat| {
        foreign_firewall(host);
        let foreign = host.run("nft list table inet foreign");
        let a = Net::new(host, 1).publish("a", tcp(8080, 80));
        let _a = a.serve_tcp(80, "a");
        let _lan = lan.serve_tcp(81, "lan");
        let published = Probe::tcp(SocketAddr::new(seat.v4.into(), 8080)).timeout(SILENCE);
        lan.probe(&published).none();
        assert_eq!(host.run("nft list table inet foreign"), foreign);
        accept_mark(host);
        lan.probe(&published).all_from("a");
        a.probe(&Probe::tcp(SocketAddr::new(Lan::V4.into(), 81))).all_from("lan");
        host.run("nft delete table inet foreign");
    });
}

/// S9.
#[test]
fn doctor_names_the_foreign_chain_that_blocks_and_what_to_do() {
    berth_lan_test(|host, _, _| {
        let a = Net::new(host, 1).publish("a", tcp(8080, 80));
        let clean = host.berth(["doctor"]).output();
        assert_eq!(clean.code(), Some(0), "{clean}");
        foreign_firewall(host);
        let blocked = host.berth(["doctor"]).output();
        assert_ne!(blocked.code(), Some(0), "{blocked}");
        for word in ["foreign", "FORWARD", "0x00b00000"] {
            assert!(blocked.stdout.contains(word), "{word} is not in {blocked}");
        }
        let json = host.berth(["doctor", "--json"]).output();
        let report: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
        assert!(report.to_string().contains("FORWARD"), "{report}");
        accept_mark(host);
        let mended = host.berth(["doctor"]).output();
        assert_eq!(mended.code(), Some(0), "{mended}");
        host.run("nft delete table inet foreign");
        a.leave();
    });
}

/// S9: whatever stands there already, berth's mark does not hide somebody else's bits.
#[test]
fn other_bits_of_the_mark_pass_unchanged() {
    berth_lan_test(|host, lan, seat| {
        let a = Net::new(host, 1).publish("a", tcp(8080, 80));
        let _a = a.serve_tcp(80, "a");
        host.run(
            "nft 'add table inet admin ; \
             add chain inet admin pre { type filter hook prerouting priority -300 ; } ; \
             add rule inet admin pre meta mark set 0x12000345 ; \
             add chain inet admin passing { type filter hook forward priority 100 ; policy drop ; } ; \
             add rule inet admin passing meta mark and 0xff0fffff == 0x12000345 accept'",
        );
        lan.probe(&Probe::tcp(SocketAddr::new(seat.v4.into(), 8080))).all_from("a");
        host.run("nft delete table inet admin");
    });
}
