//! The cluster as last seen, kept on disk: a node that boots while the cluster is away forwards to where containers were.

use berth_store::{ReadTx, StoreError, Tx};

use crate::cluster::keys::{self, Read};
use crate::cluster::{Change, Entry, Revision};
use crate::model::OverlayNetwork;
use crate::view::{Deltas, View};

/// What was last seen. Records that this version cannot read are passed over, as in the cluster itself.
///
/// # Errors
///
/// [`StoreError`]: the records cannot be read.
pub fn load(tx: &ReadTx<'_>) -> Result<View, StoreError> {
    let mut view = View::default();
    let revision = Revision(tx.cluster_revision()?);
    view.apply(revision, Vec::new());
    // One by one: what they have in common is shared while each is read, and not ten thousand times in memory before.
    tx.cluster_records_each(|path, value| match keys::read(path, value) {
        Read::Entry(entry) => drop(view.apply(revision, vec![Change::Put(entry)])),
        Read::Foreign(foreign) => drop(view.apply(revision, vec![Change::Foreign(foreign)])),
        Read::Index => (),
    })?;
    Ok(view)
}

/// The networks that were last seen, without who is on them.
///
/// # Errors
///
/// [`StoreError`]: the records cannot be read.
pub fn networks(tx: &ReadTx<'_>) -> Result<Vec<OverlayNetwork>, StoreError> {
    let mut networks = Vec::new();
    for (path, value) in tx.cluster_records_below(keys::NETWORKS)? {
        if let Read::Entry(Entry::Network(network)) = keys::read(&path, &value) {
            networks.push(network);
        }
    }
    Ok(networks)
}

/// Notes what is different at `revision`. One durable write: changes that come together are noted together.
///
/// # Errors
///
/// [`StoreError`]: the records cannot be written.
pub fn note(tx: &Tx<'_>, revision: Revision, deltas: &Deltas) -> Result<(), StoreError> {
    tx.cluster_seen(revision.0, deltas.records())
}
