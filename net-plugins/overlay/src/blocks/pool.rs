//! What this node may give, from its own records alone.

use berth_ipam::PoolConfig;
use berth_ipam::blocks::{LocalPoolError, LocalSubnet};
use berth_store::{BlockStage, LendDirection, ReadTx, StoreError};

use crate::model::{OverlayNetwork, OverlaySubnet};

/// The pool that this node gives addresses of `network` from, while the cluster is away too. Read in the transaction that
/// gives, or under the network's lock: what is lent and drained is taken out of it under the same.
///
/// # Errors
///
/// [`StoreError`]: the records cannot be read. Of a network in which this node has nothing to give, the inner error.
pub fn local_pool(
    tx: &ReadTx<'_>,
    network: &OverlayNetwork,
) -> Result<Result<PoolConfig, LocalPoolError>, StoreError> {
    let (blocks, lends) = (tx.cluster_blocks(&network.name)?, tx.cluster_lends(&network.name)?);
    let local = |OverlaySubnet { subnet, gateway }: &OverlaySubnet| {
        let blocks = blocks.iter().filter(|block| block.stage == BlockStage::Open).map(|block| block.cidr);
        let lent = |direction: LendDirection| {
            let lends = lends.iter().filter(move |lend| lend.direction == direction);
            lends.map(|lend| lend.address).filter(|address| subnet.contains(*address)).collect()
        };
        LocalSubnet {
            subnet: *subnet,
            gateway: *gateway,
            blocks: blocks.filter(|block| subnet.contains(block.network())).collect(),
            borrowed: lent(LendDirection::Taken),
            lent: lent(LendDirection::Given),
        }
    };
    let subnets: Vec<LocalSubnet> = network.subnets.iter().map(local).collect();
    Ok(berth_ipam::blocks::local_pool(&subnets, berth_ipam::DEFAULT_QUARANTINE))
}
