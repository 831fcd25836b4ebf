//! `docker network create -d roverlay -o KEY=VALUE`: which network of the cluster it is, what it is created as where the cluster
//! has none of the name, and what is this host's to choose.

use berth_overlay::wire::NewNetwork;
use berth_plugin_http::Refusal;
use berth_types::{NetworkName, Vni};

use super::known::Choices;
use super::{CREATE, NETWORK, typed};
use crate::option::{DriverOption, Given};
use crate::options::{INTERNAL, flag, generic};
use crate::wire::Options;

/// What was said of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OverlayOptions {
    pub(super) network: NetworkName,
    /// Whether it is created where the cluster has none of the name.
    pub(super) create: bool,
    pub(super) vni: Option<Vni>,
    pub(super) mtu: Option<u32>,
    pub(super) encrypted: Option<bool>,
    pub(super) internal: bool,
    pub(super) flood: Option<bool>,
    pub(super) between_containers: Option<bool>,
    pub(super) choices: Choices,
}

const KNOWN: &[DriverOption] = &[
    known(NETWORK, None, "the name of a network of the cluster"),
    known(CREATE, None, "true or false"),
    known("vni", Some("com.docker.network.driver.overlay.vxlanid_list"), "a number from 1 to 16777215"),
    known("mtu", Some("com.docker.network.driver.mtu"), "68 to 65535"),
    known("encrypted", None, "true or false"),
    known("flood", None, "true or false"),
    known("icc", Some("com.docker.network.bridge.enable_icc"), "true or false"),
    known("host_binding", Some("com.docker.network.bridge.host_binding_ipv4"), "an address of the host"),
    known("link_prefix", Some("com.docker.network.container_iface_prefix"), "the start of a link's name"),
    known("anti_spoofing", None, "true or false"),
];

const fn known(short: &'static str, docker: Option<&'static str>, takes: &'static str) -> DriverOption {
    DriverOption { short, docker, takes }
}

/// Reads the name of a network of the cluster.
pub(super) fn network_name(text: &str) -> Result<NetworkName, Refusal> {
    text.parse().map_err(|err: berth_types::NameError| Refusal::from_error(&err))
}

impl OverlayOptions {
    /// Reads the options of a `CreateNetwork`.
    pub(super) fn parse(options: &Options) -> Result<Self, Refusal> {
        let generic = generic(options)?;
        let network = generic.get(NETWORK).map(String::as_str).filter(|name| !name.is_empty());
        let missing =
            || Refusal::new(format!("say which network of the cluster it is: {}", typed("NETWORK")));
        let mut found = Self {
            network: network_name(network.ok_or_else(missing)?)?,
            create: true,
            vni: None,
            mtu: None,
            encrypted: None,
            internal: flag(options.get(INTERNAL))?,
            flood: None,
            between_containers: None,
            choices: Choices::default(),
        };
        for (key, value) in &generic {
            found.set(key, value)?;
        }
        Ok(found)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), Refusal> {
        let given = Given::find(KNOWN, key, value)?;
        match given.short() {
            NETWORK => (),
            CREATE => self.create = given.boolean()?,
            "vni" => self.vni = Some(given.parsed()?),
            "mtu" => self.mtu = given.mtu()?,
            // Docker's own overlay takes it without a value.
            "encrypted" => self.encrypted = Some(given.value().is_empty() || given.boolean()?),
            "flood" => self.flood = Some(given.boolean()?),
            "icc" => self.between_containers = Some(given.boolean()?),
            "anti_spoofing" => self.choices.anti_spoofing = given.boolean()?,
            "host_binding" => self.choices.host_binding = given.address()?,
            _ => self.choices.link_prefix = given.link_prefix()?,
        }
        Ok(())
    }

    /// What the network is created as where the cluster has none of the name.
    pub(super) fn new_network(&self) -> Option<NewNetwork> {
        self.create.then(|| NewNetwork {
            vni: self.vni,
            mtu: self.mtu,
            encrypted: self.encrypted.unwrap_or_default(),
            internal: self.internal,
            flood: self.flood.unwrap_or_default(),
            apart: !self.between_containers.unwrap_or(true),
            ..NewNetwork::named(self.network.clone())
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(generic: Value) -> Result<OverlayOptions, String> {
        let options = Options::from([(crate::options::GENERIC.to_owned(), generic)]);
        OverlayOptions::parse(&options).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn a_network_is_named_and_the_rest_is_left_to_the_cluster() {
        let app = parse(json!({"network": "app"})).unwrap();
        assert_eq!(app.network.as_str(), "app");
        assert_eq!(app.new_network(), Some(NewNetwork::named("app".parse().unwrap())));
        let all = parse(json!({
            "network": "app", "vni": "77", "com.docker.network.driver.mtu": "1400", "encrypted": "", "icc": "0",
            "link_prefix": "lan", "host_binding": "127.0.0.1", "anti_spoofing": "false",
        }));
        let all = all.unwrap();
        let new = all.new_network().unwrap();
        assert_eq!((new.vni, new.mtu, new.encrypted, new.apart), (Vni::new(77).ok(), Some(1400), true, true));
        assert_eq!((all.choices.link_prefix.as_str(), all.choices.anti_spoofing), ("lan", false));
        assert_eq!(parse(json!({"network": "app", "create": "false"})).unwrap().new_network(), None);
    }

    #[test]
    fn what_is_missing_unknown_or_malformed_is_refused_and_it_says_what_to_type() {
        for (generic, words) in [
            (
                json!({}),
                "say which network of the cluster it is: docker network create -d roverlay --ipam-driver",
            ),
            (json!({"network": ""}), "say which network"),
            (json!({"network": "../app"}), "network name"),
            (
                json!({"network": "app", "colour": "red"}),
                "unknown option `colour`; known are network, create, vni",
            ),
            (
                json!({"network": "app", "vni": "0"}),
                "option `vni` takes a number from 1 to 16777215, not `0`",
            ),
            (json!({"network": "app", "mtu": "many"}), "option `mtu` takes 68 to 65535, not `many`"),
            (json!({"network": "app", "encrypted": "perhaps"}), "option `encrypted` takes true or false"),
            (json!({"network": "app", "host_binding": "here"}), "takes an address of the host"),
            (json!({"network": "app", "link_prefix": ""}), "takes the start of a link's name"),
            (json!({"network": 7}), "is not a table of texts"),
        ] {
            let err = parse(generic.clone()).unwrap_err();
            assert!(err.contains(words), "{generic}: {err}");
        }
    }
}
