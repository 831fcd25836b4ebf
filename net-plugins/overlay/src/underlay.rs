//! The network below: from which address this node's VXLAN frames leave, and how large they may be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};

use berth_netlink::{Addr, Link, LinkKind, Netlink, NetlinkError};

/// Where this node's frames come from and go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Underlay {
    /// Its address, IPv4.
    pub v4: Option<Ipv4Addr>,
    /// Its address, IPv6.
    pub v6: Option<Ipv6Addr>,
    /// The largest packet of the link that the address is on, bytes.
    pub mtu: u32,
}

/// Why it cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum UnderlayError {
    /// The kernel could not be read.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The chosen address is not there.
    #[error("this host has no address {address}\nchoose one that it has: berth node join --address ADDRESS")]
    NoSuchAddress {
        /// The address.
        address: IpAddr,
    },
    /// No address leads to other hosts.
    #[error("no address of this host leads to other hosts\nchoose one: berth node join --address ADDRESS")]
    None,
}

impl Underlay {
    /// The chosen address; otherwise the one that packets to the first of `hosts` (`HOST:PORT`) carry; otherwise the one that
    /// packets to anywhere carry.
    pub fn find(chosen: Option<IpAddr>, hosts: &[String]) -> Result<Self, UnderlayError> {
        let netlink = Netlink::open()?;
        let (addrs, links) = (netlink.addrs_all()?, netlink.links()?);
        if let Some(address) = chosen {
            return Self::on(address, &addrs, &links).ok_or(UnderlayError::NoSuchAddress { address });
        }
        let targets = hosts.iter().flat_map(|host| resolved(host));
        for target in targets.chain(ANYWHERE) {
            let source = netlink.route_get(target)?.filter(|way| !way.is_local).and_then(|way| way.source);
            if let Some(found) = source.and_then(|source| Self::on(source, &addrs, &links)) {
                return Ok(found);
            }
        }
        // The cluster is on this very host, and there is no default route: the only address that leads anywhere.
        let outward = |addr: &&Addr| {
            let link = links.iter().find(|link| link.index == addr.index);
            is_outward(addr.address.ip()) && link.is_some_and(|link| link.up && link.kind != LinkKind::Bridge)
        };
        let first = addrs.iter().find(outward).map(|addr| addr.address.ip());
        first.and_then(|first| Self::on(first, &addrs, &links)).ok_or(UnderlayError::None)
    }

    /// The tunnel end of the family that this node uses: IPv4 where it has one.
    pub fn vtep(&self) -> Option<IpAddr> {
        self.v4.map(IpAddr::V4).or(self.v6.map(IpAddr::V6))
    }

    fn on(address: IpAddr, addrs: &[Addr], links: &[Link]) -> Option<Self> {
        let addr = addrs.iter().find(|addr| addr.address.ip() == address).filter(|_| is_outward(address))?;
        let mtu = links.iter().find(|link| link.index == addr.index)?.mtu;
        Some(match address {
            IpAddr::V4(v4) => Self { v4: Some(v4), v6: None, mtu },
            IpAddr::V6(v6) => Self { v4: None, v6: Some(v6), mtu },
        })
    }
}

/// Documentation prefixes (RFC 5737, RFC 3849): whoever has a way to anywhere has one there.
const ANYWHERE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 255)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1)),
];

/// Whether other hosts can reach it.
fn is_outward(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local() && !v6.is_unspecified(),
    }
}

/// The addresses of `HOST:PORT`; none if the name leads nowhere.
fn resolved(host: &str) -> Vec<IpAddr> {
    host.to_socket_addrs().map(|all| all.map(|addr: SocketAddr| addr.ip()).collect()).unwrap_or_default()
}
