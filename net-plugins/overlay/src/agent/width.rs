//! Whether the packets of this node's networks fit through the ways to the other nodes, as they are now.
//!
//! A network's MTU is the cluster's, chosen when it was created: its containers on all nodes have it, and those that run keep
//! it. So a way that becomes narrower does not change it. It is said by name, here and by every node that it leads to.

use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_core::Chain;
use berth_types::{NetworkName, NodeName};

use super::AgentError;
use super::state::{Agent, Link};
use crate::entries::vtep_of;
use crate::model::Node;
use crate::mtu::{Cover, MtuFault, Way, faults};

/// Tunnel ends of other nodes.
type Peers = BTreeMap<NodeName, IpAddr>;

impl Agent {
    /// Looks at the ways to all nodes that have something on a network of this node.
    pub(super) async fn look_at_ways(&mut self) -> Result<(), AgentError> {
        let Some(local) = self.link.as_ref().and_then(Link::local) else { return Ok(()) };
        let peers: BTreeMap<NetworkName, Peers> =
            self.joined.keys().map(|name| (name.clone(), self.peers(name, local))).collect();
        let ends: Peers = peers.values().flatten().map(|(node, end)| (node.clone(), *end)).collect();
        let ways = match self.with(move |hands| hands.ways(&ends)).await? {
            Ok(ways) => ways,
            Err(err) => {
                tracing::warn!(error = %Chain(&err), "the ways to the other nodes are not known");
                return Ok(());
            }
        };
        let narrow = |(name, peers): (NetworkName, Peers)| {
            let ways: Vec<Way> = ways.iter().filter(|way| peers.contains_key(&way.node)).cloned().collect();
            let narrow = self.narrow_of(&name, local, &ways);
            (name, narrow)
        };
        let now: BTreeMap<_, _> =
            peers.into_iter().map(narrow).filter(|(_, narrow)| !narrow.is_empty()).collect();
        for (name, narrow) in now.iter().filter(|(name, narrow)| self.narrow.get(*name) != Some(*narrow)) {
            for fault in narrow {
                tracing::warn!(network = %name, %fault, "packets are too large");
            }
        }
        self.narrow = now;
        Ok(())
    }

    /// The tunnel ends of the nodes that have something on the network, but for this one.
    fn peers(&self, name: &NetworkName, local: IpAddr) -> Peers {
        let nodes = self.others(name).filter_map(|node| Some((node.name.clone(), vtep_of(node, local)?)));
        nodes.collect()
    }

    fn others(&self, name: &NetworkName) -> impl Iterator<Item = &Node> {
        let me = self.link.as_ref().map(|link| link.membership.name.clone());
        let nodes = self.view.everything_of(name).into_iter().flat_map(crate::view::NetworkView::nodes);
        let nodes = nodes.filter(move |node| Some(*node) != me.as_ref());
        nodes.filter_map(|node| self.view.node(node)?.node().map(AsRef::as_ref))
    }

    fn narrow_of(&self, name: &NetworkName, local: IpAddr, ways: &[Way]) -> Vec<MtuFault> {
        let Some(joined) = self.joined.get(name) else { return Vec::new() };
        let own = self.link.as_ref().map(|link| link.node.borrow().clone());
        let size = (joined.overlay.mtu, Cover::of(joined.overlay.encrypted));
        faults(size, local, ways, self.others(name).chain(own.as_ref()))
    }
}
