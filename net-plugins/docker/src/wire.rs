//! The messages, as dockerd writes them. Unknown fields are ignored, `null` is an absent value.

use std::collections::BTreeMap;

use berth_plugin_http::Empty;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// Options of a call: keys of Docker's with values of any kind.
pub(crate) type Options = BTreeMap<String, Value>;

fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// `NetworkDriver.CreateNetwork`.
#[derive(Debug, Deserialize)]
pub(crate) struct CreateNetwork {
    #[serde(rename = "NetworkID")]
    pub(crate) network: String,
    #[serde(rename = "Options", default, deserialize_with = "or_default")]
    pub(crate) options: Options,
    #[serde(rename = "IPv4Data", default, deserialize_with = "or_default")]
    pub(crate) v4: Vec<IpamData>,
    #[serde(rename = "IPv6Data", default, deserialize_with = "or_default")]
    pub(crate) v6: Vec<IpamData>,
}

/// A subnet of a network. Auxiliary addresses are the address driver's business.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct IpamData {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) pool: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) gateway: String,
    /// The address driver's own word for where its addresses are from.
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) address_space: String,
}

/// A call about a network.
#[derive(Debug, Deserialize)]
pub(crate) struct OfNetwork {
    #[serde(rename = "NetworkID")]
    pub(crate) network: String,
}

/// A call about an endpoint.
#[derive(Debug, Deserialize)]
pub(crate) struct OfEndpoint {
    #[serde(rename = "NetworkID")]
    pub(crate) network: String,
    #[serde(rename = "EndpointID")]
    pub(crate) endpoint: String,
}

/// `NetworkDriver.CreateEndpoint`.
#[derive(Debug, Deserialize)]
pub(crate) struct CreateEndpoint {
    #[serde(rename = "NetworkID")]
    pub(crate) network: String,
    #[serde(rename = "EndpointID")]
    pub(crate) endpoint: String,
    #[serde(rename = "Interface", default, deserialize_with = "or_default")]
    pub(crate) interface: Interface,
    #[serde(rename = "Options", default, deserialize_with = "or_default")]
    pub(crate) options: Options,
}

/// What the engine has chosen for an endpoint, or the driver. A field that was given must come back empty.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Interface {
    #[serde(
        rename = "Address",
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub(crate) v4: String,
    #[serde(
        rename = "AddressIPv6",
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub(crate) v6: String,
    #[serde(
        rename = "MacAddress",
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub(crate) mac: String,
}

/// The reply to `CreateEndpoint`.
#[derive(Debug, Serialize)]
pub(crate) struct Created {
    #[serde(rename = "Interface")]
    pub(crate) interface: Interface,
}

/// `NetworkDriver.Join`, and `ProgramExternalConnectivity` without the sandbox.
#[derive(Debug, Deserialize)]
pub(crate) struct Join {
    #[serde(rename = "NetworkID")]
    pub(crate) network: String,
    #[serde(rename = "EndpointID")]
    pub(crate) endpoint: String,
    #[serde(rename = "SandboxKey", default, deserialize_with = "or_default")]
    pub(crate) sandbox: String,
    #[serde(rename = "Options", default, deserialize_with = "or_default")]
    pub(crate) options: Options,
}

/// The reply to `Join`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Joined {
    #[serde(rename = "InterfaceName")]
    pub(crate) interface: InterfaceName,
    #[serde(rename = "Gateway")]
    pub(crate) gateway: String,
    #[serde(rename = "GatewayIPv6")]
    pub(crate) gateway_v6: String,
    #[serde(rename = "DisableGatewayService")]
    pub(crate) disable_gateway_service: bool,
}

/// Which link is the container's, and what it is called there.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct InterfaceName {
    pub(crate) src_name: String,
    pub(crate) dst_prefix: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) dst_name: String,
}

/// The reply to `EndpointOperInfo`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Info {
    pub(crate) value: Empty,
}

/// A published port (`com.docker.network.portmap`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Binding {
    pub(crate) proto: u8,
    pub(crate) port: u16,
    #[serde(rename = "HostIP", default, deserialize_with = "or_default")]
    pub(crate) host_addr: String,
    #[serde(default)]
    pub(crate) host_port: u16,
    #[serde(default)]
    pub(crate) host_port_end: u16,
}

/// `IpamDriver.RequestPool`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RequestPool {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) pool: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) sub_pool: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) options: Options,
    #[serde(default)]
    pub(crate) v6: bool,
}

/// The reply to `RequestPool`.
#[derive(Debug, Serialize)]
pub(crate) struct PoolGiven {
    #[serde(rename = "PoolID")]
    pub(crate) id: String,
    #[serde(rename = "Pool")]
    pub(crate) pool: String,
    #[serde(rename = "Data")]
    pub(crate) data: BTreeMap<&'static str, String>,
}

/// `IpamDriver.ReleasePool`.
#[derive(Debug, Deserialize)]
pub(crate) struct OfPool {
    #[serde(rename = "PoolID")]
    pub(crate) pool: String,
}

/// `IpamDriver.RequestAddress` and `ReleaseAddress`.
#[derive(Debug, Deserialize)]
pub(crate) struct OfAddress {
    #[serde(rename = "PoolID")]
    pub(crate) pool: String,
    #[serde(rename = "Address", default, deserialize_with = "or_default")]
    pub(crate) address: String,
    #[serde(rename = "Options", default, deserialize_with = "or_default")]
    pub(crate) options: Options,
}

/// The reply to `RequestAddress`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AddressGiven {
    pub(crate) address: String,
    pub(crate) data: BTreeMap<&'static str, String>,
}

/// The reply to `GetDefaultAddressSpaces`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AddressSpaces {
    pub(crate) local_default_address_space: &'static str,
    pub(crate) global_default_address_space: &'static str,
}

/// The reply to `IpamDriver.GetCapabilities`.
#[derive(Debug, Serialize)]
pub(crate) struct IpamCapabilities {
    #[serde(rename = "RequiresMACAddress")]
    pub(crate) requires_mac_address: bool,
    #[serde(rename = "RequiresRequestReplay")]
    pub(crate) requires_request_replay: bool,
}

/// The reply to `AllocateNetwork`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Allocated {
    pub(crate) options: BTreeMap<String, String>,
}
