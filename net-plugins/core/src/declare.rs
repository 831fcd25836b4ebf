//! Declared networks: those an engine creates by name and keeps until it removes them, over reboots too.
//!
//! The declaration is durable (`state.db`) and written before the kernel is touched. Making the network in the kernel is
//! the same plan as an attach's, and is done again wherever the declaration is there and the network is not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_netlink::{LOOPBACK_INDEX, Netlink, RouteEntry, RouteFilter};
use berth_store::ReadTx;
use berth_store::lock::HostLock;
use berth_types::{AddressLease, Family, IfName, NetworkName};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::attach::payload;
use crate::berth::{Berth, parsed};
use crate::error::{Chain, CoreError};
use crate::kernel::Kernel;
use crate::names::{Changed, NetworkNames, tell_if_there};
use crate::network::{NetworkRecord, NetworkSpec, OtherAddress, Reach};
use crate::overlay::{OverlayPort, Peers};
use crate::plan::{Joining, overlap};

/// A network as it was declared. Stored as JSON; `version` tells the layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declaration {
    /// Layout of this record; 1 so far.
    pub version: u32,
    /// The network's name, which may be an engine's number for it.
    pub name: NetworkName,
    /// The engine that declared it, and alone may remove it.
    pub engine: String,
    /// The bridge.
    pub bridge: IfName,
    /// MTU, bytes; absent is the kernel's default.
    pub mtu: Option<u32>,
    /// Who may talk to whom.
    pub reach: Reach,
    /// Its subnets with their gateways.
    pub subnets: Vec<DeclaredSubnet>,
    /// What is answered to its containers about names; nothing where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<NetworkNames>,
    /// The port to other hosts, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<OverlayPort>,
    /// What the engine wants to find again. The core does not read it.
    #[serde(default)]
    pub notes: BTreeMap<String, String>,
}

/// A subnet of a declared network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredSubnet {
    /// The subnet.
    pub subnet: IpNetwork,
    /// Its gateway on the bridge, if it has one.
    pub gateway: Option<IpAddr>,
}

/// Why a network cannot be declared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeclareError {
    /// One of that name exists and is another.
    #[error("network `{name}` exists already with other settings")]
    Exists {
        /// The name.
        name: NetworkName,
    },
    /// The subnet is another network's.
    #[error("subnet {subnet} overlaps {other} of network `{holder}`\ngive the network another subnet")]
    Subnet {
        /// The subnet asked for.
        subnet: IpNetwork,
        /// The other subnet.
        other: IpNetwork,
        /// Its network.
        holder: NetworkName,
    },
    /// The host reaches the subnet elsewhere.
    #[error(
        "subnet {subnet} overlaps route {route} by `{link}` of this host\ngive the network another subnet"
    )]
    Route {
        /// The subnet asked for.
        subnet: IpNetwork,
        /// The route's destination.
        route: IpNetwork,
        /// The link it leaves by.
        link: String,
    },
    /// The bridge is another network's.
    #[error("bridge `{bridge}` is network `{holder}`'s\ngive the network another bridge name")]
    Bridge {
        /// The bridge.
        bridge: IfName,
        /// Its network.
        holder: NetworkName,
    },
}

impl Declaration {
    /// The layout this version writes.
    pub const VERSION: u32 = 1;

    /// The network to make.
    pub fn spec(&self) -> NetworkSpec {
        NetworkSpec {
            name: self.name.clone(),
            bridge: self.bridge.clone(),
            mtu: self.mtu,
            gateway: self.subnets.iter().any(|subnet| subnet.gateway.is_some()),
            other_address: OtherAddress::Refuse,
            promisc: false,
            reach: self.reach,
            vlan: None,
            // Nobody asks where there is no gateway to ask at.
            names: self.names.clone().filter(|_| self.subnets.iter().any(|subnet| subnet.gateway.is_some())),
            overlay: self.overlay.clone(),
        }
    }

    /// Whether it is `had` with this host in another place of the same overlay.
    fn is_moved(&self, had: &Self) -> bool {
        let (Some(overlay), Some(before)) = (&self.overlay, &had.overlay) else { return false };
        let (mtu, notes) = (had.mtu, had.notes.clone());
        overlay.is_same_network(before)
            && Self { overlay: had.overlay.clone(), mtu, notes, ..self.clone() } == *had
    }

