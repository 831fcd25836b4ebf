//! The network configuration, typed.

use std::collections::BTreeMap;

use berth_types::{AttachmentKey, ContainerId, Dns, IfName, MacAddr, NetworkName};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tracing::warn;

use super::error::{CniError, Code, shortened};
use super::json::{FieldError, field, list};
use super::keys::{NETWORK, Shape, normalise};
use super::near_miss::warn_near_misses;
use super::result::CniResult;
use super::runtime_config::{MaybeMac, RequestedIp, RuntimeConfig};
use super::version::CniVersion;

/// How strictly a configuration is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// ADD, CHECK and STATUS: what is wrong is refused.
    Strict,
    /// DEL and GC: a part that is wrong counts as absent, with a warning, because cleaning up must not fail over what
    /// it does not need. The list of valid attachments is read strictly all the same: guessing it would remove live
    /// ones.
    Tolerant,
}

/// A network configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct NetConf {
    /// The version to answer in; 0.1.0 where the configuration says none.
    pub version: CniVersion,
    /// The network.
    pub name: NetworkName,
    /// The plugin's name in the configuration, `type`; empty where absent.
    pub plugin_type: String,
    /// Capabilities the plugin declares.
    pub capabilities: BTreeMap<String, bool>,
    /// Masquerade what leaves the network.
    pub ip_masq: bool,
    /// Resolver settings.
    pub dns: Dns,
    /// `ipam`, empty where absent; see [`Self::ipam_type`].
    pub ipam: Map<String, Value>,
    /// `args.cni`.
    pub args: CniArgsConfig,
    /// What the runtime fills in.
    pub runtime: RuntimeConfig,
    /// The result so far, of any version.
    pub prev_result: Option<CniResult>,
    /// GC: the attachments that are still valid. Absent is not empty: absent means the caller did not say, and no
    /// attachment may be removed for it.
    pub valid_attachments: Option<Vec<AttachmentRef>>,
    /// The whole object with known keys in canonical spelling.
    pub raw: Map<String, Value>,
}

/// `args.cni`: arguments a person or a meta plugin puts into the configuration.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CniArgsConfig {
    /// Requested addresses.
    pub ips: Vec<RequestedIp>,
    /// Requested hardware address.
    pub mac: Option<MacAddr>,
    /// The whole object.
    pub raw: Map<String, Value>,
}

/// One valid attachment of the network in question.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
pub struct AttachmentRef {
    /// The container.
    #[serde(rename = "containerID")]
    pub container: ContainerId,
    /// The interface inside its sandbox.
    pub ifname: IfName,
}

impl AttachmentRef {
    /// The attachment's key on `network`.
    pub fn on(&self, network: &NetworkName) -> AttachmentKey {
        let Self { container, ifname } = self.clone();
        AttachmentKey { network: network.clone(), container, ifname }
    }
}

/// What is known of a configuration before it is accepted: enough to answer an error in the right version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The network.
    pub name: NetworkName,
    /// The version.
    pub version: CniVersion,
}

impl Header {
    /// Reads `name`, then `cniVersion`, out of a normalised object.
    ///
    /// # Errors
    /// The version to answer in, and [`Code::Decoding`] for a value that is no text, [`Code::InvalidConfig`] for a
    /// missing or bad name, [`Code::IncompatibleVersion`] for a version not in `supported`.
    pub fn read(
        object: &Map<String, Value>,
        supported: &[CniVersion],
    ) -> Result<Self, (CniVersion, CniError)> {
        let text = |key| field::<String>(object, key, "");
        let said = text("cniVersion").map(|said| if said.is_empty() { "0.1.0".to_owned() } else { said });
        let spoken = said.as_ref().ok().and_then(|said| CniVersion::parse(said));
        let answer_in = spoken.filter(|version| supported.contains(version)).unwrap_or(CniVersion::LATEST);
        let fail = |error| (answer_in, error);
        let decoding = |error: FieldError| fail(CniError::new(Code::Decoding, error.to_string()));

        let name = text("name").map_err(decoding)?;
        if name.is_empty() {
            return Err(fail(CniError::new(Code::InvalidConfig, "missing network name")));
        }
        let name = NetworkName::new(name.as_str()).map_err(|_| {
            let error = CniError::new(Code::InvalidConfig, "invalid characters found in network name");
            fail(error.with_details(shortened(&name, 60)))
        })?;
        let said = said.map_err(decoding)?;
        let version = spoken
            .filter(|version| supported.contains(version))
            .ok_or_else(|| fail(incompatible(&said, supported)))?;
        Ok(Self { name, version })
    }
}

