//! Nodes: leases, epochs, and who a node is.

use std::time::Duration;

use berth_integration::Debian;
use berth_overlay::cluster::{Change, Cluster, ClusterError, Entry, EntryKey, Removal};
use berth_overlay::model::{BlockState, Node};
use berth_overlay::view::{NodeStatus, View};

use super::etcd::{etcd_test, on};
use super::records::{attachment, block, changes, joined, network, node, node_name};

const LEASE: Duration = Duration::from_secs(10);

#[test]
fn a_revoked_lease_makes_a_node_suspect_and_the_next_word_brings_it_back() {
    etcd_test(Debian::V12, |host, etcd| {
        let cluster = etcd.cluster();
        on(host, async {
            let one = joined(&*cluster, node("n1", 1)).await;
            cluster.create_network(&network("blue", 4096, "10.0.0.0/24")).await.unwrap();
            cluster.put_attachment(&attachment(&one, "c1", "10.0.0.2", 1)).await.unwrap();
            let mut view = View::default();
            view.replace(cluster.list().await.unwrap());
            let mut watch = cluster.watch(view.revision()).await.unwrap();

            // Saying the same again writes nothing.
            let before = etcd.revision();
            cluster.present(&one, LEASE).await.unwrap();
            assert_eq!(etcd.revision(), before);

            let leases = etcd.ctl(&["lease", "list"]);
            let lease = leases.lines().last().unwrap();
            etcd.ctl(&["lease", "revoke", lease]);
            let seen = changes(&mut *watch).await;
            assert_eq!(seen, [Change::Gone(EntryKey::Node(one.name.clone()))]);
            view.apply(view.revision(), seen);
            assert_eq!(view.node(&one.name).unwrap().status(), NodeStatus::Suspect);
            assert_eq!(view.attachments_of(&one.name).count(), 1);
            assert_eq!(view.node(&one.name).unwrap().node().unwrap().vtep4, one.vtep4);

            cluster.present(&one, LEASE).await.unwrap();
            view.apply(view.revision(), changes(&mut *watch).await);
            assert_eq!(view.node(&one.name).unwrap().status(), NodeStatus::Alive);

            // Its record taken away by hand comes back too.
            etcd.ctl(&["del", "/berth/v1/nodes/n1"]);
            cluster.present(&one, LEASE).await.unwrap();
            assert!(cluster.list().await.unwrap().entries.contains(&Entry::Node(one)));
        });
    });
}

#[test]
fn a_lease_that_nobody_renews_runs_out() {
    etcd_test(Debian::V12, |host, etcd| {
        let cluster = etcd.cluster();
        on(host, async {
            let node = node("n1", 1);
            let epoch = cluster.join(&node).await.unwrap();
            let node = Node { epoch, ..node };
            let start = cluster.list().await.unwrap().revision;
            let mut watch = cluster.watch(start).await.unwrap();
            cluster.present(&node, Duration::from_secs(2)).await.unwrap();
            assert!(matches!(changes(&mut *watch).await[..], [Change::Put(Entry::Node(_))]));
            assert_eq!(changes(&mut *watch).await, [Change::Gone(EntryKey::Node(node.name))]);
        });
    });
}