    /// What the network is made for: each gateway on the bridge, each subnet its own.
    pub fn leases(&self) -> Vec<AddressLease> {
        let lease = |DeclaredSubnet { subnet, gateway }: &DeclaredSubnet| {
            let address = gateway.and_then(|gateway| IpNetwork::new(gateway, subnet.prefix()).ok());
            AddressLease { address: address.unwrap_or(*subnet), gateway: *gateway }
        };
        self.subnets.iter().map(lease).collect()
    }

    /// The gateway of the subnet that `addr` is in.
    pub fn gateway_for(&self, addr: IpAddr) -> Option<IpAddr> {
        self.subnets.iter().find(|subnet| subnet.subnet.contains(addr))?.gateway
    }
}

impl Berth {
    /// Declares the network and makes it. Declared as it is already, it is only made where something of it is missing. On
    /// an error nothing is left of the attempt.
    pub fn create_network(&mut self, wanted: &Declaration) -> Result<(), CoreError> {
        self.create_overlay(wanted, None)
    }

    /// As [`Berth::create_network`], of an overlay with the other hosts that are known already: frames are taken
    /// from them from the first moment. Declared with this host in another place (address, MTU, Ethernet address), it is
    /// changed.
    pub fn create_overlay(&mut self, wanted: &Declaration, peers: Option<&Peers>) -> Result<(), CoreError> {
        let host = HostLock::shared(self.dirs())?;
        let routes = HostRoutes::read()?;
        let text = payload(wanted)?;
        let is_new = self.store_mut().write(|tx| {
            if let Some(row) = tx.network(&wanted.name)? {
                let had: Declaration = parsed(&row.name, &row.payload)?;
                let exists = DeclareError::Exists { name: wanted.name.clone() };
                if wanted.is_moved(&had) && had != *wanted {
                    tx.network_put(&wanted.name, &text)?;
                    return Ok(false);
                }
                return if had == *wanted { Ok(false) } else { Err(exists.into()) };
            }
            refuse(wanted, &others(tx, &wanted.name)?, &routes)?;
            tx.network_put(&wanted.name, &text)?;
            Ok::<_, CoreError>(true)
        })?;
        let made = self.make_overlay(wanted, peers);
        if let (Err(cause), true) = (&made, is_new) {
            tracing::debug!(network = %wanted.name, error = %Chain(cause), "taking the declaration back");
            let taken_back = self.remove_network(&wanted.name).and_then(|()| self.undeclare(&wanted.name));
            if let Err(err) = taken_back {
                tracing::error!(network = %wanted.name, error = %Chain(&err), "declaration left behind");
            }
            drop(host);
            self.leave_if_unused();
        }
        made
    }

    /// Makes a declared network in the kernel where it is not, or not whole.
    pub fn make_declared(&mut self, declaration: &Declaration) -> Result<(), CoreError> {
        self.make_overlay(declaration, None)
    }

    fn make_overlay(&mut self, declaration: &Declaration, peers: Option<&Peers>) -> Result<(), CoreError> {
        let _host = HostLock::shared(self.dirs())?;
        let mut kernel = Kernel::open(self, None)?;
        let leases = declaration.leases();
        let joining = Joining { leases: &leases, peers, ..Joining::default() };
        self.ensure_network(&mut kernel, &declaration.spec(), joining).map(drop)?;
        if declaration.names.is_some() {
            tell_if_there(self.dirs(), &Changed::network(&declaration.name));
        }
        self.unmake_if_unwanted(&declaration.name)
    }

    /// Takes a network away again that was deleted while it was made: whoever makes looks afterwards whether it is still
    /// declared or in use, and whoever deletes removes it once more after the declaration.
    pub(crate) fn unmake_if_unwanted(&mut self, name: &NetworkName) -> Result<(), CoreError> {
        if self.declared(name)?.is_none() {
            // Refused, and rightly so, while somebody is attached.
            self.remove_network_unless_used(name)?;
        }
        Ok(())
    }

    /// Removes a declared network with everything that is still on it: its engine says that nothing is. Unknown is
    /// success. What could not be removed stays declared, to be tried again.
    pub fn delete_network(&mut self, name: &NetworkName) -> Result<(), CoreError> {
        let left = self.store_mut().read(|tx| tx.attachments_of(name).map_err(CoreError::from))?;
        let mut errors = Vec::new();
        for row in left {
            errors.extend(self.detach(&row.key).err().map(|err| Chain(&err).to_string()));
        }
        if !errors.is_empty() {
            return Err(CoreError::Several(errors));
        }
        self.remove_network(name)?;
        self.undeclare(name)?;
        self.unmake_if_unwanted(name)?;
        self.leave_if_unused();
        Ok(())
    }

