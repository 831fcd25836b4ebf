//! Networks of the cluster that this host is not on, for `network ls` and `network inspect`.
//!
//! They are shown while the agent follows the cluster. Without one, what was last seen may be long gone, and nothing is said of
//! them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use berth_core::Berth;
use berth_overlay::call;
use berth_overlay::model::{Occupant, OverlayNetwork, OverlaySubnet};
use berth_overlay::node::last_seen;
use berth_overlay::view::View;
use berth_types::{NetworkName, NodeName, Vni};
use ipnetwork::IpNetwork;
use serde::Serialize;

use crate::failure::{Doing as _, Failure};
use crate::text::{joined, those_that_hold};

/// A network of the cluster that this host is not on.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Elsewhere {
    name: NetworkName,
    /// Whether this host is on it; networks that it is on do not say so.
    joined: bool,
    subnets: Vec<IpNetwork>,
    gateways: Vec<IpAddr>,
    mtu: u32,
    masquerade: bool,
    between_containers: bool,
    isolated: bool,
    internal: bool,
    encrypted: bool,
    vni: Vni,
    port: u16,
    /// The nodes that are on it.
    nodes: BTreeSet<NodeName>,
    /// Containers on it.
    attachments: usize,
}

/// All of them, but for those in `here`.
///
/// # Errors
///
/// The records cannot be read.
pub(super) fn all(
    berth: &mut Berth,
    here: &BTreeSet<NetworkName>,
    doing: &str,
) -> Result<Vec<Elsewhere>, Failure> {
    let is_followed = call::status(&berth.dirs().run).is_ok_and(|status| status.node.is_some());
    if !is_followed {
        return Ok(Vec::new());
    }
    let view = last_seen(berth).doing(doing)?;
    let records = view.networks().filter(|(name, _)| !here.contains(*name));
    Ok(records.filter_map(|(_, network)| Some(Elsewhere::new(network.record()?, &view))).collect())
}

impl Elsewhere {
    fn new(record: &OverlayNetwork, view: &View) -> Self {
        let on_it = || view.network(&record.name).into_iter().flat_map(|network| network.attachments());
        Self {
            name: record.name.clone(),
            joined: false,
            subnets: record.subnets.iter().map(|OverlaySubnet { subnet, .. }| *subnet).collect(),
            gateways: record.subnets.iter().map(|OverlaySubnet { gateway, .. }| *gateway).collect(),
            mtu: record.mtu,
            masquerade: record.masquerade,
            between_containers: record.between_containers,
            isolated: record.isolated,
            internal: record.internal,
            encrypted: record.encrypted,
            vni: record.vni,
            port: record.port,
            nodes: on_it().map(|one| one.node.clone()).collect(),
            attachments: on_it().filter(|one| one.of != Occupant::Node).count(),
        }
    }

    pub(super) fn name(&self) -> &NetworkName {
        &self.name
    }

    /// As `network ls` has networks of this host.
    pub(super) fn row(&self) -> Vec<String> {
        vec![
            self.name.to_string(),
            "not joined".to_owned(),
            joined(&self.subnets),
            joined(&self.gateways),
            self.reach(),
            format!("{} elsewhere", self.attachments),
        ]
    }

    fn reach(&self) -> String {
        those_that_hold(&[
            (self.internal, "internal"),
            (self.masquerade && !self.internal, "masqueraded"),
            (self.isolated, "isolated"),
            (!self.between_containers, "containers kept apart"),
            (self.encrypted, "encrypted"),
        ])
    }

    /// Labelled lines for `network inspect`.
    pub(super) fn facts(&self) -> Vec<(&'static str, String)> {
        let nodes: Vec<String> = self.nodes.iter().map(ToString::to_string).collect();
        vec![
            ("network", format!("{} (not joined: the first container on this host joins it)", self.name)),
            ("vni", format!("{} on UDP port {}", self.vni, self.port)),
            ("subnets", joined(&self.subnets)),
            ("gateways", joined(&self.gateways)),
            ("mtu", self.mtu.to_string()),
            ("reach", self.reach()),
            ("nodes", if nodes.is_empty() { "none".to_owned() } else { nodes.join(", ") }),
            ("attached", format!("{} containers of other nodes", self.attachments)),
        ]
    }
}
