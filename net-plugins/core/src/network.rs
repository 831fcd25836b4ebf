//! What a network is: the choices a caller makes, and what is remembered of it.

use std::collections::BTreeSet;

use berth_types::{IfName, MacAddr, NetworkName};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::names::{NamesSource, NetworkNames};
use crate::overlay::{OverlayPort, Peers};

/// A bridge network as a caller asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSpec {
    /// The network's name.
    pub name: NetworkName,
    /// The bridge; made where missing, never replaced.
    pub bridge: IfName,
    /// MTU of the bridge (only where berth makes it) and of the veth pairs, bytes; absent is the kernel's default.
    pub mtu: Option<u32>,
    /// Whether the bridge carries the gateway address and the host forwards.
    pub gateway: bool,
    /// What happens when the bridge has another address of the family.
    pub other_address: OtherAddress,
    /// Whether the bridge is promiscuous.
    pub promisc: bool,
    /// What leaves and enters.
    pub reach: Reach,
    /// 802.1Q settings of the ports, if any.
    pub vlan: Option<Vlan>,
    /// What is answered to its containers about names; nothing where absent.
    pub names: Option<NetworkNames>,
    /// The port to other hosts, if it has one. Its MTU is the network's.
    pub overlay: Option<OverlayPort>,
}

/// What to do about a different address of the same family on the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherAddress {
    /// Refuse, naming it.
    Refuse,
    /// Replace it (`forceAddress`).
    Replace,
}

/// Who may talk to whom. The defaults are the strict ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// Whether what leaves the subnet carries the host's address, and containers are shielded from direct access.
    pub masquerade: bool,
    /// Whether containers of this network may talk to each other.
    pub between_containers: bool,
    /// Whether other isolated networks are kept apart from this one.
    pub isolated: bool,
    /// Whether nothing leaves and nothing enters.
    pub internal: bool,
}

impl Default for Reach {
    fn default() -> Self {
        Self { masquerade: false, between_containers: true, isolated: true, internal: false }
    }
}

/// 802.1Q settings of a network's ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vlan {
    /// The untagged VLAN of the port, 1 to 4094.
    pub pvid: Option<u16>,
    /// Ranges of tagged VLANs, ends included.
    pub trunk: Vec<(u16, u16)>,
    /// Whether the port keeps the bridge's default VLAN.
    pub keep_default: bool,
}

/// What the records keep of a network that is in the kernel. Stored as JSON; `version` tells the layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// Layout of this record; 1 so far.
    pub version: u32,
    /// The network's name.
    pub name: NetworkName,
    /// Its bridge.
    pub bridge: IfName,
    /// Whether berth made the bridge, and so may remove it.
    pub bridge_is_ours: bool,
    /// Who may talk to whom.
    pub reach: Reach,
    /// Whether the bridge carries gateway addresses.
    pub gateway: bool,
    /// Gateway addresses with their prefixes, on the bridge.
    pub gateways: BTreeSet<IpNetwork>,
    /// The subnets seen on it.
    pub subnets: BTreeSet<IpNetwork>,
    /// The bridge's MAC address.
    pub mac: MacAddr,
    /// MTU asked for.
    pub mtu: Option<u32>,
    /// Whether its bridge is to be promiscuous.
    pub promisc: bool,
    /// 802.1Q settings of its ports.
    pub vlan: Option<Vlan>,
    /// Whether a container is announced to its neighbours: an address of it may have had another MAC address before,
    /// because a container once brought its own, or the subnet reaches beyond this host.
    #[serde(default = "announced")]
    pub announces: bool,
    /// What is answered to its containers about names, at its gateways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<NetworkNames>,
    /// The port to other hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<OverlayPort>,
    /// The other hosts, from which frames are taken.
    #[serde(default, skip_serializing_if = "Peers::is_empty")]
    pub peers: Peers,
    /// Whether somebody is making or changing it, or began to and was killed.
    pub pending: bool,
}

/// Of a record that does not say.
fn announced() -> bool {
    true
}

impl NetworkRecord {
    /// The layout this version writes.
    pub const VERSION: u32 = 1;

    /// What to ask for to have it again.
    pub fn spec(&self) -> NetworkSpec {
        let Self { name, bridge, mtu, gateway, promisc, reach, vlan, names, overlay, .. } = self.clone();
        let other_address = OtherAddress::Refuse;
        NetworkSpec { name, bridge, mtu, gateway, other_address, promisc, reach, vlan, names, overlay }
    }

    /// What is on its bridge: the gateways' addresses, and on an overlay this host's own.
    pub fn bridge_addresses(&self) -> BTreeSet<IpNetwork> {
        let own = self.overlay.iter().flat_map(|overlay| &overlay.addresses);
        self.gateways.iter().chain(own).copied().collect()
    }

    /// Whether another plugin's network is recorded here for its names and nothing else.
    pub fn is_for_names_alone(&self) -> bool {
        self.names.as_ref().is_some_and(|names| names.source == NamesSource::Alone)
    }

    /// The same record with these names, and the ports that were found for those it had.
    #[must_use]
    pub(crate) fn with_names(self, names: Option<NetworkNames>) -> Self {
        let gateways = self.gateways.iter().map(IpNetwork::ip).collect();
        let names = names.map(|names| names.listening_as(self.names.as_ref(), &gateways));
        Self { names, ..self }
    }
}

/// The network part of an address with a prefix: `10.80.0.2/24` gives `10.80.0.0/24`.
pub fn subnet_of(address: IpNetwork) -> IpNetwork {
    IpNetwork::new(address.network(), address.prefix()).unwrap_or(address)
}
