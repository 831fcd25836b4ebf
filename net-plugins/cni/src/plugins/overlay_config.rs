//! The configuration of `roverlay`.

use std::net::IpAddr;

use berth_core::attachment::Bandwidth;
use berth_core::names::MemberNames;
use berth_core::request::PortRequest;
use berth_overlay::wire::{AskNetwork, NewNetwork};
use berth_types::{MacAddr, NetworkName, Vni};
use ipnetwork::IpNetwork;
use serde::Deserialize;

use super::bridge_config::{bandwidth, mac, port_request};
use super::names;
use crate::delegate;
use crate::protocol::keys::Kind::Leaf;
use crate::protocol::{CniArgs, CniError, Code, NetConf, SearchPath, Shape};

/// The plugin's own keys.
pub(crate) static KEYS: Shape = Shape(&[
    ("network", Leaf),
    ("isDefaultGateway", Leaf),
    ("hairpinMode", Leaf),
    ("antiSpoofing", Leaf),
    // For a network that the cluster does not have yet.
    ("subnet", Leaf),
    ("subnets", Leaf),
    ("gateway", Leaf),
    ("gateways", Leaf),
    ("vni", Leaf),
    ("mtu", Leaf),
    ("encrypted", Leaf),
    ("internal", Leaf),
    ("icc", Leaf),
    ("flood", Leaf),
    ("create", Leaf),
    ("stateDir", Leaf),
    ("runDir", Leaf),
]);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Wire {
    network: Option<NetworkName>,
    is_default_gateway: bool,
    hairpin_mode: bool,
    anti_spoofing: bool,
    subnet: Option<IpNetwork>,
    subnets: Vec<IpNetwork>,
    gateway: Option<IpAddr>,
    gateways: Vec<IpAddr>,
    vni: Option<Vni>,
    mtu: Option<u32>,
    encrypted: bool,
    internal: bool,
    icc: bool,
    flood: bool,
    create: bool,
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            network: None,
            is_default_gateway: true,
            hairpin_mode: false,
            anti_spoofing: true,
            subnet: None,
            subnets: Vec::new(),
            gateway: None,
            gateways: Vec::new(),
            vni: None,
            mtu: None,
            encrypted: false,
            internal: false,
            icc: true,
            flood: false,
            create: false,
        }
    }
}

/// The configuration of one attachment, valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OverlayConfig {
    pub(crate) ask: AskNetwork,
    pub(crate) default_route: bool,
    pub(crate) hairpin: bool,
    pub(crate) anti_spoofing: bool,
    pub(crate) mac: Option<MacAddr>,
    pub(crate) ports: Vec<PortRequest>,
    pub(crate) bandwidth: Option<Bandwidth>,
    pub(crate) names: MemberNames,
}

/// The network of the cluster that a configuration is about.
pub(crate) fn network(conf: &NetConf) -> Result<NetworkName, CniError> {
    let Wire { network, .. } = conf.plugin_config()?;
    Ok(network.unwrap_or_else(|| conf.name.clone()))
}

/// Reads and checks the configuration, before anything is touched.
pub(crate) fn parse(conf: &NetConf, args: &CniArgs, path: &SearchPath) -> Result<OverlayConfig, CniError> {
    own_addresses(conf, path)?;
    let wire: Wire = conf.plugin_config()?;
    let name = wire.network.clone().unwrap_or_else(|| conf.name.clone());
    Ok(OverlayConfig {
        ask: AskNetwork { name: name.clone(), create: new_network(&wire, name), address: None },
        default_route: wire.is_default_gateway && !wire.internal,
        hairpin: wire.hairpin_mode,
        anti_spoofing: wire.anti_spoofing,
        mac: mac(conf, args)?,
        ports: conf.runtime.port_mappings.iter().map(port_request).collect(),
        bandwidth: bandwidth(conf)?,
        names: names::member(conf, args)?,
    })
}

/// What is created where the cluster has no network of the name: something has to be said of it, so that a name that is typed
/// wrong is no new network.
fn new_network(wire: &Wire, name: NetworkName) -> Option<NewNetwork> {
    let subnets: Vec<IpNetwork> = wire.subnet.into_iter().chain(wire.subnets.iter().copied()).collect();
    let said = wire.create || !subnets.is_empty() || wire.vni.is_some();
    said.then(|| NewNetwork {
        subnets,
        gateways: wire.gateway.into_iter().chain(wire.gateways.iter().copied()).collect(),
        vni: wire.vni,
        mtu: wire.mtu.filter(|mtu| *mtu != 0),
        encrypted: wire.encrypted,
        internal: wire.internal,
        flood: wire.flood,
        apart: !wire.icc,
        ..NewNetwork::named(name)
    })
}

/// Addresses are the cluster's: what another plugin gives on one host, it gives on the next as well.
fn own_addresses(conf: &NetConf, path: &SearchPath) -> Result<(), CniError> {
    let Some(kind) = conf.ipam_type() else { return Ok(()) };
    let is_ours =
        kind == "ripam" || delegate::resolve(kind, path).is_ok_and(|found| delegate::is_self(&found));
    let refused = |msg: String, why: &str| Err(CniError::new(Code::InvalidConfig, msg).with_details(why));
    if !is_ours {
        let why = "each host would give the same addresses; leave `ipam` out";
        return refused(
            format!("`roverlay` gives the addresses of its networks itself, and takes none of `{kind}`"),
            why,
        );
    }
    if let Some(key) = ["subnet", "ranges"].iter().find(|key| conf.ipam.contains_key(**key)) {
        let why = "each host has a part of the network's subnet; leave `ipam` out, or the key";
        return refused(format!("`ipam.{key}` cannot be chosen for one host"), why);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::protocol::Reading;

    fn read(value: &Value) -> Result<OverlayConfig, CniError> {
        let mut whole = json!({"name": "n0", "cniVersion": "1.0.0"});
        whole.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
        let conf = NetConf::from_json(whole.to_string().as_bytes(), &KEYS, Reading::Strict)?;
        parse(&conf, &CniArgs::parse("", &[])?, &SearchPath::default())
    }

    #[test]
    fn the_network_is_the_one_of_the_name_unless_another_is_named() {
        assert_eq!(read(&json!({})).unwrap().ask, AskNetwork::named("n0".parse().unwrap()));
        let blue = read(&json!({"network": "blue", "internal": true})).unwrap();
        assert_eq!(blue.ask.name.as_str(), "blue");
        assert_eq!(blue.ask.create, None, "nothing is said of what it would be");
        assert!(!blue.default_route);
        let new =
            read(&json!({"subnet": "10.5.0.0/16", "vni": 77, "icc": false})).unwrap().ask.create.unwrap();
        assert_eq!((new.subnets.len(), new.vni.unwrap().get(), new.apart), (1, 77, true));
    }

    #[test]
    fn addresses_of_anybody_else_are_refused_and_it_says_why() {
        for (value, words) in [
            (json!({"ipam": {"type": "host-local"}}), "takes none of `host-local`"),
            (json!({"ipam": {"type": "ripam", "ranges": []}}), "`ipam.ranges` cannot be chosen for one host"),
            (json!({"vni": 0}), "VNI 0 is out of range"),
            (json!({"subnet": "10.5.0.0"}), ""),
            (json!({"network": "../blue"}), "network name"),
        ] {
            match read(&value) {
                Ok(read) => assert_eq!(words, "", "{value}: {read:?}"),
                Err(err) => assert!(err.to_string().contains(words), "{value}: {err}"),
            }
        }
        assert!(read(&json!({"ipam": {"type": "ripam"}})).is_ok());
    }
}
