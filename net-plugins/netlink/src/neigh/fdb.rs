//! Reading forwarding entries back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use berth_types::MacAddr;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::FdbTable;
use crate::error::NetlinkError;
use crate::netlink::Netlink;

/// A forwarding entry as it was when it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FdbEntry {
    /// Index of the link.
    pub index: u32,
    /// The Ethernet address; all zeros is where a VXLAN device sends frames that have no entry.
    pub mac: MacAddr,
    /// The tunnel's other end; only in a VXLAN device's own table, where one address may have several.
    pub vtep: Option<IpAddr>,
    /// Where the entry is; never [`FdbTable::Both`].
    pub table: FdbTable,
    /// How it came and how long it stays.
    pub state: FdbState,
}

/// How a forwarding entry came and how long it stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FdbState {
    /// An Ethernet address of the link itself, put there by the kernel (in the bridge's table), or written to stay.
    Permanent,
    /// Written; it does not age.
    Static,
    /// Learned from a packet, or written to age.
    Ageing,
}

impl Netlink {
    /// The forwarding entries of the link with `index`, a bridge's port: those of the bridge that lead to it, and its own.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Interrupted`] or [`NetlinkError::Kernel`].
    pub fn fdb(&self, index: u32) -> Result<Vec<FdbEntry>, NetlinkError> {
        let mut request = NeighbourMessage::default();
        request.header.family = AddressFamily::Bridge;
        request.header.ifindex = index;
        let entries =
            self.lists.list("list forwarding entries", &RouteNetlinkMessage::GetNeighbour(request))?;
        let entries = entries.into_iter().filter_map(|entry| match entry {
            RouteNetlinkMessage::NewNeighbour(message) => read(&message),
            _ => None,
        });
        Ok(entries.filter(|entry| entry.index == index).collect())
    }
}

fn read(message: &NeighbourMessage) -> Option<FdbEntry> {
    /// `NUD_NOARP` and `NUD_PERMANENT` of linux/neighbour.h; more bits may be set beside them.
    const NOARP: u16 = 0x40;
    const PERMANENT: u16 = 0x80;
    let NeighbourMessage { header, attributes, .. } = message;
    let mut mac = None;
    let mut vtep = None;
    for attribute in attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            NeighbourAttribute::Destination(addr) => vtep = address(addr),
            _ => (),
        }
    }
    let bits = u16::from(header.state);
    let state = match () {
        () if bits & PERMANENT != 0 => FdbState::Permanent,
        () if bits & NOARP != 0 => FdbState::Static,
        () => FdbState::Ageing,
    };
    let own = header.flags.contains(NeighbourFlags::Own);
    let table = if own { FdbTable::Link } else { FdbTable::Bridge };
    Some(FdbEntry { index: header.ifindex, mac: MacAddr(mac?), vtep, table, state })
}

/// The message's family says nothing of the address's; its length does.
fn address(addr: &NeighbourAddress) -> Option<IpAddr> {
    match addr {
        NeighbourAddress::Inet(v4) => Some((*v4).into()),
        NeighbourAddress::Inet6(v6) => Some((*v6).into()),
        NeighbourAddress::Other(bytes) => {
            let v4 = <[u8; 4]>::try_from(bytes.as_slice()).map(|v4| Ipv4Addr::from(v4).into());
            v4.or_else(|_| <[u8; 16]>::try_from(bytes.as_slice()).map(|v6| Ipv6Addr::from(v6).into())).ok()
        }
        _ => None,
    }
}
