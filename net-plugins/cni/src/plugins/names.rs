//! What a configuration says about names: `embeddedDNS` of `rbridge`, and what a runtime tells of a container.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use berth_core::names::{
    MemberNames, NameError, NetworkNames, ServiceName, SplitDomain, host_name, server_addr,
};
use berth_types::{Dns, Proto};
use serde::Deserialize;
use serde_json::Value;

use crate::protocol::keys::Kind::Leaf;
use crate::protocol::{CniArgs, CniError, Code, NetConf, Shape};

/// The keys of `embeddedDNS`.
pub(super) static EMBEDDED_DNS: Shape =
    Shape(&[("domain", Leaf), ("ttl", Leaf), ("servers", Leaf), ("splitDomains", Leaf), ("services", Leaf)]);

/// Keys of `CNI_ARGS` that names are taken from.
pub(super) const POD_NAME: &str = "K8S_POD_NAME";

/// Labels of `args.cni` that name a port: `berth.service/http` with the value `80/tcp`.
const SERVICE_LABEL: &str = "berth.service/";

/// The longest time that an answer may be kept, seconds. A name that is gone would be found for longer.
const MAX_TTL: u32 = 3600;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Wire {
    domain: Option<String>,
    ttl: Option<u32>,
    servers: Vec<String>,
    split_domains: BTreeMap<String, Vec<String>>,
    services: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct Label {
    key: String,
    value: String,
}

/// What `embeddedDNS` asks for: an object, or `true` for one with nothing chosen.
pub(super) fn embedded(conf: &NetConf) -> Result<Option<NetworkNames>, CniError> {
    let wire = match conf.raw.get("embeddedDNS") {
        None | Some(Value::Null | Value::Bool(false)) => return Ok(None),
        Some(Value::Bool(true)) => Wire::default(),
        Some(value) => Wire::deserialize(value).map_err(|err| invalid("embeddedDNS", &err))?,
    };
    let of = |key: &str| format!("embeddedDNS.{key}");
    let usual = NetworkNames::usual();
    let split = |(domain, servers): (&String, &Vec<String>)| {
        let key = of("splitDomains");
        Ok(SplitDomain { domain: named(domain, &key)?, servers: all_servers(servers, &key)? })
    };
    let ttl = wire.ttl.unwrap_or(usual.ttl);
    if ttl > MAX_TTL {
        return Err(invalid(&of("ttl"), &format_args!("{ttl} is more than {MAX_TTL} seconds")));
    }
    Ok(Some(NetworkNames {
        domain: wire.domain.map_or(Ok(usual.domain.clone()), |domain| named(&domain, &of("domain")))?,
        ttl,
        servers: all_servers(&wire.servers, &of("servers"))?,
        split: wire.split_domains.iter().map(split).collect::<Result<_, CniError>>()?,
        services: wire
            .services
            .iter()
            .map(|(name, port)| service(name, port, &of("services")))
            .collect::<Result<_, _>>()?,
        ..usual
    }))
}

/// What the container is called: the pod's name, which is podman's container's too, and aliases. What cannot be a name
/// was not chosen for DNS, and is left out.
pub(super) fn member(conf: &NetConf, args: &CniArgs) -> Result<MemberNames, CniError> {
    let given = args.get(POD_NAME).into_iter().chain(conf.runtime.aliases.iter().map(String::as_str));
    let mut names = Vec::new();
    for text in given.filter(|text| !text.is_empty()) {
        match host_name(text) {
            Ok(name) if !names.contains(&name) => names.push(name),
            Ok(_) => (),
            Err(err) => tracing::warn!(%err, "left out"),
        }
    }
    let mut servers = all_servers(&conf.runtime.dns.servers, "runtimeConfig.dns.servers")?;
    servers.extend(all_servers(&conf.dns.nameservers, "dns.nameservers")?);
    Ok(MemberNames { names, servers, services: labelled(conf)?, addrs: Vec::new() })
}

/// What the container's resolver is to be told: to ask the network's gateways, and nobody beside them.
pub(super) fn resolver(conf: &NetConf, domain: &str, gateways: &[IpAddr]) -> Dns {
    let mut search = vec![domain.to_owned()];
    let said = conf.dns.search.iter().chain(&conf.runtime.dns.searches);
    for one in said {
        if !search.contains(one) {
            search.push(one.clone());
        }
    }
    Dns {
        nameservers: gateways.iter().map(ToString::to_string).collect(),
        domain: conf.dns.domain.clone(),
        search,
        options: conf.dns.options.iter().chain(&conf.runtime.dns.options).cloned().collect(),
    }
}

/// A domain or a name out of the configuration.
pub(super) fn named(text: &str, key: &str) -> Result<String, CniError> {
    host_name(text).map_err(|err| invalid(key, &err))
}

/// Servers out of the configuration.
pub(super) fn all_servers(texts: &[String], key: &str) -> Result<Vec<SocketAddr>, CniError> {
    let parsed: Result<_, NameError> = texts.iter().map(|text| server_addr(text)).collect();
    parsed.map_err(|err| invalid(key, &err))
}

fn labelled(conf: &NetConf) -> Result<Vec<ServiceName>, CniError> {
    const AT: &str = "args.cni.labels";
    let Some(labels) = conf.args.raw.get("labels") else { return Ok(Vec::new()) };
    let labels = Vec::<Label>::deserialize(labels).map_err(|err| invalid(AT, &err))?;
    let service = |Label { key, value }: &Label| {
        key.strip_prefix(SERVICE_LABEL).map(|name| service(name, value, &format!("{AT}: {key}")))
    };
    labels.iter().filter_map(service).collect()
}

/// `http` with `80` or `80/tcp`.
fn service(name: &str, port: &str, key: &str) -> Result<ServiceName, CniError> {
    let wrong = || invalid(key, &format_args!("`{name}`: `{port}` is no port, as `80` or `53/udp`"));
    let (number, proto) = port.split_once('/').unwrap_or((port, "tcp"));
    let number = number.parse().ok().filter(|number| *number != 0).ok_or_else(wrong)?;
    let proto: Proto = proto.parse().map_err(|_| wrong())?;
    let name = named(name, key)?;
    if name.contains('.') {
        return Err(invalid(key, &format_args!("`{name}` has a dot")));
    }
    Ok(ServiceName { name, proto, port: number })
}

fn invalid(key: &str, why: &dyn std::fmt::Display) -> CniError {
    CniError::new(Code::InvalidConfig, format!("invalid `{key}`: {why}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::protocol::Reading;
    use crate::protocol::keys::Kind::Object;

    static KEYS: Shape = Shape(&[("embeddedDNS", Object(&EMBEDDED_DNS))]);

    fn conf(more: Value) -> NetConf {
        let mut conf = json!({"cniVersion": "1.0.0", "name": "n0", "type": "rbridge"});
        conf.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        NetConf::from_json(conf.to_string().as_bytes(), &KEYS, Reading::Strict).unwrap()
    }

    fn parsed(block: Value) -> Result<Option<NetworkNames>, String> {
        embedded(&conf(json!({"embeddedDNS": block}))).map_err(|err| err.msg)
    }

    #[test]
    fn names_are_asked_for_by_a_word_or_with_settings() {
        assert_eq!(embedded(&conf(json!({}))).unwrap(), None);
        assert_eq!(parsed(json!(false)), Ok(None));
        assert_eq!(parsed(json!(true)), Ok(Some(NetworkNames::usual())));
        assert_eq!(parsed(json!({})), Ok(Some(NetworkNames::usual())));
        let all = parsed(json!({
            "DOMAIN": "Example.Test.", "ttl": 5, "servers": ["192.0.2.1", "[2001:db8::1]:5353"],
            "splitDomains": {"corp.example": ["192.0.2.53"]}, "services": {"http": "80", "dns": "53/udp"},
        }));
        let all = all.unwrap().unwrap();
        assert_eq!((all.domain.as_str(), all.ttl, all.servers.len()), ("example.test", 5, 2));
        assert_eq!(all.split[0].servers[0].to_string(), "192.0.2.53:53");
        let services: Vec<_> =
            all.services.iter().map(|one| format!("{} {}/{}", one.name, one.port, one.proto)).collect();
        assert_eq!(services, ["dns 53/udp", "http 80/tcp"]);
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_key() {
        for (block, msg) in [
            (json!("yes"), "invalid `embeddedDNS`: "),
            (json!({"domain": "a b"}), "invalid `embeddedDNS.domain`: `a b` cannot be a name"),
            (json!({"ttl": 86400}), "invalid `embeddedDNS.ttl`: 86400 is more than 3600 seconds"),
            (
                json!({"servers": ["dns.example"]}),
                "invalid `embeddedDNS.servers`: `dns.example` is no server",
            ),
            (json!({"splitDomains": {"..": []}}), "invalid `embeddedDNS.splitDomains`: "),
            (
                json!({"services": {"http": "http"}}),
                "invalid `embeddedDNS.services`: `http`: `http` is no port",
            ),
            (json!({"services": {"a.b": "80"}}), "invalid `embeddedDNS.services`: `a.b` has a dot"),
        ] {
            let said = parsed(block.clone()).unwrap_err();
            assert!(said.starts_with(msg), "{block}: {said}");
        }
    }

    #[test]
    fn a_container_is_called_what_its_runtime_says() {
        let conf = conf(json!({
            "dns": {"nameservers": ["192.0.2.9"], "search": ["corp.example"], "options": ["ndots:1"]},
            "runtimeConfig": {
                "aliases": {"n0": ["www", "Web", "not a name"], "n1": ["other"]},
                "dns": {"servers": ["192.0.2.8"], "searches": ["corp.example", "lab.example"]},
            },
            "args": {"cni": {"labels": [
                {"key": "berth.service/http", "value": "8080"}, {"key": "other", "value": "x"},
            ]}},
        }));
        let args = CniArgs::parse("IgnoreUnknown=1;K8S_POD_NAME=web", &[POD_NAME]).unwrap();
        let member = member(&conf, &args).unwrap();
        assert_eq!(member.names, ["web", "www"]);
        let servers: Vec<_> = member.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.8:53", "192.0.2.9:53"]);
        assert_eq!((member.services[0].name.as_str(), member.services[0].port), ("http", 8080));

        let dns = resolver(&conf, "berth.internal", &["10.80.0.1".parse().unwrap()]);
        assert_eq!(dns.nameservers, ["10.80.0.1"], "who is asked beside it would see the names");
        assert_eq!(dns.search, ["berth.internal", "corp.example", "lab.example"]);
        assert_eq!(dns.options, ["ndots:1"]);
    }
}
