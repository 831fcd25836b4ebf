//! Routes.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use berth_types::Family;
use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol,
    RouteScope, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use crate::dump::News;
use crate::error::NetlinkError;
use crate::link::{Link, present};
use crate::netlink::Netlink;

/// berth's own routing protocol number, by which its routes are known (`ip route show proto 176`). Neither
/// linux/rtnetlink.h nor iproute2's rt_protos gives it to anyone.
pub const ROUTE_PROTOCOL: u8 = 176;

/// A route to add, replace or delete.
///
/// When deleting, what is none matches anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSpec {
    /// The destination; host bits are ignored. Prefix length 0 is the default route.
    pub dst: IpNetwork,
    /// The next hop; none is a destination on the link itself.
    pub gateway: Option<IpAddr>,
    /// Index of the link to leave by.
    pub oif: Option<u32>,
    /// Source address to prefer.
    pub source: Option<IpAddr>,
    /// Table; none is the main one, 254.
    pub table: Option<u32>,
    /// Scope; none is link without a gateway, global with one.
    pub scope: Option<u8>,
    /// Metric; none is the kernel's default (0, or 1024 for IPv6).
    pub priority: Option<u32>,
    /// Path MTU, bytes.
    pub mtu: Option<u32>,
    /// Maximal segment size, bytes.
    pub advmss: Option<u32>,
    /// Who made it: [`ROUTE_PROTOCOL`].
    pub protocol: u8,
    /// The gateway is on the link, although no route says so.
    pub onlink: bool,
}

impl RouteSpec {
    /// A route of berth's to `dst` with nothing else said.
    pub fn new(dst: IpNetwork) -> Self {
        Self {
            dst,
            gateway: None,
            oif: None,
            source: None,
            table: None,
            scope: None,
            priority: None,
            mtu: None,
            advmss: None,
            protocol: ROUTE_PROTOCOL,
            onlink: false,
        }
    }
}

impl fmt::Display for RouteSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "to {}", self.dst)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        if let Some(oif) = self.oif {
            write!(f, " by link number {oif}")?;
        }
        if let Some(table) = self.table {
            write!(f, " in table {table}")?;
        }
        Ok(())
    }
}

/// A route as it was when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteEntry {
    /// The destination.
    pub dst: IpNetwork,
    /// The next hop.
    pub gateway: Option<IpAddr>,
    /// Index of the link it leaves by; none for several and for routes that lead nowhere.
    pub oif: Option<u32>,
    /// The preferred source address.
    pub source: Option<IpAddr>,
    /// The table.
    pub table: u32,
    /// The scope.
    pub scope: u8,
    /// The metric; absent is 0.
    pub priority: u32,
    /// Path MTU, bytes.
    pub mtu: Option<u32>,
    /// Maximal segment size, bytes.
    pub advmss: Option<u32>,
    /// Who made it.
    pub protocol: u8,
    /// Whether it passes packets on; others are local, broadcast, unreachable and so on.
    pub is_unicast: bool,
}

/// Which routes to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteFilter {
    /// Of this family.
    pub family: Family,
    /// In this table; none is all tables.
    pub table: Option<u32>,
}

/// How the kernel would reach an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteLookup {
    /// Index of the link.
    pub oif: u32,
    /// The next hop; none if the address is on the link.
    pub gateway: Option<IpAddr>,
    /// The source address it would use.
    pub source: Option<IpAddr>,
    /// Whether the address is the host's own.
    pub is_local: bool,
    /// Largest packet on the way, bytes, where the route or path MTU discovery says so; it is the link's otherwise.
    pub mtu: Option<u32>,
}

impl Netlink {
    /// Adds a route. False if one of the same destination, metric and table exists, whatever it leads to.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Kernel`]: for instance the gateway cannot be reached, or the link is down.
    pub fn route_add(&self, spec: &RouteSpec) -> Result<bool, NetlinkError> {
        let outcome =
            self.request(RouteNetlinkMessage::NewRoute(route_message(spec)), NLM_F_CREATE | NLM_F_EXCL);
        present(outcome, &[Errno::EXIST]).map_err(|failure| failure.on("add route", spec))
    }

    /// Adds a route beside others of the same destination, metric and table, which stay (for IPv6 they become one route
    /// with several next hops). False if exactly this one exists.
    ///
    /// # Errors
    ///
    /// As [`Netlink::route_add`].
    pub fn route_add_beside(&self, spec: &RouteSpec) -> Result<bool, NetlinkError> {
        let outcome = self.request(RouteNetlinkMessage::NewRoute(route_message(spec)), NLM_F_CREATE);
        present(outcome, &[Errno::EXIST]).map_err(|failure| failure.on("add route", spec))
    }