    fn undeclare(&mut self, name: &NetworkName) -> Result<(), CoreError> {
        self.store_mut().write(|tx| tx.network_remove(name).map(drop).map_err(CoreError::from))
    }

    /// One declared network.
    pub fn declared(&mut self, name: &NetworkName) -> Result<Option<Declaration>, CoreError> {
        let row = self.store_mut().read(|tx| tx.network(name).map_err(CoreError::from))?;
        row.map(|row| parsed(&row.name, &row.payload)).transpose()
    }

    /// All declared networks with when they were declared, milliseconds since 1970. One that cannot be read is logged and
    /// left out, so that it does not hide the others.
    pub fn declarations(&mut self) -> Result<Vec<(Declaration, i64)>, CoreError> {
        let rows = self.store_mut().read(|tx| tx.networks().map_err(CoreError::from))?;
        let read = |row: berth_store::NetworkRow| match parsed(&row.name, &row.payload) {
            Ok(declaration) => Some((declaration, row.created_ms)),
            Err(err) => {
                tracing::error!(network = %row.name, error = %Chain(&err), "declaration cannot be read");
                None
            }
        };
        Ok(rows.into_iter().filter_map(read).collect())
    }

    /// Names of the declared networks, those included that cannot be read.
    pub(crate) fn declared_names(&mut self) -> Result<BTreeSet<NetworkName>, CoreError> {
        let rows = self.store_mut().read(|tx| tx.networks().map_err(CoreError::from))?;
        Ok(rows.into_iter().map(|row| row.name).collect())
    }

    /// Every prefix that is somebody's on this host: addresses, routes, networks, pools. For choosing another.
    pub fn prefixes_in_use(&mut self) -> Result<Vec<IpNetwork>, CoreError> {
        let mut used: Vec<IpNetwork> =
            HostRoutes::read()?.0.into_iter().map(|(route, _)| route.dst).collect();
        used.extend(Netlink::open()?.addrs_all()?.into_iter().map(|addr| addr.address));
        for network in self.networks()? {
            used.extend(network.subnets);
        }
        for (declaration, _) in self.declarations()? {
            used.extend(declaration.subnets.iter().map(|subnet| subnet.subnet));
        }
        Ok(used)
    }
}

/// What another network has.
struct Other {
    name: NetworkName,
    bridge: IfName,
    /// Only subnets the host routes are in anybody's way.
    subnets: Vec<IpNetwork>,
    is_declared: bool,
}

fn others(tx: &ReadTx<'_>, name: &NetworkName) -> Result<Vec<Other>, CoreError> {
    let mut others = Vec::new();
    for row in tx.networks()?.into_iter().filter(|row| row.name != *name) {
        // One that cannot be read holds what its live record says.
        let Ok(Declaration { name, bridge, subnets, .. }) = parsed(&row.name, &row.payload) else { continue };
        let subnets = subnets.iter().map(|subnet| subnet.subnet).collect();
        others.push(Other { name, bridge, subnets, is_declared: true });
    }
    for row in tx.live_networks()?.into_iter().filter(|row| row.name != *name && row.boot_id == *tx.boot()) {
        let NetworkRecord { name, bridge, subnets, gateway, .. } = parsed(&row.name, &row.payload)?;
        let subnets = if gateway { subnets.into_iter().collect() } else { Vec::new() };
        others.push(Other { name, bridge, subnets, is_declared: false });
    }
    Ok(others)
}

/// Refuses what another network or the host has.
fn refuse(
    wanted: &Declaration,
    others: &[Other],
    HostRoutes(routes): &HostRoutes,
) -> Result<(), DeclareError> {
    for Other { name, bridge, subnets, is_declared } in others {
        if *bridge == wanted.bridge && *is_declared {
            return Err(DeclareError::Bridge { bridge: bridge.clone(), holder: name.clone() });
        }
        for DeclaredSubnet { subnet, .. } in &wanted.subnets {
            if let Some(other) = subnets.iter().find(|other| overlap(subnet, other)) {
                return Err(DeclareError::Subnet { subnet: *subnet, other: *other, holder: name.clone() });
            }
        }
    }
    for DeclaredSubnet { subnet, .. } in &wanted.subnets {
        // A bridge that was there before has its own route.
        let elsewhere = |(route, link): &&(RouteEntry, String)| {
            overlap(subnet, &route.dst) && link != wanted.bridge.as_str()
        };
        if let Some((route, link)) = routes.iter().find(elsewhere) {
            return Err(DeclareError::Route { subnet: *subnet, route: route.dst, link: link.clone() });
        }
    }
    Ok(())
}

