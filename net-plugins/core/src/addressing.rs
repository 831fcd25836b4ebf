//! From leases to what a bridge attachment carries: gateways and routes. Pure.

use berth_types::{AddressLease, Route};
use ipnetwork::IpNetwork;

use crate::request::Addresses;

/// Fills in what the reference bridge plugin fills in: with `gateway`, an address without one gets the first of its
/// subnet; with `default_route`, each family gets a default route by its gateway unless the pool gave one.
pub fn complete(mut addresses: Addresses, gateway: bool, default_route: bool) -> Addresses {
    if gateway {
        for lease in &mut addresses.leases {
            lease.gateway = lease.gateway.or_else(|| first_host(lease.address).map(|net| net.ip()));
        }
    }
    if default_route {
        let missing: Vec<Route> = [true, false]
            .into_iter()
            .filter(|v4| !has_default(&addresses.routes, *v4))
            .filter_map(|v4| default_of(&addresses.leases, v4))
            .collect();
        addresses.routes.extend(missing);
    }
    addresses
}

fn has_default(routes: &[Route], v4: bool) -> bool {
    routes.iter().any(|route| route.is_default() && route.dst.is_ipv4() == v4 && route.gw.is_some())
}

fn default_of(leases: &[AddressLease], v4: bool) -> Option<Route> {
    let gateway =
        leases.iter().filter(|lease| lease.address.is_ipv4() == v4).find_map(|lease| lease.gateway)?;
    let any = if v4 { "0.0.0.0/0" } else { "::/0" };
    Some(Route::new(any.parse().ok()?, Some(gateway)))
}

/// The first host address of the subnet of `address`.
fn first_host(address: IpNetwork) -> Option<IpNetwork> {
    match address {
        IpNetwork::V4(net) => {
            let first = u32::from(net.network()).checked_add(1)?;
            IpNetwork::new(std::net::Ipv4Addr::from(first).into(), net.prefix()).ok()
        }
        IpNetwork::V6(net) => {
            let first = u128::from(net.network()).checked_add(1)?;
            IpNetwork::new(std::net::Ipv6Addr::from(first).into(), net.prefix()).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(address: &str, gateway: Option<&str>) -> AddressLease {
        AddressLease { address: address.parse().unwrap(), gateway: gateway.map(|gw| gw.parse().unwrap()) }
    }

    #[test]
    fn a_missing_gateway_is_the_first_address() {
        let given = Addresses { leases: vec![lease("10.80.0.9/24", None)], ..Addresses::default() };
        assert_eq!(complete(given.clone(), false, false), given);
        assert_eq!(complete(given, true, false).leases, [lease("10.80.0.9/24", Some("10.80.0.1"))]);
    }

    #[test]
    fn each_family_gets_one_default_route() {
        let leases = vec![lease("10.80.0.9/24", Some("10.80.0.1")), lease("fd80::9/64", Some("fd80::1"))];
        let own = Route::new("0.0.0.0/0".parse().unwrap(), Some("10.80.0.7".parse().unwrap()));
        let given = Addresses { leases, routes: vec![own.clone()], ..Addresses::default() };
        let v6 = Route::new("::/0".parse().unwrap(), Some("fd80::1".parse().unwrap()));
        assert_eq!(complete(given, true, true).routes, [own, v6]);
    }
}
