//! What the kernel should hold against what it holds: only the differences are written, and counted.
//!
//! [`reconcile`] reads everything and puts it right, the device included: at the start, on news of links, when news were lost, and
//! once a minute ([`Rounds`] says when). [`change`] writes what one change touched, without reading. Both let new tunnel ends in
//! before anything leads to them, and keep old ones out only when nothing does any more.

mod diff;
mod rounds;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_core::network::NetworkRecord;
use berth_core::{Berth, CoreError};
use berth_netlink::announce::announce;
use berth_netlink::{EntryFault, Netlink, NetlinkError};
use berth_types::{IfName, MacAddr, NetworkName};

pub use diff::{Device, Differences, Seen, diff, touched};
pub use rounds::Rounds;

use crate::entries::{Desired, Touched};

/// Why entries were not written.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The network is not on this node, or is no overlay.
    #[error("network `{0}` is not on this node as an overlay")]
    NotHere(NetworkName),
    /// The device or its bridge is not there, and could not be made.
    #[error("link `{link}` of network `{network}` is gone")]
    LinkGone {
        /// The network.
        network: NetworkName,
        /// The link.
        link: IfName,
    },
    /// The records or the ruleset.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// The kernel could not be read or written to.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Whether the device or its bridge was put right.
    pub device_mended: bool,
    /// Whether others are let in, or kept out, than before.
    pub peers_changed: bool,
    /// What differed and was put right.
    pub differences: Differences,
    /// What the kernel refused.
    pub faults: Vec<EntryFault>,
}

impl Report {
    /// Whether the kernel was as it should be.
    pub fn is_clean(&self) -> bool {
        let Self { device_mended, peers_changed, differences, faults } = self;
        !device_mended && !peers_changed && differences.count() == 0 && faults.is_empty()
    }
}

/// Makes the kernel hold what is desired of the network, whatever it holds.
///
/// # Errors
///
/// The network is not here, or the kernel or the records cannot be used. What the kernel refused is in the report.
pub fn reconcile(
    berth: &mut Berth,
    netlink: &Netlink,
    network: &NetworkName,
    desired: &Desired,
) -> Result<Report, ReconcileError> {
    let device_mended = berth.overlay_mend(network)?;
    let record = overlay_record(berth, network)?;
    let device = device_of(netlink, &record)?;
    let mut report = Report { device_mended, ..Report::default() };
    report.peers_changed = let_in(berth, &record, desired)?;
    let seen = Seen { fdb: netlink.fdb(device.vxlan)?, neighs: netlink.neighs(device.bridge)? };
    report.differences = diff(desired, &seen, device);
    report.faults = netlink.entries_change(&report.differences.changes)?;
    tell(&desired.neighs, &report.differences.moved, device);
    report.peers_changed |= berth.peers_set(network, &desired.peers())?;
    Ok(report)
}

/// Writes what a change touched.
///
/// # Errors
///
/// As [`reconcile`]; after [`ReconcileError::LinkGone`] that is due.
pub fn change(
    berth: &mut Berth,
    netlink: &Netlink,
    network: &NetworkName,
    desired: &Desired,
    what: &Touched,
) -> Result<Report, ReconcileError> {
    let record = overlay_record(berth, network)?;
    let device = device_of(netlink, &record)?;
    let mut report = Report::default();
    if what.peers() {
        report.peers_changed = let_in(berth, &record, desired)?;
    }
    report.faults = netlink.entries_change(&touched(desired, what, device))?;
    tell(&desired.neighs, &what.moved, device);
    if what.peers() {
        report.peers_changed |= berth.peers_set(network, &desired.peers())?;
    }
    Ok(report)
}

/// Tells the containers of this node which Ethernet addresses `moved` have now: they would send to the former ones for half a
/// minute. Nothing depends on it.
fn tell(neighs: &BTreeMap<IpAddr, MacAddr>, moved: &BTreeSet<IpAddr>, device: Device) {
    let mut by_mac: BTreeMap<MacAddr, Vec<IpAddr>> = BTreeMap::new();
    for addr in moved {
        if let Some(mac) = neighs.get(addr) {
            by_mac.entry(*mac).or_default().push(*addr);
        }
    }
    for (mac, addrs) in by_mac {
        if let Err(err) = announce(device.bridge, mac, &addrs) {
            tracing::warn!(%err, "containers learn later that addresses moved");
        }
    }
}

/// Takes frames from the desired nodes beside those known before.
fn let_in(berth: &mut Berth, record: &NetworkRecord, desired: &Desired) -> Result<bool, CoreError> {
    let both = record.peers.union(&desired.peers());
    if both == record.peers { Ok(false) } else { berth.peers_set(&record.name, &both) }
}

fn overlay_record(berth: &mut Berth, network: &NetworkName) -> Result<NetworkRecord, ReconcileError> {
    let record = berth.network(network)?.filter(|record| record.overlay.is_some());
    record.ok_or_else(|| ReconcileError::NotHere(network.clone()))
}

fn device_of(netlink: &Netlink, record: &NetworkRecord) -> Result<Device, ReconcileError> {
    let index = |name: &IfName| {
        let gone = || ReconcileError::LinkGone { network: record.name.clone(), link: name.clone() };
        netlink.link_by_name(name)?.map(|link| link.index).ok_or_else(gone)
    };
    let overlay = record.overlay.as_ref().ok_or_else(|| ReconcileError::NotHere(record.name.clone()))?;
    Ok(Device { vxlan: index(&overlay.device())?, bridge: index(&record.bridge)? })
}
