//! The cluster as last seen, kept on disk: a node that boots while the cluster is away forwards to where containers were.

use berth_store::{ReadTx, StoreError, Tx};

use crate::cluster::keys::{self, Read};
use crate::cluster::{Entry, Listing, Revision};
use crate::model::OverlayNetwork;
use crate::view::Deltas;

/// What was last seen. Records that this version cannot read are passed over, as in the cluster itself.
///
/// # Errors
///
/// [`StoreError`]: the records cannot be read.
pub fn load(tx: &ReadTx<'_>) -> Result<Listing, StoreError> {
    let mut listing = Listing { revision: Revision(tx.cluster_revision()?), ..Listing::default() };
    tx.cluster_records_each(|path, value| match keys::read(path, value) {
        Read::Entry(entry) => listing.entries.push(entry),
        Read::Foreign(foreign) => listing.foreign.push(foreign),
        Read::Index => (),
    })?;
    Ok(listing)
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
