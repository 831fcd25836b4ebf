//! Names, VNIs and subnets under contention.

use berth_integration::{Debian, Host};
use berth_overlay::cluster::{Cluster, ClusterError, Entry};
use berth_overlay::model::OverlayNetwork;

use super::etcd::{Etcd, etcd_test, on};
use super::records::{assert_taken, network};

const CREATORS: u8 = 16;

/// Creates the networks that `make` makes, all at once, each by a client of its own. How many succeeded; the others were refused
/// because something was taken.
fn race(host: &Host, etcd: &Etcd<'_>, make: impl Fn(u8) -> OverlayNetwork + Sync) -> usize {
    let create = |number: u8| {
        let (cluster, network) = (etcd.cluster(), make(number));
        match on(host, async { cluster.create_network(&network).await }) {
            Ok(()) => true,
            Err(ClusterError::Taken { .. }) => false,
            Err(other) => panic!("creator {number}: {other}"),
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CREATORS).map(|number| scope.spawn(move || create(number))).collect();
        threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
    })
}

#[test]
fn of_sixteen_creators_one_gets_a_name_a_vni_and_a_subnet() {
    etcd_test(Debian::V12, |host, etcd| {
        let name = |number: u8| network("same", 5000 + u32::from(number), &format!("10.1.{number}.0/24"));
        assert_eq!(race(host, etcd, name), 1);
        let vni = |number: u8| network(&format!("vni{number}"), 6000, &format!("10.2.{number}.0/24"));
        assert_eq!(race(host, etcd, vni), 1);
        let subnet = |number: u8| network(&format!("equal{number}"), 7000 + u32::from(number), "10.3.0.0/24");
        assert_eq!(race(host, etcd, subnet), 1);
        // A part of a subnet is no other subnet: either the large one is created, or small ones are.
        let overlapping = |number: u8| {
            let subnet = if number.is_multiple_of(2) {
                "10.4.0.0/16".to_owned()
            } else {
                format!("10.4.{number}.0/24")
            };
            network(&format!("over{number}"), 8000 + u32::from(number), &subnet)
        };
        let won = race(host, etcd, overlapping);
        assert!(won == 1 || won == usize::from(CREATORS / 2), "{won}");
        // Those who have nothing in common all succeed.
        let apart = |number: u8| {
            network(&format!("apart{number}"), 9000 + u32::from(number), &format!("10.5.{number}.0/24"))
        };
        assert_eq!(race(host, etcd, apart), usize::from(CREATORS));

        let cluster = etcd.cluster();
        let listing = on(host, async { cluster.list().await.unwrap() });
        let networks: Vec<_> =
            listing.entries.iter().filter(|entry| matches!(entry, Entry::Network(_))).collect();
        assert_eq!(networks.len(), 3 + won + usize::from(CREATORS));
    });
}

#[test]
fn a_refusal_says_what_is_taken_and_by_whom() {
    etcd_test(Debian::V12, |host, etcd| {
        let cluster = etcd.cluster();
        on(host, async {
            cluster.create_network(&network("blue", 4096, "10.0.0.0/16")).await.unwrap();
            assert_taken(
                cluster.create_network(&network("blue", 4097, "10.1.0.0/16")).await,
                "network name `blue` is taken: network `blue` with VNI 4096, created by n1, has it",
            );
            assert_taken(
                cluster.create_network(&network("red", 4096, "10.1.0.0/16")).await,
                "VNI 4096 is taken: network `blue` has it",
            );
            assert_taken(
                cluster.create_network(&network("red", 4097, "10.0.7.0/24")).await,
                "subnet 10.0.7.0/24 is taken: network `blue`, with 10.0.0.0/16, has it",
            );
        });
    });
}
