//! What the records say about names. Stored as parts of the network's and the attachment's record.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use berth_types::Proto;
use serde::{Deserialize, Serialize};

/// The port that resolvers ask.
pub(crate) const DNS_PORT: u16 = 53;

/// What a network says about names. A network without it answers none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkNames {
    /// Who asked for them.
    #[serde(default)]
    pub source: NamesSource,
    /// `name.DOMAIN` is `name`.
    pub domain: String,
    /// How long an answer may be kept, seconds.
    pub ttl: u32,
    /// Servers for names of elsewhere; none is the host's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<SocketAddr>,
    /// Domains with servers of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub split: Vec<SplitDomain>,
    /// What ports of its containers are called, where they are published.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceName>,
    /// Gateway addresses whose port 53 is somebody else's, and the port that is listened on instead. Written by the
    /// server.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub alternates: BTreeMap<IpAddr, u16>,
    /// Servers of elsewhere whose questions from this network are answered at its gateway: an engine gave them to containers
    /// that it gives no other.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub answers_for: BTreeSet<IpAddr>,
}

/// Who asked for a network's names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamesSource {
    /// The network's own settings.
    #[default]
    Network,
    /// A plugin chained behind one of berth's.
    Chained,
    /// A plugin chained behind another main plugin: the network is recorded for its names and nothing else.
    Alone,
}

/// A domain with servers of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitDomain {
    /// The domain, and everything below it.
    pub domain: String,
    /// Who is asked.
    pub servers: Vec<SocketAddr>,
}

/// What a port is called (RFC 2782): `_NAME._PROTO`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ServiceName {
    /// The name, without the underscore.
    pub name: String,
    /// The protocol.
    pub proto: Proto,
    /// The port of the container.
    pub port: u16,
}

/// What an attachment is called on a network with names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberNames {
    /// Container name, aliases, host name. What an engine tells later is kept elsewhere ([`crate::shown`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Its own servers for names of elsewhere, before the network's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<SocketAddr>,
    /// What its ports are called, published or not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceName>,
    /// Its addresses, where another plugin attached it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addrs: Vec<IpAddr>,
}

impl NetworkNames {
    /// The domain where none is chosen.
    pub const DOMAIN: &str = "berth.internal";
    /// How long an answer may be kept where nothing is said, seconds. Not at all: a name is to be gone when its container is.
    pub const TTL: u32 = 0;

    /// Nothing chosen.
    pub fn usual() -> Self {
        Self {
            source: NamesSource::Network,
            domain: Self::DOMAIN.to_owned(),
            ttl: Self::TTL,
            servers: Vec::new(),
            split: Vec::new(),
            services: Vec::new(),
            alternates: BTreeMap::new(),
            answers_for: BTreeSet::new(),
        }
    }

    /// The port that is listened on at a gateway address.
    pub fn port_at(&self, listener: IpAddr) -> u16 {
        self.alternates.get(&listener).copied().unwrap_or(DNS_PORT)
    }

    /// These with what was found for `before` since it was declared: alternate ports, as far as the address is still a gateway,
    /// and whom is answered for.
    #[must_use]
    pub(crate) fn listening_as(mut self, before: Option<&Self>, gateways: &BTreeSet<IpAddr>) -> Self {
        let known = before.map(|before| before.alternates.clone()).unwrap_or_default();
        self.alternates = known.into_iter().filter(|(addr, _)| gateways.contains(addr)).collect();
        self.answers_for.extend(before.into_iter().flat_map(|before| &before.answers_for));
        self
    }
}

/// Why a text cannot be a name, a domain or a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is no host name.
    #[error("`{text}` cannot be a name: letters, digits, `-` and `_`, up to 63 between two dots, 253 in all")]
    Name {
        /// What was given, shortened.
        text: String,
    },
    /// It is no server.
    #[error("`{text}` is no server: an address, or an address with a port as `[fd00::1]:5353`")]
    Server {
        /// What was given, shortened.
        text: String,
    },
}

/// `text` as a name in lower case, without the dot at its end. Container engines allow `_` too.
pub fn host_name(text: &str) -> Result<String, NameError> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let label = |label: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(known)
    };
    if name.len() <= 253 && name.split('.').all(label) {
        return Ok(name);
    }
    Err(NameError::Name { text: text.chars().take(80).collect() })
}

/// `text` as a server: an address, at port 53 unless one is given.
pub fn server_addr(text: &str) -> Result<SocketAddr, NameError> {
    let plain = text.parse::<IpAddr>().map(|addr| SocketAddr::new(addr, DNS_PORT));
    plain.or_else(|_| text.parse()).map_err(|_| NameError::Server { text: text.chars().take(80).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels_in_lower_case() {
        for (text, name) in
            [("Web", "web"), ("my_app.1", "my_app.1"), ("a-b.", "a-b"), ("_x", "_x"), ("0123abc", "0123abc")]
        {
            assert_eq!(host_name(text).as_deref(), Ok(name), "{text}");
        }
        let long = "a".repeat(64);
        for text in ["", ".", "a..b", "a b", "ü", "a/b", "*", &long, &format!("{}a", "abc.".repeat(64))] {
            assert!(host_name(text).is_err(), "{text}");
        }
    }

    #[test]
    fn servers_are_addresses_with_or_without_a_port() {
        for (text, server) in [
            ("192.0.2.1", "192.0.2.1:53"),
            ("192.0.2.1:5353", "192.0.2.1:5353"),
            ("2001:db8::1", "[2001:db8::1]:53"),
            ("[2001:db8::1]:5353", "[2001:db8::1]:5353"),
        ] {
            assert_eq!(server_addr(text).unwrap().to_string(), server);
        }
        for text in ["", "dns.example", "192.0.2.1:", "192.0.2.1:70000", "[::1]"] {
            assert!(server_addr(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_alternate_port_is_kept_while_its_address_is_a_gateway() {
        let here: IpAddr = "10.80.0.1".parse().unwrap();
        let before = NetworkNames { alternates: [(here, 5353)].into(), ..NetworkNames::usual() };
        let kept = NetworkNames::usual().listening_as(Some(&before), &[here].into());
        assert_eq!((kept.port_at(here), kept), (5353, before.clone()));
        let moved = NetworkNames::usual().listening_as(Some(&before), &BTreeSet::new());
        assert_eq!((moved.port_at(here), moved), (53, NetworkNames::usual()));
    }
}
