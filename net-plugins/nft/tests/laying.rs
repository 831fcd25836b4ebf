//! The ruleset in a real kernel: it loads, can be laid again, and what becomes of it is noticed.

#[cfg(test)]
mod common;

use berth_nft::{Batch, CommitError, Element, NftSocket, RulesetState, lay, remove_tables, ruleset_state};
use common::{ifname, in_netns, laid, nft_elements, run};

#[test]
fn the_ruleset_loads_and_reads_as_reviewed() {
    laid(|socket| {
        assert_eq!(ruleset_state(socket).unwrap(), RulesetState::Current);
        let text = run("nft list table inet berth") + &run("nft list table bridge berth");
        // The marker's name and content follow from the rest.
        let marker = text.find("\tset ruleset_").unwrap();
        let end = marker + text[marker..].find("\n\t}\n").unwrap() + 5;
        let text = format!("{}{}", &text[..marker], &text[end..]);
        // Every version of nft prints it a little differently; `the_ruleset_is_constant` holds for all.
        if run("nft --version").contains("v1.0.6") {
            insta::assert_snapshot!("ruleset", text);
        }
    });
}

#[test]
fn the_ruleset_is_constant() {
    let script = serde_json::from_str::<serde_json::Value>(&berth_nft::script().unwrap()).unwrap();
    let commands = script["nftables"].as_array().unwrap();
    let lines: Vec<_> = commands.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!("script", lines.join("\n"));
}

#[test]
fn laying_again_keeps_elements_and_changes_no_rule() {
    laid(|socket| {
        let mut batch = Batch::new();
        batch.add(Element::Bridge(ifname("br0")));
        batch.add(Element::Subnet("10.80.0.0/24".parse().unwrap()));
        socket.commit(&batch).unwrap();
        let before = run("nft list ruleset");
        for _ in 0..3 {
            lay(socket).unwrap();
        }
        assert_eq!(run("nft list ruleset"), before);
        assert_eq!(ruleset_state(socket).unwrap(), RulesetState::Current);
    });
}

#[test]
fn a_flush_of_everything_is_noticed_by_the_next_batch() {
    laid(|socket| {
        run("nft flush ruleset");
        assert!(matches!(socket.commit(&Batch::new()), Err(CommitError::NoRuleset)));
        let mut batch = Batch::new();
        batch.add(Element::Bridge(ifname("br0")));
        assert!(matches!(socket.commit(&batch), Err(CommitError::NoRuleset)));
        assert_eq!(ruleset_state(socket).unwrap(), RulesetState::Absent);
        lay(socket).unwrap();
        socket.commit(&batch).unwrap();
    });
}

#[test]
fn another_versions_ruleset_is_noticed_and_replaced() {
    laid(|socket| {
        let name = run("nft list table inet berth");
        let name = name.split_whitespace().find(|word| word.starts_with("ruleset_")).unwrap().to_owned();
        run(&format!("nft delete set inet berth {name}"));
        run("nft add set inet berth ruleset_0123456789abcdef { type mark ; }");
        assert!(matches!(socket.commit(&Batch::new()), Err(CommitError::NoRuleset)));
        assert_eq!(ruleset_state(socket).unwrap(), RulesetState::Outdated);
        lay(socket).unwrap();
        socket.commit(&Batch::new()).unwrap();
        let text = run("nft list table inet berth");
        assert!(text.contains(&name) && !text.contains("ruleset_0123456789abcdef"));
    });
}

#[test]
fn a_changed_rule_is_noticed_and_repaired() {
    laid(|socket| {
        for change in [
            "nft flush chain inet berth forward_ours",
            "nft insert rule inet berth forward_ours accept",
            "nft flush chain bridge berth advertised",
            "nft add chain inet berth raw_pre { policy drop ; }",
            "nft add chain inet berth stranger",
        ] {
            run(change);
            assert_eq!(ruleset_state(socket).unwrap(), RulesetState::Altered, "{change}");
            if change.contains("stranger") {
                run("nft delete chain inet berth stranger");
            }
            lay(socket).unwrap();
            assert_eq!(ruleset_state(socket).unwrap(), RulesetState::Current, "{change}");
        }
        assert!(!run("nft list chain inet berth raw_pre").contains("policy drop"));
    });
}

#[test]
fn a_missing_set_is_noticed() {
    laid(|socket| {
        run("nft flush chain inet berth forward_ours");
        run("nft delete set inet berth open");
        assert_eq!(ruleset_state(socket).unwrap(), RulesetState::Altered);
        let mut batch = Batch::new();
        batch.add(Element::Open(ifname("br0")));
        assert!(matches!(socket.commit(&batch), Err(CommitError::NoRuleset)));
    });
}

#[test]
fn removing_the_tables_leaves_others_alone_and_may_be_repeated() {
    in_netns(|| {
        run("nft add table inet other");
        let before = run("nft list ruleset");
        let mut socket = NftSocket::open().unwrap();
        remove_tables(&mut socket).unwrap();
        lay(&mut socket).unwrap();
        let mut batch = Batch::new();
        batch.add(Element::Bridge(ifname("br0")));
        socket.commit(&batch).unwrap();
        remove_tables(&mut socket).unwrap();
        remove_tables(&mut socket).unwrap();
        assert_eq!(run("nft list ruleset"), before);
        assert_eq!(ruleset_state(&mut socket).unwrap(), RulesetState::Absent);
    });
}

#[test]
fn many_may_lay_and_commit_at_once() {
    in_netns(|| {
        let namespace = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
        std::thread::scope(|scope| {
            for worker in 0..8 {
                let namespace = &namespace;
                scope.spawn(move || {
                    use std::os::fd::AsFd;
                    let kind = Some(rustix::thread::LinkNameSpaceType::Network);
                    rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).unwrap();
                    let mut socket = NftSocket::open().unwrap();
                    lay(&mut socket).unwrap();
                    let mut batch = Batch::new();
                    batch.add(Element::Bridge(ifname(&format!("br{worker}"))));
                    socket.commit(&batch).unwrap();
                });
            }
        });
        let mut socket = NftSocket::open().unwrap();
        assert_eq!(ruleset_state(&mut socket).unwrap(), RulesetState::Current);
        assert_eq!(nft_elements("inet", "bridges").matches("\"br").count(), 8);
    });
}
