//! Veth pairs, created with their peer in place.

use berth_types::{IfName, MacAddr};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkMessage};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd};

use super::{LinkChange, PortChange};
use crate::Sandbox;
use crate::error::{NetlinkError, Side};
use crate::netlink::Netlink;

/// A veth pair to create. Its host end gets no IPv6 link-local address: it is made to be a bridge's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VethSpec {
    /// Name of the end that stays.
    pub host_name: IfName,
    /// Free text on the end that stays, at most 255 bytes.
    pub host_alias: Option<String>,
    /// Ethernet address of the end that stays; none lets the kernel choose.
    pub host_mac: Option<MacAddr>,
    /// Name of the end in the sandbox.
    pub peer_name: IfName,
    /// Ethernet address of the end in the sandbox; none lets the kernel choose.
    pub peer_mac: Option<MacAddr>,
    /// Largest packet of both ends, bytes; none is the kernel's default.
    pub mtu: Option<u32>,
    /// Index of the bridge that the end that stays becomes a port of.
    pub master: Option<u32>,
    /// Settings as that bridge's port.
    pub port: PortChange,
}

/// A pair just created. Both ends are down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VethPair {
    /// Index of the end that stays.
    pub host_index: u32,
    /// Index of the end in the sandbox; none where the kernel does not tell unasked, so look it up there by name.
    pub peer_index: Option<u32>,
}

impl Netlink {
    /// Creates a veth pair, one end here and one in `sandbox`.
    ///
    /// One message makes both ends, in their places, with their names, addresses, MTU and master; a second one sets
    /// what the kernel does not take at creation (alias, address generation, port settings).
    ///
    /// # Errors
    ///
    /// [`NetlinkError::NameTaken`] if either name is, and on which side; [`NetlinkError::BridgeFull`];
    /// [`NetlinkError::Kernel`]. After an error there is no pair.
    pub fn veth_add(&self, spec: &VethSpec, sandbox: &Sandbox) -> Result<VethPair, NetlinkError> {
        let VethSpec { host_name, host_alias, peer_name, port, .. } = spec;
        let operation = "create veth pair";
        let message = RouteNetlinkMessage::NewLink(creation(spec, sandbox));
        let answers = match self.request(message, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO) {
            Ok(answers) => answers,
            Err(failure) if failure.errno() == Some(Errno::EXIST) => {
                // The kernel says the same for either name.
                return Err(match self.link_by_name(host_name)? {
                    Some(_) => NetlinkError::NameTaken { name: host_name.clone(), side: Side::Host },
                    None => NetlinkError::NameTaken { name: peer_name.clone(), side: Side::Sandbox },
                });
            }
            Err(failure) if failure.errno() == Some(Errno::XFULL) && spec.master.is_some() => {
                return Err(self.bridge_full(spec.master.unwrap_or_default())?);
            }
            Err(failure) => {
                return Err(failure.on(operation, format_args!("`{host_name}` and `{peer_name}`")));
            }
        };
        let link = self.created(operation, host_name, answers)?;
        let change = LinkChange {
            alias: host_alias.clone(),
            link_local: Some(false),
            port: *port,
            ..LinkChange::default()
        };
        let link = self.finish(link, change)?;
        Ok(VethPair { host_index: link.index, peer_index: link.peer_index })
    }
}

fn creation(spec: &VethSpec, sandbox: &Sandbox) -> LinkMessage {
    let mut peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name(spec.peer_name.as_str())
        .setns_by_fd(sandbox.as_fd().as_raw_fd());
    let mut host =
        LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth).name(spec.host_name.as_str());
    if let Some(mtu) = spec.mtu {
        host = host.mtu(mtu);
        peer = peer.mtu(mtu);
    }
    if let Some(MacAddr(bytes)) = spec.host_mac {
        host = host.address(bytes.to_vec());
    }
    if let Some(MacAddr(bytes)) = spec.peer_mac {
        peer = peer.address(bytes.to_vec());
    }
    if let Some(master) = spec.master {
        host = host.controller(master);
    }
    host.set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build()))).build()
}
