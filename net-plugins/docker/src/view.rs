//! What Docker's API says of berth's networks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bollard::models::{EndpointResource, Ipam, NetworkInspect};
use ipnetwork::IpNetwork;
use serde_json::{Map, Value, json};

use crate::wire::{CreateNetwork, IpamData, Options};

/// A network, as Docker has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DockerNetwork {
    /// Docker's number of it.
    pub(crate) id: String,
    pub(crate) name: String,
    /// The network driver.
    pub(crate) driver: String,
    /// The address driver.
    pub(crate) ipam: String,
    pub(crate) subnets: BTreeSet<IpNetwork>,
    /// Every address that Docker holds there: gateways, auxiliary ones, endpoints'.
    pub(crate) addresses: BTreeSet<IpAddr>,
    /// Endpoints by their number.
    pub(crate) endpoints: BTreeMap<String, DockerEndpoint>,
    /// The call that would create it anew.
    pub(crate) create: Recreate,
}

/// An endpoint, as Docker has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DockerEndpoint {
    pub(crate) container: String,
    pub(crate) name: String,
    pub(crate) aliases: Vec<String>,
}

/// What a network was created with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Recreate {
    options: BTreeMap<String, String>,
    internal: bool,
    v4: Vec<(String, String)>,
    v6: Vec<(String, String)>,
}

impl DockerNetwork {
    /// Reads the answer to an inspection. None where it says too little.
    pub(crate) fn read(network: NetworkInspect) -> Option<Self> {
        let NetworkInspect { id, name, driver, ipam, internal, options, containers, .. } = network;
        let Ipam { driver: ipam, config, .. } = ipam.unwrap_or_default();
        let mut found = Self {
            id: id?,
            name: name?,
            driver: plain_driver(&driver.unwrap_or_default()).to_owned(),
            ipam: ipam.unwrap_or_default(),
            subnets: BTreeSet::new(),
            addresses: BTreeSet::new(),
            endpoints: BTreeMap::new(),
            create: Recreate {
                options: options.unwrap_or_default().into_iter().collect(),
                internal: internal.unwrap_or_default(),
                ..Recreate::default()
            },
        };
        for config in config.unwrap_or_default() {
            let Some(Ok(subnet)) = config.subnet.as_deref().map(str::parse::<IpNetwork>) else { continue };
            found.subnets.insert(subnet);
            let gateway = config.gateway.unwrap_or_default();
            found.addresses.extend(plain_addr(&gateway));
            let others = config.auxiliary_addresses.unwrap_or_default();
            found.addresses.extend(others.values().filter_map(|text| plain_addr(text)));
            let family = if subnet.is_ipv4() { &mut found.create.v4 } else { &mut found.create.v6 };
            family.push((subnet.to_string(), gateway));
        }
        for (container, endpoint) in containers.unwrap_or_default() {
            let EndpointResource { name, endpoint_id, ipv4_address, ipv6_address, .. } = endpoint;
            let addresses = [ipv4_address, ipv6_address];
            found.addresses.extend(addresses.iter().flatten().filter_map(|text| plain_addr(text)));
            let Some(id) = endpoint_id.filter(|id| !id.is_empty()) else { continue };
            let mut endpoint =
                DockerEndpoint { container, name: name.unwrap_or_default(), aliases: Vec::new() };
            endpoint.aliases = endpoint.also_called([]);
            found.endpoints.insert(id, endpoint);
        }
        Some(found)
    }

    /// The call that created the network, as far as Docker remembers it.
    pub(crate) fn created_by(&self) -> CreateNetwork {
        let Recreate { options, internal, v4, v6 } = &self.create;
        let generic: Map<String, Value> =
            options.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        let data = |subnets: &[(String, String)]| {
            let one = |(pool, gateway): &(String, String)| IpamData {
                pool: pool.clone(),
                // The API says it without the prefix that the call has.
                gateway: plain_addr(gateway).map(|addr| addr.to_string()).unwrap_or_default(),
                // Only the call itself has it.
                address_space: String::new(),
            };
            subnets.iter().map(one).collect()
        };
        let options = Options::from([
            ("com.docker.network.generic".to_owned(), Value::Object(generic)),
            ("com.docker.network.internal".to_owned(), Value::Bool(*internal)),
        ]);
        CreateNetwork { network: self.id.clone(), options, v4: data(v4), v6: data(v6) }
    }
}

