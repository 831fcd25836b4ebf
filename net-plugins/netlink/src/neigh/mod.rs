//! Neighbours (which Ethernet address an IP address has) and forwarding entries of bridges and tunnels (where an
//! Ethernet address is).

mod batch;
mod fdb;

pub use batch::{EntryChange, EntryFault};
pub use fdb::{FdbEntry, FdbState};

use std::fmt;
use std::net::IpAddr;

use berth_types::MacAddr;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use crate::error::NetlinkError;
use crate::link::present;
use crate::netlink::Netlink;

/// A permanent neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeighSpec {
    /// Index of the link the neighbour is on.
    pub index: u32,
    /// The neighbour's IP address.
    pub addr: IpAddr,
    /// The neighbour's Ethernet address.
    pub mac: MacAddr,
}

/// A neighbour as it was when it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neigh {
    /// Index of the link the neighbour is on.
    pub index: u32,
    /// The neighbour's IP address.
    pub addr: IpAddr,
    /// The neighbour's Ethernet address, once it is known.
    pub mac: Option<MacAddr>,
    /// Whether it stays until it is deleted.
    pub permanent: bool,
}

/// Which tables a forwarding entry is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FdbTable {
    /// That of the bridge the link is a port of (`master`).
    Bridge,
    /// The link's own (`self`): a VXLAN device's.
    Link,
    /// Both, with one request.
    Both,
}

/// A static forwarding entry: frames to `mac` leave by the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FdbSpec {
    /// Index of the link.
    pub index: u32,
    /// The Ethernet address.
    pub mac: MacAddr,
    /// The tunnel's other end, for a VXLAN device.
    pub vtep: Option<IpAddr>,
    /// Where the entry is.
    pub table: FdbTable,
}

impl fmt::Display for FdbSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of link number {}", self.mac, self.index)
    }
}

impl Netlink {
    /// Adds a permanent neighbour, in place of what was known of its address.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Kernel`].
    pub fn neigh_replace(&self, spec: &NeighSpec) -> Result<(), NetlinkError> {
        let NeighSpec { index, addr, .. } = spec;
        self.request(RouteNetlinkMessage::NewNeighbour(replaced_neigh(spec)), NLM_F_CREATE | NLM_F_REPLACE)
            .map(drop)
            .map_err(|failure| failure.on("replace neighbour", format_args!("{addr} on link number {index}")))
    }

    /// Forgets a neighbour. False if it was not known.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Kernel`].
    pub fn neigh_del(&self, index: u32, addr: IpAddr) -> Result<bool, NetlinkError> {
        let outcome = self.request(RouteNetlinkMessage::DelNeighbour(neigh_message(index, addr)), 0);
        present(outcome, &[Errno::NOENT, Errno::NODEV, Errno::NXIO])
            .map_err(|failure| failure.on("delete neighbour", format_args!("{addr} on link number {index}")))
    }

    /// The neighbours on the link with `index`, of both families.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Interrupted`] or [`NetlinkError::Kernel`].
    pub fn neighs(&self, index: u32) -> Result<Vec<Neigh>, NetlinkError> {
        let mut request = NeighbourMessage::default();
        request.attributes.push(NeighbourAttribute::IfIndex(index));
        let entries = self.lists.list("list neighbours", &RouteNetlinkMessage::GetNeighbour(request))?;
        let neighs = entries.into_iter().filter_map(|entry| match entry {
            RouteNetlinkMessage::NewNeighbour(message) => read(&message),
            _ => None,
        });
        Ok(neighs.filter(|neigh| neigh.index == index).collect())
    }

    /// Adds a static forwarding entry, in place of one for the same Ethernet address.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Kernel`].
    pub fn fdb_replace(&self, spec: &FdbSpec) -> Result<(), NetlinkError> {
        self.request(RouteNetlinkMessage::NewNeighbour(fdb_message(spec)), NLM_F_CREATE | NLM_F_REPLACE)
            .map(drop)
            .map_err(|failure| failure.on("replace forwarding entry", spec))
    }

    /// Deletes a forwarding entry. False if there was none.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Kernel`].
    pub fn fdb_del(&self, spec: &FdbSpec) -> Result<bool, NetlinkError> {
        let mut there = false;
        for spec in deletions(spec) {
            let outcome = self.request(RouteNetlinkMessage::DelNeighbour(fdb_message(&spec)), 0);
            there |= present(outcome, &[Errno::NOENT, Errno::NODEV])
                .map_err(|failure| failure.on("delete forwarding entry", spec))?;
        }
        Ok(there)
    }
}

/// What to delete for `spec`: an entry of each of its tables. The bridge's knows no destination.
fn deletions(spec: &FdbSpec) -> impl Iterator<Item = FdbSpec> + use<> {
    let spec = *spec;
    let vtep = move |table| spec.vtep.filter(|_| table == FdbTable::Link);
    batch::tables(spec.table).iter().map(move |table| FdbSpec { table: *table, vtep: vtep(*table), ..spec })
}

fn replaced_neigh(spec: &NeighSpec) -> NeighbourMessage {
    let NeighSpec { index, addr, mac: MacAddr(mac) } = *spec;
    let mut message = neigh_message(index, addr);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    message
}

fn neigh_message(index: u32, addr: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.ifindex = index;
    message.attributes.push(NeighbourAttribute::Destination(addr.into()));
    message
}

/// `NUD_NOARP` and `NUD_REACHABLE` of linux/neighbour.h.
const STATIC: u16 = 0x42;

fn fdb_message(spec: &FdbSpec) -> NeighbourMessage {
    let FdbSpec { index, mac: MacAddr(mac), vtep, table } = *spec;
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.flags = match table {
        FdbTable::Bridge => NeighbourFlags::Controller,
        FdbTable::Link => NeighbourFlags::Own,
        FdbTable::Both => NeighbourFlags::Controller | NeighbourFlags::Own,
    };
    // "static" to iproute2: NUD_NOARP does not age, while NUD_PERMANENT would make it an address of the host's. A VXLAN
    // device asks for NUD_REACHABLE beside it (`vxlan_fdb_add` in drivers/net/vxlan/vxlan_core.c).
    message.header.state = match table {
        FdbTable::Bridge => NeighbourState::Noarp,
        FdbTable::Link | FdbTable::Both => NeighbourState::Other(STATIC),
    };
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    message.attributes.extend(vtep.map(|vtep| NeighbourAttribute::Destination(vtep.into())));
    message
}

fn read(message: &NeighbourMessage) -> Option<Neigh> {
    let mut addr = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => addr = Some(IpAddr::from(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => addr = Some(IpAddr::from(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(MacAddr);
            }
            _ => (),
        }
    }
    let permanent = message.header.state == NeighbourState::Permanent;
    Some(Neigh { index: message.header.ifindex, addr: addr?, mac, permanent })
}
