//! What other programs break, and how it comes back.

use std::net::IpAddr;

use berth_core::GcRequest;
use berth_core::doctor::examine;
use berth_integration::underlay_test;
use berth_store::Dirs;

use super::stage::{Laid, Member, Net, Node, mtu_over, nodes};

/// Who finds it, beside the look that puts it right.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    /// `doctor` and `gc`.
    Doctor,
    /// Nobody: entries are not in the core's records.
    Nobody,
}

fn all_reach(nodes: &[Node<'_>], members: &[Member<'_>], after: &str) {
    for (at, other) in [(0, 1), (1, 0)] {
        for to in members[other].addresses {
            assert_eq!(members[at].container.ping(to, 1), 1, "member {at} to {to} after `{after}`");
            assert_eq!(nodes[at].host.ping(to, 1), 1, "node {at} to {to} after `{after}`");
        }
    }
}

fn dirs(node: &Node<'_>) -> Dirs {
    Dirs { state: node.host.state_dir(), run: node.host.run_dir() }
}

fn is_told(node: &Node<'_>) -> bool {
    let dirs = dirs(node);
    let found = node.host.inside(|| examine(&dirs));
    let request = GcRequest { dry_run: true, ..GcRequest::default() };
    let report = node.core(|berth| berth.gc(&request).unwrap());
    assert_eq!(found.is_clean(), report.mended.is_empty(), "{found:?} {report:?}");
    !found.is_clean()
}

#[test]
fn every_damage_is_found_put_right_and_counted() {
    underlay_test(2, 1500, |_, hosts| {
        let nodes = nodes(hosts, false);
        let laid = Laid::new(Net::new(0, mtu_over(1500, &nodes[0])), &nodes);
        let net = &laid.net;
        let members = [laid.join(0, "c0", 2), laid.join(1, "c1", 2)];
        let (device, bridge) = (net.device(), net.bridge());
        let (own, _) = nodes[0].own(net);
        let (peer_mac, peer) = (members[1].mac, members[1].addresses);
        let damages = [
            (Told::Doctor, format!("ip link delete {device}")),
            (Told::Doctor, format!("ip link set {device} mtu 1500")),
            (Told::Doctor, format!("ip link set {device} down")),
            (Told::Doctor, format!("ip link set {device} nomaster")),
            (
                Told::Doctor,
                format!("ip link set {device} type bridge_slave flood on learning on neigh_suppress off"),
            ),
            (Told::Doctor, format!("ip link set {device} type vxlan learning")),
            (Told::Doctor, format!("ip link set {bridge} mtu 1400")),
            (Told::Doctor, format!("ip link set {bridge} address 02:00:00:00:00:99")),
            (Told::Doctor, format!("ip link set {bridge} down")),
            (Told::Doctor, format!("ip link delete {bridge}")),
            (Told::Doctor, format!("ip link delete {bridge}; ip link delete {device}")),
            (Told::Doctor, format!("ip address delete {}/16 dev {bridge}", own[0])),
            (Told::Doctor, format!("ip address delete {}/64 dev {bridge}", own[1])),
            (Told::Doctor, format!("ip address flush dev {bridge}")),
            (Told::Nobody, format!("bridge fdb delete {peer_mac} dev {device} self")),
            (Told::Nobody, format!("bridge fdb delete {peer_mac} dev {device} master")),
            (Told::Nobody, format!("bridge fdb replace {peer_mac} dev {device} dst 198.18.9.9 self static")),
            (
                Told::Nobody,
                format!("bridge fdb append 00:00:00:00:00:00 dev {device} dst 198.18.9.9 self permanent"),
            ),
            (Told::Nobody, format!("ip neighbour delete {} dev {bridge}", peer[0])),
            (
                Told::Nobody,
                format!(
                    "ip neighbour replace {} lladdr 02:00:00:00:00:98 dev {bridge} nud permanent",
                    peer[1]
                ),
            ),
            (
                Told::Nobody,
                format!(
                    "ip neighbour replace {} lladdr 02:00:00:00:00:97 dev {bridge} nud permanent",
                    net.v4(9, 9)
                ),
            ),
        ];
        for (told, damage) in damages {
            nodes[0].host.run(&damage);
            assert_eq!(is_told(&nodes[0]), told == Told::Doctor, "`{damage}`");
            let report = nodes[0].reconcile(net);
            assert!(report.faults.is_empty() && !report.is_clean(), "`{damage}`: {report:?}");
            assert_eq!(report.device_mended, told == Told::Doctor, "`{damage}`: {report:?}");
            all_reach(&nodes, &members, &damage);
            assert!(nodes[0].reconcile(net).is_clean(), "once more after `{damage}`");
            assert!(!is_told(&nodes[0]), "after `{damage}`");
        }
        // A flushed ruleset comes back with the tunnel ends, by the core alone.
        nodes[0].host.run("nft flush ruleset");
        let report = nodes[0].core(|berth| berth.gc(&GcRequest::default()).unwrap());
        assert!(report.ruleset_restored);
        all_reach(&nodes, &members, "nft flush ruleset");
        assert!(nodes[0].reconcile(net).is_clean());
        for (at, member) in members.into_iter().enumerate() {
            laid.leave(at, member);
        }
        laid.unlay();
    });
}