impl DockerEndpoint {
    /// What it is called beside its name: by its container's first digits, as Docker has it on every network but its own `bridge`,
    /// and by `aliases`. Docker 26 does not count the digits among them.
    pub(crate) fn also_called(&self, aliases: impl IntoIterator<Item = String>) -> Vec<String> {
        let digits = self.container.get(..12).filter(|_| !self.is_joining());
        let all: BTreeSet<String> = digits.map(str::to_owned).into_iter().chain(aliases).collect();
        all.into_iter().filter(|alias| *alias != self.name).collect()
    }

    /// Whether dockerd is still at work on it: until it has joined, it stands under its own number.
    pub(crate) fn is_joining(&self) -> bool {
        self.container.starts_with("ep-")
    }
}

/// A driver's name: a packaged plugin's has a tag.
pub(crate) fn plain_driver(name: &str) -> &str {
    name.split(':').next().unwrap_or(name)
}

/// The address in `172.18.0.2/16` and in `172.18.0.2`.
fn plain_addr(text: &str) -> Option<IpAddr> {
    text.split('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer of Docker 26.1, shortened.
    fn sample() -> DockerNetwork {
        let answer = json!({
            "Name": "app", "Id": "aa11", "Scope": "local", "Driver": "rbridge", "Internal": true,
            "IPAM": {"Driver": "rbridge", "Options": {}, "Config": [
                {"Subnet": "10.80.0.0/24", "Gateway": "10.80.0.1/24", "AuxiliaryAddresses": {"nas": "10.80.0.9"}},
                {"Subnet": "fd00:80::/64", "Gateway": "fd00:80::1"},
            ]},
            "Containers": {
                "c1": {"Name": "web", "EndpointID": "e1", "IPv4Address": "10.80.0.2/24", "IPv6Address": "fd00:80::2/64"},
                "ep-e2": {"Name": "next", "EndpointID": "e2", "IPv4Address": "10.80.0.3/24", "IPv6Address": ""},
            },
            "Options": {"mtu": "1400"}, "Labels": {},
        });
        DockerNetwork::read(serde_json::from_value(answer).unwrap()).unwrap()
    }

    #[test]
    fn an_inspection_tells_every_address_and_endpoint() {
        let network = sample();
        let addresses: Vec<String> = network.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(
            addresses,
            ["10.80.0.1", "10.80.0.2", "10.80.0.3", "10.80.0.9", "fd00:80::1", "fd00:80::2"]
        );
        assert_eq!(network.endpoints["e1"].name, "web");
        assert!(network.endpoints["e2"].is_joining() && !network.endpoints["e1"].is_joining());
    }

    #[test]
    fn a_container_is_also_called_by_its_first_digits_and_once_by_each_name() {
        let endpoint = |container: &str| DockerEndpoint {
            container: container.to_owned(),
            name: "web".to_owned(),
            ..DockerEndpoint::default()
        };
        let said = ["shop", "web", "0123456789ab", "shop"].map(str::to_owned);
        let called = endpoint("0123456789abcdef").also_called(said);
        assert_eq!(called, ["0123456789ab", "shop"]);
        assert_eq!(endpoint("0123456789abcdef").also_called([]), ["0123456789ab"]);
        // The number of an endpoint is nobody's name.
        assert!(endpoint("ep-0123456789abcdef").also_called([]).is_empty());
    }

    #[test]
    fn a_network_can_be_declared_again_from_it() {
        let declaration = crate::network::declaration(&sample().created_by()).unwrap();
        assert!(declaration.reach.internal);
        assert_eq!(declaration.mtu, Some(1400));
        let subnets: Vec<String> = declaration
            .subnets
            .iter()
            .map(|subnet| format!("{} {:?}", subnet.subnet, subnet.gateway))
            .collect();
        assert_eq!(subnets, ["10.80.0.0/24 Some(10.80.0.1)", "fd00:80::/64 Some(fd00:80::1)"]);
    }
}
