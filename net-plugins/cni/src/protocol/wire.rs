//! Results on the wire: every version's form, to and from the newest model.
//!
//! | | 0.1.0 0.2.0 | 0.3.0 0.3.1 0.4.0 | 1.0.0 | 1.1.0 |
//! |---|---|---|---|---|
//! | interfaces | none | name, mac, sandbox | same | mtu, socketPath, pciID as well |
//! | addresses | the first of each family | all, with `version` | without `version` | same |
//! | routes | dst and gw, inside their family's address | all | all | all |
//! | empty dns | `{}` | `{}` | left out | left out |
//!
//! From 0.3.0 on routes keep what 1.1.0 added (mtu, table and so on), as the reference does: the route of an IPAM
//! plugin passes through older configurations, and readers ignore keys they do not know.

use std::net::IpAddr;

use berth_types::{Dns, Family, Route};
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::error::{CniError, Code, shortened};
use super::json::{self, FieldError};
use super::keys::{self, normalise};
use super::result::{CniResult, Interface, IpConfig};
use super::version::CniVersion;

/// Why a result cannot be read, or not be told in a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// The result says a version there is none of.
    #[error("unsupported result version `{version}`")]
    UnknownVersion {
        /// The version's text, shortened.
        version: String,
    },
    /// A field has not the form of the version.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// Versions before 0.3.0 cannot tell a result without addresses.
    #[error("cannot convert: no valid IP addresses")]
    NoAddresses,
}

impl From<ConvertError> for CniError {
    fn from(error: ConvertError) -> Self {
        let code = match error {
            ConvertError::UnknownVersion { .. } => Code::IncompatibleVersion,
            ConvertError::Field(_) => Code::Decoding,
            ConvertError::NoAddresses => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}

impl CniResult {
    /// Reads a result of any version. `default` is the version of one that does not say it: its request's.
    ///
    /// # Errors
    /// [`ConvertError::UnknownVersion`] and [`ConvertError::Field`].
    pub fn from_object(object: Map<String, Value>, default: CniVersion) -> Result<Self, ConvertError> {
        let object = normalise(object, &[&keys::RESULT]);
        let said: String = json::field(&object, "cniVersion", "")?;
        let version = match said.as_str() {
            "" => default,
            text => CniVersion::parse(text)
                .ok_or_else(|| ConvertError::UnknownVersion { version: shortened(text, 40) })?,
        };
        let dns = json::field(&object, "dns", "")?;
        if version < CniVersion::V0_3_0 { read_old(&object, dns) } else { read_new(&object, dns) }
    }

    /// Reads a result from a plugin's standard output. `null` is an empty result.
    ///
    /// # Errors
    /// [`Code::Decoding`] and [`Code::IncompatibleVersion`].
    pub fn from_json(bytes: &[u8], default: CniVersion) -> Result<Self, CniError> {
        Ok(Self::from_object(json::parse_object(bytes, "result")?, default)?)
    }

    /// One line of JSON in the form of `version`. What the version cannot tell is left out.
    ///
    /// # Errors
    /// [`ConvertError::NoAddresses`], before 0.3.0 only.
    pub fn to_json(&self, version: CniVersion) -> Result<Vec<u8>, ConvertError> {
        let json = if version < CniVersion::V0_3_0 {
            serde_json::to_vec(&OldResult::new(self, version)?)
        } else {
            serde_json::to_vec(&NewResult::new(self, version))
        };
        let mut line = json.expect("a result has only text keys and finite numbers");
        line.push(b'\n');
        Ok(line)
    }
}

fn read_new(object: &Map<String, Value>, dns: Dns) -> Result<CniResult, ConvertError> {
    let interfaces: Vec<WireInterface> = json::list(object, "interfaces", "")?.unwrap_or_default();
    let ips: Vec<WireIp> = json::list(object, "ips", "")?.unwrap_or_default();
    let routes: Vec<WireRoute> = json::list(object, "routes", "")?.unwrap_or_default();
    Ok(CniResult {
        interfaces: interfaces.into_iter().map(Interface::from).collect(),
        ips: ips.into_iter().map(IpConfig::from).collect(),
        routes: routes.into_iter().map(Route::from).collect(),
        dns,
    })
}

fn read_old(object: &Map<String, Value>, dns: Dns) -> Result<CniResult, ConvertError> {
    let mut result = CniResult { dns, ..CniResult::default() };
    for key in ["ip4", "ip6"] {
        let Some(Value::Object(ip)) = object.get(key) else {
            let _absent: Option<Map<String, Value>> = json::field(object, key, "")?;
            continue;
        };
        let Cidr(address) = json::field::<Option<Cidr>>(ip, "ip", key)?
            .ok_or_else(|| FieldError { place: format!("{key}.ip"), why: "it is missing".to_owned() })?;
        let MaybeAddr(gateway) = json::field(ip, "gateway", key)?;
        let routes: Vec<WireRoute> = json::list(ip, "routes", key)?.unwrap_or_default();
        result.ips.push(IpConfig { interface: None, address, gateway });
        result.routes.extend(routes.into_iter().map(Route::from));
    }
    Ok(result)
}

/// `address/prefix`, both given; the host part stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cidr(pub(crate) IpNetwork);

impl Cidr {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (addr, prefix) = text.split_once('/')?;
        if prefix.is_empty() || prefix.len() > 3 || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let prefix = prefix.parse().ok()?;
        let network = match addr.parse().ok()? {
            IpAddr::V4(v4) => Ipv4Network::new(v4, prefix).ok()?.into(),
            IpAddr::V6(v6) => Ipv6Network::new(v6, prefix).ok()?.into(),
        };
        Some(Self(network))
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse(&text)
            .ok_or_else(|| D::Error::custom(format!("invalid CIDR address: {}", shortened(&text, 60))))
    }
}

/// An address, or none where the text is empty, which Go reads and writes so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct MaybeAddr(pub(crate) Option<IpAddr>);

impl<'de> Deserialize<'de> for MaybeAddr {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Option::<String>::deserialize(from)?.unwrap_or_default();
        if text.is_empty() {
            return Ok(Self(None));
        }
        let invalid = |_| D::Error::custom(format!("invalid IP address: {}", shortened(&text, 60)));
        text.parse().map(|addr| Self(Some(addr))).map_err(invalid)
    }
}

