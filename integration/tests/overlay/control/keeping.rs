//! Blocks as a node keeps them: addresses given from them are given once in the whole cluster, whoever is killed when.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use berth_integration::{Debian, Host};
use berth_ipam::{Request, allocate, release};
use berth_overlay::blocks::{Borrowed, Keeper, Tended, borrowable_of, local_pool};
use berth_overlay::cluster::{Cluster, Entry, Listing};
use berth_overlay::memory;
use berth_overlay::model::{Node, OverlayNetwork};
use berth_overlay::view::{NetworkView, View};
use berth_store::{BootTime, Dirs, Store, StoreError};
use berth_types::{AttachmentKey, BootId, ContainerId, NetworkName};

use super::etcd::{Etcd, etcd_test, on};
use super::records::{container, joined, network, network_name, node};

const NOW: BootTime = BootTime { millis: 1_000_000 };

/// A node with records of its own.
struct Local<'a> {
    dirs: Dirs,
    store: Store,
    etcd: &'a Etcd<'a>,
    cluster: std::sync::Arc<berth_overlay::cluster::etcd::EtcdCluster>,
    node: Node,
    network: OverlayNetwork,
}

fn key(name: &str) -> AttachmentKey {
    let container = ContainerId::new(name).unwrap();
    AttachmentKey { network: network_name("blue"), container, ifname: "eth0".parse().unwrap() }
}

impl<'a> Local<'a> {
    async fn new(host: &Host, etcd: &'a Etcd<'a>, number: u8, network: &OverlayNetwork) -> Self {
        let dirs = Dirs::under(&host.dir().join(format!("node{number}")));
        let cluster = etcd.cluster();
        let node = joined(&*cluster, node(&format!("n{number}"), number)).await;
        let store = Store::open(&dirs, BootId::new("boot")).unwrap();
        Self { dirs, store, etcd, cluster, node, network: network.clone() }
    }

    /// The agent is killed and started anew.
    fn killed(&mut self) {
        self.cluster = self.etcd.cluster();
        self.store = Store::open(&self.dirs, BootId::new("boot")).unwrap();
    }

    /// By a borrow that is the only one: records are one thread's.
    async fn view(&mut self) -> NetworkView {
        let mut view = View::default();
        view.replace(self.cluster.list().await.unwrap());
        view.network(&self.network.name).unwrap().clone()
    }

    async fn tend(&mut self) -> Tended {
        let view = self.view().await;
        let cluster = std::sync::Arc::clone(&self.cluster);
        let keeper = Keeper { cluster: &*cluster, node: &self.node };
        keeper.tend(&mut self.store, &view, NOW).await.unwrap()
    }

    async fn borrow(&mut self, address: IpAddr) -> Result<Borrowed, berth_overlay::blocks::BlocksError> {
        let cluster = std::sync::Arc::clone(&self.cluster);
        let keeper = Keeper { cluster: &*cluster, node: &self.node };
        keeper.borrow(&mut self.store, &self.network, &container("fixed"), address).await
    }

    /// Gives an address without asking anybody.
    fn give(&mut self, name: &str, requested: &[IpAddr]) -> Option<IpAddr> {
        let network = &self.network;
        let request =
            Request { owner: key(name), sandbox: None, requested: requested.to_vec(), sticky: None };
        self.store
            .write(|tx| -> Result<Option<IpAddr>, StoreError> {
                let Ok(pool) = local_pool(tx, network)? else { return Ok(None) };
                let given = allocate(tx, &pool, &request, NOW, &mut |_| false);
                Ok(given.ok().map(|given| given.addresses[0].address.ip()))
            })
            .unwrap()
    }

    fn release(&mut self, name: &str) {
        self.store.write(|tx| release(tx, &key(name), NOW)).unwrap();
    }

    fn open_blocks(&mut self) -> usize {
        self.store.read(|tx| tx.cluster_blocks(&network_name("blue"))).unwrap().len()
    }
}

impl Drop for Local<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.dirs.run.parent().unwrap());
    }
}

