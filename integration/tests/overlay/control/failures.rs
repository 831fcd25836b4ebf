//! etcd stopped, compacted, cut off.

use std::time::{Duration, Instant};

use berth_integration::{Debian, Host, lan_test};
use berth_overlay::cluster::etcd::{DEADLINE, EtcdConfig};
use berth_overlay::cluster::{Change, Cluster, ClusterError, Entry, News};
use berth_overlay::view::View;

use super::etcd::{cluster, etcd_test, on, three};
use super::records::{attachment, changes, joined, network, network_name, node};

/// What a busy machine may add to a deadline.
const SLACK: Duration = Duration::from_secs(3);

#[test]
fn a_watch_from_before_a_compaction_is_lost_and_a_listing_says_what_is_gone() {
    etcd_test(Debian::V12, |host, etcd| {
        let cluster = etcd.cluster();
        on(host, async {
            let one = joined(&*cluster, node("n1", 1)).await;
            cluster.create_network(&network("blue", 4096, "10.0.0.0/24")).await.unwrap();
            for number in 2..6 {
                let attached = attachment(&one, &format!("c{number}"), &format!("10.0.0.{number}"), 1);
                cluster.put_attachment(&attached).await.unwrap();
            }
            let mut view = View::default();
            view.replace(cluster.list().await.unwrap());
            let mut live = cluster.watch(view.revision()).await.unwrap();
            let gone = attachment(&one, "c2", "10.0.0.2", 1).key();
            cluster.remove_attachment(&gone, 1).await.unwrap();
            let new = attachment(&one, "c9", "10.0.0.9", 1);
            cluster.put_attachment(&new).await.unwrap();
            etcd.compact();

            // A watch that was there goes on, whatever is compacted behind it.
            assert_eq!(changes(&mut *live).await.len() + changes(&mut *live).await.len(), 2);
            let mut late = cluster.watch(view.revision()).await.unwrap();
            assert_eq!(late.next().await.unwrap(), News::Lost);
            assert_eq!(late.next().await.unwrap(), News::Lost);

            let deltas = view.replace(cluster.list().await.unwrap());
            let delta = &deltas.networks[&network_name("blue")];
            let mut keys: Vec<_> = delta.attachments.keys().cloned().collect();
            keys.sort();
            assert_eq!(keys, [gone, new.key()]);
            let mut watch = cluster.watch(view.revision()).await.unwrap();
            cluster.remove_attachment(&new.key(), 1).await.unwrap();
            assert_eq!(changes(&mut *watch).await, [Change::Gone(new.key())]);
        });
    });
}

#[test]
fn etcd_that_is_stopped_is_said_to_be_away_and_is_found_again() {
    etcd_test(Debian::V12, |host, etcd| {
        let cluster = etcd.cluster();
        on(host, async {
            let one = joined(&*cluster, node("n1", 1)).await;
            cluster.create_network(&network("blue", 4096, "10.0.0.0/24")).await.unwrap();
            let seen = cluster.list().await.unwrap().revision;
            let mut watch = cluster.watch(seen).await.unwrap();
            etcd.kill();
            let ended = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.unwrap();
            assert!(matches!(ended, Err(ClusterError::Away { .. })), "{ended:?}");
            let attached = attachment(&one, "c1", "10.0.0.2", 1);
            let began = Instant::now();
            match cluster.put_attachment(&attached).await {
                Err(err @ ClusterError::Away { .. }) => {
                    let text = err.to_string();
                    assert!(text.contains("127.0.0.1:2379: Connection refused"), "{text}");
                }
                other => panic!("{other:?}"),
            }
            assert!(began.elapsed() < DEADLINE + SLACK, "{:?}", began.elapsed());
            etcd.start();
            etcd.healthy();
            // The same client: it is found again, and the watch goes on where it was.
            cluster.put_attachment(&attached).await.unwrap();
            let mut watch = cluster.watch(seen).await.unwrap();
            assert_eq!(changes(&mut *watch).await, [Change::Put(Entry::Attachment(attached))]);
        });
    });
}

#[test]
fn another_member_is_used_when_one_is_cut_off_or_dead() {
    lan_test(|host, lan, _| {
        let hosts = [Host::new(), Host::new(), Host::new()];
        let members = three(&hosts, lan);
        let cluster = cluster(EtcdConfig::new(members.iter().map(|member| member.endpoint.clone())));
        on(host, async {
            cluster.create_network(&network("blue", 4096, "10.0.0.0/24")).await.unwrap();
            let one = joined(&*cluster, node("n1", 1)).await;
            for (number, cut) in [(2_u8, 0), (3, 1), (4, 2)] {
                let revision = cluster.list().await.unwrap().revision;
                let mut watch = cluster.watch(revision).await.unwrap();
                // Cut off, each in its turn: packets are lost, nothing is refused.
                hosts[cut].run("ip link set lan0 down");
                let attached = attachment(&one, &format!("c{number}"), &format!("10.0.0.{number}"), 1);
                let until = Instant::now() + Duration::from_secs(30);
                // A leader may have to be elected.
                while let Err(err) = cluster.put_attachment(&attached).await {
                    assert!(matches!(err, ClusterError::Away { .. }) && Instant::now() < until, "{err}");
                }
                // The watch tells of it, or ends and is begun anew.
                let told = tokio::time::timeout(Duration::from_secs(20), watch.next())
                    .await
                    .expect("a watch ends by itself");
                if told.is_err() {
                    let mut again = cluster.watch(revision).await.unwrap();
                    changes(&mut *again).await;
                }
                hosts[cut].run("ip link set lan0 up");
                members.iter().for_each(|member| member.healthy());
            }
            members[0].kill();
            let until = Instant::now() + Duration::from_secs(30);
            while let Err(err) = cluster.put_attachment(&attachment(&one, "c9", "10.0.0.9", 1)).await {
                assert!(matches!(err, ClusterError::Away { .. }) && Instant::now() < until, "{err}");
            }
            // Without a majority nothing is answered, and within the deadline it is said.
            members[1].kill();
            let began = Instant::now();
            match cluster.put_attachment(&attachment(&one, "c10", "10.0.0.10", 1)).await {
                Err(err @ ClusterError::Away { .. }) => println!("{err}"),
                other => panic!("{other:?}"),
            }
            assert!(began.elapsed() < DEADLINE * 2 + SLACK, "{:?}", began.elapsed());
        });
        drop(members);
    });
}
