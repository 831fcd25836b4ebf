//! The networks without a bridge: loopback only, and the host's own.

use berth_netlink::{Netlink, Sandbox};
use berth_types::{IfName, MacAddr};
use ipnetwork::IpNetwork;

use crate::error::CoreError;

const LOOPBACK: u32 = 1;

/// Brings `lo` up; the kernel gives it its addresses.
pub fn up(sandbox: &Sandbox) -> Result<(), CoreError> {
    Ok(Netlink::open_in(sandbox)?.link_set_up(LOOPBACK)?)
}

/// Takes `lo` down.
pub fn down(sandbox: &Sandbox) -> Result<(), CoreError> {
    Ok(Netlink::open_in(sandbox)?.link_set_down(LOOPBACK)?)
}

/// Whether `lo` is up.
pub fn is_up(sandbox: &Sandbox) -> Result<bool, CoreError> {
    Ok(Netlink::open_in(sandbox)?.link_by_index(LOOPBACK)?.is_some_and(|link| link.up))
}

/// The addresses of `lo`.
pub fn addresses(sandbox: &Sandbox) -> Result<Vec<IpNetwork>, CoreError> {
    let all = Netlink::open_in(sandbox)?.addrs(LOOPBACK)?;
    Ok(all.into_iter().map(|addr| addr.address).collect())
}

/// A link of the host with its addresses.
pub type HostLink = (IfName, Option<MacAddr>, Vec<IpNetwork>);

/// The host's links that are up, with their global addresses, loopback left out.
pub fn host_addresses(sandbox: &Sandbox) -> Result<Vec<HostLink>, CoreError> {
    let netlink = Netlink::open_in(sandbox)?;
    let mut found = Vec::new();
    for link in netlink.links()?.into_iter().filter(|link| link.up && link.index != LOOPBACK) {
        let addresses = netlink.addrs(link.index)?.into_iter().map(|addr| addr.address);
        let global: Vec<IpNetwork> = addresses.filter(|net| !is_link_local(net)).collect();
        if !global.is_empty() {
            found.push((link.name, link.mac, global));
        }
    }
    Ok(found)
}

fn is_link_local(net: &IpNetwork) -> bool {
    match net {
        IpNetwork::V4(net) => net.ip().is_link_local(),
        IpNetwork::V6(net) => net.ip().is_unicast_link_local(),
    }
}
