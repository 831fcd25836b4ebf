//! The bridge plan: which steps make an attachment, given what is there. Pure.
//!
//! Order matters for safety: the guard and the forwarding rules are in place before the link they are about is up
//! (no instant with less isolation than declared), router advertisements are refused before the bridge is up.

mod attachment;
mod error;

use attachment::port_vlans;
pub use attachment::{ifb_name, plan_attachment};
pub use error::PlanError;

use std::collections::BTreeSet;

use berth_netlink::sysctl::SysctlKey;
use berth_netlink::{Link, LinkKind};
use berth_nft::Element;
use berth_types::{AddressLease, AttachmentKey, Family, IfName, MacAddr, PublishedPort};
use ipnetwork::IpNetwork;

use crate::attachment::{Guard, PortSpec, bridge_alias};
use crate::elements;
use crate::names::{NamesSource, NetworkNames};
use crate::network::{NetworkRecord, NetworkSpec, OtherAddress, subnet_of};
use crate::overlay::{Peers, alone, plan_overlay};
use crate::published::Published;
use crate::step::{Plan, Step};
use crate::switch;

/// What exists now. Read once, before planning.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// The bridge, if a link of its name exists.
    pub bridge: Option<Link>,
    /// Addresses on it, link-local ones left out.
    pub bridge_addresses: Vec<IpNetwork>,
    /// What the records say of the network.
    pub network: Option<NetworkRecord>,
    /// Other networks of the records, for overlaps.
    pub others: Vec<NetworkRecord>,
    /// Which families the host forwards already.
    pub forwarding: Forwarding,
    /// Names of the host's links that were there before berth made the host a router.
    pub uplinks: Vec<IfName>,
    /// Uplinks that take their route from router advertisements, which forwarding would stop.
    pub ra_uplinks: Vec<IfName>,
    /// Whether the kernel filters VLANs on bridges.
    pub vlan_filtering: bool,
    /// The link that has the name of the network's VXLAN device, for an overlay.
    pub vxlan: Option<Link>,
    /// Host links of the network's attachments that are on no bridge: theirs was deleted.
    pub orphans: Vec<(IfName, PortSpec)>,
}

/// Which families the host forwards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

/// What a network is made or changed for. Nothing, where it is only mended.
#[derive(Debug, Clone, Copy, Default)]
pub struct Joining<'a> {
    /// Addresses with their gateways.
    pub leases: &'a [AddressLease],
    /// Whether a MAC address comes with them that is not made of them.
    pub own_mac: bool,
    /// Other hosts that take the place of those known before.
    pub peers: Option<&'a Peers>,
}

/// Steps that bring the network, and ports of it that lost their bridge, to where `spec` and what is `joining` want
/// it, and its record afterwards.
pub fn plan_network(
    spec: &NetworkSpec,
    joining: Joining<'_>,
    mac: MacAddr,
    observed: &Observed,
) -> Result<(Plan, NetworkRecord), PlanError> {
    let mut plan = Plan::default();
    if spec.vlan.is_some() && !observed.vlan_filtering {
        return Err(PlanError::Unsupported {
            what: "`vlan` and `vlanTrunk`",
            option: "CONFIG_BRIDGE_VLAN_FILTERING",
        });
    }
    let record = merged(spec, joining, mac, observed);
    refuse_overlaps(&record, &observed.others)?;
    match &observed.bridge {
        None => add_bridge(&mut plan, spec, &record),
        Some(link) if link.kind != LinkKind::Bridge => {
            return Err(PlanError::NotABridge { name: spec.bridge.clone(), kind: link.kind.to_string() });
        }
        Some(link) => {
            let unfinished = observed.network.as_ref().is_some_and(|network| network.pending);
            if record.bridge_is_ours && unfinished {
                let alias = bridge_alias(&spec.name);
                plan.push(Step::LinkAlias { link: spec.bridge.clone(), alias });
            }
            if observed.bridge_was_replaced() || (record.bridge_is_ours && unfinished) {
                refuse_advertisements(&mut plan, &spec.bridge);
            }
            if spec.promisc && !link.promisc {
                plan.push(Step::Promisc { link: spec.bridge.clone() });
            }
        }
    }
    // The records say which elements are in place; a bridge that is gone took none of them away.
    let finished = observed.network.as_ref().filter(|network| !network.pending);
    let before = finished.map(elements::of_network).unwrap_or_default();
    let after = elements::of_network(&record);
    plan.push_elements(after.difference(&before).cloned().collect());
    gateway_addresses(&mut plan, spec, &record, observed)?;
    plan_overlay(&mut plan, &record, observed)?;
    if observed.bridge.as_ref().is_none_or(|link| !link.up) {
        plan.push(Step::LinkUp { link: spec.bridge.clone() });
    }
    for (port, PortSpec { hairpin, isolated, .. }) in &observed.orphans {
        let bridge = spec.bridge.clone();
        plan.push(Step::PortAdd { port: port.clone(), bridge, hairpin: *hairpin, isolated: *isolated });
        if let Some(vlan) = &spec.vlan {
            port_vlans(&mut plan, port, vlan);
        }
    }
    if spec.gateway {
        forward(&mut plan, &record, observed);
    }
    Ok((plan, record))
}

