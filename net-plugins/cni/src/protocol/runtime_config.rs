//! `runtimeConfig`: what the runtime fills in for the capabilities a plugin declares.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use berth_types::{Dns, MacAddr, NetworkName, Proto};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::error::shortened;
use super::json::{FieldError, field, kind_of, list};
use super::wire::MaybeAddr;

/// The well-known parts of `runtimeConfig`. Keys of other capabilities are in [`Self::raw`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RuntimeConfig {
    /// Ports to publish.
    pub port_mappings: Vec<PortMapping>,
    /// Range sets in host-local's form, as they are; IPAM reads them. `None` where absent.
    pub ip_ranges: Option<Value>,
    /// Traffic limits.
    pub bandwidth: Option<Bandwidth>,
    /// Resolver settings.
    pub dns: RuntimeDns,
    /// Requested addresses.
    pub ips: Vec<RequestedIp>,
    /// Requested hardware address.
    pub mac: Option<MacAddr>,
    /// Requested InfiniBand GUID, as text.
    pub infiniband_guid: Option<String>,
    /// Device to move into the sandbox.
    pub device_id: Option<String>,
    /// Names of the container on this network, besides its own.
    pub aliases: Vec<String>,
    /// The container's cgroup.
    pub cgroup_path: Option<String>,
    /// A pod's annotations, which containerd sends.
    pub pod_annotations: BTreeMap<String, String>,
    /// The whole object, known keys in canonical spelling.
    pub raw: Map<String, Value>,
}

impl RuntimeConfig {
    /// Reads the normalised object `raw` of a request about `network`.
    ///
    /// # Errors
    /// [`FieldError`] for the first value that is not of its form.
    pub fn read(raw: Map<String, Value>, network: &NetworkName) -> Result<Self, FieldError> {
        const AT: &str = "runtimeConfig";
        Ok(Self {
            port_mappings: list(&raw, "portMappings", AT)?.unwrap_or_default(),
            ip_ranges: field(&raw, "ipRanges", AT)?,
            bandwidth: field(&raw, "bandwidth", AT)?,
            dns: field(&raw, "dns", AT)?,
            ips: list(&raw, "ips", AT)?.unwrap_or_default(),
            mac: field::<MaybeMac>(&raw, "mac", AT)?.0,
            infiniband_guid: field::<Option<String>>(&raw, "infinibandGUID", AT)?
                .filter(|guid| !guid.is_empty()),
            device_id: field::<Option<String>>(&raw, "deviceID", AT)?.filter(|id| !id.is_empty()),
            aliases: aliases(&raw, network)?,
            cgroup_path: field::<Option<String>>(&raw, "cgroupPath", AT)?.filter(|path| !path.is_empty()),
            pod_annotations: field(&raw, "io.kubernetes.cri.pod-annotations", AT)?,
            raw,
        })
    }
}

/// The specification's list, or podman's map from network to list.
fn aliases(raw: &Map<String, Value>, network: &NetworkName) -> Result<Vec<String>, FieldError> {
    const AT: &str = "runtimeConfig.aliases";
    match raw.get("aliases") {
        Some(Value::Object(by_network)) => Ok(list(by_network, network.as_str(), AT)?.unwrap_or_default()),
        Some(other) if !other.is_array() => Err(FieldError {
            place: AT.to_owned(),
            why: format!("it is {}, neither an array nor an object", kind_of(other)),
        }),
        _ => Ok(list(raw, "aliases", "runtimeConfig")?.unwrap_or_default()),
    }
}

/// One port to publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortMapping {
    /// The transport protocol; TCP where none is given.
    pub proto: Proto,
    /// The host's address. `None` is all of both families, an unspecified address all of its own family.
    pub host_addr: Option<IpAddr>,
    /// The port on the host, never 0.
    pub host_port: u16,
    /// The port in the container, never 0.
    pub container_port: u16,
}

impl<'de> Deserialize<'de> for PortMapping {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Wire {
            host_port: i64,
            container_port: i64,
            protocol: String,
            #[serde(rename = "hostIP")]
            host_ip: MaybeAddr,
        }
        impl Default for Wire {
            fn default() -> Self {
                let host_ip = MaybeAddr(None);
                Self { host_port: 0, container_port: 0, protocol: "tcp".to_owned(), host_ip }
            }
        }
        let Wire { host_port, container_port, protocol, host_ip: MaybeAddr(host_addr) } =
            Wire::deserialize(from)?;
        let port = |what, number| match u16::try_from(number) {
            Ok(port) if port != 0 => Ok(port),
            _ => Err(D::Error::custom(format!("invalid {what} port number: {number}"))),
        };
        Ok(Self {
            proto: if protocol.is_empty() {
                Proto::Tcp
            } else {
                protocol.parse().map_err(D::Error::custom)?
            },
            host_addr,
            host_port: port("host", host_port)?,
            container_port: port("container", container_port)?,
        })
    }
}