fn ipam(raw: &Map<String, Value>) -> Result<Map<String, Value>, FieldError> {
    let ipam = field(raw, "ipam", "")?;
    // A type that is no text would be no type, and the network without addresses.
    field::<String>(&ipam, "type", "ipam")?;
    Ok(ipam)
}

fn incompatible(said: &str, supported: &[CniVersion]) -> CniError {
    let supported: Vec<String> = supported.iter().map(|version| format!("\"{version}\"")).collect();
    let said = shortened(said, 40);
    CniError::new(Code::IncompatibleVersion, "incompatible CNI versions")
        .with_details(format!("config is {said:?}, plugin supports [{}]", supported.join(" ")))
}

impl NetConf {
    /// Reads the normalised `raw`, whose header is known.
    ///
    /// # Errors
    /// [`Code::InvalidConfig`] with the field's path.
    pub fn read(header: Header, raw: Map<String, Value>, reading: Reading) -> Result<Self, CniError> {
        let Header { name, version } = header;
        let valid_attachments = valid_attachments(&raw).map_err(refused)?;
        Ok(Self {
            version,
            plugin_type: reading.part("type", || field(&raw, "type", ""))?,
            capabilities: reading.part("capabilities", || field(&raw, "capabilities", ""))?,
            ip_masq: reading.part("ipMasq", || field(&raw, "ipMasq", ""))?,
            dns: reading.part("dns", || field(&raw, "dns", ""))?,
            ipam: reading.part("ipam", || ipam(&raw))?,
            args: reading.part("args", || CniArgsConfig::read(&raw))?,
            runtime: reading.part("runtimeConfig", || runtime(&raw, &name))?,
            prev_result: reading.part("prevResult", || prev_result(&raw, version))?,
            valid_attachments,
            name,
            raw,
        })
    }

    /// Reads a configuration as dispatch does, with the known keys of `extra`. For tests and tools.
    ///
    /// # Errors
    /// As [`super::json::parse_object`], [`Header::read`] and [`Self::read`].
    pub fn from_json(bytes: &[u8], extra: &'static Shape, reading: Reading) -> Result<Self, CniError> {
        let object = super::json::parse_object(bytes, "network configuration")?;
        let raw = normalise(object, &[&NETWORK, extra]);
        let header = Header::read(&raw, CniVersion::ALL).map_err(|(_, error)| error)?;
        Self::read(header, raw, reading)
    }

    /// The IPAM plugin's name; `None` where the network has no IPAM.
    pub fn ipam_type(&self) -> Option<&str> {
        self.ipam.get("type").and_then(Value::as_str).filter(|kind| !kind.is_empty())
    }

    /// Reads the plugin's own keys into `T`, which ignores those it does not know.
    ///
    /// # Errors
    /// [`Code::InvalidConfig`].
    pub fn plugin_config<T: DeserializeOwned>(&self) -> Result<T, CniError> {
        T::deserialize(&self.raw).map_err(|error| {
            // Serde does not say where: the key that is wrong by itself is the one.
            let alone = |(key, value): &(&String, &Value)| {
                T::deserialize(&Map::from_iter([((*key).clone(), (*value).clone())])).is_err()
            };
            let key = self.raw.iter().find(alone).map(|(key, _)| format!(": `{key}`")).unwrap_or_default();
            CniError::new(
                Code::InvalidConfig,
                format!("invalid configuration of network {}{key}: {error}", self.name),
            )
        })
    }

