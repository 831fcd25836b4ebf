//! `docker network create -d roverlay -o KEY=VALUE`: which network of the cluster it is, what it is created as where the cluster
//! has none of the name, and what is this host's to choose.

use std::net::IpAddr;

use berth_overlay::wire::NewNetwork;
use berth_plugin_http::Refusal;
use berth_types::{IfName, NetworkName, Vni};

use super::known::Choices;
use super::{CREATE, NETWORK, typed};
use crate::options::{INTERNAL, flag, generic, parse_bool, shortened};
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

/// An option: berth's name, Docker's, what it takes.
const KNOWN: &[(&str, Option<&str>, &str)] = &[
    (NETWORK, None, "the name of a network of the cluster"),
    (CREATE, None, "true or false"),
    ("vni", Some("com.docker.network.driver.overlay.vxlanid_list"), "a number from 1 to 16777215"),
    ("mtu", Some("com.docker.network.driver.mtu"), "68 to 65535"),
    ("encrypted", None, "true or false"),
    ("flood", None, "true or false"),
    ("icc", Some("com.docker.network.bridge.enable_icc"), "true or false"),
    ("host_binding", Some("com.docker.network.bridge.host_binding_ipv4"), "an address of the host"),
    ("link_prefix", Some("com.docker.network.container_iface_prefix"), "the start of a link's name"),
    ("anti_spoofing", None, "true or false"),
];

/// The list of known options, as a person reads it.
fn known() -> String {
    let text = |(short, docker, _): &(&str, Option<&str>, &str)| match docker {
        Some(docker) => format!("{short} ({docker})"),
        None => (*short).to_owned(),
    };
    KNOWN.iter().map(text).collect::<Vec<_>>().join(", ")
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
        let option = KNOWN.iter().find(|(short, docker, _)| *short == key || *docker == Some(key));
        let Some((short, _, takes)) = option else {
            return Err(Refusal::new(format!("unknown option `{}`; known are {}", shortened(key), known())));
        };
        let wrong = || {
            Refusal::new(format!(
                "option `{key}` takes {takes}, not `{}`; known options are {}",
                shortened(value),
                known()
            ))
        };
        let boolean = || parse_bool(value).ok_or_else(wrong);
        match *short {
            NETWORK => (),
            CREATE => self.create = boolean()?,
            "vni" => self.vni = Some(value.parse().map_err(|_| wrong())?),
            "mtu" => {
                let mtu = value.parse().ok().filter(|mtu| *mtu == 0 || (68..=65_535).contains(mtu));
                self.mtu = Some(mtu.ok_or_else(wrong)?).filter(|mtu| *mtu != 0);
            }
            // Docker's own overlay takes it without a value.
            "encrypted" => self.encrypted = Some(value.is_empty() || boolean()?),
            "flood" => self.flood = Some(boolean()?),
            "icc" => self.between_containers = Some(boolean()?),
            "anti_spoofing" => self.choices.anti_spoofing = boolean()?,
            "host_binding" => {
                let addr: IpAddr = value.parse().map_err(|_| wrong())?;
                self.choices.host_binding = Some(addr).filter(|addr| !addr.is_unspecified());
            }
            _ => {
                // The engine adds a number.
                IfName::new(format!("{value}99")).map_err(|_| wrong())?;
                if value.is_empty() {
                    return Err(wrong());
                }
                self.choices.link_prefix = value.to_owned();
            }
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
