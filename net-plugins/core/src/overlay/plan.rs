//! Steps that give an overlay its VXLAN device, or put right what is there of it. Pure.

use berth_netlink::Link;

use super::{OverlayPort, has_settings, is_configured, is_device, vxlan_alias};
use crate::network::NetworkRecord;
use crate::plan::{Observed, PlanError};
use crate::step::{Plan, Step};

/// Adds the steps to `plan`, which has made the bridge by then, and committed whom frames are taken from.
pub(crate) fn plan_overlay(
    plan: &mut Plan,
    record: &NetworkRecord,
    observed: &Observed,
) -> Result<(), PlanError> {
    let Some(overlay) = &record.overlay else { return Ok(()) };
    let name = || record.bridge.clone();
    if !record.bridge_is_ours {
        return Err(PlanError::ForeignBridge { bridge: name() });
    }
    refuse_other_network(record, overlay, observed)?;
    if observed
        .bridge
        .as_ref()
        .is_some_and(|bridge| bridge.mtu != overlay.mtu || bridge.mac != Some(overlay.mac))
    {
        plan.push(Step::BridgeSet { bridge: name(), mac: overlay.mac, mtu: overlay.mtu });
    }
    let (device, alias) = (overlay.device(), vxlan_alias(&record.name));
    let add = || Step::VxlanAdd { overlay: overlay.clone(), alias: alias.clone(), bridge: name() };
    let unfinished = observed.network.as_ref().is_some_and(|network| network.pending);
    let is_up = match &observed.vxlan {
        None => {
            plan.push(add());
            false
        }
        Some(link) if !is_device(link, &record.name, overlay, unfinished) => {
            return Err(PlanError::NotItsDevice { name: device, kind: link.kind.to_string() });
        }
        Some(link) if !is_configured(link, overlay) => {
            plan.push(Step::VxlanDel { link: device.clone() });
            plan.push(add());
            false
        }
        Some(link) => {
            if !is_in_place(link, overlay, observed) || link.alias.is_none() {
                plan.push(Step::VxlanSet { overlay: overlay.clone(), alias, bridge: name() });
            }
            link.up
        }
    };
    if !is_up {
        plan.push(Step::LinkUp { link: device });
    }
    Ok(())
}

/// A network that stands keeps its number: its device has another name otherwise, and its containers would be cut in two.
fn refuse_other_network(
    record: &NetworkRecord,
    overlay: &OverlayPort,
    observed: &Observed,
) -> Result<(), PlanError> {
    let before = observed.network.as_ref().and_then(|network| network.overlay.as_ref());
    match before {
        Some(before) if !before.is_same_network(overlay) => Err(PlanError::OtherVni {
            network: record.name.clone(),
            had: (before.vni, before.port),
            wanted: (overlay.vni, overlay.port),
        }),
        _ => Ok(()),
    }
}

fn is_in_place(link: &Link, overlay: &OverlayPort, observed: &Observed) -> bool {
    let bridge = observed.bridge.as_ref().map(|bridge| bridge.index);
    link.master.is_some()
        && link.master == bridge
        && link.mtu == overlay.mtu
        && has_settings(link.port, overlay.flood)
}