#[test]
fn a_node_gives_from_its_blocks_and_fetches_the_next_early_and_goes_on_while_etcd_is_away() {
    etcd_test(Debian::V12, |host, etcd| {
        let blue = network("blue", 4096, "10.0.0.0/24");
        let setup = etcd.cluster();
        on(host, async {
            setup.create_network(&blue).await.unwrap();
            let mut one = Local::new(host, etcd, 1, &blue).await;
            assert_eq!(one.give("c0", &[]), None);
            assert_eq!(one.tend().await.claimed.len(), 1);
            for number in 0..12 {
                assert!(one.give(&format!("c{number}"), &[]).is_some());
            }
            assert_eq!(one.tend().await.claimed.len(), 1);
            assert_eq!(one.tend().await, Tended::default());
            assert_eq!(one.open_blocks(), 2);
            // Said once is said: nothing is written when nothing is to do.
            let before = etcd.revision();
            one.tend().await;
            let view = one.view().await;
            assert_eq!(etcd.revision(), before);
            // Twelve of more than thirty are given. The others are too, with nobody to ask, by a process that starts anew.
            etcd.kill();
            one.killed();
            let given = (12..28).filter(|number| one.give(&format!("c{number}"), &[]).is_some());
            assert_eq!(given.count(), 16);
            let (cluster, node) = (one.cluster.clone(), one.node.clone());
            let keeper = Keeper { cluster: &*cluster, node: &node };
            let away = keeper.tend(&mut one.store, &view, NOW).await.unwrap_err();
            assert!(away.to_string().contains("does not answer"), "{away}");
            etcd.start();
            etcd.healthy();
            assert_eq!(one.tend().await.claimed.len(), 1);
        });
    });
}

#[test]
fn addresses_are_given_once_in_the_cluster_however_often_agents_are_killed() {
    etcd_test(Debian::V12, |host, etcd| {
        let blue = network("blue", 4096, "10.0.0.0/24");
        let setup = etcd.cluster();
        on(host, async { setup.create_network(&blue).await.unwrap() });
        let given: Mutex<BTreeMap<IpAddr, String>> = Mutex::default();
        let given_by = &given;
        let run = |number: u8| {
            on(host, async {
                let mut local = Local::new(host, etcd, number, &blue).await;
                let mut count = 0;
                for turn in 0..150_u64 {
                    // Killed at any point of a claim, more often than not.
                    let patience =
                        Duration::from_micros((turn * 7_919 + u64::from(number) * 104_729) % 60_000);
                    if tokio::time::timeout(patience, local.tend()).await.is_err() {
                        local.killed();
                    }
                    let name = format!("n{number}c{count}");
                    if let Some(address) = local.give(&name, &[]) {
                        count += 1;
                        let before = given_by.lock().unwrap().insert(address, name.clone());
                        assert_eq!(before, None, "{address} was given to {name} too");
                    }
                }
                local.tend().await;
                assert!(count > 0, "node {number} gave nothing");
                // What it gives from is its own in the cluster.
                let view = local.view().await;
                let rows = local.store.read(|tx| tx.cluster_blocks(&blue.name)).unwrap();
                for row in rows {
                    let block = view.blocks().find(|block| block.cidr == row.cidr).unwrap();
                    assert_eq!(block.owner, local.node.name);
                }
            });
        };
        std::thread::scope(|scope| {
            for number in 1..=3 {
                let run = &run;
                scope.spawn(move || run(number));
            }
        });
        // All of the subnet is used: 254 addresses without the gateway.
        let given = given.into_inner().unwrap();
        assert!(given.len() <= 253 && given.len() > 100, "{}", given.len());
    });
}

