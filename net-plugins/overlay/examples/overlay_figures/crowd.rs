//! A node with many containers, of which there is nothing but the records.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_overlay::cluster::Cluster;
use berth_overlay::cluster::etcd::{EtcdCluster, EtcdConfig};
use berth_overlay::model::{Node, OverlayAttachment};
use berth_types::NetworkName;
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
    let mut writes = JoinSet::new();
    for number in 0..count {
        if writes.len() >= AT_ONCE {
            writes.join_next().await.unwrap().unwrap();
        }
        // Far from the blocks of nodes that give addresses.
        let [_, _, high, low] = number.to_be_bytes();
        let address = Ipv4Addr::new(10, 6, 128 + high, low);
        let attachment =
            OverlayAttachment { addresses: [address.into()].into(), ..attachment(network, &node, number) };
        let cluster = Arc::clone(&cluster);
        writes.spawn(async move { cluster.put_attachment(&attachment).await.unwrap() });
    }
    while let Some(written) = writes.join_next().await {
        written.unwrap();
    }
}
