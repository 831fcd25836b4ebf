//! Prints what a lease costs in pools of several fills, in microseconds (medians): one write transaction each.
//! The first argument is the directory of the records, `/dev/shm` by default.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing, reason = "a measurement")]

use std::time::{Duration, Instant};

use berth_ipam::{PoolConfig, Request, allocate, release};
use berth_store::{BootTime, Dirs, Store, StoreError};
use berth_types::{AttachmentKey, BootId, ContainerId, IfName, NetworkName};
use serde_json::json;

fn request(n: usize) -> Request {
    let owner = AttachmentKey {
        network: NetworkName::new("n0").unwrap(),
        container: ContainerId::new(format!("{n:064x}")).unwrap(),
        ifname: IfName::new("eth0").unwrap(),
    };
    Request { owner, sandbox: None, requested: Vec::new(), sticky: None }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn time<T>(times: &mut Vec<Duration>, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = work();
    times.push(start.elapsed());
    done
}

fn main() {
    let base = std::env::args_os().nth(1).unwrap_or_else(|| "/dev/shm".into());
    let root = std::path::Path::new(&base).join(format!("berth-lease-cost-{}", std::process::id()));
    let dirs = Dirs::under(&root);
    let open = || Store::open(&dirs, BootId::new("b")).unwrap();
    let pools = PoolConfig::parse(&json!({"ranges": [[{"subnet": "10.80.0.0/16"}]]}), None).unwrap();
    let give = |store: &mut Store, n: usize| {
        store.write(|tx| allocate(tx, &pools, &request(n), BootTime::now(), &mut |_| false)).unwrap()
    };
    let mut store = open();
    let mut next = 0;
    for fill in [0, 1_000, 10_000, 60_000, 65_433] {
        store
            .write(|tx| -> Result<(), StoreError> {
                for n in next..fill {
                    allocate(tx, &pools, &request(n), BootTime::now(), &mut |_| false).unwrap();
                }
                Ok(())
            })
            .unwrap();
        next = next.max(fill);
        let (mut warm, mut back, mut cold) = (Vec::new(), Vec::new(), Vec::new());
        for n in 0..50 {
            time(&mut warm, || give(&mut store, next + n));
        }
        for n in 0..50 {
            time(&mut back, || {
                store.write(|tx| release(tx, &request(next + n).owner, BootTime::now())).unwrap()
            });
        }
        for n in 0..50 {
            time(&mut cold, || give(&mut open(), next + n));
        }
        next += 50;
        println!(
            "{fill} leases: allocate {:?}, release {:?}; open, allocate and close {:?}",
            median(warm),
            median(back),
            median(cold)
        );
    }
    // What happens seldom: a changed configuration begins a cursor of its own, and passes over what is held once.
    let ipam = json!({"ranges": [[{"subnet": "10.80.0.0/16"}]], "exclude": ["10.80.0.9"]});
    let changed = PoolConfig::parse(&ipam, None).unwrap();
    let mut times = Vec::new();
    for n in 0..6 {
        time(&mut times, || {
            let request = request(next + n);
            store.write(|tx| allocate(tx, &changed, &request, BootTime::now(), &mut |_| false)).map(drop)
        })
        .unwrap();
    }
    println!("the first leases after a change of the configuration: {times:?}");
    let small = PoolConfig::parse(&json!({"ranges": [[{"subnet": "10.80.0.0/17"}]]}), None).unwrap();
    let mut times = Vec::new();
    let mut refused = 0;
    for n in 6.. {
        let given = time(&mut times, || {
            let request = request(next + n);
            store.write(|tx| allocate(tx, &small, &request, BootTime::now(), &mut |_| false)).map(drop)
        });
        refused += usize::from(given.is_err());
        if refused == 3 {
            break;
        }
    }
    let times = times.split_off(times.len() - 3);
    println!("a refusal by a full /17: {times:?}");
    std::fs::remove_dir_all(root).unwrap();
}