    /// The result so far, for plugins that must be chained, and for CHECK.
    ///
    /// # Errors
    /// [`Code::InvalidConfig`] where there is none.
    pub fn require_prev_result(&self) -> Result<&CniResult, CniError> {
        let missing =
            || CniError::new(Code::InvalidConfig, format!("network {}: prevResult is missing", self.name));
        self.prev_result.as_ref().ok_or_else(missing)
    }

    /// Warns of top-level keys that are nearly one of `known` or of the specification's.
    pub fn warn_near_misses(&self, known: &[&str]) {
        let known: Vec<&str> =
            NETWORK.names().map(|name| -> &str { name }).chain(known.iter().copied()).collect();
        warn_near_misses("network configuration", &self.raw, &known);
    }
}

impl Reading {
    /// Runs `read`; tolerant, a part that is wrong counts as absent.
    fn part<T: Default>(
        self,
        part: &str,
        read: impl FnOnce() -> Result<T, FieldError>,
    ) -> Result<T, CniError> {
        match read() {
            Ok(value) => Ok(value),
            Err(error) if self == Self::Tolerant => {
                warn!(part, %error, "a wrong part of the network configuration is ignored");
                Ok(T::default())
            }
            Err(error) => Err(refused(error)),
        }
    }
}

fn refused(error: FieldError) -> CniError {
    CniError::new(Code::InvalidConfig, error.to_string())
}

impl CniArgsConfig {
    fn read(raw: &Map<String, Value>) -> Result<Self, FieldError> {
        let args: Map<String, Value> = field(raw, "args", "")?;
        let raw: Map<String, Value> = field(&args, "cni", "args")?;
        let ips = list(&raw, "ips", "args.cni")?.unwrap_or_default();
        let MaybeMac(mac) = field(&raw, "mac", "args.cni")?;
        Ok(Self { ips, mac, raw })
    }
}

fn runtime(raw: &Map<String, Value>, network: &NetworkName) -> Result<RuntimeConfig, FieldError> {
    RuntimeConfig::read(field(raw, "runtimeConfig", "")?, network)
}

/// Since the result says its own version, it may be of another than the configuration.
fn prev_result(raw: &Map<String, Value>, version: CniVersion) -> Result<Option<CniResult>, FieldError> {
    let Some(object) = field::<Option<Map<String, Value>>>(raw, "prevResult", "")? else { return Ok(None) };
    let wrong = |error: super::wire::ConvertError| FieldError {
        place: "prevResult".to_owned(),
        why: error.to_string(),
    };
    CniResult::from_object(object, version).map(Some).map_err(wrong)
}