/// Limits of traffic, seen from the container; 0 is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Bandwidth {
    /// Rate into the container, bits per second.
    pub ingress_rate: u64,
    /// Burst into the container, bits.
    pub ingress_burst: u64,
    /// Rate out of the container, bits per second.
    pub egress_rate: u64,
    /// Burst out of the container, bits.
    pub egress_burst: u64,
}

/// Resolver settings as runtimes spell them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RuntimeDns {
    /// Addresses of name servers.
    pub servers: Vec<String>,
    /// Search list.
    pub searches: Vec<String>,
    /// Resolver options.
    pub options: Vec<String>,
}

impl From<RuntimeDns> for Dns {
    fn from(dns: RuntimeDns) -> Self {
        let RuntimeDns { servers, searches, options } = dns;
        Self { nameservers: servers, domain: String::new(), search: searches, options }
    }
}

/// A requested address, `ip` or `ip/prefix`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestedIp {
    /// The address.
    pub addr: IpAddr,
    /// The prefix length, where given: static needs it, host-local ignores it.
    pub prefix: Option<u8>,
}

/// The text is no address, or its prefix length is none of the family.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid IP address: {text}")]
pub struct RequestedIpError {
    text: String,
}

impl FromStr for RequestedIp {
    type Err = RequestedIpError;

    fn from_str(text: &str) -> Result<Self, RequestedIpError> {
        let invalid = || RequestedIpError { text: shortened(text, 60) };
        if let Some(super::wire::Cidr(network)) = super::wire::Cidr::parse(text) {
            return Ok(Self { addr: network.ip(), prefix: Some(network.prefix()) });
        }
        text.parse().map(|addr| Self { addr, prefix: None }).map_err(|_| invalid())
    }
}

impl fmt::Display for RequestedIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix {
            Some(prefix) => write!(f, "{}/{prefix}", self.addr),
            None => write!(f, "{}", self.addr),
        }
    }
}

impl<'de> Deserialize<'de> for RequestedIp {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// A hardware address, or none where the text is empty.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct MaybeMac(pub(crate) Option<MacAddr>);

impl<'de> Deserialize<'de> for MaybeMac {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if text.is_empty() {
            return Ok(Self(None));
        }
        text.parse().map(|mac| Self(Some(mac))).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::keys::{NETWORK, normalise};
    use super::*;

    fn read(value: Value) -> Result<RuntimeConfig, FieldError> {
        let whole = Map::from_iter([("runtimeConfig".to_owned(), value)]);
        let Some(Value::Object(raw)) = normalise(whole, &[&NETWORK]).remove("runtimeConfig") else {
            panic!("no object")
        };
        RuntimeConfig::read(raw, &NetworkName::new("n0").unwrap())
    }

    #[test]
    fn every_capability_is_read() {
        let config = read(json!({
            "portMappings": [
                {"hostPort": 8080, "containerPort": 80, "protocol": "UDP", "hostIP": "127.0.0.1"},
                {"HostPort": 1, "ContainerPort": 65535, "Protocol": "", "HostIP": ""},
                {"hostPort": 2, "containerPort": 3, "protocol": null, "hostIP": "::"},
            ],
            "ipRanges": [[{"Subnet": "10.0.0.0/24"}]],
            "bandwidth": {"ingressRate": 5, "egressBurst": 9},
            "dns": {"Servers": ["a"], "searches": ["b"], "options": ["c"]},
            "ips": ["10.0.0.5/24", "fd00::5"],
            "mac": "C2:b0:57:49:47:f2",
            "infinibandGUID": "c2:11", "deviceID": "0000:01", "cgroupPath": "/x",
            "aliases": ["web", "db"],
            "io.kubernetes.cri.pod-annotations": {"A": "b"},
            "other": 1,
        }))
        .unwrap();
        let mapping = |proto, host: Option<&str>, host_port, container_port| PortMapping {
            proto,
            host_addr: host.map(|text| text.parse().unwrap()),
            host_port,
            container_port,
        };
        assert_eq!(
            config.port_mappings,
            [
                mapping(Proto::Udp, Some("127.0.0.1"), 8080, 80),
                mapping(Proto::Tcp, None, 1, 65535),
                mapping(Proto::Tcp, Some("::"), 2, 3),
            ]
        );
        assert_eq!(config.ip_ranges, Some(json!([[{"subnet": "10.0.0.0/24"}]])));
        assert_eq!(
            config.bandwidth,
            Some(Bandwidth { ingress_rate: 5, egress_burst: 9, ..Bandwidth::default() })
        );
        let dns = Dns::from(config.dns);
        assert_eq!(
            (dns.nameservers, dns.search, dns.options),
            (vec!["a".into()], vec!["b".into()], vec!["c".into()])
        );
        assert_eq!(
            config.ips.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.0.0.5/24", "fd00::5"]
        );
        assert_eq!(config.mac.map(|mac| mac.to_string()).as_deref(), Some("c2:b0:57:49:47:f2"));
        assert_eq!(
            (config.infiniband_guid.as_deref(), config.device_id.as_deref()),
            (Some("c2:11"), Some("0000:01"))
        );
        assert_eq!(config.cgroup_path.as_deref(), Some("/x"));
        assert_eq!(config.aliases, ["web", "db"]);
        assert_eq!(config.pod_annotations.get("A").map(String::as_str), Some("b"));
        assert_eq!(config.raw.get("other"), Some(&json!(1)));
    }

