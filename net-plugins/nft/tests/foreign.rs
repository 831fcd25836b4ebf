//! What `doctor` is told about other programs' rules.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

#[cfg(test)]
mod common;

use berth_nft::{BlockerKind, docker_user_accept, foreign_blockers};
use common::{in_netns, laid, run};

fn nft(script: &str) {
    let path = std::env::temp_dir().join(format!(
        "berth-nft-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    std::fs::write(&path, script).unwrap();
    run(&format!("nft -f {}", path.display()));
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn berths_own_drops_are_no_blockers() {
    laid(|_| {
        let found = foreign_blockers().unwrap();
        assert_eq!((found.blockers, found.docker_user), (vec![], vec![]));
    });
}

#[test]
fn a_policy_and_rules_that_drop_are_named() {
    in_netns(|| {
        nft("table inet fw {
               chain deep { ct state invalid drop; reject; }
               chain passing { type filter hook forward priority 0; policy drop; tcp dport 22 drop; }
               chain local { type filter hook input priority 0; counter; jump deep; }
               chain sent { type filter hook output priority 0; policy drop; accept; }
               chain calm { type filter hook prerouting priority 0; accept; }
             }");
        let found = foreign_blockers().unwrap().blockers;
        let shown: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert!(matches!(&found[2].kind, BlockerKind::Always { chain, .. } if chain == "deep"));
        let shown: Vec<_> = shown.iter().map(|line| line.split(" by rule ").next().unwrap()).collect();
        insta::assert_snapshot!(shown.join("\n"), @r"
        chain passing of table inet fw at forward drops by its policy
        chain passing of table inet fw at forward drops by rules with conditions (1)
        chain local of table inet fw at input drops
        chain local of table inet fw at input drops by rules with conditions (1)
        ");
    });
}

#[test]
fn a_chain_that_accepts_berths_mark_says_so() {
    in_netns(|| {
        nft("table ip filter {
               chain DOCKER-USER { }
               chain FORWARD { type filter hook forward priority 0; policy drop; counter jump DOCKER-USER; }
             }");
        let before = foreign_blockers().unwrap();
        assert_eq!(before.docker_user, ["ip"]);
        assert!(!before.blockers[0].accepts_mark);
        nft(&format!("insert rule ip filter DOCKER-USER {}", docker_user_accept().nft));
        let after = foreign_blockers().unwrap();
        assert!(after.blockers[0].accepts_mark);
    });
}

#[test]
fn the_rule_for_iptables_is_one_rule_too() {
    in_netns(|| {
        run("iptables-nft -N DOCKER-USER");
        run("iptables-nft -I FORWARD -j DOCKER-USER");
        run("iptables-nft -P FORWARD DROP");
        run(&format!("iptables-nft {}", docker_user_accept().iptables));
        let found = foreign_blockers().unwrap();
        assert_eq!(found.docker_user, ["ip"]);
        assert!(found.blockers[0].accepts_mark, "{:?}", found.blockers);
    });
}
