//! The address driver: Docker's pools on berth's.

use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_core::Berth;
use berth_core::pool::{AddressRequest, PoolRequest, PoolSettings};
use berth_plugin_http::{Empty, Plugin, Refusal};
use berth_types::Family;
use ipnetwork::IpNetwork;

use crate::cores::Cores;
use crate::option::shortened;
use crate::refusal::Failure;
use crate::session::Session;
use crate::wire::{
    AddressGiven, AddressSpaces, IpamCapabilities, OfAddress, OfPool, Options, PoolGiven, RequestPool,
};

/// The name under which Docker knows the address driver that comes without a network driver.
pub const DRIVER: &str = "ripam";

pub(crate) const TYPE: &str = "RequestAddressType";
pub(crate) const GATEWAY: &str = "com.docker.network.gateway";
/// Since Docker 29.
pub(crate) const NAME: &str = "com.docker.network.endpoint.name";

/// The address driver, under one of its names.
#[derive(Clone)]
pub struct Ipam {
    session: Session,
}

impl Ipam {
    /// The driver that Docker calls `driver`.
    pub fn new(cores: Cores, driver: &'static str) -> Self {
        Self { session: Session::new(cores, driver) }
    }

    /// To be called when dockerd activates the socket: it asks for everything it holds again.
    pub fn activated(&self) {
        self.session.activated();
    }

    /// Adds the driver's methods to a socket's.
    pub fn methods(&self, plugin: Plugin) -> Plugin {
        let plugin = introduced(plugin, "berth-local", "berth-global");
        let plugin = self.call(plugin, "IpamDriver.RequestPool", Self::request_pool);
        let plugin = self.call(plugin, "IpamDriver.ReleasePool", Self::release_pool);
        let plugin = self.call(plugin, "IpamDriver.RequestAddress", Self::request_address);
        self.call(plugin, "IpamDriver.ReleaseAddress", Self::release_address)
    }

    fn call<A, R>(
        &self,
        plugin: Plugin,
        name: &'static str,
        method: fn(&Self, &mut Berth, A) -> Result<R, Failure>,
    ) -> Plugin
    where
        A: serde::de::DeserializeOwned + 'static,
        R: serde::Serialize + 'static,
    {
        let ipam = self.clone();
        self.session.call(plugin, name, move |berth, args| method(&ipam, berth, args))
    }

    fn request_pool(&self, berth: &mut Berth, args: RequestPool) -> Result<PoolGiven, Failure> {
        let subnet = prefix("subnet", &args.pool)?;
        let range = prefix("range", &args.sub_pool)?;
        if range.is_some() && subnet.is_none() {
            return Err(Refusal::new("a range needs a subnet: give both").into());
        }
        let family = if args.v6 { Family::V6 } else { Family::V4 };
        if let Some(subnet) = subnet.filter(|subnet| Family::of(subnet.ip()) != family) {
            return Err(Refusal::new(format!("subnet {subnet} is not one of {family}")).into());
        }
        let settings = settings(&args.options)?;
        let driver = self.session.driver.to_owned();
        let pool = berth.pool_open(&PoolRequest { driver, subnet, range, family, settings })?;
        Ok(PoolGiven { id: pool.id(), pool: pool.subnet.to_string(), data: BTreeMap::new() })
    }

    fn release_pool(&self, berth: &mut Berth, args: OfPool) -> Result<Empty, Failure> {
        berth.pool_close(self.session.driver, &args.pool)?;
        Ok(Empty {})
    }

    fn request_address(&self, berth: &mut Berth, args: OfAddress) -> Result<AddressGiven, Failure> {
        let text = |key: &str| args.options.get(key).and_then(serde_json::Value::as_str);
        let request = AddressRequest {
            address: address(&args.address)?,
            is_gateway: text(TYPE) == Some(GATEWAY),
            name: text(NAME).filter(|name| !name.is_empty()).map(str::to_owned),
        };
        let given = berth.pool_address(self.session.driver, &args.pool, &request)?;
        Ok(AddressGiven { address: given.to_string(), data: BTreeMap::new() })
    }

    fn release_address(&self, berth: &mut Berth, args: OfAddress) -> Result<Empty, Failure> {
        if let Some(address) = address(&args.address)? {
            berth.pool_release(self.session.driver, &args.pool, address)?;
        }
        Ok(Empty {})
    }
}

pub(crate) fn prefix(what: &str, text: &str) -> Result<Option<IpNetwork>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = || Refusal::new(format!("{what} `{}` is none", shortened(text)));
    let net: IpNetwork = text.parse().map_err(|_| wrong())?;
    if net.network() != net.ip() {
        return Err(Refusal::new(format!(
            "{what} {net} has host bits: {}/{} is meant",
            net.network(),
            net.prefix()
        )));
    }
    Ok(Some(net))
}

/// An address, with or without a prefix.
pub(crate) fn address(text: &str) -> Result<Option<IpAddr>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    let plain = text.split('/').next().unwrap_or(text);
    let addr = plain.parse().map_err(|_| Refusal::new(format!("`{}` is no address", shortened(text))))?;
    Ok(Some(addr))
}

/// Adds what an address driver tells dockerd about itself.
pub(crate) fn introduced(plugin: Plugin, local: &'static str, global: &'static str) -> Plugin {
    // What dockerd holds it tells when it starts: then both agree whatever was lost on either side.
    let capabilities = IpamCapabilities { requires_mac_address: false, requires_request_replay: true };
    let spaces = AddressSpaces { local_default_address_space: local, global_default_address_space: global };
    plugin
        .constant("IpamDriver.GetCapabilities", capabilities)
        .constant("IpamDriver.GetDefaultAddressSpaces", spaces)
}

/// `--ipam-opt`.
fn settings(options: &Options) -> Result<PoolSettings, Refusal> {
    const KNOWN: &str =
        "quarantine (seconds a freed address rests), sticky (true: a name gets its address again)";
    let mut settings = PoolSettings::default();
    for (key, value) in options {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let wrong =
            || Refusal::new(format!("option `{key}` cannot be `{}`; known are {KNOWN}", shortened(&text)));
        match key.as_str() {
            "quarantine" => settings.quarantine = Some(text.parse().map_err(|_| wrong())?),
            "sticky" => settings.sticky = text.parse().map_err(|_| wrong())?,
            // Docker's own, which say nothing to an address driver.
            key if key.starts_with("com.docker.") => (),
            key => {
                return Err(Refusal::new(format!("unknown option `{}`; known are {KNOWN}", shortened(key))));
            }
        }
    }
    Ok(settings)
}
