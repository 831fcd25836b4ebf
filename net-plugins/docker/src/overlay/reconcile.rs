//! What Docker and berth have to agree on for networks of the cluster, beside what they do for every network.

use std::collections::BTreeSet;

use berth_core::{Berth, CoreError, Held};
use berth_types::NetworkName;

use super::known::{self, Known};
use super::options::OverlayOptions;
use crate::refusal::{Failure, plain};
use crate::view::DockerNetwork;

/// A network that Docker has and the records lost: which one it is, its options tell.
pub(crate) fn know_again(berth: &mut Berth, network: &DockerNetwork) -> Result<(), CoreError> {
    let again = |berth: &mut Berth| -> Result<(), Failure> {
        let options = OverlayOptions::parse(&network.created_by().options)?;
        known::add(berth, &network.id, &options.network, &options.choices)
    };
    match again(berth) {
        Ok(()) => {
            tracing::info!(network = network.name, "known to Docker and not to berth; it is known again");
            Ok(())
        }
        Err(Failure::Core(err)) => Err(err),
        Err(refused) => Err(CoreError::Missing { what: plain(refused).to_string() }),
    }
}

/// Addresses that were held for Docker and that it does not hold: their request was answered to nobody.
pub(crate) fn keep_holds(
    berth: &mut Berth,
    Known { network, .. }: &Known,
    docker: &DockerNetwork,
    older_than_ms: i64,
) -> Result<(), CoreError> {
    let mut known = docker.addresses.clone();
    known.extend(attached(berth, network)?);
    let released = berth.holds_keep(network, &known, older_than_ms)?;
    if released > 0 {
        tracing::info!(%network, released, "addresses that Docker does not hold are free again");
    }
    Ok(())
}

fn attached(berth: &mut Berth, network: &NetworkName) -> Result<BTreeSet<std::net::IpAddr>, CoreError> {
    let held = berth.held_on(network)?;
    let of = |held: &Held| match held {
        Held::Bridge(record) => record.leases.iter().map(|lease| lease.address.ip()).collect(),
        Held::Ports(_) => Vec::new(),
    };
    Ok(held.iter().flat_map(|(_, held)| of(held)).collect())
}