/// Routes of the host that lead to some addresses and not to others, with the names of their links.
struct HostRoutes(Vec<(RouteEntry, String)>);

impl HostRoutes {
    fn read() -> Result<Self, CoreError> {
        /// `RT_TABLE_MAIN`.
        const MAIN: u32 = 254;
        let netlink = Netlink::open()?;
        let links = netlink.links()?;
        let name_of = |index: Option<u32>| {
            let link = index.and_then(|index| links.iter().find(|link| link.index == index));
            link.map_or_else(|| "several links".to_owned(), |link| link.name.to_string())
        };
        let mut found = Vec::new();
        for family in [Family::V4, Family::V6] {
            let routes = netlink.routes(RouteFilter { family, table: Some(MAIN) })?;
            let telling = |route: &RouteEntry| {
                route.dst.prefix() > 0 && route.oif != Some(LOOPBACK_INDEX) && !is_everywhere(&route.dst)
            };
            found.extend(routes.into_iter().filter(telling).map(|route| {
                let link = name_of(route.oif);
                (route, link)
            }));
        }
        Ok(Self(found))
    }
}

/// Link-local and multicast prefixes are on every link.
fn is_everywhere(dst: &IpNetwork) -> bool {
    match dst {
        IpNetwork::V4(net) => net.network().is_multicast(),
        IpNetwork::V6(net) => net.network().is_unicast_link_local() || net.network().is_multicast(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declaration(name: &str, bridge: &str, subnet: &str) -> Declaration {
        Declaration {
            version: Declaration::VERSION,
            name: name.parse().unwrap(),
            engine: "test".to_owned(),
            bridge: bridge.parse().unwrap(),
            mtu: None,
            reach: Reach::default(),
            subnets: vec![DeclaredSubnet { subnet: subnet.parse().unwrap(), gateway: None }],
            names: None,
            overlay: None,
            notes: BTreeMap::new(),
        }
    }

    fn other(declaration: &Declaration, is_declared: bool) -> Other {
        let Declaration { name, bridge, subnets, .. } = declaration.clone();
        Other { name, bridge, subnets: subnets.iter().map(|subnet| subnet.subnet).collect(), is_declared }
    }

    fn route(dst: &str, link: &str) -> (RouteEntry, String) {
        let entry = RouteEntry {
            dst: dst.parse().unwrap(),
            gateway: None,
            oif: Some(7),
            source: None,
            table: 254,
            scope: 0,
            priority: 0,
            mtu: None,
            advmss: None,
            protocol: 2,
            is_unicast: true,
        };
        (entry, link.to_owned())
    }

    #[test]
    fn what_is_somebody_elses_is_refused_by_its_holder() {
        let wanted = declaration("n1", "br1", "10.80.0.0/24");
        let no_routes = HostRoutes(Vec::new());
        let told = |others: &[Other], routes: &HostRoutes| {
            refuse(&wanted, others, routes).err().map(|err| err.to_string()).unwrap_or_default()
        };
        assert_eq!(told(&[], &no_routes), "");
        let beside = other(&declaration("n2", "br2", "10.80.1.0/24"), true);
        assert_eq!(told(&[beside], &HostRoutes(vec![route("10.80.0.0/24", "br1")])), "");
        let wider = other(&declaration("n2", "br2", "10.80.0.0/16"), false);
        assert!(told(&[wider], &no_routes).contains("overlaps 10.80.0.0/16 of network `n2`"));
        let same_bridge = other(&declaration("n2", "br1", "10.81.0.0/24"), true);
        assert!(told(&[same_bridge], &no_routes).contains("bridge `br1` is network `n2`'s"));
        let inside = HostRoutes(vec![route("10.80.0.128/25", "up0")]);
        assert!(told(&[], &inside).contains("overlaps route 10.80.0.128/25 by `up0` of this host"));
    }

    #[test]
    fn a_declaration_is_made_with_its_gateways() {
        let mut wanted = declaration("n1", "br1", "10.80.0.0/24");
        assert!(!wanted.spec().gateway);
        assert_eq!(wanted.leases()[0].address.to_string(), "10.80.0.0/24");
        wanted.subnets[0].gateway = Some("10.80.0.254".parse().unwrap());
        assert!(wanted.spec().gateway);
        assert_eq!(wanted.leases()[0].address.to_string(), "10.80.0.254/24");
        assert_eq!(wanted.gateway_for("10.80.0.7".parse().unwrap()), wanted.subnets[0].gateway);
        assert_eq!(wanted.gateway_for("10.81.0.7".parse().unwrap()), None);
    }
}
