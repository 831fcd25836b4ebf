//! What ADD answers, in the newest model. Other versions are made of it in [`super::wire`].

use std::net::IpAddr;

use berth_types::{Dns, Family, Route};
use ipnetwork::IpNetwork;

/// The result of ADD. An IPAM plugin leaves the interfaces out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CniResult {
    /// Interfaces made or changed, on the host and in the sandbox.
    pub interfaces: Vec<Interface>,
    /// Addresses given.
    pub ips: Vec<IpConfig>,
    /// Routes to have.
    pub routes: Vec<Route>,
    /// Resolver settings.
    pub dns: Dns,
}

/// One interface of a result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name in its namespace.
    pub name: String,
    /// The hardware address as text, since not every link has an Ethernet address; empty where there is none.
    pub mac: String,
    /// MTU, bytes; 0 is absent. Only 1.1.0 carries it.
    pub mtu: u32,
    /// The sandbox's path, verbatim as in `CNI_NETNS`; absent for an interface of the host.
    pub sandbox: Option<String>,
    /// Path of a socket the interface is reached by; empty where there is none. Only 1.1.0 carries it.
    pub socket_path: String,
    /// PCI device; empty where there is none. Only 1.1.0 carries it.
    pub pci_id: String,
}

/// One address of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpConfig {
    /// Index into the result's interfaces; IPAM plugins give none.
    pub interface: Option<usize>,
    /// The host address with the subnet's prefix length.
    pub address: IpNetwork,
    /// The gateway of the subnet.
    pub gateway: Option<IpAddr>,
}

impl CniResult {
    /// The interface an address is on; `None` where it names none or one that is not there.
    pub fn interface_of(&self, ip: &IpConfig) -> Option<&Interface> {
        self.interfaces.get(ip.interface?)
    }

    /// The first address of a family: what 0.2.0 and published ports know of.
    pub fn first_ip(&self, family: Family) -> Option<&IpConfig> {
        self.ips.iter().find(|ip| Family::of(ip.address.ip()) == family)
    }

    /// The next hop of `route`: its own, or the first gateway among the addresses of its family.
    pub fn gateway_of(&self, route: &Route) -> Option<IpAddr> {
        let family = Family::of(route.dst.ip());
        let of_family = || self.ips.iter().filter(|ip| Family::of(ip.address.ip()) == family);
        route.gw.or_else(|| of_family().find_map(|ip| ip.gateway))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_without_a_gateway_takes_the_familys_first() {
        let ip = |address: &str, gateway: Option<&str>| IpConfig {
            interface: Some(7),
            address: address.parse().unwrap(),
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
        };
        let result = CniResult {
            ips: vec![
                ip("10.0.0.2/24", None),
                ip("fd00::2/64", Some("fd00::1")),
                ip("10.1.0.2/24", Some("10.1.0.1")),
            ],
            ..CniResult::default()
        };
        let gateway = |dst: &str, gw: Option<&str>| {
            result
                .gateway_of(&Route::new(dst.parse().unwrap(), gw.map(|gw| gw.parse().unwrap())))
                .map(|gw| gw.to_string())
        };
        assert_eq!(gateway("0.0.0.0/0", None).as_deref(), Some("10.1.0.1"));
        assert_eq!(gateway("::/0", None).as_deref(), Some("fd00::1"));
        assert_eq!(gateway("::/0", Some("fd00::9")).as_deref(), Some("fd00::9"));
        assert_eq!(result.first_ip(Family::V4).unwrap().address.to_string(), "10.0.0.2/24");
        assert_eq!(result.interface_of(&result.ips[0]), None, "an index out of range names no interface");
    }
}