    /// Adds a route in place of one of the same destination, metric and table, if there is one.
    ///
    /// # Errors
    ///
    /// As [`Netlink::route_add`].
    pub fn route_replace(&self, spec: &RouteSpec) -> Result<(), NetlinkError> {
        let outcome =
            self.request(RouteNetlinkMessage::NewRoute(route_message(spec)), NLM_F_CREATE | NLM_F_REPLACE);
        outcome.map(drop).map_err(|failure| failure.on("replace route", spec))
    }

    /// Deletes a route. False if there is none that matches.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Kernel`].
    pub fn route_del(&self, spec: &RouteSpec) -> Result<bool, NetlinkError> {
        let mut message = route_message(spec);
        if spec.scope.is_none() {
            // Matches any scope (`fib_table_delete` in net/ipv4/fib_trie.c).
            message.header.scope = RouteScope::NoWhere;
        }
        let outcome = self.request(RouteNetlinkMessage::DelRoute(message), 0);
        present(outcome, &[Errno::SRCH, Errno::NODEV, Errno::NOENT])
            .map_err(|failure| failure.on("delete route", spec))
    }

    /// The routes that `filter` lets through. A table that does not exist has none.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Interrupted`] or [`NetlinkError::Kernel`].
    pub fn routes(&self, filter: RouteFilter) -> Result<Vec<RouteEntry>, NetlinkError> {
        let mut request = RouteMessage::default();
        request.header.address_family = address_family(filter.family);
        request.attributes.extend(filter.table.map(RouteAttribute::Table));
        let entries = match self.lists.list("list routes", &RouteNetlinkMessage::GetRoute(request)) {
            Err(err) if err.errno() == Some(Errno::NOENT) => return Ok(Vec::new()),
            entries => entries?,
        };
        let routes = entries.into_iter().filter_map(|entry| match entry {
            RouteNetlinkMessage::NewRoute(message) => read(&message),
            _ => None,
        });
        // Before Linux 4.20 the kernel does not filter.
        Ok(routes.filter(|route| filter.table.is_none_or(|table| route.table == table)).collect())
    }

    /// How the kernel would reach `dst` from here. None if it has no route there.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Kernel`] or [`NetlinkError::Answer`].
    pub fn route_get(&self, dst: IpAddr) -> Result<Option<RouteLookup>, NetlinkError> {
        const OPERATION: &str = "look up route";
        const NO_ROUTE: [Errno; 4] = [Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::INVAL, Errno::ACCESS];
        let mut message = RouteMessage::default();
        message.header.address_family = address_family(Family::of(dst));
        message.header.destination_prefix_length = if dst.is_ipv4() { 32 } else { 128 };
        message.attributes.push(RouteAttribute::Destination(dst.into()));
        let answers = match self.request(RouteNetlinkMessage::GetRoute(message), 0) {
            Ok(answers) => answers,
            // Unreachable, blackhole and prohibit routes answer with their own errors.
            Err(failure) if failure.errno().is_some_and(|errno| NO_ROUTE.contains(&errno)) => {
                return Ok(None);
            }
            Err(failure) => return Err(failure.on(OPERATION, format_args!("to {dst}"))),
        };
        let found = answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(message) => Some(message),
            _ => None,
        });
        let Some(message) = found else {
            let why = "it holds no route that can be decoded".to_owned();
            return Err(NetlinkError::Answer { operation: OPERATION, object: format!("to {dst}"), why });
        };
        // IPv6 answers "unreachable" with a route of that type.
        if !matches!(message.header.kind, RouteType::Unicast | RouteType::Local) {
            return Ok(None);
        }
        Ok(read(&message).and_then(|route| {
            let RouteEntry { gateway, oif, source, mtu, .. } = route;
            let is_local = message.header.kind == RouteType::Local;
            oif.map(|oif| RouteLookup { oif, gateway, source, is_local, mtu })
        }))
    }

    /// Waits until packets to `addr`, an address of this namespace, are taken in, at most `timeout`. Whether they are.
    ///
    /// An IPv6 address is in use at once where duplicates are not looked for, but its local route is made by a work queue
    /// (`addrconf_dad_work` of net/ipv6/addrconf.c): what arrives before is dropped, and asked for again a second later.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Socket`], or as [`Netlink::route_get`].
    pub fn address_await_local(&self, addr: IpAddr, timeout: Duration) -> Result<bool, NetlinkError> {
        let is_local = || Ok(self.route_get(addr)?.is_some_and(|lookup| lookup.is_local));
        self.lists.await_that(News::Ipv6Routes, timeout, is_local)
    }

    /// The link by which `addr` is reached from here. None if it cannot be reached.
    ///
    /// # Errors
    ///
    /// As [`Netlink::route_get`] and [`Netlink::link_by_index`].
    pub fn resolve_link_toward(&self, addr: IpAddr) -> Result<Option<Link>, NetlinkError> {
        match self.route_get(addr)? {
            Some(lookup) => self.link_by_index(lookup.oif),
            None => Ok(None),
        }
    }
}

fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

