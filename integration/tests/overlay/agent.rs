//! A host's place in a cluster.

use std::time::{Duration, Instant};

use berth_integration::host_test;

use crate::stage::stage_test;

#[test]
fn a_cluster_that_does_not_answer_is_said_and_nothing_is_written() {
    host_test(|host| {
        let began = Instant::now();
        let ran = host.berth(["node", "join", "--etcd", "http://192.0.2.77:2379", "--name", "n1"]).output();
        assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
        assert!(!ran.status.success() && ran.stderr.contains("192.0.2.77:2379"), "{ran}");
        let rows = host.json(&format!("{} node ls --json", berth_integration::berth_binary().display()));
        assert_eq!(rows, serde_json::json!([]));
        let unreadable =
            ["node", "join", "--etcd", "https://192.0.2.77:2379", "--ca", "/nowhere", "--name", "n1"];
        let ran = host.berth(unreadable).output();
        assert!(!ran.status.success() && ran.stderr.contains("/nowhere"), "{ran}");
        let ran = host.berth(["network", "create", "blue"]).output();
        assert!(!ran.status.success() && ran.stderr.contains("no overlay agent listens"), "{ran}");
        host.gc();
    });
}

#[test]
fn nodes_know_each_other_and_a_name_is_one_hosts() {
    stage_test(2, |stage| {
        let [one, two] = &stage.nodes[..] else { panic!("two nodes") };
        for node in [one, two] {
            node.knows("n1", &one.seat.v4.to_string());
            node.knows("n2", &two.seat.v4.to_string());
            assert_eq!(node.json("node ls").as_array().unwrap().len(), 2);
        }
        let taken =
            two.host.berth(["node", "join", "--etcd", "http://198.51.100.1:2379", "--name", "n1"]).output();
        assert!(!taken.status.success() && taken.stderr.contains("node name `n1`"), "{taken}");
        two.is_connected();
        // Joined again as it is, nothing is another.
        two.join(&stage.etcd.endpoint);
        two.is_connected();
    });
}
