//! A network of the cluster that this host is on: the declaration that says so, durable. With this host's blocks it is all
//! that a container's start needs, without an agent and without the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_core::declare::{Declaration, DeclaredSubnet};
use berth_core::names::NetworkNames;
use berth_core::network::Reach;
use berth_core::overlay::{OverlayPort, bridge_of};
use berth_core::{Berth, CoreError};
use berth_ipam::{PoolConfig, Span};
use berth_store::{BlockStage, ReadTx};
use berth_types::{MacAddr, NetworkName, NodeName};
use ipnetwork::IpNetwork;

use crate::blocks::local_pool;
use crate::model::{OverlayNetwork, OverlaySubnet};

/// The engine of declarations that are the agent's.
pub const ENGINE: &str = "overlay";

/// The note of a declaration with the cluster's record of the network.
const RECORD: &str = "network";

/// A network of the cluster that this host is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// What the core knows of it.
    pub declaration: Declaration,
    /// Its port to the other hosts, the same as the declaration's.
    pub overlay: OverlayPort,
    /// The cluster's record of it, as it was joined.
    pub record: OverlayNetwork,
}

/// This host in a network.
#[derive(Debug, Clone, Copy)]
pub struct Seat<'a> {
    /// The node.
    pub node: &'a NodeName,
    /// Its tunnel end.
    pub local: IpAddr,
}

impl Joined {
    /// The network `name`, if it is one that this host is on.
    pub fn find(berth: &mut Berth, name: &NetworkName) -> Result<Option<Self>, CoreError> {
        Ok(berth.declared(name)?.and_then(Self::of))
    }

    /// All of them, by name.
    pub fn all(berth: &mut Berth) -> Result<BTreeMap<NetworkName, Self>, CoreError> {
        let all = berth.declarations()?.into_iter().filter_map(|(declaration, _)| Self::of(declaration));
        Ok(all.map(|joined| (joined.declaration.name.clone(), joined)).collect())
    }

    /// The one that `declaration` is of, if it is one.
    pub fn of(declaration: Declaration) -> Option<Self> {
        let overlay = declaration.overlay.clone().filter(|_| declaration.engine == ENGINE)?;
        let record = serde_json::from_str(declaration.notes.get(RECORD)?).ok()?;
        Some(Self { declaration, overlay, record })
    }

    /// `network` as this host joins it with `blocks`, at least one of each subnet: the first usable address of the first is its
    /// own. `None` if they are not enough.
    pub fn new(record: &OverlayNetwork, seat: Seat<'_>, blocks: &[IpNetwork]) -> Option<Self> {
        let own = |subnet: &OverlaySubnet| {
            let inside = blocks.iter().filter(|block| subnet.subnet.contains(block.network()));
            let first = inside.copied().find_map(|block| first_usable(block, subnet))?;
            IpNetwork::new(first, subnet.subnet.prefix()).ok()
        };
        let addresses: BTreeSet<IpNetwork> = record.subnets.iter().map(own).collect::<Option<_>>()?;
        let overlay = OverlayPort {
            vni: record.vni,
            port: record.port,
            local: seat.local,
            mtu: record.mtu,
            mac: MacAddr::of_names([record.name.as_str(), "node", seat.node.as_str()]),
            addresses,
            flood: record.flood,
            encrypted: record.encrypted,
        };
        let subnet =
            |subnet: &OverlaySubnet| DeclaredSubnet { subnet: subnet.subnet, gateway: Some(subnet.gateway) };
        let text = serde_json::to_string(record).ok()?;
        let declaration = Declaration {
            version: Declaration::VERSION,
            name: record.name.clone(),
            engine: ENGINE.to_owned(),
            bridge: bridge_of(record.vni),
            mtu: Some(record.mtu),
            reach: Reach {
                masquerade: record.masquerade && !record.internal,
                between_containers: record.between_containers,
                isolated: record.isolated,
                internal: record.internal,
            },
            subnets: record.subnets.iter().map(subnet).collect(),
            names: Some(NetworkNames::usual()),
            overlay: Some(overlay.clone()),
            notes: BTreeMap::from([(RECORD.to_owned(), text)]),
        };
        Some(Self { declaration, overlay, record: record.clone() })
    }

    /// The same with this host's frames leaving from `local`.
    #[must_use]
    pub fn moved(mut self, local: IpAddr) -> Self {
        self.overlay.local = local;
        self.declaration.overlay = Some(self.overlay.clone());
        self
    }

    /// Where containers get their addresses from: this host's blocks, but for what is lent of them and its own address. To be
    /// read in the transaction that gives one.
    ///
    /// # Errors
    ///
    /// [`CoreError::NoRoom`]: of a subnet this host has no part.
    pub fn pool(&self, tx: &ReadTx<'_>) -> Result<PoolConfig, CoreError> {
        let network = self.record.name.clone();
        let pool = local_pool(tx, &self.record)?;
        let mut pool = pool.map_err(|err| CoreError::NoRoom { network, why: err.to_string() })?;
        pool.exclude.extend(self.overlay.addresses.iter().map(|own| Span::single(own.ip())));
        Ok(pool)
    }
}

/// This host's parts of a network that it gives addresses from.
pub fn open_blocks(berth: &mut Berth, name: &NetworkName) -> Result<Vec<IpNetwork>, CoreError> {
    let rows = berth.store_mut().read(|tx| tx.cluster_blocks(name).map_err(CoreError::from))?;
    Ok(rows.into_iter().filter(|row| row.stage == BlockStage::Open).map(|row| row.cidr).collect())
}

/// The first address of `block` that is nobody's by its place.
fn first_usable(block: IpNetwork, OverlaySubnet { subnet, gateway }: &OverlaySubnet) -> Option<IpAddr> {
    let special = |addr: &IpAddr| {
        *addr == subnet.network() || *addr == *gateway || (subnet.is_ipv4() && *addr == subnet.broadcast())
    };
    block.iter().take(4).find(|addr| !special(addr))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::samples::network;

    fn joined(blocks: &[&str]) -> Option<Joined> {
        let blocks: Vec<IpNetwork> = blocks.iter().map(|block| block.parse().unwrap()).collect();
        let seat = Seat { node: &"n1".parse().unwrap(), local: "192.0.2.1".parse().unwrap() };
        Joined::new(&network("blue"), seat, &blocks)
    }

    #[test]
    fn a_declaration_gives_back_what_it_was_made_of() {
        let joined = joined(&["10.0.0.16/28", "10.0.0.64/28"]).unwrap();
        assert_eq!(Joined::of(joined.declaration.clone()), Some(joined.clone()));
        assert_eq!(joined.overlay.addresses, ["10.0.0.16/24".parse().unwrap()].into());
        let moved = joined.clone().moved("192.0.2.9".parse().unwrap());
        assert_eq!(Joined::of(moved.declaration).unwrap().overlay.local.to_string(), "192.0.2.9");
        let foreign = Declaration { engine: "docker".into(), ..joined.declaration };
        assert_eq!(Joined::of(foreign), None);
    }

    #[test]
    fn a_nodes_own_address_is_nobodys_by_its_place() {
        let own = |block: &str| joined(&[block]).unwrap().overlay.addresses.first().unwrap().ip().to_string();
        assert_eq!(own("10.0.0.0/28"), "10.0.0.2", "after the subnet's own and the gateway's");
        assert_eq!(own("10.0.0.240/28"), "10.0.0.240");
        assert_eq!(joined(&[]), None);
    }
}