#[test]
fn of_two_hosts_with_one_name_the_one_that_lives_keeps_it() {
    etcd_test(Debian::V12, |host, etcd| {
        on(host, async {
            let (cluster, other_cluster) = (etcd.cluster(), etcd.cluster());
            let first = joined(&*cluster, node("n1", 1)).await;
            let second = Node { name: first.name.clone(), ..node("x", 2) };
            let clone = Node { vtep4: second.vtep4, ..first.clone() };
            for other in [&second, &clone] {
                let text = other_cluster.join(other).await.unwrap_err().to_string();
                let expected = "node name `n1` is taken by a host at 192.0.2.1\ngive this host another: berth node join --name NAME";
                assert_eq!(text, expected);
            }
            // The same host, its agent started anew: its epoch is as it was, and it need not wait for its own lease.
            let restarted = etcd.cluster();
            assert_eq!(restarted.join(&first).await.unwrap(), first.epoch);
            restarted.present(&first, LEASE).await.unwrap();
            // Its address changes while it runs.
            let moved = Node { vtep4: Some([192, 0, 2, 77].into()), ..first.clone() };
            restarted.present(&moved, LEASE).await.unwrap();

            // The first falls silent and the second takes the name: what the first still says is of an epoch that is over.
            let leases = etcd.ctl(&["lease", "list"]);
            for lease in leases.lines().skip(1) {
                etcd.ctl(&["lease", "revoke", lease]);
            }
            let second = joined(&*other_cluster, second).await;
            assert!(second.epoch > first.epoch);
            assert!(matches!(restarted.present(&moved, LEASE).await, Err(ClusterError::Fenced { .. })));
            assert!(matches!(restarted.join(&moved).await, Err(ClusterError::Identity { .. })));
        });
    });
}

#[test]
fn what_a_removed_node_still_sends_is_refused_until_it_joins_anew() {
    etcd_test(Debian::V12, |host, etcd| {
        on(host, async {
            let (cluster, reclaimer) = (etcd.cluster(), etcd.cluster());
            let one = joined(&*cluster, node("n1", 1)).await;
            joined(&*reclaimer, node("n2", 2)).await;
            cluster.create_network(&network("blue", 4096, "10.0.0.0/20")).await.unwrap();
            let confirmed = block(&one, "10.0.0.0/28", BlockState::Confirmed, 1);
            cluster.put_block(None, &confirmed).await.unwrap();
            for number in 0..60 {
                let one = attachment(&one, &format!("c{number}"), &format!("10.0.0.{}", number + 2), 1);
                cluster.put_attachment(&one).await.unwrap();
            }
            let lost = Removal::Lost { epoch: one.epoch };
            let refused = reclaimer.remove_node(&one.name, lost).await;
            assert!(matches!(refused, Err(ClusterError::Taken { .. })), "{refused:?}");

            etcd.ctl(&["del", "/berth/v1/nodes/n1"]);
            let other_epoch = Removal::Lost { epoch: one.epoch + 7 };
            let refused = reclaimer.remove_node(&one.name, other_epoch).await;
            assert!(matches!(refused, Err(ClusterError::Fenced { .. })), "{refused:?}");
            reclaimer.remove_node(&one.name, lost).await.unwrap();
            // Once more, as another node does that found it at the same time, or that was interrupted.
            reclaimer.remove_node(&one.name, lost).await.unwrap();
            let left = reclaimer.list().await.unwrap().entries;
            let of_one = |entry: &&Entry| match entry {
                Entry::Attachment(attachment) => attachment.node == one.name,
                Entry::Block(block) => block.owner == one.name,
                Entry::Node(node) | Entry::Known(node) => node.name == one.name,
                _ => false,
            };
            assert_eq!(left.iter().filter(of_one).count(), 0);
            assert_eq!(etcd.ctl(&["get", "/berth/v1/addr/", "--prefix", "--keys-only"]), "");

            // It wakes: nothing that it holds to be so is written any more.
            let fenced = |result: Result<(), ClusterError>| {
                assert!(matches!(result, Err(ClusterError::Fenced { .. })), "{result:?}")
            };
            fenced(cluster.present(&one, LEASE).await);
            fenced(cluster.put_attachment(&attachment(&one, "c99", "10.0.0.99", 1)).await);
            fenced(
                cluster.put_block(None, &block(&one, "10.0.0.16/28", BlockState::Pending, 1)).await.map(drop),
            );
            let again = joined(&*cluster, one.clone()).await;
            assert!(again.epoch > one.epoch);
            cluster.put_attachment(&attachment(&again, "c99", "10.0.0.99", 1)).await.unwrap();
            assert_eq!(node_name("n1"), again.name);
        });
    });
}
