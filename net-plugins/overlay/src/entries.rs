//! Which entries the kernel needs for what is on other nodes. Pure.
//!
//! [`Entries`] is told who has which address, one by one, and keeps what the kernel should hold ([`Desired`]); each time it says
//! what that touched ([`Touched`]), so that a change costs as much as the change and not as much as the network. A node that has
//! gone silent is not to be told of: what was known of it stays.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_core::overlay::Peers;
use berth_types::{MacAddr, NodeName};

use crate::model::Node;

/// What the kernel should hold for one network on this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// Tunnel end that frames to an Ethernet address go to: an entry of the bridge and of the VXLAN device.
    pub fdb: BTreeMap<MacAddr, IpAddr>,
    /// The Ethernet address of an address: a permanent neighbour on the bridge.
    pub neighs: BTreeMap<IpAddr, MacAddr>,
    /// Tunnel ends that get a copy of each broadcast, multicast and frame without an entry (head-end replication); nothing for
    /// a network that does not flood.
    pub flood: BTreeSet<IpAddr>,
    /// Tunnel ends that frames are taken from: those of the nodes that have something on the network.
    pub vteps: BTreeSet<IpAddr>,
    /// Those nodes' own Ethernet addresses.
    pub node_macs: BTreeSet<MacAddr>,
}

impl Desired {
    /// Whom frames are taken from, as the core records it.
    pub fn peers(&self) -> Peers {
        Peers { vteps: self.vteps.clone(), macs: self.node_macs.clone() }
    }
}

/// Who has an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The node.
    pub node: NodeName,
    /// The Ethernet address.
    pub mac: MacAddr,
    /// Whether it is the node itself, and no container of it.
    pub is_node: bool,
}

/// What of [`Desired`] a change touched. What is touched need not be other than before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    /// Ethernet addresses.
    pub macs: BTreeSet<MacAddr>,
    /// Addresses.
    pub addrs: BTreeSet<IpAddr>,
    /// Tunnel ends that came or went.
    pub vteps: BTreeSet<IpAddr>,
    /// Whether a node's own Ethernet address came or went.
    pub node_macs: bool,
    /// Addresses that had another Ethernet address before: containers here may still send to that one, and are to be told.
    pub moved: BTreeSet<IpAddr>,
}

impl Touched {
    /// Whether it is nothing.
    pub fn is_empty(&self) -> bool {
        let Self { macs, addrs, vteps, node_macs, moved } = self;
        macs.is_empty() && addrs.is_empty() && vteps.is_empty() && moved.is_empty() && !node_macs
    }

    /// Whether others are to be let in or kept out.
    pub fn peers(&self) -> bool {
        self.node_macs || !self.vteps.is_empty()
    }

    /// Adds what `later` touched.
    pub fn extend(&mut self, later: Self) {
        let Self { macs, addrs, vteps, node_macs, moved } = later;
        self.macs.extend(macs);
        self.addrs.extend(addrs);
        self.vteps.extend(vteps);
        self.node_macs |= node_macs;
        self.moved.extend(moved);
    }
}

/// One network, as this node sees it.
#[derive(Debug, Clone)]
pub struct Entries {
    here: NodeName,
    floods: bool,
    vteps: BTreeMap<NodeName, IpAddr>,
    holders: BTreeMap<IpAddr, Holder>,
    /// The Ethernet address that an address had which is nobody's now. As many as there are addresses in use at most times.
    former: BTreeMap<IpAddr, MacAddr>,
    /// How many addresses of a node have an Ethernet address; and so its node, one but for a mistake. By name of the node; a
    /// list, because a map of one has room for eleven, and there is one for each container elsewhere.
    macs: BTreeMap<MacAddr, Vec<(NodeName, usize)>>,
    /// Addresses that are nodes' own; a few.
    nodes: BTreeMap<IpAddr, MacAddr>,
    /// How many addresses a node has.
    uses: BTreeMap<NodeName, usize>,
    desired: Desired,
}

impl Entries {
    /// Nobody has anything yet. What is on node `here` is local and needs no entry.
    pub fn new(here: NodeName, floods: bool) -> Self {
        Self {
            here,
            floods,
            vteps: BTreeMap::new(),
            holders: BTreeMap::new(),
            former: BTreeMap::new(),
            macs: BTreeMap::new(),
            nodes: BTreeMap::new(),
            uses: BTreeMap::new(),
            desired: Desired::default(),
        }
    }

    /// What the kernel should hold now.
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// Whether broadcasts are copied to the other nodes from now on.
    pub fn flood(&mut self, on: bool) -> Touched {
        self.floods = on;
        let mut touched = Touched::default();
        self.settle_vteps(&mut touched);
        if self.desired.flood != self.flooded() {
            touched.vteps.extend(self.desired.vteps.iter().copied());
            self.desired.flood = self.flooded();
        }
        touched
    }