impl Observed {
    /// Whether the bridge that berth made is gone, and another bridge stands in its place.
    pub(crate) fn bridge_was_replaced(&self) -> bool {
        let was_ours = self.network.as_ref().is_some_and(|network| network.bridge_is_ours);
        was_ours && self.bridge.as_ref().is_some_and(|link| !is_ours(link, self.network.as_ref()))
    }
}

/// Whether berth made the bridge: it says so, or it has the MAC address that was drawn for it and its maker was killed
/// before it could say so.
pub(crate) fn is_ours(link: &Link, network: Option<&NetworkRecord>) -> bool {
    link.alias.as_deref().is_some_and(|alias| alias.starts_with("berth "))
        || network
            .is_some_and(|network| network.pending && network.bridge_is_ours && link.mac == Some(network.mac))
}

fn merged(spec: &NetworkSpec, joining: Joining<'_>, mac: MacAddr, observed: &Observed) -> NetworkRecord {
    let NetworkSpec { name, bridge, mtu, gateway, other_address, promisc, reach, vlan, names, overlay } =
        spec;
    let old = observed.network.as_ref();
    // Who says nothing of other hosts does not take a network off them.
    let overlay = overlay.as_ref().or(old.and_then(|old| old.overlay.as_ref()));
    let mut gateways: BTreeSet<IpNetwork> = old.map(|old| old.gateways.clone()).unwrap_or_default();
    let mut subnets: BTreeSet<IpNetwork> = old.map(|old| old.subnets.clone()).unwrap_or_default();
    for lease in joining.leases {
        subnets.insert(subnet_of(lease.address));
        if !gateway {
            continue;
        }
        if let Some(Ok(address)) = lease.gateway.map(|gw| IpNetwork::new(gw, lease.address.prefix())) {
            if *other_address == OtherAddress::Replace {
                gateways.retain(|had| had.is_ipv4() != address.is_ipv4());
            }
            gateways.insert(if overlay.is_some() { alone(address.ip()) } else { address });
        }
    }
    let chained = |names: &&NetworkNames| names.source == NamesSource::Chained;
    let had = old.and_then(|old| old.names.as_ref());
    let record = NetworkRecord {
        version: NetworkRecord::VERSION,
        name: name.clone(),
        bridge: bridge.clone(),
        // Several networks may share a bridge; its alias says whether one of them made it.
        bridge_is_ours: observed.bridge.as_ref().is_none_or(|link| is_ours(link, old)),
        reach: *reach,
        gateway: *gateway,
        gateways,
        subnets,
        // Made again it keeps its MAC: containers know their gateway by it.
        mac: match overlay {
            Some(overlay) => overlay.mac,
            None => observed.bridge.as_ref().map_or(old.map(|old| old.mac), |link| link.mac).unwrap_or(mac),
        },
        mtu: overlay.map(|overlay| overlay.mtu).or(*mtu),
        promisc: *promisc,
        vlan: vlan.clone(),
        announces: !gateway || old.is_some_and(|old| old.announces) || joining.own_mac,
        names: had.cloned(),
        overlay: overlay.cloned(),
        peers: match (overlay, joining.peers) {
            (None, _) => Peers::default(),
            (Some(_), Some(peers)) => peers.clone(),
            (Some(_), None) => old.map(|old| old.peers.clone()).unwrap_or_default(),
        },
        pending: false,
    };
    // What a chained plugin said of names is not this plugin's to take back.
    let wanted = names.as_ref().or(had.filter(chained)).cloned();
    record.with_names(wanted)
}

/// Two networks the host routes must not share addresses, unless they share the subnet and the bridge.
fn refuse_overlaps(record: &NetworkRecord, others: &[NetworkRecord]) -> Result<(), PlanError> {
    if !record.gateway {
        return Ok(());
    }
    for other in others.iter().filter(|other| other.gateway && other.name != record.name) {
        for subnet in &record.subnets {
            let same = |theirs: &&IpNetwork| **theirs == *subnet && other.bridge == record.bridge;
            let clash =
                other.subnets.iter().filter(|theirs| !same(theirs)).find(|theirs| overlap(subnet, theirs));
            if let Some(theirs) = clash {
                return Err(PlanError::Overlap {
                    subnet: *subnet,
                    other: *theirs,
                    holder: other.name.to_string(),
                    bridge: other.bridge.clone(),
                });
            }
        }
    }
    Ok(())
}

/// Whether two prefixes have an address in common.
pub fn overlap(a: &IpNetwork, b: &IpNetwork) -> bool {
    a.contains(b.network()) || b.contains(a.network())
}

fn add_bridge(plan: &mut Plan, spec: &NetworkSpec, record: &NetworkRecord) {
    let name = &spec.bridge;
    plan.push(Step::BridgeAdd {
        name: name.clone(),
        mac: record.mac,
        mtu: record.mtu,
        alias: bridge_alias(&spec.name),
        vlan_filtering: spec.vlan.is_some(),
    });
    refuse_advertisements(plan, name);
    if spec.promisc {
        plan.push(Step::Promisc { link: name.clone() });
    }
}

