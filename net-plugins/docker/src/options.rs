//! `docker network create -o KEY=VALUE`: Docker's own keys in their meaning, and berth's short ones.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use berth_core::names::{NetworkNames, host_name, server_addr};
use berth_plugin_http::Refusal;
use berth_types::IfName;
use serde_json::Value;

use crate::option::{DriverOption, Given, parse_bool};
use crate::wire::Options;

/// Where the `-o` options are.
pub(crate) const GENERIC: &str = "com.docker.network.generic";
pub(crate) const INTERNAL: &str = "com.docker.network.internal";

/// What can be chosen for a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NetworkOptions {
    pub(crate) bridge: Option<IfName>,
    pub(crate) mtu: Option<u32>,
    pub(crate) between_containers: bool,
    pub(crate) masquerade: bool,
    pub(crate) isolated: bool,
    pub(crate) anti_spoofing: bool,
    pub(crate) host_binding: Option<IpAddr>,
    pub(crate) link_prefix: String,
    pub(crate) internal: bool,
    /// Whether berth's DNS server listens at the gateways.
    pub(crate) names: bool,
    pub(crate) domain: String,
    pub(crate) servers: Vec<SocketAddr>,
}

const KNOWN: &[DriverOption] = &[
    DriverOption {
        short: "bridge",
        docker: Some("com.docker.network.bridge.name"),
        takes: "a name of up to 15 characters",
    },
    DriverOption { short: "mtu", docker: Some("com.docker.network.driver.mtu"), takes: "68 to 65535" },
    DriverOption {
        short: "icc",
        docker: Some("com.docker.network.bridge.enable_icc"),
        takes: "true or false",
    },
    DriverOption {
        short: "masquerade",
        docker: Some("com.docker.network.bridge.enable_ip_masquerade"),
        takes: "true or false",
    },
    DriverOption {
        short: "host_binding",
        docker: Some("com.docker.network.bridge.host_binding_ipv4"),
        takes: "an address of the host",
    },
    DriverOption {
        short: "link_prefix",
        docker: Some("com.docker.network.container_iface_prefix"),
        takes: "the start of a link's name",
    },
    DriverOption { short: "isolated", docker: None, takes: "true or false" },
    DriverOption { short: "anti_spoofing", docker: None, takes: "true or false" },
    DriverOption { short: "names", docker: None, takes: "true or false" },
    DriverOption { short: "domain", docker: None, takes: "a domain" },
    DriverOption {
        short: "servers",
        docker: None,
        takes: "addresses of DNS servers with commas between them",
    },
];

impl Default for NetworkOptions {
    /// As Docker's own bridge networks, but that forged frames are dropped.
    fn default() -> Self {
        Self {
            bridge: None,
            mtu: None,
            between_containers: true,
            masquerade: true,
            isolated: true,
            anti_spoofing: true,
            host_binding: None,
            link_prefix: "eth".to_owned(),
            internal: false,
            names: true,
            domain: NetworkNames::DOMAIN.to_owned(),
            servers: Vec::new(),
        }
    }
}

impl NetworkOptions {
    /// Reads the options of a `CreateNetwork`.
    pub(crate) fn parse(options: &Options) -> Result<Self, Refusal> {
        let mut found = Self { internal: flag(options.get(INTERNAL))?, ..Self::default() };
        for (key, value) in generic(options)? {
            found.set(&key, &value)?;
        }
        Ok(found)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), Refusal> {
        let given = Given::find(KNOWN, key, value)?;
        match given.short() {
            "bridge" => self.bridge = Some(IfName::new(value).map_err(|_| given.wrong())?),
            "mtu" => self.mtu = given.mtu()?,
            "icc" => self.between_containers = given.boolean()?,
            "masquerade" => self.masquerade = given.boolean()?,
            "isolated" => self.isolated = given.boolean()?,
            "anti_spoofing" => self.anti_spoofing = given.boolean()?,
            "names" => self.names = given.boolean()?,
            "domain" => self.domain = host_name(value).map_err(|_| given.wrong())?,
            "servers" => {
                let servers = value.split(',').map(|text| server_addr(text.trim()));
                self.servers = servers.collect::<Result<_, _>>().map_err(|_| given.wrong())?;
            }
            "host_binding" => self.host_binding = given.address()?,
            _ => self.link_prefix = given.link_prefix()?,
        }
        Ok(())
    }
}

