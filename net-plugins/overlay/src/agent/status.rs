//! The agent, as it is looked at.

use std::collections::BTreeSet;
use std::net::IpAddr;

use berth_types::NetworkName;
use ipnetwork::IpNetwork;

use super::state::{Agent, Link};
use crate::cluster::EntryKey;
use crate::joined::Joined;
use crate::view::{NodeStatus, NodeView};
use crate::wire::{NetworkStatus, NodeStatusView, Status};

impl Agent {
    pub(super) fn status(&self) -> Status {
        let link = self.link.as_ref();
        Status {
            node: link.map(|link| link.membership.name.clone()),
            cluster: link.map(|link| link.cluster.name()),
            connected: link.is_some_and(Link::is_usable),
            trouble: link.and_then(|link| link.trouble.clone()).or_else(|| self.unlinked.clone()),
            revision: self.view.revision().0,
            last_change_ms: self.last_change_ms,
            networks: self.joined.iter().map(|(name, joined)| self.network_status(name, joined)).collect(),
            nodes: self.view.nodes().filter_map(|(_, node)| self.node_status(node)).collect(),
            foreign: self.view.foreign().map(|one| (one.key.clone(), one.why.clone())).collect(),
            unpublished: self.writing.len() + self.refused.len(),
            counters: self.counters,
        }
    }

    fn network_status(&self, name: &NetworkName, joined: &Joined) -> NetworkStatus {
        let here = |key: &&EntryKey| matches!(key, EntryKey::Attachment(network, _, _) if network == name);
        let network = self.view.everything_of(name);
        let me = self.link.as_ref().map(|link| &link.membership.name);
        let others = network.into_iter().flat_map(|network| network.attachments());
        let others: Vec<_> = others.filter(|one| Some(&one.node) != me).collect();
        let vteps: BTreeSet<IpAddr> = others.iter().filter_map(|one| self.vtep(&one.node)).collect();
        let conflicts = network.into_iter().flat_map(|network| network.conflicts());
        NetworkStatus {
            name: name.clone(),
            vni: joined.overlay.vni,
            mtu: joined.overlay.mtu,
            subnets: joined.declaration.subnets.iter().map(|subnet| subnet.subnet).collect(),
            blocks: self.blocks(name),
            here: self.wanted.keys().filter(here).count(),
            elsewhere: others.len(),
            vteps: vteps.into_iter().collect(),
            conflicts: conflicts
                .map(|(address, holders)| {
                    let others: Vec<String> =
                        holders.others().iter().map(|one| one.node.to_string()).collect();
                    format!("{address} is on {} and on {}", holders.believed().node, others.join(", "))
                })
                .collect(),
            narrow: self.narrow.get(name).into_iter().flatten().map(ToString::to_string).collect(),
            trouble: self.encryption_trouble(joined).or_else(|| self.troubles.get(name).cloned()),
            encrypted: self.encryption_view(name, joined),
        }
    }

    /// By the cluster; what is on record here is the same but for a moment.
    fn blocks(&self, name: &NetworkName) -> Vec<IpNetwork> {
        let (Some(link), Some(network)) = (&self.link, self.view.everything_of(name)) else {
            return Vec::new();
        };
        network.blocks_of(&link.membership.name).map(|block| block.cidr).collect()
    }

    fn vtep(&self, node: &berth_types::NodeName) -> Option<IpAddr> {
        let local = self.link.as_ref()?.local()?;
        crate::entries::vtep_of(self.view.node(node)?.node()?, local)
    }

    fn node_status(&self, view: &NodeView) -> Option<NodeStatusView> {
        let node = view.node()?;
        let v4 = node.vtep4.map(IpAddr::V4);
        Some(NodeStatusView {
            name: node.name.clone(),
            vteps: v4.into_iter().chain(node.vtep6.map(IpAddr::V6)).collect(),
            underlay_mtu: node.underlay_mtu,
            alive: view.status() == NodeStatus::Alive,
            attachments: self.view.attachments_of(&node.name).count(),
        })
    }
}