    /// The node's tunnel end is `vtep` from now on; none takes everything of the node off the network.
    pub fn node(&mut self, node: &NodeName, vtep: Option<IpAddr>) -> Touched {
        let mut touched = Touched::default();
        let before = match vtep {
            Some(vtep) => self.vteps.insert(node.clone(), vtep),
            None => self.vteps.remove(node),
        };
        if before == vtep {
            return touched;
        }
        let of_node = self.holders.iter().filter(|(_, holder)| holder.node == *node);
        for (addr, holder) in of_node {
            touched.addrs.insert(*addr);
            touched.macs.insert(holder.mac);
        }
        self.settle(touched)
    }

    /// `addr` is `holder`'s from now on; none is nobody's.
    pub fn address(&mut self, addr: IpAddr, holder: Option<Holder>) -> Touched {
        let mut touched = Touched::default();
        let before = match &holder {
            Some(holder) => self.holders.insert(addr, holder.clone()),
            None => self.holders.remove(&addr),
        };
        if before == holder {
            return touched;
        }
        touched.addrs.insert(addr);
        let former = match (&before, &holder) {
            (Some(before), None) => self.former.insert(addr, before.mac),
            (Some(before), Some(_)) => Some(before.mac),
            (None, _) => self.former.remove(&addr),
        };
        let is_other = |holder: &Holder| former.is_some_and(|mac| mac != holder.mac);
        if holder.as_ref().is_some_and(is_other) {
            touched.moved.insert(addr);
        }
        if let Some(Holder { node, mac, is_node: _ }) = before {
            touched.macs.insert(mac);
            self.mac_lost(mac, &node);
            less(&mut self.uses, &node);
        }
        if let Some(Holder { node, mac, is_node: _ }) = holder {
            touched.macs.insert(mac);
            self.mac_gained(mac, &node);
            *self.uses.entry(node).or_default() += 1;
        }
        self.settle(touched)
    }

    fn mac_gained(&mut self, mac: MacAddr, node: &NodeName) {
        let nodes = self.macs.entry(mac).or_insert_with(|| Vec::with_capacity(1));
        match nodes.iter_mut().find(|(name, _)| name == node) {
            Some((_, count)) => *count += 1,
            None => nodes.push((node.clone(), 1)),
        }
        nodes.sort();
    }

    fn mac_lost(&mut self, mac: MacAddr, node: &NodeName) {
        let Some(nodes) = self.macs.get_mut(&mac) else { return };
        for (_, count) in nodes.iter_mut().filter(|(name, _)| name == node) {
            *count -= 1;
        }
        nodes.retain(|(_, count)| *count > 0);
        if nodes.is_empty() {
            self.macs.remove(&mac);
        }
    }

    /// Works out anew what was touched.
    fn settle(&mut self, mut touched: Touched) -> Touched {
        for addr in &touched.addrs {
            let reached = |holder: &&Holder| self.is_remote(&holder.node);
            match self.holders.get(addr).filter(reached).map(|holder| holder.mac) {
                Some(mac) => drop(self.desired.neighs.insert(*addr, mac)),
                None => drop(self.desired.neighs.remove(addr)),
            }
        }
        let before = self.desired.node_macs.clone();
        for addr in &touched.addrs {
            self.settle_node(*addr);
        }
        self.desired.node_macs =
            self.nodes.values().copied().filter(|mac| self.vtep_of_mac(*mac).is_some()).collect();
        touched.node_macs |= before != self.desired.node_macs;
        for mac in &touched.macs {
            match self.vtep_of_mac(*mac) {
                Some(vtep) => drop(self.desired.fdb.insert(*mac, vtep)),
                None => drop(self.desired.fdb.remove(mac)),
            }
        }
        self.settle_vteps(&mut touched);
        touched
    }

    fn settle_node(&mut self, addr: IpAddr) {
        match self.holders.get(&addr).filter(|holder| holder.is_node) {
            Some(holder) => drop(self.nodes.insert(addr, holder.mac)),
            None => drop(self.nodes.remove(&addr)),
        }
    }

    fn settle_vteps(&mut self, touched: &mut Touched) {
        let used = self.uses.keys().filter(|node| **node != self.here);
        let vteps: BTreeSet<IpAddr> = used.filter_map(|node| self.vteps.get(node)).copied().collect();
        if vteps != self.desired.vteps {
            touched.vteps.extend(self.desired.vteps.symmetric_difference(&vteps));
            self.desired.vteps = vteps;
            self.desired.flood = self.flooded();
        }
    }

