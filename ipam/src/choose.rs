//! A subnet for a network that names none: one that this host does not use already.
//!
//! Pure: the caller reads the host's addresses, routes and resolvers and its own networks, and gives them as prefixes.
//! Default routes are no use of an address, and are passed over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use berth_types::Family;
use ipnetwork::IpNetwork;

use crate::Span;

/// Where subnets of IPv4 are taken from: all subnets of length `size` in `base`, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubnetPool {
    /// The addresses that may be used.
    pub base: IpNetwork,
    /// The length of each subnet.
    pub size: u8,
}

/// No subnet of the pools is free.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no free {family} subnet: every one in {pools} overlaps an address, route or resolver of this host\n\
     give the network a subnet"
)]
pub struct NoFreeSubnet {
    family: Family,
    pools: String,
}

/// The default pools of IPv4, private addresses (RFC 1918) in the order in which they seldom hurt: what Docker uses
/// without being told (172.17 to 172.31 as /16, 192.168.0.0/16 as /20), then what Podman uses (10.89 to 10.255 as /24).
/// 192.168.0.0/20 is left out: home routers live there, and a laptop meets many.
pub fn default_pools() -> Vec<SubnetPool> {
    let pool = |a, b, prefix, size| {
        let base = IpNetwork::new(Ipv4Addr::new(a, b, 0, 0).into(), prefix);
        SubnetPool { base: base.expect("the prefix lengths here are at most 32"), size }
    };
    let mut pools: Vec<SubnetPool> = (17..=31).map(|b| pool(172, b, 16, 16)).collect();
    pools.extend((1..16_u8).map(|n| {
        let base = IpNetwork::new(Ipv4Addr::new(192, 168, n * 16, 0).into(), 20);
        SubnetPool { base: base.expect("20 is at most 32"), size: 20 }
    }));
    pools.extend((89..=255).map(|b| pool(10, b, 16, 24)));
    pools
}

/// The first subnet of `pools` that shares no address with `taken`.
pub fn choose_v4(pools: &[SubnetPool], taken: &[IpNetwork]) -> Result<IpNetwork, NoFreeSubnet> {
    let taken = used(taken);
    let free = pools.iter().find_map(|pool| first_free(*pool, &taken));
    free.ok_or_else(|| NoFreeSubnet { family: Family::V4, pools: names(pools) })
}

/// A /64 of the host's own prefix (a unique local address, RFC 4193), the first that shares no address with `taken`.
///
/// `seed` makes the prefix: 40 bits of it are the global ID. It should be random, and the same each time on one host,
/// so that its networks are together; a hash of the machine's id is both.
pub fn choose_v6(seed: u64, taken: &[IpNetwork]) -> Result<IpNetwork, NoFreeSubnet> {
    let prefix = (0xfd_u128 << 120) | (u128::from(seed & 0xff_ffff_ffff) << 80);
    let base = IpNetwork::new(Ipv6Addr::from_bits(prefix).into(), 48).expect("48 is at most 128");
    let pool = SubnetPool { base, size: 64 };
    first_free(pool, &used(taken)).ok_or_else(|| NoFreeSubnet { family: Family::V6, pools: names(&[pool]) })
}

fn used(taken: &[IpNetwork]) -> Vec<Span> {
    let used = taken.iter().filter(|network| network.prefix() > 0);
    Span::merged(used.map(|network| Span::of_network(*network)).collect())
}

/// Passes over what is taken in one step each, not subnet by subnet.
fn first_free(pool: SubnetPool, taken: &[Span]) -> Option<IpNetwork> {
    let mut rest = Some(Span::of_network(pool.base));
    while let Some(open) = rest {
        // `open` begins with a whole subnet: at the base, or after one that was passed over.
        let subnet = subnet_of(open.first(), pool.size)?;
        let candidate = Span::of_network(subnet);
        let Some(block) = taken.iter().find(|block| block.overlaps(&candidate)) else {
            return (candidate.last() <= open.last()).then_some(subnet);
        };
        // The subnet that the block ends in is taken as well.
        let end = Span::of_network(subnet_of(block.last(), pool.size)?).last();
        rest = open.after(end);
    }
    None
}

fn subnet_of(address: IpAddr, size: u8) -> Option<IpNetwork> {
    let network = IpNetwork::new(address, size).ok()?;
    IpNetwork::new(network.network(), size).ok()
}

fn names(pools: &[SubnetPool]) -> String {
    let texts: Vec<String> = pools.iter().map(|pool| pool.base.to_string()).collect();
    match texts.as_slice() {
        [first, .., last] if texts.len() > 3 => format!("{first} … {last} ({} pools)", texts.len()),
        all => all.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNetwork> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn chosen(taken: &[&str]) -> String {
        choose_v4(&default_pools(), &nets(taken)).unwrap().to_string()
    }

    #[test]
    fn the_first_subnet_that_nothing_uses_is_chosen() {
        for (taken, expected) in [
            (&[][..], "172.17.0.0/16"),
            (&["0.0.0.0/0", "::/0"], "172.17.0.0/16"),
            (&["172.17.0.1/16"], "172.18.0.0/16"),
            (&["172.17.200.9/32"], "172.18.0.0/16"),
            (&["172.16.0.0/12"], "192.168.16.0/20"),
            (&["172.16.0.0/12", "192.168.0.0/17", "192.168.128.53/32"], "192.168.144.0/20"),
            (&["172.16.0.0/12", "192.168.0.0/16"], "10.89.0.0/24"),
            (
                &["172.16.0.0/12", "192.168.0.0/16", "10.88.0.0/15", "10.90.0.0/20", "10.90.17.0/24"],
                "10.90.16.0/24",
            ),
        ] {
            assert_eq!(chosen(taken), expected, "{taken:?}");
        }
    }

    #[test]
    fn a_host_that_uses_all_private_addresses_gets_a_refusal() {
        let err = choose_v4(&default_pools(), &nets(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]))
            .unwrap_err();
        assert!(err.to_string().starts_with("no free IPv4 subnet: every one in 172.17.0.0/16"), "{err}");
    }

    #[test]
    fn the_seed_makes_a_unique_local_prefix() {
        let first = choose_v6(0xabcd_ef01_2345_6789, &[]).unwrap();
        assert_eq!(first.to_string(), "fd01:2345:6789::/64");
        let second = choose_v6(0xabcd_ef01_2345_6789, &[first, "fe80::/64".parse().unwrap()]).unwrap();
        assert_eq!(second.to_string(), "fd01:2345:6789:1::/64");
        assert!(choose_v6(1, &nets(&["fd00::/8"])).is_err());
    }
}
