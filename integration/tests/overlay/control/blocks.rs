//! Blocks and loans, under contention and with claimants that end half way.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use berth_integration::Debian;
use berth_overlay::cluster::{Cluster, ClusterError, Entry};
use berth_overlay::model::{BlockState, LendState, Node, OverlayNetwork};
use berth_types::NodeName;
use ipnetwork::IpNetwork;

use super::etcd::{etcd_test, on};
use super::records::{assert_taken, attachment, block, joined, lend, network, node};

#[test]
fn a_block_has_one_owner_and_its_neighbours_are_no_part_of_it() {
    etcd_test(Debian::V12, |host, etcd| {
        let cluster = etcd.cluster();
        on(host, async {
            cluster.create_network(&network("blue", 4096, "10.0.0.0/24")).await.unwrap();
            let (one, two) =
                (joined(&*cluster, node("n1", 1)).await, joined(&*etcd.cluster(), node("n2", 2)).await);
            let first = block(&one, "10.0.0.0/28", BlockState::Pending, 1);
            cluster.put_block(None, &first).await.unwrap();
            cluster.put_block(None, &first).await.unwrap();
            let theirs = cluster.put_block(None, &block(&two, "10.0.0.0/28", BlockState::Pending, 1)).await;
            assert_taken(theirs, "block 10.0.0.0/28 of network `blue` is taken: node n1 has it");
            // Of another size, or outside the network, it could overlap another's.
            for cidr in ["10.0.0.0/27", "10.0.0.16/29", "10.9.0.0/28"] {
                let none = cluster.put_block(None, &block(&two, cidr, BlockState::Pending, 1)).await;
                assert!(matches!(none, Err(ClusterError::Taken { .. })), "{cidr}: {none:?}");
            }
            let confirmed = block(&one, "10.0.0.0/28", BlockState::Confirmed, 2);
            cluster.put_block(Some(&first), &confirmed).await.unwrap();
            let stale = cluster.remove_block(&first).await;
            assert!(matches!(stale, Err(ClusterError::Taken { .. })), "{stale:?}");
            cluster.remove_block(&confirmed).await.unwrap();
            cluster.remove_block(&confirmed).await.unwrap();
        });
    });
}

#[test]
fn a_loan_of_a_block_is_its_owners_to_grant() {
    etcd_test(Debian::V12, |host, etcd| {
        let (owner, borrower) = (etcd.cluster(), etcd.cluster());
        on(host, async {
            owner.create_network(&network("blue", 4096, "10.0.0.0/24")).await.unwrap();
            let (one, two) = (joined(&*owner, node("n1", 1)).await, joined(&*borrower, node("n2", 2)).await);
            let around: IpNetwork = "10.0.0.0/28".parse().unwrap();

            // In no block it is granted at once, and whoever claims the block then is told.
            assert_eq!(borrower.put_lend(&lend(&two, "10.0.0.5"), around).await.unwrap(), LendState::Granted);
            let told =
                owner.put_block(None, &block(&one, "10.0.0.0/28", BlockState::Pending, 1)).await.unwrap();
            assert_eq!(told.iter().map(|lend| lend.address.to_string()).collect::<Vec<_>>(), ["10.0.0.5"]);

            let asked = lend(&two, "10.0.0.6");
            assert_eq!(borrower.put_lend(&asked, around).await.unwrap(), LendState::Asked);
            let other = borrower.put_lend(&lend(&one, "10.0.0.6"), around).await;
            assert_taken(other, "address 10.0.0.6 of network `blue` is taken: node n2 has it");
            owner
                .settle_lend(&berth_overlay::model::Lend { state: LendState::Granted, ..asked.clone() })
                .await
                .unwrap();
            assert_eq!(borrower.put_lend(&asked, around).await.unwrap(), LendState::Granted);

            owner.put_attachment(&attachment(&one, "c1", "10.0.0.7", 1)).await.unwrap();
            let used = borrower.put_lend(&lend(&two, "10.0.0.7"), around).await;
            assert_taken(used, "address 10.0.0.7 of network `blue` is taken: an attachment has it");
            borrower.remove_lend(&asked).await.unwrap();
            borrower.remove_lend(&asked).await.unwrap();

            // A network may be one that lends nothing.
            let strict = OverlayNetwork { borrowing: false, ..network("red", 4097, "10.1.0.0/24") };
            owner.create_network(&strict).await.unwrap();
            let mut theirs = block(&one, "10.1.0.0/28", BlockState::Confirmed, 1);
            theirs.network = strict.name.clone();
            owner.put_block(None, &theirs).await.unwrap();
            let mut wanted = lend(&two, "10.1.0.5");
            wanted.network = strict.name;
            let refused = borrower.put_lend(&wanted, theirs.cidr).await;
            assert_taken(
                refused,
                "address 10.1.0.5 of network `red` is taken: node n1 (the network lends nothing) has it",
            );
        });
    });
}

#[test]
fn no_block_has_two_owners_however_claimants_end() {
    etcd_test(Debian::V12, |host, etcd| {
        let owned: Mutex<BTreeMap<IpNetwork, NodeName>> = Mutex::default();
        let setup = etcd.cluster();
        on(host, async { setup.create_network(&network("blue", 4096, "10.0.0.0/22")).await.unwrap() });
        let claim_all = |number: u8| {
            let cluster = etcd.cluster();
            on(host, async {
                let own: Node = joined(&*cluster, node(&format!("n{number}"), number)).await;
                let mut cluster = cluster;
                for (index, subnet) in
                    (0..64_u8).map(|index| (u32::from(index), [10, 0, index / 16, index % 16 * 16]))
                {
                    let cidr = IpNetwork::new(subnet.into(), 28).unwrap();
                    let claim = block(&own, &cidr.to_string(), BlockState::Pending, 1);
                    // Every third claim ends half way: the process is killed between its request and the answer.
                    let patience = if index % 3 == u32::from(number) % 3 {
                        Duration::from_micros(u64::from(index) * 60)
                    } else {
                        Duration::from_secs(10)
                    };
                    match tokio::time::timeout(patience, cluster.put_block(None, &claim)).await {
                        Ok(Ok(_)) => {
                            let before = owned.lock().unwrap().insert(cidr, own.name.clone());
                            assert_eq!(before, None, "{cidr} was given to two");
                        }
                        Ok(Err(ClusterError::Taken { .. })) => (),
                        Ok(Err(err)) => panic!("{err}"),
                        Err(_) => cluster = etcd.cluster(),
                    }
                }
            });
        };
        std::thread::scope(|scope| {
            for number in 1..=3 {
                scope.spawn(move || claim_all(number));
            }
        });
        let listing = on(host, async { setup.list().await.unwrap() });
        let blocks: BTreeMap<IpNetwork, NodeName> = listing
            .entries
            .into_iter()
            .filter_map(|entry| match entry {
                Entry::Block(block) => Some((block.cidr, block.owner)),
                _ => None,
            })
            .collect();
        // What a node was told is its own is its own. More may be: of claimants that did not hear the answer.
        for (cidr, node) in owned.lock().unwrap().iter() {
            assert_eq!(blocks.get(cidr), Some(node), "{cidr}");
        }
        assert!(blocks.len() <= 64);
    });
}
