//! Nodes that are silent for good.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_ipam::blocks::is_lost;
use berth_types::NodeName;

use crate::view::{NodeStatus, View};

/// The nodes that this one is to remove ([`crate::cluster::Removal::Lost`]), with their epochs: silent for `grace`, and some
/// seconds more for each living node that comes before this one by name. `silent` says since how long this node has not heard of
/// them; a node that came later than they fell silent counts from its own beginning, so it is never too early.
pub fn lost_nodes(
    view: &View,
    own: &NodeName,
    silent: &BTreeMap<NodeName, Duration>,
    grace: Duration,
) -> Vec<(NodeName, u64)> {
    let alive = view.nodes().filter(|(_, node)| node.status() == NodeStatus::Alive);
    let rank = alive.filter(|(name, _)| *name < own).count();
    let suspect = view.nodes().filter(|(_, node)| node.status() == NodeStatus::Suspect);
    let lost = suspect.filter(|(name, _)| {
        *name != own && silent.get(*name).is_some_and(|silent| is_lost(*silent, grace, rank))
    });
    lost.filter_map(|(name, node)| Some((name.clone(), node.node()?.epoch))).collect()
}