#[test]
fn a_fixed_address_of_anothers_block_is_asked_of_its_owner_and_given_by_one_of_both() {
    etcd_test(Debian::V12, |host, etcd| {
        // Two blocks in all.
        let blue = OverlayNetwork { block4: 28, ..network("blue", 4096, "10.0.0.0/27") };
        let setup = etcd.cluster();
        on(host, async {
            setup.create_network(&blue).await.unwrap();
            let mut owner = Local::new(host, etcd, 1, &blue).await;
            let mut other = Local::new(host, etcd, 2, &blue).await;
            owner.tend().await;
            let block = owner.store.read(|tx| tx.cluster_blocks(&blue.name)).unwrap()[0].cidr;
            let own: Vec<IpAddr> = block.iter().collect();
            let (free, used) = (own[9], owner.give("c1", &[]).unwrap());

            // Free: the owner takes it out of its pool and grants it.
            assert_eq!(other.borrow(free).await.unwrap(), Borrowed::Asked(free));
            assert_eq!(other.give("fixed", &[free]), None);
            owner.tend().await;
            assert_eq!(owner.give("c2", &[free]), None);
            assert_eq!(other.borrow(free).await.unwrap(), Borrowed::Granted(free));
            assert_eq!(other.give("fixed", &[free]), Some(free));

            // In use, though nobody but the owner knows: refused.
            let second = other.borrow(used).await.unwrap();
            assert_eq!(second, Borrowed::Asked(used));
            owner.tend().await;
            assert_eq!(other.borrow(used).await.unwrap(), Borrowed::Refused(used));
            // Outside the network.
            assert!(other.borrow([10, 9, 0, 1].into()).await.is_err());

            // Given back, it is the owner's again.
            other.release("fixed");
            let (cluster, node) = (other.cluster.clone(), other.node.clone());
            let keeper = Keeper { cluster: &*cluster, node: &node };
            keeper.return_borrowed(&mut other.store, &blue, free).await.unwrap();
            assert_eq!(other.give("fixed", &[free]), None);
            owner.tend().await;
            assert_eq!(owner.give("c3", &[free]), Some(free));

            // When the subnet is short, there are candidates of others' blocks, none of which is known to be used.
            let view = other.view().await;
            let candidates = borrowable_of(&keeper, &blue, &blue.subnets[0], &view, 5);
            assert!(candidates.len() == 5 && candidates.iter().all(|address| block.contains(*address)));
        });
    });
}

#[test]
fn a_node_that_was_declared_dead_loses_its_blocks_and_says_which() {
    etcd_test(Debian::V12, |host, etcd| {
        let blue = network("blue", 4096, "10.0.0.0/27");
        let setup = etcd.cluster();
        on(host, async {
            setup.create_network(&blue).await.unwrap();
            let mut one = Local::new(host, etcd, 1, &blue).await;
            let mut two = Local::new(host, etcd, 2, &blue).await;
            let claimed = one.tend().await.claimed;
            etcd.ctl(&["del", "/berth/v1/nodes/n1"]);
            let lost = berth_overlay::cluster::Removal::Lost { epoch: one.node.epoch };
            two.cluster.remove_node(&one.node.name, lost).await.unwrap();
            // The other node takes all there is.
            two.tend().await;
            for number in 0..40 {
                two.give(&format!("c{number}"), &[]);
                two.tend().await;
            }
            assert_eq!(two.open_blocks(), 2);
            // The first wakes, and joins anew.
            let view = one.view().await;
            let cluster = one.cluster.clone();
            let node = joined(&*cluster, one.node.clone()).await;
            let keeper = Keeper { cluster: &*cluster, node: &node };
            let tended = keeper.tend(&mut one.store, &view, NOW).await.unwrap();
            assert_eq!(tended.lost, claimed);
            assert_eq!(one.give("x", &[]), None);
        });
    });
}

#[test]
fn the_last_view_is_kept_on_disk() {
    let root = std::env::temp_dir().join(format!("berth-memory-{}", std::process::id()));
    let mut store = Store::open(&Dirs::under(&root), BootId::new("boot")).unwrap();
    let mut view = View::default();
    let mut entries = vec![Entry::Network(network("blue", 4096, "10.0.0.0/24"))];
    entries.push(Entry::Known(node("n1", 1)));
    let listing = Listing { revision: berth_overlay::cluster::Revision(7), entries, foreign: Vec::new() };
    let deltas = view.replace(listing.clone());
    store.write(|tx| memory::note(tx, view.revision(), &deltas)).unwrap();
    drop(store);
    let mut store = Store::open(&Dirs::under(&root), BootId::new("another boot")).unwrap();
    let again = store.read(memory::load).unwrap();
    assert_eq!((again.revision(), again.entries()), (view.revision(), view.entries()));
    assert!(again.network(&NetworkName::new("blue").unwrap()).is_some());
    drop(store);
    std::fs::remove_dir_all(root).unwrap();
}
