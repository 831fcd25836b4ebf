//! Names of networks and endpoints, as far as they are known.

use berth_core::Berth;
use berth_core::shown::key_of_network;
use berth_types::{AttachmentKey, NetworkName};

/// What people call the network.
pub(crate) fn of_network(berth: &mut Berth, network: &NetworkName) -> Option<String> {
    // A name that cannot be read is not known: it only embellishes.
    let shown = berth.name_of(&key_of_network(network)).ok()??;
    Some(shown.name)
}

/// What people call the container of the endpoint.
pub(crate) fn of_endpoint(berth: &mut Berth, endpoint: &AttachmentKey) -> Option<String> {
    let shown = berth.name_of(endpoint).ok()??;
    Some(format!("container {}", shown.name))
}
