//! Taking addresses back, and looking at them.

use std::collections::HashSet;

use berth_store::{BootTime, LeaseRow, LeaseScope, ReadTx, StoreError, Tx};
use berth_types::{AttachmentKey, NetworkName};

use crate::{PoolConfig, Span};

/// Takes back all that `owner` holds; what that was. Nothing is no error: a deletion may come twice.
pub fn release(tx: &Tx<'_>, owner: &AttachmentKey, now: BootTime) -> Result<Vec<LeaseRow>, StoreError> {
    let leases = tx.leases_of(owner)?;
    remove(tx, leases, now)
}

/// Takes back what attachments of `network` hold that are not in `valid`; what that was. For a runtime's `GC`.
pub fn release_in(
    tx: &Tx<'_>,
    network: &NetworkName,
    valid: &HashSet<AttachmentKey>,
    now: BootTime,
) -> Result<Vec<LeaseRow>, StoreError> {
    let mut leases = tx.leases_of_network(network)?;
    leases.retain(|lease| !valid.contains(&lease.owner));
    remove(tx, leases, now)
}

/// The leases of a network, by address.
pub fn leases(tx: &ReadTx<'_>, network: &NetworkName) -> Result<Vec<LeaseRow>, StoreError> {
    tx.leases_of_network(network)
}

/// Whether every range set of `network` has an address that nobody holds: the answer to a runtime's `STATUS`. Its time
/// grows with the number of leases, and it changes nothing.
pub fn has_room(tx: &ReadTx<'_>, pools: &PoolConfig, network: &NetworkName) -> Result<bool, StoreError> {
    let scope = LeaseScope::new(network, pools.data_dir.as_deref());
    for set in &pools.sets {
        let spans: Vec<Span> =
            set.ranges().iter().flat_map(|range| range.span().without(&range.blocks(pools))).collect();
        let mut room = false;
        for span in spans {
            room = room || u128::from(tx.lease_count(&scope, span.ends())?) < span.count();
        }
        if !room {
            return Ok(false);
        }
    }
    Ok(true)
}

fn remove(tx: &Tx<'_>, leases: Vec<LeaseRow>, now: BootTime) -> Result<Vec<LeaseRow>, StoreError> {
    for lease in &leases {
        tx.lease_remove(&lease.scope, lease.address, now)?;
    }
    Ok(leases)
}
