//! Prints what opening, one small transaction and closing cost, in microseconds (medians).
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing, reason = "a measurement")]

use std::time::Instant;

use berth_store::{Dirs, LeaseScope, Owner, Store, StoreError};
use berth_types::{AttachmentKey, BootId, ContainerId, IfName, NetworkName, Proto, PublishedPort};

fn published(offset: u16) -> PublishedPort {
    PublishedPort {
        proto: Proto::Tcp,
        host_addr: [0, 0, 0, 0].into(),
        host_port: 20_000 + offset,
        target: [10, 80, 0, 2].into(),
        target_port: 80 + offset,
        count: 1,
    }
}

fn main() {
    let base = std::env::args_os().nth(1).unwrap_or_else(|| "/dev/shm".into());
    let root = std::path::Path::new(&base).join(format!("berth-open-cost-{}", std::process::id()));
    let dirs = Dirs::under(&root);
    let network = NetworkName::new("n0").unwrap();
    let scope = LeaseScope::new(&network, None);
    let _keep = std::env::args().nth(2).map(|_| Store::open(&dirs, BootId::new("b")).unwrap());
    let mut times = vec![Vec::new(); 7];
    for n in 0..500_u16 {
        let [high, low] = n.to_be_bytes();
        let owner = AttachmentKey {
            network: network.clone(),
            container: ContainerId::new(format!("c{n}")).unwrap(),
            ifname: IfName::new("eth0").unwrap(),
        };
        let start = Instant::now();
        let mut store = Store::open(&dirs, BootId::new("b")).unwrap();
        times[0].push(start.elapsed());
        let start = Instant::now();
        let add = store.write(|tx| -> Result<bool, StoreError> {
            tx.lease_add(&scope, [10, 80, high, low].into(), (&owner, None), 1)
        });
        assert!(add.unwrap());
        times[1].push(start.elapsed());
        let start = Instant::now();
        store.read(|tx| tx.leases_of(&owner)).unwrap();
        times[2].push(start.elapsed());
        let start = Instant::now();
        drop(store);
        times[3].push(start.elapsed());
        let start = Instant::now();
        Owner::current();
        times[4].push(start.elapsed());
        let mut store = Store::open(&dirs, BootId::new("b")).unwrap();
        let ports: Vec<PublishedPort> = (0..200).map(published).collect();
        let start = Instant::now();
        store.write(|tx| tx.ports_claim(&owner, &ports)).unwrap();
        times[5].push(start.elapsed());
        let start = Instant::now();
        store.write(|tx| tx.ports_release(&owner)).unwrap();
        times[6].push(start.elapsed());
    }
    for (name, mut times) in
        ["open", "write", "read", "close", "owner", "claim 200 ports", "release 200 ports"]
            .into_iter()
            .zip(times)
    {
        times.sort_unstable();
        println!("{name}: {:?} (p99 {:?})", times[times.len() / 2], times[times.len() * 99 / 100]);
    }
    std::fs::remove_dir_all(root).unwrap();
}
