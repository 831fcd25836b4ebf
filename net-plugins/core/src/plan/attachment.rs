//! Steps of one attachment: its link, what guards it, and what is inside the sandbox.

use std::net::{IpAddr, Ipv6Addr};

use berth_types::{Family, IfName, Route};
use ipnetwork::IpNetwork;

use crate::attachment::{
    AttachmentRecord, AttachmentSpec, Bandwidth, ContainerLink, DuplicateDetection, attachment_alias,
};
use crate::elements;
use crate::network::{NetworkRecord, Vlan};
use crate::step::{Plan, Step};
use crate::switch;

/// Steps that make the attachment on a network that stands.
pub fn plan_attachment(
    spec: &AttachmentSpec,
    record: &AttachmentRecord,
    network: &NetworkRecord,
    vlan: Option<&Vlan>,
) -> Plan {
    let mut plan = Plan::default();
    plan.push_elements(elements::of_attachment(record));
    plan.push(Step::VethAdd {
        host: record.host_ifname.clone(),
        alias: attachment_alias(&spec.key),
        container: match &spec.container_link {
            ContainerLink::Handed(peer) => peer.clone(),
            ContainerLink::Up | ContainerLink::Down => spec.key.ifname.clone(),
        },
        mac: spec.mac,
        mtu: network.mtu,
        bridge: network.bridge.clone(),
        hairpin: spec.port.hairpin,
        isolated: spec.port.isolated,
    });
    if let Some(vlan) = vlan {
        port_vlans(&mut plan, &record.host_ifname, vlan);
    }
    if let Some(limits) = spec.bandwidth {
        plan.push(shape(record, limits));
    }
    if !matches!(spec.container_link, ContainerLink::Handed(_)) {
        sandbox(&mut plan, spec, network);
    }
    plan.push(Step::LinkUp { link: record.host_ifname.clone() });
    if spec.container_link == ContainerLink::Up && !spec.leases.is_empty() {
        plan.push(Step::AwaitForwarding {
            link: spec.key.ifname.clone(),
            port: record.host_ifname.clone(),
            bridge: network.bridge.clone(),
            addresses: match spec.duplicate_detection {
                DuplicateDetection::Off => spec.leases.iter().filter_map(|lease| v6(lease.address)).collect(),
                // A second and more: who asks for it waits for it.
                DuplicateDetection::On => Vec::new(),
            },
            gateways: network.gateways.iter().copied().filter_map(v6).collect(),
        });
        // Flooded to every port of the bridge, which is not for nothing beside a thousand of them: only where a neighbour
        // may know the address by another MAC (docs/adr/0003-mac-addresses-made-of-addresses.md).
        if network.announces {
            plan.push(Step::Announce { link: spec.key.ifname.clone(), mac: spec.mac });
        }
    }
    plan
}

fn v6(address: IpNetwork) -> Option<Ipv6Addr> {
    match address.ip() {
        IpAddr::V6(addr) => Some(addr),
        IpAddr::V4(_) => None,
    }
}

pub(super) fn port_vlans(plan: &mut Plan, port: &IfName, vlan: &Vlan) {
    // VLAN 1 is every new port's; with a VLAN of its own it would be in both.
    if vlan.pvid.is_some_and(|pvid| pvid != 1) && !vlan.keep_default {
        plan.push(Step::PortVlanDel { port: port.clone(), vid: 1 });
    }
    for (first, last) in &vlan.trunk {
        plan.push(Step::PortVlan { port: port.clone(), range: (*first, *last), pvid: false });
    }
    if let Some(pvid) = vlan.pvid {
        plan.push(Step::PortVlan { port: port.clone(), range: (pvid, pvid), pvid: true });
    }
}

fn shape(record: &AttachmentRecord, limits: Bandwidth) -> Step {
    Step::Shape { link: record.host_ifname.clone(), ifb: ifb_name(&record.host_ifname), limits }
}

/// The IFB device of a host link: `ifb` in place of `veth`.
pub fn ifb_name(host: &IfName) -> IfName {
    let tail = host.as_str().strip_prefix("veth").unwrap_or(host.as_str());
    let name: String = format!("bifb{tail}").chars().take(15).collect();
    IfName::new(name).unwrap_or_else(|_| host.clone())
}

fn sandbox(plan: &mut Plan, spec: &AttachmentSpec, network: &NetworkRecord) {
    let link = &spec.key.ifname;
    let has_v6 = spec.leases.iter().any(|lease| lease.address.is_ipv6());
    if has_v6 {
        let off = |key| (switch::of_link(Family::V6, link, key), "0".to_owned());
        let mut switches = ["disable_ipv6", "accept_ra", "autoconf"].map(off).to_vec();
        switches.push((switch::of_link(Family::V6, link, "ndisc_notify"), "1".to_owned()));
        if spec.duplicate_detection == DuplicateDetection::Off {
            // The link-local address too: a port in hairpin mode hears the echo of its own question.
            switches.push(off("accept_dad"));
        }
        plan.push(Step::SandboxSysctls(switches));
    }
    for lease in &spec.leases {
        plan.push(Step::SandboxAddrAdd {
            link: link.clone(),
            address: lease.address,
            duplicate_detection: spec.duplicate_detection,
        });
    }
    if spec.container_link == ContainerLink::Down {
        return;
    }
    // Of a network that berth routes by IPv4 alone, nobody is spoken to by IPv6: a link-local address would be checked,
    // joined to groups and announced to routers by floods to every port, and to routers for ever (RFC 7559).
    let link_local = has_v6 || !network.gateway;
    plan.push(Step::SandboxLinkUp { link: link.clone(), link_local });
    for route in &spec.routes {
        plan.push(Step::SandboxRouteAdd { link: link.clone(), route: with_gateway(route, spec) });
    }
}

/// CNI: a route without `gw` leaves by the gateway of the first address of its family.
fn with_gateway(route: &Route, spec: &AttachmentSpec) -> Route {
    let first = spec.leases.iter().find(|lease| lease.address.is_ipv4() == route.dst.is_ipv4());
    Route { gw: route.gw.or(first.and_then(|lease| lease.gateway)), ..route.clone() }
}
