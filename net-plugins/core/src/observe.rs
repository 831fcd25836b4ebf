//! Reads the kernel and the records once, before planning.

use berth_netlink::{Link, LinkKind, Netlink, sysctl};
use berth_types::{AddressLease, Family, IfName};
use ipnetwork::IpNetwork;

use crate::berth::Berth;
use crate::error::CoreError;
use crate::kernel::Kernel;
use crate::network::{NetworkSpec, subnet_of};
use crate::plan::{Forwarding, Observed};
use crate::switch;

/// What planning a network needs to know.
pub(crate) fn network(
    berth: &mut Berth,
    kernel: &Kernel,
    spec: &NetworkSpec,
    leases: &[AddressLease],
) -> Result<Observed, CoreError> {
    let bridge = kernel.host().link_by_name(&spec.bridge)?;
    let bridge_addresses = match &bridge {
        Some(link) if spec.gateway || spec.overlay.is_some() => addresses(kernel, link.index)?,
        _ => Vec::new(),
    };
    let record = berth.network(&spec.name)?;
    let subnets = record.iter().flat_map(|record| &record.subnets);
    let mut nets = subnets.chain(leases.iter().map(|lease| &lease.address));
    let has_v6 = nets.any(IpNetwork::is_ipv6);
    let on = |key| sysctl::read(&key).is_ok_and(|value| value != "0");
    // Reading a switch costs as much as there are sandboxes (all of them have an entry of its name in the kernel's cache),
    // so IPv6's is read only where it matters.
    let forwarding = Forwarding { v4: on(switch::forward_v4()), v6: has_v6 && on(switch::forward_v6()) };
    let device = spec.overlay.as_ref().map(|overlay| kernel.host().link_by_name(&overlay.device()));
    let mut observed = Observed {
        bridge,
        vxlan: device.transpose()?.flatten(),
        bridge_addresses,
        network: record,
        forwarding,
        vlan_filtering: spec.vlan.is_none() || berth_netlink::vlan_filtering_supported()?,
        ..Observed::default()
    };
    // Each of the rest costs as much as there are links or networks, so it is read only where the plan may need it.
    let has = |v4: bool| leases.iter().any(|lease| lease.address.is_ipv4() == v4);
    if spec.gateway && ((has(true) && !forwarding.v4) || (has(false) && !forwarding.v6)) {
        observed.uplinks = uplinks(kernel.host())?.into_iter().map(|link| link.name).collect();
        observed.ra_uplinks = observed.uplinks.iter().filter(|link| listens_to_ra(link)).cloned().collect();
    }
    let known = observed.network.as_ref().map(|network| &network.subnets);
    let is_new = |lease: &AddressLease| known.is_none_or(|known| !known.contains(&subnet_of(lease.address)));
    if leases.iter().any(is_new) {
        observed.others = berth.networks()?.into_iter().filter(|other| other.name != spec.name).collect();
    }
    Ok(observed)
}

/// Global addresses of a link.
fn addresses(kernel: &Kernel, index: u32) -> Result<Vec<IpNetwork>, CoreError> {
    let all = kernel.host().addrs(index)?;
    let link_local = |net: &IpNetwork| match net {
        IpNetwork::V4(_) => false,
        IpNetwork::V6(net) => net.ip().segments().first().is_some_and(|first| first & 0xffc0 == 0xfe80),
    };
    Ok(all.into_iter().map(|addr| addr.address).filter(|net| !link_local(net)).collect())
}

/// The host's links towards elsewhere: neither loopback nor bridges nor ports of bridges.
pub(crate) fn uplinks(netlink: &Netlink) -> Result<Vec<Link>, CoreError> {
    let links = netlink.links()?;
    let is_uplink = |link: &Link| {
        link.kind != LinkKind::Bridge
            && link.master.is_none()
            && link.name.as_str() != "lo"
            && link.alias.is_none()
    };
    Ok(links.into_iter().filter(is_uplink).collect())
}

fn listens_to_ra(link: &IfName) -> bool {
    sysctl::read(&switch::of_link(Family::V6, link, "accept_ra")).is_ok_and(|value| value == "1")
}
