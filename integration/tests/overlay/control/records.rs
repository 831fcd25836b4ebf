//! Records as tests write them, and what every etcd has to do with them.

use std::net::IpAddr;

use berth_integration::Debian;
use berth_overlay::cluster::{Change, Cluster, ClusterError, Entry, EntryKey, News, Watch};
use berth_overlay::model::{
    Block, BlockState, LAYOUT, Lend, LendState, Node, Occupant, OverlayAttachment, OverlayNetwork,
    OverlaySubnet,
};
use berth_overlay::view::View;
use berth_types::{BootId, ContainerId, MacAddr, NetworkName, NodeName, Vni};

use super::etcd::{etcd_test, on};

pub(crate) fn network_name(name: &str) -> NetworkName {
    NetworkName::new(name).unwrap()
}

pub(crate) fn node_name(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

pub(crate) fn node(name: &str, last: u8) -> Node {
    Node {
        v: LAYOUT,
        name: node_name(name),
        vtep4: Some([192, 0, 2, last].into()),
        vtep6: None,
        underlay_mtu: 1500,
        public_key: None,
        identity: format!("identity of {last}"),
        boot: BootId::new("boot"),
        epoch: 0,
    }
}

pub(crate) fn network(name: &str, vni: u32, subnet: &str) -> OverlayNetwork {
    let subnet: ipnetwork::IpNetwork = subnet.parse().unwrap();
    let subnet = OverlaySubnet { subnet, gateway: subnet.iter().nth(1).unwrap() };
    OverlayNetwork::usual(network_name(name), Vni::new(vni).unwrap(), vec![subnet], node_name("n1"))
}

pub(crate) fn container(name: &str) -> Occupant {
    Occupant::Container { id: ContainerId::new(name).unwrap(), ifname: "eth0".parse().unwrap() }
}

pub(crate) fn attachment(node: &Node, of: &str, address: &str, generation: u64) -> OverlayAttachment {
    OverlayAttachment {
        v: LAYOUT,
        network: network_name("blue"),
        of: container(of),
        node: node.name.clone(),
        epoch: node.epoch,
        mac: MacAddr([2, 0, 0, 0, 0, 9]),
        addresses: [address.parse().unwrap()].into(),
        names: [of.to_owned()].into(),
        services: Box::default(),
        generation,
    }
}

pub(crate) fn block(node: &Node, cidr: &str, state: BlockState, sequence: u64) -> Block {
    Block {
        v: LAYOUT,
        network: network_name("blue"),
        cidr: cidr.parse().unwrap(),
        owner: node.name.clone(),
        epoch: node.epoch,
        state,
        sequence,
    }
}

pub(crate) fn lend(node: &Node, address: &str) -> Lend {
    Lend {
        v: LAYOUT,
        network: network_name("blue"),
        address: address.parse().unwrap(),
        borrower: node.name.clone(),
        of: container("borrower"),
        state: LendState::Asked,
        sequence: 0,
    }
}

/// Joins and says so.
pub(crate) async fn joined(cluster: &dyn Cluster, node: Node) -> Node {
    let epoch = cluster.join(&node).await.unwrap();
    let node = Node { epoch, ..node };
    cluster.present(&node, std::time::Duration::from_secs(10)).await.unwrap();
    node
}

/// The next changes of a watch.
pub(crate) async fn changes(watch: &mut dyn Watch) -> Vec<Change> {
    match tokio::time::timeout(std::time::Duration::from_secs(10), watch.next()).await {
        Ok(Ok(News::Changes { changes, .. })) => changes,
        other => panic!("no changes: {other:?}"),
    }
}

#[track_caller]
pub(crate) fn assert_taken<T: std::fmt::Debug>(result: Result<T, ClusterError>, text: &str) {
    match result {
        Err(err @ ClusterError::Taken { .. }) => assert_eq!(err.to_string(), text),
        other => panic!("`{text}` was expected: {other:?}"),
    }
}

/// All of it once, on each release of etcd.
fn everything(debian: Debian) {
    etcd_test(debian, |host, etcd| {
        let cluster = etcd.cluster();
        on(host, async {
            let start = cluster.list().await.unwrap();
            let mut watch = cluster.watch(start.revision).await.unwrap();
            let mut view = View::default();
            view.replace(start);

            let one = joined(&*cluster, node("n1", 1)).await;
            let blue = network("blue", 4096, "10.0.0.0/24");
            cluster.create_network(&blue).await.unwrap();
            cluster.create_network(&blue).await.unwrap();

            // One write for one attachment, one for its change and one for its end; none for saying it again.
            let attached = attachment(&one, "c1", "10.0.0.2", 1);
            let before = etcd.revision();
            cluster.put_attachment(&attached).await.unwrap();
            cluster.put_attachment(&attached).await.unwrap();
            assert_eq!(etcd.revision(), before + 1);
            let moved = OverlayAttachment {
                addresses: ["10.0.0.3".parse::<IpAddr>().unwrap()].into(),
                generation: 2,
                ..attached.clone()
            };
            cluster.put_attachment(&moved).await.unwrap();
            assert_eq!(etcd.revision(), before + 2);
            cluster.put_attachment(&attachment(&one, "c2", "10.0.0.2", 1)).await.unwrap();
            let third = attachment(&one, "c3", "10.0.0.3", 9);
            let refused = "address 10.0.0.3 of network `blue` is taken: container c1 on n1 has it";
            assert_taken(cluster.put_attachment(&third).await, refused);
            // Whether it would be is said without a write.
            let before_asked = etcd.revision();
            assert_taken(cluster.check_attachment(&third).await, refused);
            cluster.check_attachment(&attachment(&one, "c3", "10.0.0.4", 9)).await.unwrap();
            assert_eq!(etcd.revision(), before_asked);
            assert_taken(
                cluster.put_attachment(&attached).await.and(Ok(())),
                "address 10.0.0.2 of network `blue` is taken: container c2 on n1 has it",
            );
            assert!(matches!(
                cluster
                    .put_attachment(&OverlayAttachment { network: network_name("red"), ..attached.clone() })
                    .await,
                Err(ClusterError::NoNetwork { .. })
            ));

            match cluster.remove_network(&blue.name).await {
                Err(ClusterError::InUse { count: 2, some, .. }) => assert_eq!(some, "c1 on n1, c2 on n1"),
                other => panic!("{other:?}"),
            }
            // An older word about it is no reason to take it away.
            cluster.remove_attachment(&moved.key(), 1).await.unwrap();
            assert!(cluster.list().await.unwrap().entries.contains(&Entry::Attachment(moved.clone())));
            for key in [moved.key(), attachment(&one, "c2", "10.0.0.2", 1).key(), moved.key()] {
                cluster.remove_attachment(&key, 2).await.unwrap();
            }

            // What the watch told is what a listing tells.
            let goal = cluster.list().await.unwrap();
            while view.revision() < goal.revision {
                let News::Changes { revision, changes } = watch.next().await.unwrap() else { panic!("lost") };
                view.apply(revision, changes);
            }
            assert!(view.replace(goal).is_empty());

            let own = Occupant::Node;
            let itself = OverlayAttachment { of: own.clone(), ..attachment(&one, "x", "10.0.0.4", 3) };
            cluster.put_attachment(&itself).await.unwrap();
            cluster.put_block(None, &block(&one, "10.0.0.0/28", BlockState::Pending, 1)).await.unwrap();
            cluster.remove_network(&blue.name).await.unwrap();
            assert!(matches!(cluster.remove_network(&blue.name).await, Err(ClusterError::NoNetwork { .. })));
            let left = cluster.list().await.unwrap().entries;
            let keys: Vec<EntryKey> = left.iter().map(Entry::key).collect();
            assert_eq!(keys, [EntryKey::Known(one.name.clone()), EntryKey::Node(one.name.clone())]);
            cluster.create_network(&network("green", 4096, "10.0.0.0/16")).await.unwrap();
            assert_eq!(etcd.ctl(&["get", "/berth/v1/addr/", "--prefix", "--keys-only"]), "");
        });
    });
}

#[test]
fn etcd_3_4_holds_all_kinds_of_records() {
    everything(Debian::V12);
}

#[test]
fn etcd_3_5_holds_all_kinds_of_records() {
    everything(Debian::V13);
}

#[test]
fn foreign_values_are_reported_and_passed_over() {
    etcd_test(Debian::V12, |host, etcd| {
        let cluster = etcd.cluster();
        on(host, async {
            let blue = network("blue", 4096, "10.0.0.0/24");
            cluster.create_network(&blue).await.unwrap();
            let mut view = View::default();
            view.replace(cluster.list().await.unwrap());
            let mut watch = cluster.watch(view.revision()).await.unwrap();

            etcd.ctl(&["put", "/berth/v1/nets/red", "{not json"]);
            etcd.ctl(&["put", "/berth/v1/nets/blue", "{\"v\":99}"]);
            etcd.ctl(&["put", "/berth/v1/hello", "world"]);
            etcd.ctl(&["put", "/berth/v1/ep/blue/x", "world"]);
            etcd.ctl(&["put", "/berth/v1/nets/huge", &"x".repeat(70_000)]);
            for _ in 0..5 {
                let seen = changes(&mut *watch).await;
                assert!(matches!(seen[..], [Change::Foreign(_)]), "{seen:?}");
                view.apply(view.revision(), seen);
            }
            let relisted = view.replace(cluster.list().await.unwrap());
            assert!(relisted.is_empty(), "{relisted:?}");
            let foreign: Vec<_> =
                view.foreign().map(|foreign| (foreign.key.as_str(), foreign.why.as_str())).collect();
            assert_eq!(foreign.len(), 5, "{foreign:?}");
            assert_eq!(foreign[0], ("ep/blue/x", "no record of berth's stands under such a key"));
            assert_eq!(foreign[2], ("nets/blue", "a later version wrote it (layout 99; this one knows 1)"));
            assert_eq!((foreign[1].0, foreign[3].0), ("hello", "nets/huge"));
            // The network that was readable goes on, and its name stays its own.
            assert!(view.network(&blue.name).is_some());
            let taken = cluster.create_network(&network("red", 5000, "10.5.0.0/24")).await;
            assert_taken(taken, "network name `red` is taken: a record that cannot be read has it");

            etcd.ctl(&["del", "/berth/v1/ep/blue/x"]);
            etcd.ctl(&["del", "/berth/v1/nets/red"]);
            for _ in 0..2 {
                let seen = changes(&mut *watch).await;
                view.apply(view.revision(), seen);
            }
            assert_eq!(view.foreign().count(), 3);
        });
    });
}
