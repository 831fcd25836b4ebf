//! What an attachment is known by and what it was given.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{ContainerId, IfName, NetworkName};

/// Identity of an attachment: one interface of one container on one network.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AttachmentKey {
    /// The network.
    pub network: NetworkName,
    /// The container.
    pub container: ContainerId,
    /// The interface's name inside the sandbox.
    pub ifname: IfName,
}

impl fmt::Display for AttachmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} on {}", self.container.short(), self.ifname, self.network)
    }
}

/// One address an attachment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AddressLease {
    /// The host address with the subnet's prefix length, for instance `10.80.0.2/24`.
    pub address: IpNetwork,
    /// The gateway of the address's subnet, if it has one.
    pub gateway: Option<IpAddr>,
}
