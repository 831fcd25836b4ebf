//! Containers on one network on several hosts, by CNI.

use std::time::{Duration, Instant};

use berth_integration::eventually;
use berth_overlay::call::{self, CallError};
use berth_overlay::wire::Changed;
use berth_types::{AttachmentKey, ContainerId};
use serde_json::json;

use crate::stage::{Node, SOON, stage_test};

/// An engine that says names a moment later has its attachment published with them; one that never does, without.
#[test]
fn an_attachment_whose_names_never_come_is_published_all_the_same() {
    stage_test(2, |stage| {
        let [one, two] = &stage.nodes[..] else { panic!("two nodes") };
        one.berth("network create -d overlay blue --subnet 10.5.0.0/24");
        let (web, db) = (one.add("c1", "web"), two.add("c2", "db"));
        let record = "/berth/v1/ep/blue/c/n1/c1/";
        nameless(one, "c1").unwrap();
        // Lost by somebody's hand, it is not written again at once.
        stage.etcd.ctl(&["del", "--prefix", record]);
        eventually(SOON, || match stage.etcd.ctl(&["get", "--prefix", record, "--keys-only"]) {
            nothing if nothing.is_empty() => Err("not published".to_owned()),
            _ => Ok(()),
        });
        db.reaches(&web);
        web.del();
        db.del();
    });
}

#[test]
fn an_attachment_whose_names_come_later_is_refused_at_once_if_its_address_is_anothers() {
    stage_test(1, |stage| {
        let [one] = &stage.nodes[..] else { panic!("one node") };
        one.berth("network create -d overlay blue --subnet 10.5.0.0/24");
        let web = one.add("c1", "web");
        let address = format!("/berth/v1/addr/blue/{}", web.address);
        let own = stage.etcd.ctl(&["get", "--print-value-only", &address]);
        stage.etcd.ctl(&["put", &address, "ep/blue/c/n9/other/eth0"]);
        let before = stage.etcd.revision();
        let refused = nameless(one, "c1").unwrap_err().to_string();
        assert!(refused.contains("is taken: container other on n9 has it"), "{refused}");
        assert_eq!(stage.etcd.revision(), before, "asking is no write");
        stage.etcd.ctl(&["put", &address, own.trim()]);
        web.del();
    });
}

/// Tells the agent that `id` was attached to `blue` and that its names come soon.
fn nameless(node: &Node<'_>, id: &str) -> Result<(), CallError> {
    let key = AttachmentKey {
        network: "blue".parse().unwrap(),
        container: ContainerId::new(id).unwrap(),
        ifname: "eth0".parse().unwrap(),
    };
    call::nameless(&node.host.run_dir(), &Changed { attachments: vec![key] })
}

/// In what time a name is answered on all hosts, on any machine.
const NAMED: Duration = Duration::from_secs(5);

#[test]
fn containers_on_three_hosts_reach_each_other_by_address_and_name() {
    stage_test(3, |stage| {
        let [one, two, three] = &stage.nodes[..] else { panic!("three nodes") };
        one.berth("network create -d overlay blue --subnet 10.5.0.0/24");
        let web = one.add("c1", "web");
        let third = three.add("c3", "third");
        let db = two.add("c2", "db");
        // What is published when the start returns is elsewhere at once; a busy machine is given longer.
        let began = Instant::now();
        one.answers(&web, "db", &[&db.address]);
        three.answers(&third, "db", &[&db.address]);
        assert!(began.elapsed() < NAMED, "{:?}", began.elapsed());
        web.reaches(&db);
        db.reaches(&web);
        third.reaches(&web);
        web.reaches(&third);
        assert_eq!(two.dig(&db, "web.blue"), web.address);
        let server = db.container.serve_tcp(80, "db");
        web.container.reach(&berth_integration::Probe::tcp(format!("{}:{}", db.address, server.port())));
        drop(server);

        // Seen from outside: the nodes' own addresses, with packets that just fit.
        let ways = one.json("overlay ping blue --count 1");
        let ways = ways.as_array().unwrap();
        assert_eq!(ways.len(), 2, "{ways:?}");
        assert!(ways.iter().all(|way| way["received"] == 1 && way["full_received"] == 1), "{ways:?}");
        let tree = one.berth("topology");
        assert!(tree.contains("blue") && tree.contains("web") && tree.contains("third"), "{tree}");
        one.host.gc();
        web.reaches(&db);

        // One name on two hosts is both; taken off one, it is the other.
        let twin = three.add("c4", "db");
        one.answers(&web, "db", &[&db.address, &twin.address]);
        two.answers(&db, "db", &[&db.address, &twin.address]);
        twin.del();
        let gone = db.address.clone();
        one.answers(&web, "db", &[&gone]);
        db.del();
        one.answers(&web, "db", &[]);
        three.answers(&third, "db", &[]);
        assert_eq!(web.container.ping(&gone, 1), 0);
        let refused = one.host.berth(["network", "rm", "blue"]).output();
        assert!(!refused.status.success() && refused.stderr.contains("is in use"), "{refused}");
        web.del();
        third.del();
        one.berth("network rm blue");
        eventually(SOON, || match three.status()["networks"].as_array().map(Vec::len) {
            Some(0) => Ok(()),
            other => Err(format!("{other:?} networks are left on the third node")),
        });
    });
}

#[test]
fn a_network_is_made_by_its_first_container_and_third_party_addresses_are_refused() {
    stage_test(1, |stage| {
        let node = &stage.nodes[0];
        let missing = node.try_add("c0", "x").1.err();
        assert!(missing.msg.contains("has no network `blue`"), "{missing}");
        let container = node.host.container("c1");
        let call = node.call().container(&container).key("subnet", json!("10.5.0.0/24"));
        let foreign = call.clone().key("ipam", json!({"type": "host-local", "subnet": "10.5.0.0/24"}));
        let refused = foreign.add().err();
        assert!(refused.msg.contains("takes none of `host-local`"), "{refused}");
        let added = call.add();
        let result = added.json.clone();
        added.ok();
        call.clone().key("prevResult", result).check().ok();
        call.clone().key("cniVersion", json!("1.1.0")).run("STATUS").ok();
        call.del().ok();
        call.del().ok();
        let fixed = call.clone().args("IP=10.5.0.200").add();
        assert_eq!(fixed.addresses(), ["10.5.0.200/24"]);
        fixed.ok();
        call.del().ok();
        let encrypted = ["network", "create", "-d", "overlay", "secret", "--encrypted"];
        let refused = node.host.berth(encrypted).output();
        assert!(!refused.status.success(), "{refused}");
    });
}

#[test]
fn a_name_is_answered_on_every_node_soon_after_the_start_returns() {
    // The bench says how soon; here that nobody waits for a round or a retry.
    const LATEST: Duration = Duration::from_secs(5);
    stage_test(3, |stage| {
        stage.nodes[0].berth("network create -d overlay blue --subnet 10.5.0.0/24");
        let names = ["who1", "who2", "who3"];
        let asking: Vec<_> = stage.nodes.iter().zip(names).map(|(node, name)| node.add(name, name)).collect();
        let web = stage.nodes[0].add("c1", "web");
        let returned = Instant::now();
        for (node, who) in stage.nodes.iter().zip(&asking) {
            eventually(SOON, || match node.dig(who, "web") {
                address if address == web.address => Ok(()),
                other => Err(format!("web is {other:?}")),
            });
        }
        assert!(returned.elapsed() < LATEST, "{:?}", returned.elapsed());
        asking.into_iter().chain([web]).for_each(crate::stage::Member::del);
    });
}
