//! `fill_pool RUN_DIR NETWORK COUNT`: leases COUNT addresses of 10.80.0.0/16 to as many owners, in one process, and
//! prints the median of the last thousand in microseconds. The benchmark of a full pool uses it.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a tool of the benchmark"
)]

use std::time::Instant;

use berth_ipam::{PoolConfig, Request, allocate};
use berth_store::{BootTime, Dirs, Store};
use berth_types::{AttachmentKey, BootId, NetworkName};

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let network: NetworkName = words[2].parse().unwrap();
    let count: usize = words[3].parse().unwrap();
    let dirs = Dirs { state: format!("{}/unused", words[1]).into(), run: words[1].clone().into() };
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let mut store = Store::open(&dirs, BootId::new(&boot)).unwrap();
    let ipam = serde_json::json!({"ranges": [[{"subnet": "10.80.0.0/16"}]]});
    let pools = PoolConfig::parse(&ipam, None).unwrap();
    let mut last = Vec::new();
    for i in 0..count {
        let request = Request {
            owner: AttachmentKey {
                network: network.clone(),
                container: format!("filler{i}").parse().unwrap(),
                ifname: "eth0".parse().unwrap(),
            },
            sandbox: None,
            requested: Vec::new(),
            sticky: None,
        };
        let started = Instant::now();
        store.write(|tx| allocate(tx, &pools, &request, BootTime::now(), &mut |_| false)).unwrap();
        if i + 1000 >= count {
            last.push(started.elapsed().as_micros());
        }
    }
    last.sort_unstable();
    println!("{}", last[last.len() / 2]);
}