/// CVE-2020-10749: a container's router advertisement must not move the host's routes. Before the bridge is up. And
/// without duplicate address detection: while the bridge's link-local address is tentative, the kernel asks for no
/// neighbour on behalf of forwarded packets (`ndisc_send_ns`), for a second or two.
fn refuse_advertisements(plan: &mut Plan, bridge: &IfName) {
    for key in ["accept_ra", "autoconf", "accept_dad"] {
        let key = switch::of_link(Family::V6, bridge, key);
        plan.push(Step::Sysctl { key, value: "0".to_owned(), host_wide: false });
    }
}

fn gateway_addresses(
    plan: &mut Plan,
    spec: &NetworkSpec,
    record: &NetworkRecord,
    observed: &Observed,
) -> Result<(), PlanError> {
    let present = &observed.bridge_addresses;
    let all = record.bridge_addresses();
    for wanted in all.iter().filter(|wanted| !present.contains(wanted)) {
        // IPv6 links carry several addresses as a matter of course: only an overlapping one is in the way.
        let in_the_way = |found: &&IpNetwork| match wanted {
            IpNetwork::V4(_) => found.is_ipv4() && !all.contains(found),
            IpNetwork::V6(_) => found.is_ipv6() && overlap(found, wanted) && !all.contains(found),
        };
        let foreign = |found: &&IpNetwork| {
            !observed.network.as_ref().is_some_and(|net| net.bridge_addresses().contains(found))
        };
        for found in present.iter().filter(in_the_way) {
            match spec.other_address {
                OtherAddress::Replace => {
                    plan.push(Step::AddrDel { link: spec.bridge.clone(), address: *found });
                }
                OtherAddress::Refuse if foreign(&found) => {
                    return Err(PlanError::OtherAddress {
                        bridge: spec.bridge.clone(),
                        found: *found,
                        wanted: *wanted,
                    });
                }
                OtherAddress::Refuse => (),
            }
        }
        // A gateway of an overlay is the same on every host: nothing that starts here may carry it.
        let deprecated = record.overlay.is_some() && record.gateways.contains(wanted);
        plan.push(Step::AddrAdd { link: spec.bridge.clone(), address: *wanted, deprecated });
    }
    Ok(())
}

/// Turns forwarding on where it is off, without making the host a router between its own uplinks (S10) and without
/// losing a default route that came by router advertisement (S11).
fn forward(plan: &mut Plan, record: &NetworkRecord, observed: &Observed) {
    let needs_v4 = record.subnets.iter().any(IpNetwork::is_ipv4) && !observed.forwarding.v4;
    let needs_v6 = record.subnets.iter().any(IpNetwork::is_ipv6) && !observed.forwarding.v6;
    if !needs_v4 && !needs_v6 {
        return;
    }
    let turned_on = [(needs_v4, Family::V4), (needs_v6, Family::V6)];
    let families = turned_on.into_iter().filter(|(needs, _)| *needs);
    let close = |(_, family)| {
        observed.uplinks.iter().map(move |link| Element::ClosedRouter { family, link: link.clone() })
    };
    plan.push_elements(families.flat_map(close).collect());
    let mut sysctl = |key: SysctlKey, value: &str| {
        plan.push(Step::Sysctl { key, value: value.to_owned(), host_wide: true });
    };
    if needs_v4 {
        sysctl(switch::forward_v4(), "1");
    }
    if needs_v6 {
        for link in &observed.ra_uplinks {
            sysctl(switch::of_link(Family::V6, link, "accept_ra"), "2");
        }
        sysctl(switch::forward_v6(), "1");
    }
}

/// Steps that publish ports.
pub fn plan_published(key: &AttachmentKey, published: &Published, localhost_link: Option<&IfName>) -> Plan {
    let mut plan = Plan::default();
    plan.push_elements(elements::of_published(key, published));
    // Traffic of the host to 127.0.0.1 must be allowed to leave by the bridge, and its answers to come back. The
    // ruleset drops everything else that comes from outside for 127.0.0.0/8, and was committed by the step before.
    if let Some(link) = localhost_link.filter(|_| published.ports.iter().any(|port| port.host_addr.is_ipv4()))
    {
        let key = switch::of_link(Family::V4, link, "route_localnet");
        plan.push(Step::Sysctl { key, value: "1".to_owned(), host_wide: false });
    }
    for port in published.ports.iter().filter(|port| is_udp(port)) {
        plan.push(Step::ConntrackFlush(*port));
    }
    plan
}

fn is_udp(port: &PublishedPort) -> bool {
    port.proto == berth_types::Proto::Udp
}

/// What a port is guarded by, given whether its addresses are known.
pub fn guard_for(anti_spoofing: bool, addresses_known: bool) -> Guard {
    match (anti_spoofing, addresses_known) {
        (false, _) => Guard::Off,
        (true, false) => Guard::Mac,
        (true, true) => Guard::Full,
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
