//! What has to be written for the kernel to hold what is desired. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_netlink::{EntryChange, FdbEntry, FdbSpec, FdbState, FdbTable, Neigh, NeighSpec};
use berth_types::MacAddr;

use crate::entries::{Desired, Touched};

/// Where frames go that have no entry of their own.
const ALL_ZEROS: MacAddr = MacAddr([0; 6]);

/// Whose entries they are: indices of the VXLAN device and of its bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// The device.
    pub vxlan: u32,
    /// Its bridge.
    pub bridge: u32,
}

/// What the kernel holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Forwarding entries of the device, in both tables.
    pub fdb: Vec<FdbEntry>,
    /// Neighbours on the bridge.
    pub neighs: Vec<Neigh>,
}

/// What differs, and the changes that put it right.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    /// In the order they are to be made.
    pub changes: Vec<EntryChange>,
    /// Entries that were not there.
    pub missing: usize,
    /// Entries that led elsewhere, or would not have stayed.
    pub wrong: usize,
    /// Entries that nobody asked for.
    pub stray: usize,
    /// Addresses whose neighbour was another.
    pub moved: BTreeSet<IpAddr>,
}

impl Differences {
    /// How many entries differ.
    pub fn count(&self) -> usize {
        self.missing + self.wrong + self.stray
    }

    fn note(&mut self, found: Found, change: EntryChange) {
        match found {
            Found::Missing => self.missing += 1,
            Found::Wrong => self.wrong += 1,
            Found::Stray => self.stray += 1,
        }
        self.changes.push(change);
    }
}

#[derive(Clone, Copy)]
enum Found {
    Missing,
    Wrong,
    Stray,
}

/// Compares. What nobody asked for goes first, so that nothing in the way is left for what is written then.
pub fn diff(desired: &Desired, seen: &Seen, device: Device) -> Differences {
    let mut own: BTreeMap<MacAddr, BTreeSet<Option<IpAddr>>> = BTreeMap::new();
    let mut bridges: BTreeMap<MacAddr, FdbState> = BTreeMap::new();
    for FdbEntry { mac, vtep, table, state, .. } in &seen.fdb {
        match table {
            FdbTable::Link => drop(own.entry(*mac).or_default().insert(*vtep)),
            // Addresses of the device itself are the kernel's.
            FdbTable::Bridge if *state == FdbState::Permanent => (),
            FdbTable::Bridge | FdbTable::Both => drop(bridges.insert(*mac, *state)),
        }
    }
    let mut differences = Differences::default();
    strays(desired, &own, &bridges, device, &mut differences);
    forwarding(desired, &own, &bridges, device, &mut differences);
    let known = own.get(&ALL_ZEROS).filter(|leads| !leads.contains(&None)).cloned().unwrap_or_default();
    for vtep in desired.flood.iter().filter(|vtep| !known.contains(&Some(**vtep))) {
        let spec = link_entry(device, ALL_ZEROS, Some(*vtep));
        differences.note(Found::Missing, EntryChange::FdbAppend(spec));
    }
    neighbours(desired, &seen.neighs, device, &mut differences);
    differences
}

fn link_entry(device: Device, mac: MacAddr, vtep: Option<IpAddr>) -> FdbSpec {
    FdbSpec { index: device.vxlan, mac, vtep, table: FdbTable::Link }
}

fn bridge_entry(device: Device, mac: MacAddr) -> FdbSpec {
    FdbSpec { index: device.vxlan, mac, vtep: None, table: FdbTable::Bridge }
}

fn both(device: Device, mac: MacAddr, vtep: IpAddr) -> FdbSpec {
    FdbSpec { index: device.vxlan, mac, vtep: Some(vtep), table: FdbTable::Both }
}

