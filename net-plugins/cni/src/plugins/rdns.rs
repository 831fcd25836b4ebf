//! `rdns`: names for containers that any other plugin attached to a bridge of the host; drop-in for `dnsname`.
//!
//! It stands behind the main plugin in a list. The names are answered at the gateways of the addresses that the main
//! plugin gave, so these have to be addresses of a bridge of this host. Of `dnsname`'s configuration, `multiDomain` has
//! nothing to do here: a container is told the names of all networks it is on, whatever their domains are.

use std::net::IpAddr;
use std::path::Path;

use berth_core::names::{NamesRequest, NetworkNames};
use berth_netlink::Sandbox;
use serde::Deserialize;

use super::error::{of_cleanup, of_core};
use super::names::{self, EMBEDDED_DNS, POD_NAME};
use super::{all_in_place, chained, collect, key, open};
use crate::protocol::keys::Kind::{Leaf, Object};
use crate::protocol::{
    Attachment, CniArgs, CniError, CniResult, Detachment, IpConfig, NetConf, Network, Plugin, Request, Shape,
};

/// The plugin's own keys: `dnsname`'s, and `rbridge`'s block.
static KEYS: Shape = Shape(&[
    ("domainName", Leaf),
    ("remoteServers", Leaf),
    ("multiDomain", Leaf),
    ("embeddedDNS", Object(&EMBEDDED_DNS)),
    ("stateDir", Leaf),
    ("runDir", Leaf),
]);

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Wire {
    domain_name: Option<String>,
    remote_servers: Vec<String>,
}

/// The plugin for names.
#[derive(Debug, Clone, Copy)]
pub struct Rdns;

impl Plugin for Rdns {
    fn name(&self) -> &'static str {
        "rdns"
    }

    fn keys(&self) -> &'static Shape {
        &KEYS
    }

    fn add(&self, request: &Request<Attachment>) -> Result<CniResult, CniError> {
        let before = chained(&request.conf)?;
        let wanted = names_request(before, request)?;
        let gateways: Vec<IpAddr> = wanted.addresses.iter().filter_map(|(_, gateway)| *gateway).collect();
        let listeners = open(&request.conf.raw)?.names_add(&wanted).map_err(|err| of_core(&err))?;
        let asked: Vec<IpAddr> = listeners.into_iter().filter(|addr| gateways.contains(addr)).collect();
        Ok(with_resolver(before, &wanted.network, &request.conf, &asked))
    }

    fn check(&self, request: &Request<Attachment>) -> Result<(), CniError> {
        let wanted = names_request(chained(&request.conf)?, request)?;
        let wrong = open(&request.conf.raw)?.check_names(&wanted.key).map_err(|err| of_core(&err))?;
        all_in_place(&wrong)
    }

    fn del(&self, request: &Request<Detachment>) -> Result<(), CniError> {
        let Request { target, conf, .. } = request;
        let key = key(conf, &target.container, &target.ifname);
        open(&conf.raw)?.names_del(&key).map_err(|err| of_cleanup(&err))
    }

    fn gc(&self, request: &Request<Network>) -> Result<(), CniError> {
        collect(&request.conf)
    }

    fn status(&self, request: &Request<Network>) -> Result<(), CniError> {
        network_names(&request.conf).map(|_| ())
    }
}

/// `dnsname`'s keys over the block's.
fn network_names(conf: &NetConf) -> Result<NetworkNames, CniError> {
    let Wire { domain_name, remote_servers } = conf.plugin_config()?;
    let mut wanted = names::embedded(conf)?.unwrap_or_else(NetworkNames::usual);
    if let Some(domain) = domain_name.filter(|domain| !domain.is_empty()) {
        wanted.domain = names::named(&domain, "domainName")?;
    }
    wanted.servers.extend(names::all_servers(&remote_servers, "remoteServers")?);
    Ok(wanted)
}

fn names_request(before: &CniResult, request: &Request<Attachment>) -> Result<NamesRequest, CniError> {
    let Request { target, conf, .. } = request;
    let args = CniArgs::parse(&target.args, &["MAC", "IP", POD_NAME])?;
    let mut member = names::member(conf, &args)?;
    // Whom the container would have asked is who is asked for it.
    member.servers.extend(names::all_servers(&before.dns.nameservers, "prevResult.dns.nameservers")?);
    let inside = |ip: &&IpConfig| {
        before
            .interface_of(ip)
            .is_none_or(|link| link.sandbox.as_deref().is_some_and(|path| !path.is_empty()))
    };
    Ok(NamesRequest {
        key: key(conf, &target.container, &target.ifname),
        network: network_names(conf)?,
        member,
        addresses: before.ips.iter().filter(inside).map(|ip| (ip.address, ip.gateway)).collect(),
        sandbox: Sandbox::open(Path::new(&target.netns))
            .ok()
            .map(|sandbox| (sandbox.path().to_owned(), sandbox.id())),
    })
}

/// The result so far, with the gateways as the container's servers.
fn with_resolver(before: &CniResult, network: &NetworkNames, conf: &NetConf, asked: &[IpAddr]) -> CniResult {
    let mut result = before.clone();
    let own = names::resolver(conf, &network.domain, asked);
    let more = |mut list: Vec<String>, had: &[String]| {
        let new: Vec<String> = had.iter().filter(|one| !list.contains(one)).cloned().collect();
        list.extend(new);
        list
    };
    result.dns = berth_types::Dns {
        nameservers: own.nameservers,
        domain: if own.domain.is_empty() { before.dns.domain.clone() } else { own.domain },
        search: more(own.search, &before.dns.search),
        options: more(own.options, &before.dns.options),
    };
    result
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::protocol::{Code, Reading};

    fn conf(more: serde_json::Value) -> NetConf {
        let mut conf = json!({"cniVersion": "0.4.0", "name": "n0", "type": "dnsname"});
        conf.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        NetConf::from_json(conf.to_string().as_bytes(), &KEYS, Reading::Strict).unwrap()
    }

    #[test]
    fn dnsnames_configuration_is_accepted_as_it_is() {
        let names = network_names(&conf(json!({
            "domainName": "dns.podman", "multiDomain": true, "remoteServers": ["192.0.2.1"],
            "capabilities": {"aliases": true},
        })))
        .unwrap();
        assert_eq!((names.domain.as_str(), names.servers.len()), ("dns.podman", 1));
        assert_eq!(network_names(&conf(json!({}))).unwrap(), NetworkNames::usual());
        assert!(network_names(&conf(json!({"domainName": "a b"}))).is_err());
    }

    #[test]
    fn it_stands_behind_another_plugin() {
        assert_eq!(chained(&conf(json!({}))).unwrap_err().code, Code::InvalidConfig);
    }

    #[test]
    fn the_containers_servers_become_the_gateways() {
        let before = CniResult {
            dns: berth_types::Dns {
                nameservers: vec!["192.0.2.9".to_owned()],
                search: vec!["corp.example".to_owned()],
                ..Default::default()
            },
            ..CniResult::default()
        };
        let names = NetworkNames { domain: "dns.podman".to_owned(), ..NetworkNames::usual() };
        let asked = ["10.88.0.1".parse().unwrap()];
        let result = with_resolver(&before, &names, &conf(json!({})), &asked);
        assert_eq!(result.dns.nameservers, ["10.88.0.1"]);
        assert_eq!(result.dns.search, ["dns.podman", "corp.example"]);
    }
}
