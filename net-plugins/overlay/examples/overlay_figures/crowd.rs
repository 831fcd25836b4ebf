//! A node with many containers, of which there is nothing but the records.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_overlay::cluster::etcd::{EtcdCluster, EtcdConfig};
use berth_overlay::cluster::{Cluster, Entry};
use berth_overlay::model::{Node, OverlayAttachment};
use berth_types::NetworkName;
use ipnetwork::IpNetwork;
use tokio::task::JoinSet;

use super::{attachment, node};

/// Writes that are under way at once.
const AT_ONCE: usize = 64;

/// How long the node is believed to be there.
const LEASE: Duration = Duration::from_secs(600);

/// How long it took, in milliseconds.
pub(crate) fn write(etcd: &str, network: &NetworkName, count: u32) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let started = Instant::now();
    runtime.block_on(write_all(etcd, network, count));
    started.elapsed().as_secs_f64() * 1000.0
}

async fn write_all(etcd: &str, network: &NetworkName, count: u32) {
    let endpoint = etcd.trim_start_matches("http://").to_owned();
    let cluster = Arc::new(EtcdCluster::new(EtcdConfig::new([endpoint])).unwrap());
    let node = node("crowd", 200);
    let epoch = cluster.join(&node).await.unwrap();
    let node = Node { epoch, ..node };
    cluster.present(&node, LEASE).await.unwrap();
    // What is in a block is its owner's to give.
    let entries = cluster.list().await.unwrap().entries;
    let blocks = entries.into_iter().filter_map(|entry| match entry {
        Entry::Block(block) => Some(block.cidr),
        _ => None,
    });
    let blocks: Vec<IpNetwork> = blocks.collect();
    let all = (256_u32..65_000).map(|number| Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 6, 0, 0)) + number));
    let free = all.filter(|address| !blocks.iter().any(|block| block.contains((*address).into())));
    let mut writes = JoinSet::new();
    for (number, address) in (0..count).zip(free) {
        if writes.len() >= AT_ONCE {
            writes.join_next().await.unwrap().unwrap();
        }
        let attachment =
            OverlayAttachment { addresses: [address.into()].into(), ..attachment(network, &node, number) };
        let cluster = Arc::clone(&cluster);
        writes.spawn(async move { cluster.put_attachment(&attachment).await.unwrap() });
    }
    while let Some(written) = writes.join_next().await {
        written.unwrap();
    }
}
