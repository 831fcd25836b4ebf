//! `roverlay`: networks of the cluster, for Docker.
//!
//! A network of Docker's is here only another name of the cluster's: which one it is, is durable, and everything else is the
//! cluster's record and this host's part of it. An endpoint is recorded under the cluster's name like a container of any other
//! engine, and other nodes hear of it in the same way.

mod driver;
mod ipam;
mod known;
mod options;
mod reconcile;

use std::time::{Duration, Instant};

use berth_core::{Berth, CoreError};
use berth_overlay::call::{self, CallError};
use berth_overlay::joined::Joined;
use berth_overlay::memory;
use berth_overlay::model::OverlayNetwork;
use berth_overlay::wire::{AskNetwork, NewNetwork, RefusalCode};
use berth_types::NetworkName;

pub use driver::Driver;
pub use ipam::Ipam;

pub(crate) use known::{Known, all, find, forget};
pub(crate) use reconcile::{keep_holds, know_again};

use crate::refusal::Failure;

/// The name under which Docker knows the driver, of networks and of addresses.
pub const DRIVER: &str = "roverlay";

/// Its socket.
pub const SOCKET: &str = "roverlay.sock";

/// The option that names the network of the cluster.
pub(crate) const NETWORK: &str = "network";

/// The option that says whether the cluster is to have the network made where it has none of the name.
pub(crate) const CREATE: &str = "create";

/// Where the addresses of these networks are from. dockerd tells it of a network's address driver, and nothing else.
pub(crate) const ADDRESS_SPACE: &str = "berth-overlay";

/// How long the agent's view may be behind the cluster: somebody has just created the network on another node.
const BEHIND: Duration = Duration::from_secs(1);

/// Between two looks whether it is there by now.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What a person types, for a refusal.
fn typed(network: &str) -> String {
    format!(
        "docker network create -d {DRIVER} --ipam-driver {DRIVER} --ipam-opt network={network} -o network={network} NAME"
    )
}

/// The cluster's record of a network, by this host's records or by the agent's; none, where the cluster has none of the name.
fn record(berth: &mut Berth, name: &NetworkName) -> Result<Option<OverlayNetwork>, Failure> {
    if let Some(joined) = Joined::find(berth, name)? {
        return Ok(Some(joined.record));
    }
    let until = Instant::now() + BEHIND;
    loop {
        match call::describe(&berth.dirs().run, &AskNetwork::named(name.clone())) {
            Ok(record) => return Ok(Some(record)),
            Err(CallError::Refused(refusal)) if refusal.code == RefusalCode::NoNetwork => (),
            Err(err) => return Err(err.into()),
        }
        if Instant::now() >= until {
            return Ok(None);
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// The record that a network would be created with.
fn proposal(berth: &Berth, new: NewNetwork) -> Result<OverlayNetwork, Failure> {
    let ask = AskNetwork { create: Some(new.clone()), ..AskNetwork::named(new.name) };
    Ok(call::describe(&berth.dirs().run, &ask)?)
}

/// The network of the cluster whose subnet this is, as last seen.
fn network_of_subnet(
    berth: &mut Berth,
    subnet: ipnetwork::IpNetwork,
) -> Result<Option<NetworkName>, CoreError> {
    let networks = seen_networks(berth)?;
    let has = |record: &OverlayNetwork| record.subnets.iter().any(|one| one.subnet == subnet);
    Ok(networks.into_iter().find(has).map(|record| record.name))
}

/// The networks of the cluster, as last seen.
pub(crate) fn seen_networks(berth: &mut Berth) -> Result<Vec<OverlayNetwork>, CoreError> {
    berth.store_mut().read(|tx| memory::networks(tx).map_err(CoreError::from))
}

/// Subnets, as a refusal names them.
fn subnets(record: &OverlayNetwork) -> String {
    let all: Vec<String> = record.subnets.iter().map(|one| one.subnet.to_string()).collect();
    all.join(" and ")
}
