//! Routes and resolver settings, as CNI 1.1.0 carries them.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// A route a container is to have. Fields follow the CNI 1.1.0 result; absent means the kernel's default.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Route {
    /// The destination; `0.0.0.0/0` or `::/0` is the default route.
    pub dst: IpNetwork,
    /// The next hop; where absent, the gateway of the first address of the family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// Path MTU, bytes; 0 is absent.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mtu: u32,
    /// Maximal segment size, bytes; 0 is absent.
    #[serde(default, rename = "advmss", skip_serializing_if = "is_zero")]
    pub advmss: u32,
    /// Metric; 0 is absent.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: u32,
    /// Routing table; 0 is a table of its own and differs from absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// Scope: 0 global, 253 link, 254 host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
}

impl Route {
    /// A route to `dst` by `gw` with nothing else said.
    pub fn new(dst: IpNetwork, gw: Option<IpAddr>) -> Self {
        Self { dst, gw, mtu: 0, advmss: 0, priority: 0, table: None, scope: None }
    }

    /// Whether it is a default route.
    pub fn is_default(&self) -> bool {
        self.dst.prefix() == 0
    }
}

/// Resolver settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Addresses of name servers, as text: CNI leaves their form to the runtime.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Search list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Resolver options.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Dns {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        let Self { nameservers, domain, search, options } = self;
        nameservers.is_empty() && domain.is_empty() && search.is_empty() && options.is_empty()
    }
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}
