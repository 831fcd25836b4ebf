//! The other hosts that frames are taken from, and an overlay's links as they should be.

use std::collections::BTreeSet;

use berth_netlink::Netlink;
use berth_store::lock::{NetworkLock, RulesLock};
use berth_types::NetworkName;

use crate::attach::payload;
use crate::berth::Berth;
use crate::collect::has_lost;
use crate::detach::remove_elements;
use crate::elements;
use crate::error::CoreError;
use crate::execute::execute;
use crate::kernel::Kernel;
use crate::network::NetworkRecord;
use crate::overlay::Peers;
use crate::step::Plan;

impl Berth {
    /// Takes VXLAN frames from `peers`, the other hosts of a network, and from nobody else on its account. Whether they are others
    /// than before.
    ///
    /// What is added is let in before it is forgotten that it was not, and what is taken away is kept on record until it is
    /// out of the ruleset: whoever is killed in between leaves nothing that nobody knows of.
    pub fn peers_set(&mut self, name: &NetworkName, peers: &Peers) -> Result<bool, CoreError> {
        let _lock = NetworkLock::exclusive(self.dirs(), name)?;
        let Some(before) = self.network(name)?.filter(|network| network.overlay.is_some()) else {
            return Err(CoreError::Missing { what: format!("network `{name}` is no overlay of this host") });
        };
        if before.peers == *peers {
            return Ok(false);
        }
        let both = NetworkRecord { peers: before.peers.union(peers), ..before.clone() };
        self.put_overlay(&both)?;
        // Whoever removes elements on another network's account reads the records under this lock: either they are read
        // after the line above, or what they removed is added below.
        drop(RulesLock::exclusive(self.dirs())?);
        let (had, wanted) = (elements::of_network(&before), elements::of_network(&both));
        let mut plan = Plan::default();
        plan.push_elements(wanted.difference(&had).cloned().collect());
        let mut kernel = Kernel::open(self, None)?;
        execute(&mut kernel, &plan)?.keep();
        let after = NetworkRecord { peers: peers.clone(), ..before };
        {
            let _rules = RulesLock::exclusive(self.dirs())?;
            let others = self.networks()?.into_iter().filter(|other| other.name != *name);
            let needed: BTreeSet<_> = others
                .flat_map(|other| elements::of_network(&other))
                .chain(elements::of_network(&after))
                .collect();
            remove_elements(wanted.difference(&needed).cloned().collect())?;
        }
        self.put_overlay(&after)?;
        Ok(true)
    }

    /// Puts right the VXLAN device and the bridge of an overlay, where something of them is not as it should be. Whether there
    /// was.
    pub fn overlay_mend(&mut self, name: &NetworkName) -> Result<bool, CoreError> {
        let Some(network) = self.network(name)?.filter(|network| network.overlay.is_some()) else {
            return Ok(false);
        };
        let netlink = Netlink::open()?;
        let (links, addrs) = (netlink.links()?, netlink.addrs_all()?);
        let bridge = links.iter().find(|link| link.name == network.bridge);
        if network.pending || bridge.is_some_and(|bridge| !has_lost(&network, bridge, &addrs, &links)) {
            return Ok(false);
        }
        self.mend_network(&network)?;
        Ok(true)
    }

    fn put_overlay(&mut self, record: &NetworkRecord) -> Result<(), CoreError> {
        let text = payload(record)?;
        self.store_mut().write(|tx| {
            tx.live_network_put(&record.name, Some(&record.bridge), &text).map_err(CoreError::from)
        })
    }
}
