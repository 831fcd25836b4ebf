//! Ten thousand attachments elsewhere.

use std::collections::BTreeMap;

use berth_integration::Host;
use berth_integration::bench::{Memory, Wanted, row};
use berth_integration::eventually;

use crate::stage::{Node, SOON, Stage, figures};

const MANY: u32 = 10_000;
const NETWORK: &str = "crowd";

/// Entries of one network on a host of its own, from the view to the kernel and compared with it.
pub(crate) fn programmed() {
    let host = Host::new();
    let printed = figures(&host, &["entries", &MANY.to_string()]).run();
    let millis: BTreeMap<String, f64> = serde_json::from_str(&printed).unwrap();
    let second = Wanted::AtMost(1000.0);
    for (words, key) in [
        ("10,000 remote attachments, IPv4 and IPv6: from the view into an empty kernel", "programmed"),
        ("the same compared with the kernel, nothing to do", "compared"),
        ("the same with 100 differences, put right", "mended"),
    ] {
        row(words, "ms", millis[key], None, second);
    }
}

/// The daemon's memory with all of them seen through etcd, as they come and after a start: once all is settled, and at its peak.
pub(crate) fn memory(stage: &Stage) {
    stage.nodes[0].berth(&format!("network create -d overlay {NETWORK} --subnet 10.6.0.0/16"));
    // The first container finds who serves names; then the agent is alone.
    let node = stage.node(4, "overlay,dns");
    let member = node.attach(NETWORK, "alone").0;
    let mut node = node.with_roles(Some("overlay"));
    let none = memory_of(&node);
    node.figures(&["crowd", &stage.etcd.url, NETWORK, &MANY.to_string()]).run();
    sees_all(&node);
    let live = memory_of(&node);
    node.daemon.stop();
    node.daemon.start();
    sees_all(&node);
    let started = memory_of(&node);
    let mut node = node.with_roles(None);
    sees_all(&node);
    let all_roles = memory_of(&node);
    let wanted = Wanted::AtMost(25.0);
    for (what, memory, settled_wanted) in [
        ("none: role `overlay`", none, Wanted::Nothing),
        ("10,000 attachments elsewhere: role `overlay`, as they come", live, wanted),
        ("10,000 attachments elsewhere: role `overlay`, started with them", started, wanted),
        ("10,000 attachments elsewhere: all roles, started with them", all_roles, Wanted::Nothing),
    ] {
        row(&format!("memory of `berthd` with {what}, settled"), "MB", memory.settled, None, settled_wanted);
        row(
            &format!("memory of `berthd` with {what}, at its peak"),
            "MB",
            memory.peak,
            None,
            Wanted::Nothing,
        );
    }
    member.del();
    node.daemon.stop();
}

fn sees_all(node: &Node) {
    eventually(SOON, || {
        let status = node.status();
        let found = status["networks"][0]["elsewhere"].as_u64().unwrap_or(0);
        if found >= u64::from(MANY) && status["connected"] == true {
            Ok(())
        } else {
            Err(format!("{found} attachments are seen: {status}"))
        }
    });
    // The kernel and the names follow.
    std::thread::sleep(std::time::Duration::from_secs(2));
}

fn memory_of(node: &Node) -> Memory {
    Memory::of(node.daemon.pid().unwrap())
}