/// The records of this boot are lost while the network stands.
#[test]
fn lost_records_are_built_again_from_the_kernel() {
    underlay_test(2, 1500, |_, hosts| {
        let nodes = nodes(hosts, false);
        let laid = Laid::new(Net::new(0, mtu_over(1500, &nodes[0])), &nodes);
        let members = [laid.join(0, "c0", 2), laid.join(1, "c1", 2)];
        let before = nodes[0].core(|berth| berth.network(&laid.net.name).unwrap().unwrap());
        std::fs::remove_file(nodes[0].host.run_dir().join("run.db")).unwrap();
        let after = nodes[0].core(|berth| berth.network(&laid.net.name).unwrap().unwrap());
        let told = |record: berth_core::network::NetworkRecord| {
            // Of other nodes' own addresses nothing tells, where no container is kept apart.
            (record.overlay, record.peers.vteps, record.gateways, record.subnets, record.reach, record.mac)
        };
        assert_eq!(told(before), told(after));
        nodes[0].reconcile(&laid.net);
        assert!(nodes[0].reconcile(&laid.net).is_clean());
        all_reach(&nodes, &members, "the records were lost");
        for (at, member) in members.into_iter().enumerate() {
            laid.leave(at, member);
        }
        laid.unlay();
    });
}

/// A host that was restarted with another address declares the network anew: it is the same network in another place.
#[test]
fn a_node_with_another_address_takes_its_network_along() {
    underlay_test(2, 1500, |_, hosts| {
        let mut nodes = nodes(hosts, false);
        let net = Net::new(0, 1430);
        let laid = Laid::new(net.clone(), &nodes);
        let members = [laid.join(0, "c0", 2), laid.join(1, "c1", 2)];
        let Laid { .. } = laid;
        nodes[0].vtep = IpAddr::from(hosts[0].1.v6);
        nodes[1].vtep = IpAddr::from(hosts[1].1.v6);
        for node in &nodes {
            let declaration = node.declaration(&net);
            node.core(|berth| berth.create_network(&declaration).unwrap());
            node.learns(&net, |entries| {
                for other in &nodes {
                    entries.node(&other.name(), Some(other.vtep));
                }
            });
            node.reconcile(&net);
            assert!(node.reconcile(&net).is_clean());
        }
        all_reach(&nodes, &members, "both nodes moved to IPv6");
        for (node, member) in nodes.iter().zip(members) {
            node.detach(member);
        }
        nodes.iter().for_each(|node| node.unlay(&net));
    });
}