fn route_message(spec: &RouteSpec) -> RouteMessage {
    let RouteSpec { dst, gateway, oif, source, table, scope, priority, mtu, advmss, protocol, onlink } = spec;
    let mut message = RouteMessage::default();
    let default_scope =
        if dst.is_ipv4() && gateway.is_none() { RouteScope::Link } else { RouteScope::Universe };
    message.header = RouteHeader {
        address_family: address_family(Family::of(dst.ip())),
        destination_prefix_length: dst.prefix(),
        // Tables beyond the header's byte are in the attribute.
        table: table.map_or(RouteHeader::RT_TABLE_MAIN, |table| u8::try_from(table).unwrap_or(0)),
        protocol: RouteProtocol::from(*protocol),
        scope: scope.map_or(default_scope, RouteScope::from),
        kind: RouteType::Unicast,
        flags: if *onlink { RouteFlags::Onlink } else { RouteFlags::empty() },
        ..RouteHeader::default()
    };
    let attributes = &mut message.attributes;
    if dst.prefix() > 0 {
        attributes.push(RouteAttribute::Destination(dst.network().into()));
    }
    attributes.extend(gateway.map(|gateway| match (dst, gateway) {
        (IpNetwork::V4(_), IpAddr::V6(v6)) => RouteAttribute::Via(RouteVia::Inet6(v6)),
        _ => RouteAttribute::Gateway(gateway.into()),
    }));
    attributes.extend(oif.map(RouteAttribute::Oif));
    attributes.extend(source.map(|source| RouteAttribute::PrefSource(source.into())));
    attributes.extend(table.map(RouteAttribute::Table));
    attributes.extend(priority.map(RouteAttribute::Priority));
    let metrics: Vec<_> =
        [mtu.map(RouteMetric::Mtu), advmss.map(RouteMetric::Advmss)].into_iter().flatten().collect();
    if !metrics.is_empty() {
        attributes.push(RouteAttribute::Metrics(metrics));
    }
    message
}

/// Routes of other families than the two are none.
fn read(message: &RouteMessage) -> Option<RouteEntry> {
    let unspecified: IpAddr = match message.header.address_family {
        AddressFamily::Inet => std::net::Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let mut dst = unspecified;
    let mut entry = RouteEntry {
        dst: IpNetwork::new(unspecified, 0).ok()?,
        gateway: None,
        oif: None,
        source: None,
        table: message.header.table.into(),
        scope: message.header.scope.into(),
        priority: 0,
        mtu: None,
        advmss: None,
        protocol: message.header.protocol.into(),
        is_unicast: message.header.kind == RouteType::Unicast,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(addr) => dst = ip(addr)?,
            RouteAttribute::Gateway(addr) => entry.gateway = ip(addr),
            RouteAttribute::Via(RouteVia::Inet(v4)) => entry.gateway = Some((*v4).into()),
            RouteAttribute::Via(RouteVia::Inet6(v6)) => entry.gateway = Some((*v6).into()),
            RouteAttribute::Oif(index) => entry.oif = Some(*index),
            RouteAttribute::PrefSource(addr) => entry.source = ip(addr),
            RouteAttribute::Table(table) => entry.table = *table,
            RouteAttribute::Priority(priority) => entry.priority = *priority,
            RouteAttribute::Metrics(metrics) => {
                for metric in metrics {
                    match metric {
                        RouteMetric::Mtu(mtu) => entry.mtu = Some(*mtu),
                        RouteMetric::Advmss(advmss) => entry.advmss = Some(*advmss),
                        _ => (),
                    }
                }
            }
            _ => (),
        }
    }
    entry.dst = IpNetwork::new(dst, message.header.destination_prefix_length).ok()?;
    Some(entry)
}

fn ip(addr: &RouteAddress) -> Option<IpAddr> {
    match addr {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_reads_back_as_what_was_asked() {
        let spec = RouteSpec {
            gateway: Some("10.9.0.1".parse().unwrap()),
            oif: Some(7),
            table: Some(1000),
            priority: Some(5),
            mtu: Some(1400),
            advmss: Some(1360),
            ..RouteSpec::new("10.1.2.3/16".parse().unwrap())
        };
        let entry = read(&route_message(&spec)).unwrap();
        assert_eq!(entry.dst.to_string(), "10.1.0.0/16");
        assert_eq!((entry.gateway, entry.oif, entry.table), (spec.gateway, Some(7), 1000));
        assert_eq!((entry.priority, entry.mtu, entry.advmss), (5, Some(1400), Some(1360)));
        assert_eq!((entry.protocol, entry.scope), (ROUTE_PROTOCOL, 0));
    }

    #[test]
    fn an_ipv4_route_without_a_gateway_has_link_scope() {
        let scope = |dst: &str| u8::from(route_message(&RouteSpec::new(dst.parse().unwrap())).header.scope);
        assert_eq!(scope("10.0.0.0/8"), 253);
        assert_eq!(scope("fd00::/8"), 0);
    }
}