    fn flooded(&self) -> BTreeSet<IpAddr> {
        if self.floods { self.desired.vteps.clone() } else { BTreeSet::new() }
    }

    fn is_remote(&self, node: &NodeName) -> bool {
        *node != self.here && self.vteps.contains_key(node)
    }

    /// What is on this node is reached here, whatever another says; of several others, the first by name.
    fn vtep_of_mac(&self, mac: MacAddr) -> Option<IpAddr> {
        let nodes = self.macs.get(&mac)?;
        if nodes.iter().any(|(node, _)| *node == self.here) {
            return None;
        }
        nodes.iter().find_map(|(node, _)| self.vteps.get(node)).copied()
    }
}

/// One less of `node`.
fn less(counts: &mut BTreeMap<NodeName, usize>, node: &NodeName) {
    if let Some(count) = counts.get_mut(node) {
        *count -= 1;
        if *count == 0 {
            counts.remove(node);
        }
    }
}

/// The tunnel end of `node` that this node's, `local`, reaches: of its family.
pub fn vtep_of(node: &Node, local: IpAddr) -> Option<IpAddr> {
    match local {
        IpAddr::V4(_) => node.vtep4.map(IpAddr::V4),
        IpAddr::V6(_) => node.vtep6.map(IpAddr::V6),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    fn holder(name: &str, mac: u8) -> Option<Holder> {
        Some(Holder { node: node(name), mac: MacAddr([2, 0, 0, 0, 0, mac]), is_node: false })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn two_nodes() -> Entries {
        let mut entries = Entries::new(node("here"), false);
        entries.node(&node("here"), Some(ip("192.0.2.1")));
        entries.node(&node("n2"), Some(ip("192.0.2.2")));
        entries.node(&node("n3"), Some(ip("192.0.2.3")));
        entries
    }

    #[test]
    fn a_remote_attachment_needs_an_entry_and_a_neighbour_of_each_address() {
        let mut entries = two_nodes();
        entries.address(ip("10.0.0.2"), holder("n2", 2));
        let touched = entries.address(ip("fd00::2"), holder("n2", 2));
        assert_eq!(touched.addrs, BTreeSet::from([ip("fd00::2")]));
        assert!(touched.vteps.is_empty(), "known already");
        let mac = MacAddr([2, 0, 0, 0, 0, 2]);
        let desired = Desired {
            fdb: BTreeMap::from([(mac, ip("192.0.2.2"))]),
            neighs: BTreeMap::from([(ip("10.0.0.2"), mac), (ip("fd00::2"), mac)]),
            flood: BTreeSet::new(),
            vteps: BTreeSet::from([ip("192.0.2.2")]),
            node_macs: BTreeSet::new(),
        };
        assert_eq!(entries.desired(), &desired);
        assert!(entries.address(ip("10.0.0.2"), holder("n2", 2)).is_empty(), "told twice");
    }

    #[test]
    fn an_address_that_moves_leads_to_the_new_node_and_the_old_entry_goes() {
        let mut entries = two_nodes();
        entries.address(ip("10.0.0.2"), holder("n2", 2));
        let touched = entries.address(ip("10.0.0.2"), holder("n3", 3));
        assert_eq!(touched.macs.len(), 2);
        assert_eq!(touched.moved, BTreeSet::from([ip("10.0.0.2")]), "containers here are told");
        assert_eq!(touched.vteps, BTreeSet::from([ip("192.0.2.2"), ip("192.0.2.3")]));
        let mac = MacAddr([2, 0, 0, 0, 0, 3]);
        assert_eq!(entries.desired().fdb, BTreeMap::from([(mac, ip("192.0.2.3"))]));
        assert_eq!(entries.desired().neighs, BTreeMap::from([(ip("10.0.0.2"), mac)]));
        assert_eq!(entries.desired().vteps, BTreeSet::from([ip("192.0.2.3")]));
        entries.address(ip("10.0.0.2"), holder("here", 4));
        assert_eq!(entries.desired(), &Desired::default(), "what is here needs nothing");
    }

    #[test]
    fn an_address_that_was_nobodys_for_a_while_has_moved_only_if_it_has_another_mac() {
        let mut entries = two_nodes();
        assert!(entries.address(ip("10.0.0.2"), holder("n2", 2)).moved.is_empty(), "the first");
        assert!(entries.address(ip("10.0.0.2"), None).moved.is_empty());
        assert!(entries.address(ip("10.0.0.2"), holder("n3", 2)).moved.is_empty(), "the same again");
        entries.address(ip("10.0.0.2"), None);
        assert_eq!(entries.address(ip("10.0.0.2"), holder("n2", 5)).moved, BTreeSet::from([ip("10.0.0.2")]));
    }

    #[test]
    fn nodes_own_addresses_are_known_as_such() {
        let mut entries = two_nodes();
        let own = |name: &str, mac| holder(name, mac).map(|holder| Holder { is_node: true, ..holder });
        entries.address(ip("10.0.0.1"), own("here", 1));
        assert!(entries.address(ip("10.0.0.2"), own("n2", 2)).node_macs);
        assert!(entries.address(ip("10.0.0.3"), holder("n2", 3)).node_macs.eq(&false));
        assert_eq!(entries.desired().peers().macs, BTreeSet::from([MacAddr([2, 0, 0, 0, 0, 2])]));
        assert!(entries.node(&node("n2"), None).node_macs);
        assert!(entries.desired().peers().is_empty());
    }

    #[test]
    fn a_node_that_comes_back_with_another_address_takes_its_attachments_with_it() {
        let mut entries = two_nodes();
        entries.address(ip("10.0.0.2"), holder("n2", 2));
        let touched = entries.node(&node("n2"), Some(ip("192.0.2.9")));
        assert_eq!(touched.vteps, BTreeSet::from([ip("192.0.2.2"), ip("192.0.2.9")]));
        assert_eq!(entries.desired().vteps, BTreeSet::from([ip("192.0.2.9")]));
        assert_eq!(entries.desired().fdb.values().copied().collect::<Vec<_>>(), [ip("192.0.2.9")]);
        entries.node(&node("n2"), None);
        assert_eq!(entries.desired(), &Desired::default());
    }

    #[test]
    fn a_network_that_floods_copies_to_every_node_that_is_on_it() {
        let mut entries = two_nodes();
        entries.address(ip("10.0.0.2"), holder("n2", 2));
        assert_eq!(entries.flood(true).vteps, BTreeSet::from([ip("192.0.2.2")]));
        entries.address(ip("10.0.0.3"), holder("n3", 3));
        assert_eq!(entries.desired().flood, BTreeSet::from([ip("192.0.2.2"), ip("192.0.2.3")]));
        entries.flood(false);
        assert_eq!(entries.desired().flood, BTreeSet::new());
    }

    #[derive(Debug, Clone)]
    enum Told {
        Node(u8, Option<u8>),
        Address(u8, Option<(u8, u8, bool)>),
    }

    fn told() -> impl Strategy<Value = Told> {
        prop_oneof![
            (0_u8..4, proptest::option::of(1_u8..6)).prop_map(|(node, vtep)| Told::Node(node, vtep)),
            (0_u8..9, proptest::option::of((0_u8..4, 0_u8..6, any::<bool>())))
                .prop_map(|(addr, of)| Told::Address(addr, of)),
        ]
    }

    fn tell(entries: &mut Entries, told: &Told) -> Touched {
        let name = |number: &u8| node(&format!("n{number}"));
        match told {
            Told::Node(number, vtep) => {
                entries.node(&name(number), vtep.map(|vtep| IpAddr::from([192, 0, 2, vtep])))
            }
            Told::Address(addr, of) => {
                let of = of.map(|(number, mac, is_node)| Holder {
                    node: name(&number),
                    mac: MacAddr([2, 0, 0, 0, 0, mac]),
                    is_node,
                });
                entries.address(IpAddr::from([10, 0, 0, *addr]), of)
            }
        }
    }

    proptest! {
        /// Whatever the history, what is desired follows from the last word on each node and address alone, and nothing
        /// changes that was not touched.
        #[test]
        fn only_the_last_word_counts_and_what_changes_was_touched(history in proptest::collection::vec(told(), 0..60)) {
            let mut entries = Entries::new(node("n0"), true);
            for told in &history {
                let before = entries.desired().clone();
                let touched = tell(&mut entries, told);
                let after = entries.desired();
                for mac in before.fdb.keys().chain(after.fdb.keys()) {
                    prop_assert!(touched.macs.contains(mac) || before.fdb.get(mac) == after.fdb.get(mac));
                }
                for addr in before.neighs.keys().chain(after.neighs.keys()) {
                    prop_assert!(touched.addrs.contains(addr) || before.neighs.get(addr) == after.neighs.get(addr));
                }
                prop_assert!(touched.node_macs || before.node_macs == after.node_macs);
                for vtep in before.vteps.symmetric_difference(&after.vteps) {
                    prop_assert!(touched.vteps.contains(vtep));
                }
            }
            let mut last = BTreeMap::new();
            for told in &history {
                match told {
                    Told::Node(node, _) => last.insert((0, *node), told),
                    Told::Address(addr, _) => last.insert((1, *addr), told),
                };
            }
            let mut again = Entries::new(node("n0"), true);
            for told in last.values() {
                tell(&mut again, told);
            }
            prop_assert_eq!(entries.desired(), again.desired());
        }
    }
}