/// The `-o` options. All values are texts.
pub(crate) fn generic(options: &Options) -> Result<BTreeMap<String, String>, Refusal> {
    let Some(value) = options.get(GENERIC).filter(|value| !value.is_null()) else {
        return Ok(BTreeMap::new());
    };
    let wrong = || Refusal::new(format!("`{GENERIC}` is not a table of texts"));
    let table = value.as_object().ok_or_else(wrong)?;
    let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    table.iter().map(|entry| text(entry).ok_or_else(wrong)).collect()
}

pub(crate) fn flag(value: Option<&Value>) -> Result<bool, Refusal> {
    match value {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(Value::String(text)) if parse_bool(text).is_some() => Ok(parse_bool(text).unwrap_or_default()),
        Some(_) => Err(Refusal::new(format!("`{INTERNAL}` is neither true nor false"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(generic: Value) -> Result<NetworkOptions, String> {
        let options = Options::from([(GENERIC.to_owned(), generic)]);
        NetworkOptions::parse(&options).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn dockers_names_and_berths_mean_the_same() {
        for (long, short, value) in [
            ("com.docker.network.bridge.name", "bridge", "br-x"),
            ("com.docker.network.driver.mtu", "mtu", "1450"),
            ("com.docker.network.bridge.enable_icc", "icc", "false"),
            ("com.docker.network.bridge.enable_ip_masquerade", "masquerade", "0"),
            ("com.docker.network.bridge.host_binding_ipv4", "host_binding", "127.0.0.1"),
            ("com.docker.network.container_iface_prefix", "link_prefix", "lan"),
        ] {
            let (one, two) = (parse(json!({long: value})).unwrap(), parse(json!({short: value})).unwrap());
            assert_eq!(one, two);
            assert_ne!(one, NetworkOptions::default(), "{long} changes nothing");
        }
        assert_eq!(parse(json!({})).unwrap(), NetworkOptions::default());
        assert_eq!(parse(Value::Null).unwrap(), NetworkOptions::default());
        assert_eq!(parse(json!({"mtu": "0"})).unwrap().mtu, None);
    }

    #[test]
    fn what_is_unknown_or_malformed_is_refused_with_the_known() {
        for (generic, words) in [
            (
                json!({"colour": "red"}),
                "unknown option `colour`; known are bridge (com.docker.network.bridge.name), mtu",
            ),
            (json!({"mtu": "many"}), "option `mtu` takes 68 to 65535, not `many`; known options are"),
            (json!({"mtu": "67"}), "takes 68 to 65535"),
            (json!({"bridge": "a/b"}), "option `bridge` takes"),
            (json!({"com.docker.network.bridge.enable_icc": "maybe"}), "takes true or false, not `maybe`"),
            (json!({"host_binding": "localhost"}), "takes an address of the host"),
            (json!({"link_prefix": ""}), "takes the start of a link's name"),
            (json!({"domain": "a b"}), "option `domain` takes a domain, not `a b`"),
            (json!({"servers": "192.0.2.1,dns"}), "option `servers` takes addresses of DNS servers"),
            (json!({"link_prefix": "much-too-long-x"}), "takes the start of a link's name"),
            (json!({"mtu": 1450}), "is not a table of texts"),
            (json!([1]), "is not a table of texts"),
        ] {
            let err = parse(generic.clone()).unwrap_err();
            assert!(err.contains(words), "{generic}: {err}");
        }
    }

    #[test]
    fn internal_is_an_option_of_its_own() {
        let options = |value: Value| Options::from([(INTERNAL.to_owned(), value)]);
        assert!(NetworkOptions::parse(&options(json!(true))).unwrap().internal);
        assert!(NetworkOptions::parse(&options(json!("true"))).unwrap().internal);
        assert!(NetworkOptions::parse(&options(json!(7))).is_err());
    }
}