#[derive(Deserialize)]
struct WireIp {
    #[serde(default)]
    interface: Option<u32>,
    address: Cidr,
    #[serde(default)]
    gateway: MaybeAddr,
}

impl From<WireIp> for IpConfig {
    fn from(wire: WireIp) -> Self {
        let WireIp { interface, address: Cidr(address), gateway: MaybeAddr(gateway) } = wire;
        // An index beyond the address space names no interface, as any other index out of range.
        let interface = interface.map(|index| usize::try_from(index).unwrap_or(usize::MAX));
        Self { interface, address, gateway }
    }
}

#[derive(Deserialize)]
pub(crate) struct WireRoute {
    dst: Cidr,
    #[serde(default)]
    gw: MaybeAddr,
    #[serde(default)]
    mtu: u32,
    #[serde(default)]
    advmss: u32,
    #[serde(default)]
    priority: u32,
    #[serde(default)]
    table: Option<u32>,
    #[serde(default)]
    scope: Option<u8>,
}

impl From<WireRoute> for Route {
    fn from(wire: WireRoute) -> Self {
        let WireRoute { dst: Cidr(dst), gw: MaybeAddr(gw), mtu, advmss, priority, table, scope } = wire;
        Self { dst, gw, mtu, advmss, priority, table, scope }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireInterface {
    name: String,
    #[serde(default)]
    mac: String,
    #[serde(default)]
    mtu: u32,
    #[serde(default)]
    sandbox: String,
    #[serde(default)]
    socket_path: String,
    #[serde(default, rename = "pciID")]
    pci_id: String,
}

impl From<WireInterface> for Interface {
    fn from(wire: WireInterface) -> Self {
        let WireInterface { name, mac, mtu, sandbox, socket_path, pci_id } = wire;
        Self { name, mac, mtu, sandbox: Some(sandbox).filter(|path| !path.is_empty()), socket_path, pci_id }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewResult<'a> {
    cni_version: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    interfaces: Vec<NewInterface<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ips: Vec<NewIp>,
    #[serde(skip_serializing_if = "slice_is_empty")]
    routes: &'a [Route],
    #[serde(skip_serializing_if = "Option::is_none")]
    dns: Option<&'a Dns>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewInterface<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    mac: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    #[serde(skip_serializing_if = "str::is_empty")]
    sandbox: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    socket_path: &'a str,
    #[serde(rename = "pciID", skip_serializing_if = "str::is_empty")]
    pci_id: &'a str,
}

#[derive(Serialize)]
struct NewIp {
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<usize>,
    address: IpNetwork,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
}

#[derive(Serialize)]
struct OldResult<'a> {
    #[serde(rename = "cniVersion")]
    cni_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip4: Option<OldIp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip6: Option<OldIp>,
    dns: &'a Dns,
}

#[derive(Serialize)]
struct OldIp {
    ip: IpNetwork,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
}

impl<'a> NewResult<'a> {
    fn new(result: &'a CniResult, version: CniVersion) -> Self {
        let CniResult { interfaces, ips, routes, dns } = result;
        Self {
            cni_version: version.as_str(),
            interfaces: interfaces.iter().map(|interface| NewInterface::new(interface, version)).collect(),
            ips: ips.iter().map(|ip| NewIp::new(ip, version)).collect(),
            routes,
            dns: (version < CniVersion::V1_0_0 || !dns.is_empty()).then_some(dns),
        }
    }
}

impl<'a> NewInterface<'a> {
    fn new(interface: &'a Interface, version: CniVersion) -> Self {
        let Interface { name, mac, mtu, sandbox, socket_path, pci_id } = interface;
        let newest = version >= CniVersion::V1_1_0;
        let since_newest = |text: &'a str| if newest { text } else { "" };
        Self {
            name,
            mac,
            mtu: Some(*mtu).filter(|mtu| newest && *mtu != 0),
            sandbox: sandbox.as_deref().unwrap_or_default(),
            socket_path: since_newest(socket_path),
            pci_id: since_newest(pci_id),
        }
    }
}

impl NewIp {
    fn new(ip: &IpConfig, version: CniVersion) -> Self {
        let IpConfig { interface, address, gateway } = *ip;
        let family = if address.is_ipv4() { "4" } else { "6" };
        Self { version: (version < CniVersion::V1_0_0).then_some(family), interface, address, gateway }
    }
}

impl<'a> OldResult<'a> {
    fn new(result: &'a CniResult, version: CniVersion) -> Result<Self, ConvertError> {
        let ip4 = OldIp::first(result, Family::V4);
        let ip6 = OldIp::first(result, Family::V6);
        if ip4.is_none() && ip6.is_none() {
            return Err(ConvertError::NoAddresses);
        }
        Ok(Self { cni_version: version.as_str(), ip4, ip6, dns: &result.dns })
    }
}

impl OldIp {
    /// The first address of `family` with the family's routes.
    fn first(result: &CniResult, family: Family) -> Option<Self> {
        let IpConfig { address, gateway, .. } = *result.first_ip(family)?;
        let routes = result.routes.iter().filter(|route| Family::of(route.dst.ip()) == family);
        let routes = routes.map(|route| Route::new(route.dst, route.gw)).collect();
        Some(Self { ip: address, gateway, routes })
    }
}

fn slice_is_empty(routes: &&[Route]) -> bool {
    routes.is_empty()
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