/// Forwarding entries that nobody asked for.
fn strays(
    desired: &Desired,
    own: &BTreeMap<MacAddr, BTreeSet<Option<IpAddr>>>,
    bridges: &BTreeMap<MacAddr, FdbState>,
    device: Device,
    differences: &mut Differences,
) {
    for (mac, leads) in own {
        let spare: Vec<Option<IpAddr>> = if *mac == ALL_ZEROS {
            leads
                .iter()
                .filter(|lead| lead.is_none_or(|vtep| !desired.flood.contains(&vtep)))
                .copied()
                .collect()
        } else {
            // Of those that lead elsewhere, one is replaced by the right one.
            let right = desired.fdb.get(mac).map(|vtep| Some(*vtep));
            let kept = right.and_then(|right| leads.get(&right).or(leads.first()));
            leads.iter().filter(|lead| Some(*lead) != kept).copied().collect()
        };
        // An entry without a tunnel end (a nexthop group) is taken away whole, and written anew.
        let spare = if leads.contains(&None) { vec![None] } else { spare };
        for vtep in spare {
            differences.note(Found::Stray, EntryChange::FdbDel(link_entry(device, *mac, vtep)));
        }
    }
    for mac in bridges.keys().filter(|mac| !desired.fdb.contains_key(mac)) {
        differences.note(Found::Stray, EntryChange::FdbDel(bridge_entry(device, *mac)));
    }
}

fn forwarding(
    desired: &Desired,
    own: &BTreeMap<MacAddr, BTreeSet<Option<IpAddr>>>,
    bridges: &BTreeMap<MacAddr, FdbState>,
    device: Device,
    differences: &mut Differences,
) {
    for (mac, vtep) in &desired.fdb {
        let leads = own.get(mac).filter(|leads| !leads.contains(&None));
        let is_there = leads.is_some_and(|leads| leads.contains(&Some(*vtep)));
        let bridged = bridges.get(mac);
        let found = match (leads, bridged) {
            (Some(_), Some(FdbState::Static)) if is_there => continue,
            (None, None) => Found::Missing,
            (Some(_), None) if is_there => Found::Missing,
            _ => Found::Wrong,
        };
        let spec = if is_there { bridge_entry(device, *mac) } else { both(device, *mac, *vtep) };
        differences.note(found, EntryChange::FdbReplace(spec));
    }
}

fn neighbours(desired: &Desired, neighs: &[Neigh], device: Device, differences: &mut Differences) {
    let seen: BTreeMap<IpAddr, &Neigh> = neighs.iter().map(|neigh| (neigh.addr, neigh)).collect();
    // Those that are not permanent are the kernel's own, of containers on this node.
    for (addr, _) in seen.iter().filter(|(addr, neigh)| neigh.permanent && !desired.neighs.contains_key(addr))
    {
        differences.note(Found::Stray, EntryChange::NeighDel { index: device.bridge, addr: *addr });
    }
    for (addr, mac) in &desired.neighs {
        let found = match seen.get(addr) {
            None => Found::Missing,
            Some(neigh) if neigh.permanent && neigh.mac == Some(*mac) => continue,
            Some(neigh) => {
                if neigh.permanent {
                    differences.moved.insert(*addr);
                }
                Found::Wrong
            }
        };
        let spec = NeighSpec { index: device.bridge, addr: *addr, mac: *mac };
        differences.note(found, EntryChange::NeighReplace(spec));
    }
}

/// What to write after a change, the kernel being as it should be before it.
pub fn touched(desired: &Desired, what: &Touched, device: Device) -> Vec<EntryChange> {
    let Touched { macs, addrs, vteps, node_macs: _, moved: _ } = what;
    let mut changes = Vec::with_capacity(macs.len() + addrs.len() + vteps.len());
    // What is new first: a moment with two ways is better than one with none.
    changes.extend(macs.iter().filter_map(|mac| {
        desired.fdb.get(mac).map(|vtep| EntryChange::FdbReplace(both(device, *mac, *vtep)))
    }));
    changes.extend(addrs.iter().map(|addr| match desired.neighs.get(addr) {
        Some(mac) => EntryChange::NeighReplace(NeighSpec { index: device.bridge, addr: *addr, mac: *mac }),
        None => EntryChange::NeighDel { index: device.bridge, addr: *addr },
    }));
    for mac in macs.iter().filter(|mac| !desired.fdb.contains_key(mac)) {
        // An address of this node may be on another port by now; the entry of that port stays.
        changes.push(EntryChange::FdbDel(link_entry(device, *mac, None)));
        changes.push(EntryChange::FdbDel(bridge_entry(device, *mac)));
    }
    changes.extend(vteps.iter().map(|vtep| {
        let spec = link_entry(device, ALL_ZEROS, Some(*vtep));
        if desired.flood.contains(vtep) { EntryChange::FdbAppend(spec) } else { EntryChange::FdbDel(spec) }
    }));
    changes
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
