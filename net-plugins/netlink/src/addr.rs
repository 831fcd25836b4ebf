//! Addresses of links.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope, CacheInfo,
};
use rtnetlink::AddressMessageBuilder;
use rustix::io::Errno;

use crate::error::NetlinkError;
use crate::link::present;
use crate::netlink::Netlink;

/// How an address is added.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AddrFlags {
    /// Usable at once: no duplicate address detection (IPv6; IPv4 has none).
    pub nodad: bool,
    /// No route to the address's subnet comes with it.
    pub noprefixroute: bool,
    /// Never chosen as a source while there is another (IPv6; RFC 6724, rule 3). IPv4 has no such state: give the address
    /// a prefix of 32 bits (`inet_select_addr` in net/ipv4/devinet.c).
    pub deprecated: bool,
}

/// An address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addr {
    /// The link's index.
    pub index: u32,
    /// The address with its prefix length.
    pub address: IpNetwork,
    /// Scope: 0 global, 253 link, 254 host.
    pub scope: u8,
    /// Duplicate address detection is not done; the address cannot be used yet.
    pub tentative: bool,
    /// Another host has the address; it is not used.
    pub dad_failed: bool,
}

impl Netlink {
    /// Adds `address` to the link with `index`. False if the link has the address already.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Kernel`]; [`NetlinkError::is_absent`] if there is no such link, and `EACCES` for an IPv6
    /// address where `disable_ipv6` is set.
    pub fn addr_add(&self, index: u32, address: IpNetwork, flags: AddrFlags) -> Result<bool, NetlinkError> {
        let mut message = addr_message(index, address);
        if address.ip().is_loopback() {
            message.header.scope = AddressScope::Host;
        }
        let mut bits = AddressFlags::empty();
        bits.set(AddressFlags::Nodad, flags.nodad);
        bits.set(AddressFlags::Noprefixroute, flags.noprefixroute);
        if !bits.is_empty() {
            message.attributes.push(AddressAttribute::Flags(bits));
        }
        if flags.deprecated && address.is_ipv6() {
            let mut lifetimes = CacheInfo::default();
            (lifetimes.ifa_preferred, lifetimes.ifa_valid) = (0, u32::MAX);
            message.attributes.push(AddressAttribute::CacheInfo(lifetimes));
        }
        let outcome = self.request(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL);
        present(outcome, &[Errno::EXIST])
            .map_err(|failure| failure.on("add address", format_args!("{address} to link number {index}")))
    }

    /// Removes `address` from the link with `index`. False if the link or the address is not there.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Kernel`].
    pub fn addr_del(&self, index: u32, address: IpNetwork) -> Result<bool, NetlinkError> {
        let outcome = self.request(RouteNetlinkMessage::DelAddress(addr_message(index, address)), 0);
        present(outcome, &[Errno::ADDRNOTAVAIL, Errno::NODEV])
            .map_err(|failure| failure.on("delete address", format_args!("{address} of link number {index}")))
    }

    /// The addresses of the link with `index`, of both families. None if there is no such link.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Interrupted`] or [`NetlinkError::Kernel`].
    pub fn addrs(&self, index: u32) -> Result<Vec<Addr>, NetlinkError> {
        match self.addr_list(index) {
            Err(err) if err.errno() == Some(Errno::NODEV) => Ok(Vec::new()),
            outcome => outcome,
        }
    }

    /// The addresses of all links, of both families.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Interrupted`] or [`NetlinkError::Kernel`].
    pub fn addrs_all(&self) -> Result<Vec<Addr>, NetlinkError> {
        self.addr_list(0)
    }

    fn addr_list(&self, index: u32) -> Result<Vec<Addr>, NetlinkError> {
        let mut request = AddressMessage::default();
        request.header.index = index;
        let entries = self.lists.list("list addresses", &RouteNetlinkMessage::GetAddress(request))?;
        let addresses = entries.into_iter().filter_map(|entry| match entry {
            RouteNetlinkMessage::NewAddress(message) => read(&message),
            _ => None,
        });
        // Before Linux 4.20 the kernel does not filter.
        Ok(addresses.filter(|addr| index == 0 || addr.index == index).collect())
    }
}

fn addr_message(index: u32, address: IpNetwork) -> AddressMessage {
    match address {
        IpNetwork::V4(v4) => AddressMessageBuilder::<std::net::Ipv4Addr>::new()
            .index(index)
            .address(v4.ip(), v4.prefix())
            .build(),
        IpNetwork::V6(v6) => AddressMessageBuilder::<std::net::Ipv6Addr>::new()
            .index(index)
            .address(v6.ip(), v6.prefix())
            .build(),
    }
}

/// An entry without an address is none: so are multicast and anycast entries.
fn read(message: &AddressMessage) -> Option<Addr> {
    let mut local = None;
    let mut address = None;
    let mut flags = AddressFlags::from_bits_retain(u32::from(
        message.header.flags.intersection(AddressHeaderFlags::all()).bits(),
    ));
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point link IFA_ADDRESS is the peer's address and IFA_LOCAL is ours.
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Flags(bits) => flags = *bits,
            _ => (),
        }
    }
    let ip: IpAddr = local.or(address)?;
    Some(Addr {
        index: message.header.index,
        address: IpNetwork::new(ip, message.header.prefix_len).ok()?,
        scope: message.header.scope.into(),
        tentative: flags.contains(AddressFlags::Tentative),
        dad_failed: flags.contains(AddressFlags::Dadfailed),
    })
}
