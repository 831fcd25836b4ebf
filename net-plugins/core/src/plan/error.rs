//! Why a network cannot be planned.

use berth_types::{IfName, NetworkName, Vni};
use ipnetwork::IpNetwork;

/// Why a network or an attachment cannot be planned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The bridge's name belongs to something else.
    #[error(
        "failed to create bridge \"{name}\": \"{name}\" already exists but is not a bridge (it is {kind})"
    )]
    NotABridge {
        /// The name.
        name: IfName,
        /// What it is.
        kind: String,
    },
    /// The bridge has another address of the family.
    #[error("bridge `{bridge}` already has address {found}, not {wanted}; remove it or set `forceAddress`")]
    OtherAddress {
        /// The bridge.
        bridge: IfName,
        /// The address it has.
        found: IpNetwork,
        /// The address asked for.
        wanted: IpNetwork,
    },
    /// The subnet overlaps another network's.
    #[error("subnet {subnet} overlaps {other} of network `{holder}` on bridge `{bridge}`")]
    Overlap {
        /// The subnet asked for.
        subnet: IpNetwork,
        /// The other subnet.
        other: IpNetwork,
        /// Its network.
        holder: String,
        /// Its bridge.
        bridge: IfName,
    },
    /// An overlay's bridge has this host's MAC address and MTU, which only berth's own can be given.
    #[error(
        "bridge `{bridge}` is not berth's: an overlay network needs a bridge of its own\nname another bridge, or none"
    )]
    ForeignBridge {
        /// The bridge.
        bridge: IfName,
    },
    /// The name of the VXLAN device belongs to something else.
    #[error("link `{name}` ({kind}) stands where the network's VXLAN device belongs\nrename or remove it")]
    NotItsDevice {
        /// The name.
        name: IfName,
        /// What it is.
        kind: String,
    },
    /// The network stands with another number.
    #[error(
        "network `{network}` has VNI {} on UDP port {} here, not {} on {}\nremove the network on this host first",
        had.0, had.1, wanted.0, wanted.1
    )]
    OtherVni {
        /// The network.
        network: NetworkName,
        /// Its VNI and UDP port.
        had: (Vni, u16),
        /// Those asked for.
        wanted: (Vni, u16),
    },
    /// The kernel cannot do what the configuration asks.
    #[error("this kernel cannot do {what}: {option} is off")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
        /// The kernel option.
        option: &'static str,
    },
}
