//! Five hosts on one network, and an etcd of three members of which one dies.

use berth_integration::Host;

use crate::control::etcd::three;
use crate::fault::lost_during;
use crate::stage::{Member, Node, leave, nodes_test};

#[test]
fn five_hosts_reach_each_other_by_name_and_do_not_notice_a_dead_member_of_etcd() {
    nodes_test(5, |lan, nodes| {
        let hosts = [Host::new(), Host::new(), Host::new()];
        let members = three(&hosts, lan);
        let endpoints: Vec<String> =
            members.iter().map(|member| format!("--etcd http://{}", member.endpoint)).collect();
        for node in &nodes {
            node.berth(&format!("node join {} --name {}", endpoints.join(" "), node.name));
        }
        nodes.iter().for_each(Node::is_connected);
        nodes[4].berth("network create -d overlay blue --subnet 10.5.0.0/24");
        let containers: Vec<_> = nodes
            .iter()
            .enumerate()
            .map(|(at, node)| node.add(&format!("c{at}"), &format!("m{at}")))
            .collect();
        for (at, from) in containers.iter().enumerate() {
            for (other, to) in containers.iter().enumerate().filter(|(other, _)| *other != at) {
                nodes[at].answers(from, &format!("m{other}"), &[&to.address]);
                from.reaches(to);
            }
        }
        let mut late = None;
        let lost = lost_during(&containers[0], &containers[4], || {
            members[0].kill();
            let new = nodes[1].add("late", "late");
            containers[2].reaches(&new);
            nodes[3].answers(&containers[3], "late", &[&new.address]);
            late = Some(new);
        });
        assert_eq!(lost, 0);
        nodes.iter().for_each(Node::is_connected);
        containers.into_iter().chain(late).for_each(Member::del);
        leave(nodes);
        drop(members);
    });
}
