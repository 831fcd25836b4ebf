//! A cluster without a server, end to end: agents that a file lists, and containers on three hosts.

use berth_integration::eventually;

use crate::stage::{Node, SOON, leave, nodes_test};

/// A file with these nodes and networks, each `name vni subnet`.
fn text(nodes: &[Node<'_>], networks: &[&str]) -> String {
    let peer = |node: &Node<'_>| format!(r#"{{"name": "{}", "vteps": ["{}"]}}"#, node.name, node.seat.v4);
    let network = |line: &&str| {
        let [name, vni, subnet] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        format!(r#"{{"name": "{name}", "vni": {vni}, "subnets": ["{subnet}"]}}"#)
    };
    let peers: Vec<String> = nodes.iter().map(peer).collect();
    let networks: Vec<String> = networks.iter().map(network).collect();
    format!("{{\"v\": 1, \"peers\": [{}], \"networks\": [{}]}}", peers.join(", "), networks.join(", "))
}

const BLUE: &str = "blue 4096 10.5.0.0/24";
const RED: &str = "red 4097 10.6.0.0/24";

#[test]
fn hosts_that_a_file_lists_have_networks_and_names_together_until_one_leaves() {
    nodes_test(3, |_, mut nodes| {
        let file = text(&nodes, &[BLUE]);
        nodes.iter().for_each(|node| node.join_peers(&file));
        nodes.iter().for_each(Node::is_connected);
        let members: Vec<_> = nodes
            .iter()
            .enumerate()
            .map(|(at, node)| node.add(&format!("c{at}"), &format!("m{at}")))
            .collect();
        for (at, from) in members.iter().enumerate() {
            for (other, to) in members.iter().enumerate().filter(|(other, _)| *other != at) {
                from.reaches(to);
                nodes[at].answers(from, &format!("m{other}"), &[&to.address]);
            }
        }
        let refused = nodes[0].host.berth(["network", "create", "green"]).output();
        assert!(
            !refused.status.success() && refused.stderr.contains("add the network to the file"),
            "{refused}"
        );

        // A network more is a line more, on every node.
        let file = text(&nodes, &[BLUE, RED]);
        nodes.iter().for_each(|node| node.write_peers(&file));
        let added = eventually(SOON, || {
            let (member, ran) = nodes[0].try_add_to("red", "r0", "r0");
            if ran.succeeded() { Ok(member) } else { Err(ran.err().to_string()) }
        });
        let red = [added, nodes[1].add_to("red", "r1", "r1")];
        red[0].reaches(&red[1]);
        assert_eq!(red[0].container.ping(&members[1].address, 1), 0, "networks are kept apart");

        // The last host leaves: it says so itself, and then the file does.
        let mut members = members;
        let gone = members.remove(2);
        let address = gone.address.clone();
        let refused = nodes[2].host.berth(["node", "leave"]).output();
        assert!(!refused.status.success() && refused.stderr.contains("stop them first"), "{refused}");
        gone.del();
        let mut last = nodes.remove(2);
        last.berth("node leave");
        assert_eq!(last.status()["node"], serde_json::json!(null));
        last.daemon.stop();
        last.host.gc();
        let file = text(&nodes, &[BLUE, RED]);
        nodes.iter().for_each(|node| node.write_peers(&file));
        eventually(SOON, || {
            let left = nodes[0].status()["nodes"].as_array().map_or(0, Vec::len);
            let entries = nodes[0].host.run("bridge fdb show");
            if left == 2 && !entries.contains(&last.seat.v4.to_string()) {
                Ok(())
            } else {
                Err(format!("{left} nodes, and\\n{entries}"))
            }
        });
        nodes[0].answers(&members[0], "m2", &[]);
        assert_eq!(members[0].container.ping(&address, 1), 0);
        members[0].reaches(&members[1]);
        members.into_iter().chain(red).for_each(crate::stage::Member::del);
        leave(nodes);
    });
}
