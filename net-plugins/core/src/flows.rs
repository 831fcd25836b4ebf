//! Tracked UDP flows of a changed mapping: only a flow's first packet is looked up in the ruleset, so a client that
//! keeps its port would keep its old way.

use std::net::IpAddr;

use berth_netlink::Netlink;
use berth_nft::{FlowMatch, NftSocket, flush_flows};
use berth_types::{Family, Proto, PublishedPort};

use crate::kernel::KernelError;

/// After `port` was published: forgets flows to it that lead elsewhere, on the host's own addresses only. Flows that
/// merely pass the host to the same port of another machine are not touched.
pub(crate) fn flush_added(socket: &mut NftSocket, port: &PublishedPort) -> Result<(), KernelError> {
    if port.proto != Proto::Udp {
        return Ok(());
    }
    let own: Vec<IpAddr> = if port.is_any_addr() {
        Netlink::open()?.addrs_all()?.into_iter().map(|addr| addr.address.ip()).collect()
    } else {
        vec![port.host_addr]
    };
    let family = port.family();
    let matches: Vec<FlowMatch> = own
        .into_iter()
        .filter(|addr| Family::of(*addr) == family)
        .map(|addr| FlowMatch { dst: Some(addr), keep_reply_src: Some(port.target), ..flows_to(port) })
        .collect();
    flush_flows(socket, &matches)?;
    Ok(())
}

/// After ports were taken back: forgets the flows that lead to their containers.
pub(crate) fn flush_removed(socket: &mut NftSocket, ports: &[PublishedPort]) -> Result<(), KernelError> {
    let udp = ports.iter().filter(|port| port.proto == Proto::Udp);
    let matches: Vec<FlowMatch> =
        udp.map(|port| FlowMatch { reply_src: Some(port.target), ..flows_to(port) }).collect();
    if !matches.is_empty() {
        flush_flows(socket, &matches)?;
    }
    Ok(())
}

fn flows_to(port: &PublishedPort) -> FlowMatch {
    FlowMatch::udp(port.family(), (port.host_port, port.last_host_port()))
}
