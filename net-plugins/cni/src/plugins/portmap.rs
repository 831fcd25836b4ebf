//! `rportmap`: published ports for a container that any other plugin attached; drop-in for `portmap`.

use std::path::Path;

use berth_core::request::PublishRequest;
use berth_netlink::Sandbox;
use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde_json::Value;

use super::bridge_config::port_request;
use super::error::{of_cleanup, of_core};
use super::{all_in_place, chained, collect, key, open};
use crate::protocol::keys::Kind::Leaf;
use crate::protocol::{
    Attachment, CniError, CniResult, Code, Detachment, NetConf, Network, Plugin, Request, Shape,
};

/// The plugin's own keys.
static KEYS: Shape = Shape(&[
    ("snat", Leaf),
    ("masqAll", Leaf),
    ("markMasqBit", Leaf),
    ("externalSetMarkChain", Leaf),
    ("conditionsV4", Leaf),
    ("conditionsV6", Leaf),
    ("backend", Leaf),
    ("stateDir", Leaf),
    ("runDir", Leaf),
]);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Wire {
    snat: bool,
    masq_all: bool,
    #[serde(rename = "conditionsV4")]
    conditions_v4: Option<Vec<Value>>,
    #[serde(rename = "conditionsV6")]
    conditions_v6: Option<Vec<Value>>,
    external_set_mark_chain: Option<String>,
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            snat: true,
            masq_all: false,
            conditions_v4: None,
            conditions_v6: None,
            external_set_mark_chain: None,
        }
    }
}

/// The port-map plugin.
#[derive(Debug, Clone, Copy)]
pub struct PortMap;

impl Plugin for PortMap {
    fn name(&self) -> &'static str {
        "rportmap"
    }

    fn keys(&self) -> &'static Shape {
        &KEYS
    }

    fn add(&self, request: &Request<Attachment>) -> Result<CniResult, CniError> {
        let wire = parse(&request.conf)?;
        let before = chained(&request.conf)?;
        if let Some(publish) = publish_request(&wire, before, request) {
            open(&request.conf.raw)?.publish(&publish).map_err(|err| of_core(&err))?;
        }
        Ok(before.clone())
    }

    fn check(&self, request: &Request<Attachment>) -> Result<(), CniError> {
        let wire = parse(&request.conf)?;
        let before = chained(&request.conf)?;
        let Some(publish) = publish_request(&wire, before, request) else { return Ok(()) };
        let missing = open(&request.conf.raw)?.check_published(&publish).map_err(|err| of_core(&err))?;
        all_in_place(&missing)
    }

    fn del(&self, request: &Request<Detachment>) -> Result<(), CniError> {
        let Request { target, conf, .. } = request;
        let key = key(conf, &target.container, &target.ifname);
        open(&conf.raw)?.unpublish(&key).map_err(|err| of_cleanup(&err))
    }

    fn gc(&self, request: &Request<Network>) -> Result<(), CniError> {
        collect(&request.conf)
    }

    fn status(&self, request: &Request<Network>) -> Result<(), CniError> {
        parse(&request.conf).map(|_| ())
    }
}

fn parse(conf: &NetConf) -> Result<Wire, CniError> {
    let wire: Wire = conf.plugin_config()?;
    // Conditions are rule text of one backend. The ruleset here is the same on every host, so there is no rule to
    // put them into; ignoring them would publish a port more widely than asked for.
    let conditions = [("conditionsV4", &wire.conditions_v4), ("conditionsV6", &wire.conditions_v6)];
    if let Some((name, _)) =
        conditions.iter().find(|(_, value)| value.as_ref().is_some_and(|all| !all.is_empty()))
    {
        return Err(CniError::new(Code::UnsupportedField, format!("`{name}` is not supported"))
            .with_details("publish on one host address with `hostIP`, or filter in a table of your own: an accept of berth's does not overrule it"));
    }
    if wire.external_set_mark_chain.as_ref().is_some_and(|chain| !chain.is_empty()) {
        return Err(CniError::new(Code::UnsupportedField, "`externalSetMarkChain` is not supported")
            .with_details("it names an iptables chain, and berth uses none"));
    }
    Ok(wire)
}

/// What is to be published; nothing where no port is asked for or the container has no address.
fn publish_request(wire: &Wire, before: &CniResult, request: &Request<Attachment>) -> Option<PublishRequest> {
    let mappings = &request.conf.runtime.port_mappings;
    // Addresses of host interfaces in the result are not the container's.
    let inside = |ip: &&crate::protocol::IpConfig| {
        before
            .interface_of(ip)
            .is_none_or(|link| link.sandbox.as_deref().is_some_and(|path| !path.is_empty()))
    };
    let targets: Vec<IpNetwork> = before.ips.iter().filter(inside).map(|ip| ip.address).collect();
    if mappings.is_empty() || targets.is_empty() {
        return None;
    }
    Some(PublishRequest {
        key: key(&request.conf, &request.target.container, &request.target.ifname),
        ports: mappings.iter().map(port_request).collect(),
        choices: Vec::new(),
        targets,
        masquerade_hairpin: wire.snat,
        // As the reference: the bridge plugin is asked for that, by `hairpinMode`.
        hairpin_port: false,
        masquerade_all: wire.masq_all,
        link: None,
        sandbox: Sandbox::open(Path::new(&request.target.netns))
            .ok()
            .map(|sandbox| (sandbox.path().to_owned(), sandbox.id())),
    })
}
