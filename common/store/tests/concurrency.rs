//! Many processes at once, played by threads with stores of their own: SQLite and flock tell them apart by descriptor.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::BTreeSet;

use berth_store::{ClaimError, LeaseScope, StoreError};
use common::{Host, key, port};

#[test]
fn sixteen_first_openers_share_one_file() {
    let host = Host::new();
    std::thread::scope(|scope| {
        for n in 0..16 {
            let host = &host;
            scope.spawn(move || {
                let mut store = host.open();
                let name = key(&format!("c{n}")).network;
                store.write(|tx| tx.live_network_put(&name, None, "{}")).unwrap();
                store.write(|tx| tx.network_put(&name, "{}")).unwrap();
            });
        }
    });
    assert_eq!(host.open().read(|tx| tx.live_networks()).unwrap().len(), 1);
}

#[test]
fn a_port_and_an_address_claimed_by_all_are_won_by_one() {
    let host = Host::new();
    let scope_of = LeaseScope::new(&key("a").network, None);
    for round in 0..10_u16 {
        let wins: BTreeSet<(bool, bool, usize)> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|n| {
                    let (host, scope_of) = (&host, &scope_of);
                    scope.spawn(move || {
                        let owner = key(&format!("c{n}"));
                        let mut store = host.open();
                        let address = std::net::Ipv4Addr::new(10, 80, 0, 2 + round.to_le_bytes()[0]).into();
                        let claimed =
                            store.write(|tx| tx.ports_claim(&owner, &[port("0.0.0.0", 1000 + round, 1)]));
                        let leased: Result<bool, StoreError> =
                            store.write(|tx| tx.lease_add(scope_of, address, (&owner, None), 1));
                        assert!(matches!(claimed, Ok(()) | Err(ClaimError::Taken(_))), "{claimed:?}");
                        (claimed.is_ok(), leased.unwrap(), n)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(wins.iter().filter(|(port, ..)| *port).count(), 1);
        assert_eq!(wins.iter().filter(|(_, lease, _)| *lease).count(), 1);
    }
}