    #[test]
    fn aliases_are_a_list_or_podmans_map() {
        for (sent, aliases) in [
            (json!({"aliases": {"n0": ["a", "b"], "N0": ["c"]}}), &["a", "b"][..]),
            (json!({"aliases": {"n1": ["c"]}}), &[]),
            (json!({"aliases": {"n0": null}}), &[]),
            (json!({"aliases": null}), &[]),
            (json!({"Aliases": ["x"]}), &["x"]),
            (json!({}), &[]),
        ] {
            assert_eq!(read(sent.clone()).unwrap().aliases, aliases, "{sent}");
        }
    }

    #[test]
    fn empty_texts_are_absent() {
        let config =
            read(json!({"mac": "", "deviceID": "", "cgroupPath": "", "infinibandGUID": "", "ips": []}))
                .unwrap();
        assert_eq!(
            (config.mac, config.device_id, config.cgroup_path, config.infiniband_guid),
            (None, None, None, None)
        );
    }

    #[test]
    fn wrong_values_are_named() {
        for (sent, message) in [
            (
                json!({"portMappings": [{"hostPort": 0, "containerPort": 80}]}),
                "invalid `runtimeConfig.portMappings[0]`: invalid host port number: 0",
            ),
            (
                json!({"portMappings": [{"hostPort": 70000, "containerPort": 80}]}),
                "invalid `runtimeConfig.portMappings[0]`: invalid host port number: 70000",
            ),
            (
                json!({"portMappings": [{"hostPort": 1, "containerPort": -1}]}),
                "invalid `runtimeConfig.portMappings[0]`: invalid container port number: -1",
            ),
            (
                json!({"portMappings": [{"hostPort": 1, "containerPort": 1, "protocol": "icmp"}]}),
                "invalid `runtimeConfig.portMappings[0]`: unknown protocol `icmp`: known are tcp, udp and sctp",
            ),
            (
                json!({"portMappings": [{"hostPort": 1, "containerPort": 1, "hostIP": "localhost"}]}),
                "invalid `runtimeConfig.portMappings[0]`: invalid IP address: localhost",
            ),
            (
                json!({"portMappings": {}}),
                "invalid `runtimeConfig.portMappings`: it is an object, not an array",
            ),
            (
                json!({"ips": ["10.0.0.5/33"]}),
                "invalid `runtimeConfig.ips[0]`: invalid IP address: 10.0.0.5/33",
            ),
            (
                json!({"mac": "zz"}),
                "invalid `runtimeConfig.mac`: invalid MAC address `zz`: each byte is two hexadecimal digits",
            ),
            (
                json!({"aliases": "web"}),
                "invalid `runtimeConfig.aliases`: it is a string, neither an array nor an object",
            ),
            (
                json!({"aliases": {"n0": "web"}}),
                "invalid `runtimeConfig.aliases.n0`: it is a string, not an array",
            ),
            (
                json!({"bandwidth": {"ingressRate": -1}}),
                "invalid `runtimeConfig.bandwidth`: invalid value: integer `-1`, expected u64",
            ),
        ] {
            assert_eq!(read(sent.clone()).unwrap_err().to_string(), message, "{sent}");
        }
    }
}