/// The list by its present name, else by the one older libcni uses (containernetworking/cni#1101).
fn valid_attachments(raw: &Map<String, Value>) -> Result<Option<Vec<AttachmentRef>>, FieldError> {
    match list(raw, "cni.dev/valid-attachments", "")? {
        Some(valid) => Ok(Some(valid)),
        None => list(raw, "cni.dev/attachments", ""),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read_as(value: &Value, reading: Reading) -> Result<NetConf, CniError> {
        NetConf::from_json(value.to_string().as_bytes(), Shape::EMPTY, reading)
    }

    fn read(value: &Value) -> Result<NetConf, CniError> {
        read_as(value, Reading::Strict)
    }

    #[test]
    fn a_whole_configuration_is_read() {
        let conf = read(&json!({
            "CniVersion": "1.1.0", "NAME": "n0", "Type": "rbridge", "capabilities": {"ips": true}, "ipmasq": true,
            "IPAM": {"Type": "host-local", "Subnet": "10.80.0.0/24"},
            "dns": {"Nameservers": ["10.0.0.1"]},
            "args": {"cni": {"ips": ["10.80.0.9"], "mac": "c2:b0:57:49:47:f2", "labels": [{"key": "A"}]}},
            "runtimeConfig": {"mac": "c2:b0:57:49:47:f3"},
            "prevResult": {"cniVersion": "0.2.0", "ip4": {"ip": "10.80.0.2/24"}},
            "isGateway": true, "bridge": "br0",
        }))
        .unwrap();
        assert_eq!(
            (conf.version, conf.name.as_str(), conf.plugin_type.as_str()),
            (CniVersion::V1_1_0, "n0", "rbridge")
        );
        assert_eq!((conf.capabilities.get("ips"), conf.ip_masq), (Some(&true), true));
        assert_eq!(
            (conf.ipam_type(), conf.ipam.get("subnet")),
            (Some("host-local"), Some(&json!("10.80.0.0/24")))
        );
        assert_eq!(conf.dns.nameservers, ["10.0.0.1"]);
        assert_eq!(conf.args.ips, ["10.80.0.9".parse().unwrap()]);
        assert_eq!(conf.args.raw.get("labels"), Some(&json!([{"key": "A"}])));
        assert_eq!((conf.args.mac.is_some(), conf.runtime.mac.is_some()), (true, true));
        assert_eq!(conf.require_prev_result().unwrap().ips.len(), 1);
        assert_eq!(conf.valid_attachments, None);
        #[derive(Debug, Deserialize, PartialEq)]
        #[serde(rename_all = "camelCase")]
        struct Own {
            bridge: String,
            is_gateway: bool,
        }
        assert_eq!(conf.plugin_config::<Own>(), Ok(Own { bridge: "br0".into(), is_gateway: true }));
    }

    #[test]
    fn a_bare_configuration_has_the_defaults() {
        let conf = read(&json!({"name": "n0", "ipam": {}, "dns": null})).unwrap();
        assert_eq!((conf.version, conf.plugin_type.as_str()), (CniVersion::V0_1_0, ""));
        assert_eq!((conf.ipam_type(), conf.prev_result.as_ref(), conf.dns.is_empty()), (None, None, true));
        let error = conf.require_prev_result().unwrap_err();
        assert_eq!(
            (error.code, error.msg.as_str()),
            (Code::InvalidConfig, "network n0: prevResult is missing")
        );
    }

    #[test]
    fn the_header_is_checked_in_the_references_order() {
        use Code::*;
        for (value, code, text, answer_in) in [
            (json!({}), InvalidConfig, "missing network name", "0.1.0"),
            (json!({"name": null}), InvalidConfig, "missing network name", "0.1.0"),
            (json!({"name": ""}), InvalidConfig, "missing network name", "0.1.0"),
            (
                json!({"name": "a b", "cniVersion": "9"}),
                InvalidConfig,
                "invalid characters found in network name; a b",
                "1.1.0",
            ),
            (
                json!({"name": "a b", "cniVersion": "0.4.0"}),
                InvalidConfig,
                "invalid characters found in network name; a b",
                "0.4.0",
            ),
            (
                json!({"name": 5, "cniVersion": "9"}),
                Decoding,
                "invalid `name`: invalid type: integer `5`, expected a string",
                "1.1.0",
            ),
            (
                json!({"name": "n", "cniVersion": 1}),
                Decoding,
                "invalid `cniVersion`: invalid type: integer `1`, expected a string",
                "1.1.0",
            ),
            (
                json!({"name": "n", "cniVersion": "1.2.0"}),
                IncompatibleVersion,
                "incompatible CNI versions; config is \"1.2.0\", plugin supports [\"0.1.0\" \"0.4.0\"]",
                "1.1.0",
            ),
            (
                json!({"name": "n", "cniVersion": "1.0.0"}),
                IncompatibleVersion,
                "incompatible CNI versions; config is \"1.0.0\", plugin supports [\"0.1.0\" \"0.4.0\"]",
                "1.1.0",
            ),
        ] {
            let Value::Object(object) = value.clone() else { panic!("not an object") };
            let raw = normalise(object, &[&NETWORK]);
            let (version, error) = Header::read(&raw, &[CniVersion::V0_1_0, CniVersion::V0_4_0]).unwrap_err();
            assert_eq!(
                (error.code, error.to_string().as_str(), version.as_str()),
                (code, text, answer_in),
                "{value}"
            );
        }
    }

    #[test]
    fn parts_of_a_wrong_form_are_refused_by_place_and_tolerated_by_del() {
        for (part, message) in [
            (json!({"type": 1}), "invalid `type`: invalid type: integer `1`, expected a string"),
            (
                json!({"capabilities": {"ips": 1}}),
                "invalid `capabilities`: invalid type: integer `1`, expected a boolean",
            ),
            (json!({"ipMasq": "yes"}), "invalid `ipMasq`: invalid type: string \"yes\", expected a boolean"),
            (json!({"ipam": []}), "invalid `ipam`: invalid type: sequence, expected a map"),
            (
                json!({"dns": {"search": "a"}}),
                "invalid `dns`: invalid type: string \"a\", expected a sequence",
            ),
            (json!({"args": {"cni": {"ips": ["x"]}}}), "invalid `args.cni.ips[0]`: invalid IP address: x"),
            (json!({"runtimeConfig": []}), "invalid `runtimeConfig`: invalid type: sequence, expected a map"),
            (
                json!({"prevResult": {"cniVersion": "7"}}),
                "invalid `prevResult`: unsupported result version `7`",
            ),
            (
                json!({"prevResult": {"ips": [{}]}, "cniVersion": "1.0.0"}),
                "invalid `prevResult`: invalid `ips[0]`: missing field `address`",
            ),
        ] {
            let mut whole = part.clone();
            whole["name"] = json!("n0");
            let error = read(&whole).unwrap_err();
            assert_eq!((error.code, error.msg.as_str()), (Code::InvalidConfig, message), "{part}");
            let conf = read_as(&whole, Reading::Tolerant).unwrap();
            assert_eq!((conf.name.as_str(), conf.prev_result), ("n0", None), "{part}");
        }
    }

    #[test]
    fn absent_and_empty_lists_of_valid_attachments_differ() {
        let one = json!([{"ContainerID": "c1", "ifname": "eth0"}]);
        for (part, expected) in [
            (json!({}), None),
            (json!({"cni.dev/valid-attachments": null}), None),
            (json!({"cni.dev/valid-attachments": []}), Some(0)),
            (json!({"cni.dev/valid-attachments": one}), Some(1)),
            (json!({"cni.dev/attachments": one}), Some(1)),
            (json!({"cni.dev/attachments": one, "cni.dev/valid-attachments": []}), Some(0)),
        ] {
            let mut whole = part.clone();
            whole["name"] = json!("n0");
            let conf = read_as(&whole, Reading::Tolerant).unwrap();
            assert_eq!(conf.valid_attachments.as_ref().map(Vec::len), expected, "{part}");
            if let Some(first) = conf.valid_attachments.unwrap_or_default().first() {
                assert_eq!(first.on(&conf.name).to_string(), "c1/eth0 on n0");
            }
        }
    }

    #[test]
    fn a_wrong_list_of_valid_attachments_is_refused_even_by_gc() {
        for list in [
            json!({}),
            json!("c1"),
            json!([{"containerID": "../x", "ifname": "eth0"}]),
            json!([{"containerID": "c1"}]),
        ] {
            let whole = json!({"name": "n0", "cni.dev/valid-attachments": list});
            assert_eq!(read_as(&whole, Reading::Tolerant).unwrap_err().code, Code::InvalidConfig, "{list}");
        }
    }

    proptest! {
        #[test]
        fn any_object_is_answered(text in "\\{(\"(name|ipam|dns|args|cni|type|runtimeConfig|ips|prevResult|cniVersion)\":(\"n0\"|1|null|\\{\\}|\\[\\]|\\[\\{\\}\\]),?){0,6}\"name\":\"n0\"\\}") {
            for reading in [Reading::Strict, Reading::Tolerant] {
                let _ = NetConf::from_json(text.as_bytes(), Shape::EMPTY, reading);
            }
        }
    }
}
