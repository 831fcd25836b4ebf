//! The address driver: addresses of this host's part of the cluster's networks.
//!
//! dockerd asks for the pool and for the gateway before it says anything of the network. So of a network that the cluster does not
//! have yet, the pool is what it would be created with; `CreateNetwork` creates it. An address is held for Docker from its
//! request to its release, whatever becomes of the endpoint meanwhile.

use std::collections::BTreeMap;

use berth_core::Berth;
use berth_core::hold::HoldRequest;
use berth_core::plan::overlap;
use berth_overlay::attach;
use berth_overlay::joined::Joined;
use berth_overlay::model::OverlayNetwork;
use berth_overlay::wire::{AskNetwork, NewNetwork};
use berth_plugin_http::{Empty, Plugin, Refusal};
use berth_types::{Family, NetworkName};
use ipnetwork::IpNetwork;

use super::options::network_name;
use super::{ADDRESS_SPACE, DRIVER, NETWORK, proposal, record, subnets, typed};
use crate::cores::Cores;
use crate::ipam::{GATEWAY, NAME, TYPE, address, introduced, prefix};
use crate::option::shortened;
use crate::refusal::Failure;
use crate::session::Session;
use crate::wire::{AddressGiven, OfAddress, Options, PoolGiven, RequestPool};

/// The address driver.
#[derive(Clone)]
pub struct Ipam {
    session: Session,
}

impl Ipam {
    /// Needs nothing of the host yet.
    pub fn new(cores: Cores) -> Self {
        Self { session: Session::new(cores, DRIVER) }
    }

    /// To be called when dockerd activates the socket: it asks for everything it holds again.
    pub fn activated(&self) {
        self.session.activated();
    }

    /// Adds the driver's methods to a socket's.
    pub fn methods(&self, plugin: Plugin) -> Plugin {
        let plugin = introduced(plugin, ADDRESS_SPACE, ADDRESS_SPACE)
            // Whatever is held of it is released address by address, or with the network.
            .constant("IpamDriver.ReleasePool", Empty {});
        let plugin = self.session.call(plugin, "IpamDriver.RequestPool", request_pool);
        let plugin = self.session.call(plugin, "IpamDriver.RequestAddress", request_address);
        self.session.call(plugin, "IpamDriver.ReleaseAddress", release_address)
    }
}

fn request_pool(berth: &mut Berth, args: RequestPool) -> Result<PoolGiven, Failure> {
    let name = named(&args.options)?;
    let asked = prefix("subnet", &args.pool)?;
    if !args.sub_pool.is_empty() {
        let text =
            format!("network `{name}` gives addresses of this host's part of it: leave `--ip-range` out");
        return Err(Refusal::new(text).into());
    }
    let record = match record(berth, &name)? {
        Some(record) => record,
        None => proposal(
            berth,
            NewNetwork { subnets: asked.into_iter().collect(), ..NewNetwork::named(name.clone()) },
        )?,
    };
    let family = if args.v6 { Family::V6 } else { Family::V4 };
    let subnet = subnet_of(&record, family)?;
    if let Some(asked) = asked.filter(|asked| *asked != subnet) {
        let text = format!(
            "subnet {asked} is not network `{name}`'s, which has {}: leave `--subnet` out",
            subnets(&record)
        );
        return Err(Refusal::new(text).into());
    }
    if asked.is_none() && family == Family::V4 {
        refuse_route(berth, &record, subnet)?;
    }
    Ok(PoolGiven { id: Pool { network: name, subnet }.id(), pool: subnet.to_string(), data: BTreeMap::new() })
}

/// Refuses to choose a subnet that this host has a route to: dockerd would ask for another one, again and again, for ever. One
/// that was asked for it takes.
fn refuse_route(berth: &mut Berth, record: &OverlayNetwork, subnet: IpNetwork) -> Result<(), Failure> {
    let used = berth.prefixes_in_use()?;
    let Some(used) = used.iter().find(|used| overlap(used, &subnet)) else { return Ok(()) };
    let name = &record.name;
    let text = match Joined::find(berth, name)? {
        Some(_) => format!(
            "this host is on network `{name}` already, and Docker takes the route to it for somebody else's: say which subnet it \
             is: --subnet {subnet}"
        ),
        None => format!("subnet {subnet} of network `{name}` overlaps {used} of this host"),
    };
    Err(Refusal::new(text).into())
}

fn request_address(berth: &mut Berth, args: OfAddress) -> Result<AddressGiven, Failure> {
    let Pool { network, subnet } = Pool::parse(&args.pool)?;
    let text = |key: &str| args.options.get(key).and_then(serde_json::Value::as_str);
    let asked = address(&args.address)?;
    let outside = asked.filter(|asked| !subnet.contains(*asked));
    if let Some(outside) = outside {
        return Err(Refusal::new(format!("address {outside} is not in subnet {subnet}")).into());
    }
    let given = if text(TYPE) == Some(GATEWAY) {
        let own = record(berth, &network)?;
        let own = own.as_ref().and_then(|record| record.subnets.iter().find(|one| one.subnet == subnet));
        let gateway = own.map(|own| own.gateway);
        if let (Some(asked), Some(gateway)) = (asked, gateway.filter(|gateway| Some(*gateway) != asked)) {
            let text = format!(
                "gateway {asked} is not network `{network}`'s, which has {gateway}: leave `--gateway` out"
            );
            return Err(Refusal::new(text).into());
        }
        // Of a network that is to be created, the one asked for or the first.
        let usual = gateway.or(asked).or_else(|| subnet.iter().nth(1)).unwrap_or(subnet.network());
        IpNetwork::new(usual, subnet.prefix()).unwrap_or(subnet)
    } else {
        let joined = attach::joined(berth, &AskNetwork::named(network.clone()))?;
        let request = HoldRequest {
            driver: DRIVER.to_owned(),
            network,
            family: Family::of(subnet.network()),
            address: asked,
            name: text(NAME).filter(|name| !name.is_empty()).map(str::to_owned),
        };
        attach::hold(berth, &joined, &request)?
    };
    Ok(AddressGiven { address: given.to_string(), data: BTreeMap::new() })
}

fn release_address(berth: &mut Berth, args: OfAddress) -> Result<Empty, Failure> {
    // What cannot be read was never given.
    if let (Ok(pool), Some(address)) = (Pool::parse(&args.pool), address(&args.address)?) {
        berth.hold_release(&pool.network, address)?;
    }
    Ok(Empty {})
}

/// The network of the cluster that `--ipam-opt` names.
fn named(options: &Options) -> Result<NetworkName, Refusal> {
    let mut name = None;
    for (key, value) in options {
        match (key.as_str(), value.as_str()) {
            (NETWORK, Some(text)) if !text.is_empty() => name = Some(network_name(text)?),
            (NETWORK, _) => (),
            // Docker's own, which say nothing to an address driver.
            (key, _) if key.starts_with("com.docker.") => (),
            (key, _) => {
                let text = format!("unknown option `{}` of `--ipam-opt`; known is network", shortened(key));
                return Err(Refusal::new(text));
            }
        }
    }
    let text = || format!("say which network of the cluster it is: {}", typed("NETWORK"));
    name.ok_or_else(|| Refusal::new(text()))
}

fn subnet_of(record: &OverlayNetwork, family: Family) -> Result<IpNetwork, Refusal> {
    let mut subnets = record.subnets.iter().map(|one| one.subnet);
    subnets.find(|subnet| Family::of(subnet.network()) == family).ok_or_else(|| {
        let what = match family {
            Family::V4 => {
                "Docker asks for one: create the Docker network with `--ipv4=false`, which takes Docker 28"
            }
            Family::V6 => "leave `--ipv6` out",
        };
        Refusal::new(format!("network `{}` has no subnet of {family}; {what}", record.name))
    })
}

/// A pool's number: the network and the subnet.
#[derive(Debug, PartialEq, Eq)]
struct Pool {
    network: NetworkName,
    subnet: IpNetwork,
}

impl Pool {
    fn id(&self) -> String {
        format!("{}/{}", self.network, self.subnet)
    }

    fn parse(id: &str) -> Result<Self, Refusal> {
        let read = |id: &str| {
            let (network, subnet) = id.split_once('/')?;
            Some(Self { network: network.parse().ok()?, subnet: subnet.parse().ok()? })
        };
        read(id).ok_or_else(|| Refusal::new(format!("there is no pool `{}`", shortened(id))))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pools_number_gives_it_back() {
        for id in ["app/10.80.0.0/16", "app/fd00:80::/64"] {
            assert_eq!(Pool::parse(id).unwrap().id(), id);
        }
        for id in ["", "app", "app/", "/10.0.0.0/8", "app/10.0.0.0/99"] {
            assert!(Pool::parse(id).is_err(), "{id}");
        }
    }

    #[test]
    fn the_network_has_to_be_named() {
        let options = |value: serde_json::Value| Options::from_iter(value.as_object().unwrap().clone());
        assert_eq!(
            named(&options(json!({"network": "app", "com.docker.network.x": 1}))).unwrap().as_str(),
            "app"
        );
        for (value, words) in [
            (json!({}), "say which network of the cluster it is"),
            (json!({"network": ""}), "say which network of the cluster it is"),
            (json!({"network": "a b"}), "network name"),
            (json!({"network": "app", "sticky": "true"}), "unknown option `sticky` of `--ipam-opt`"),
        ] {
            let err = named(&options(value.clone())).unwrap_err().to_string();
            assert!(err.contains(words), "{value}: {err}");
        }
    }
}
