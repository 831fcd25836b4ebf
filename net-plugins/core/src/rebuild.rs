//! Rebuilds lost records from the tags in the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_netlink::{Link, LinkKind, Netlink, Vxlan, sysctl};
use berth_nft::Element;
use berth_store::lock::RulesLock;
use berth_store::{LeaseScope, NewAttachment};
use berth_types::{AddressLease, AttachmentKey, Dns, Family, MacAddr, NetworkName, Vni};
use ipnetwork::IpNetwork;

use crate::attach::payload;
use crate::attachment::{AttachmentRecord, Guard, PortSpec, key_of_alias};
use crate::berth::Berth;
use crate::elements::owner_mark;
use crate::error::CoreError;
use crate::network::{NetworkRecord, Reach, subnet_of};
use crate::overlay::{OverlayPort, Peers, vxlan_alias};
use crate::published::{Held, Published};
use crate::switch;

pub(crate) fn from_kernel(berth: &mut Berth) -> Result<(), CoreError> {
    // One process at a time; what another has done meanwhile is found and left alone.
    let _lock = RulesLock::exclusive(berth.dirs())?;
    let netlink = Netlink::open()?;
    restore(berth, &netlink)?;
    berth.store_mut().write(|tx| tx.settle().map_err(CoreError::from))?;
    berth.store_mut().settled();
    Ok(())
}

fn restore(berth: &mut Berth, netlink: &Netlink) -> Result<(), CoreError> {
    let links = netlink.links()?;
    let tagged =
        links.iter().any(|link| link.alias.as_deref().is_some_and(|alias| alias.starts_with("berth ")));
    if !tagged {
        return Ok(());
    }
    let held = crate::rules::dump()?;
    restore_switches(berth, &held)?;
    for bridge in links.iter().filter(|link| link.kind == LinkKind::Bridge) {
        let Some(name) = bridge.alias.as_deref().and_then(network_of_alias) else { continue };
        let record = network_record(netlink, name, bridge, &links, &held)?;
        let text = payload(&record)?;
        let boot = berth.boot().clone();
        berth.store_mut().write(|tx| {
            // Made meanwhile: its maker knows more than the kernel tells.
            if tx.live_network(&record.name)?.is_some_and(|row| row.boot_id == boot) {
                return Ok(());
            }
            tx.live_network_put(&record.name, Some(&record.bridge), &text).map_err(CoreError::from)
        })?;
    }
    for host in links.iter().filter(|link| link.kind == LinkKind::Veth) {
        let Some(key) = host.alias.as_deref().and_then(key_of_alias) else { continue };
        let Some(bridge) = links.iter().find(|link| Some(link.index) == host.master) else { continue };
        restore_attachment(berth, key, host, bridge, &held)?;
    }
    Ok(())
}

/// The switches berth turned on, told by the links it closed to each other because of it.
fn restore_switches(berth: &mut Berth, held: &BTreeSet<Element>) -> Result<(), CoreError> {
    let mut turned = BTreeMap::new();
    let mut closed = Vec::new();
    for element in held {
        let Element::ClosedRouter { family, link } = element else { continue };
        closed.push((*family, link.clone()));
        match family {
            Family::V4 => drop(turned.insert(switch::forward_v4(), ("0", "1"))),
            Family::V6 => {
                turned.insert(switch::forward_v6(), ("0", "1"));
                // Where the host had 2 itself, 1 means the same once it forwards no more.
                turned.insert(switch::of_link(Family::V6, link, "accept_ra"), ("1", "2"));
            }
        }
    }
    turned.retain(|key, (_, now)| sysctl::read(key).is_ok_and(|found| found == *now));
    berth.store_mut().write(|tx| {
        for (family, link) in &closed {
            tx.uplink_close(*family, link)?;
        }
        for (key, (before, after)) in &turned {
            tx.sysctl_save(&key.to_string(), before, after)?;
        }
        Ok(())
    })
}

/// Reads back what [`crate::attachment::bridge_alias`] wrote.
fn network_of_alias(alias: &str) -> Option<NetworkName> {
    alias.strip_prefix("berth ")?.parse().ok()
}

fn network_record(
    netlink: &Netlink,
    name: NetworkName,
    bridge: &Link,
    links: &[Link],
    held: &BTreeSet<Element>,
) -> Result<NetworkRecord, CoreError> {
    let has = |element: Element| held.contains(&element);
    let addresses = netlink.addrs(bridge.index)?.into_iter().map(|addr| addr.address);
    let addresses: BTreeSet<IpNetwork> =
        addresses.filter(|net| !net.is_ipv6() || !is_link_local(net)).collect();
    let device = links.iter().find(|link| link.alias.as_ref() == Some(&vxlan_alias(&name)));
    let restored =
        device.map(|link| restored(netlink, link, bridge, (&addresses, held))).transpose()?.flatten();
    let (overlay, vteps) = restored.unzip();
    // Which hosts' addresses are among the set is told by nothing; too many are no harm until they are told anew.
    let macs = held.iter().filter_map(|element| match element {
        Element::HostAcross(mac) => Some(*mac),
        _ => None,
    });
    let peers = vteps.map(|vteps| Peers { vteps, macs: macs.collect() });
    // An overlay's bridge has this host's own addresses with the subnets, and gateways without.
    let (gateways, subnets): (BTreeSet<IpNetwork>, BTreeSet<IpNetwork>) = match &overlay {
        None => (addresses.clone(), addresses.iter().map(|net| subnet_of(*net)).collect()),
        Some(overlay) => {
            let gateways = addresses.difference(&overlay.addresses).copied().collect();
            (gateways, overlay.addresses.iter().map(|net| subnet_of(*net)).collect())
        }
    };
    Ok(NetworkRecord {
        version: NetworkRecord::VERSION,
        reach: Reach {
            masquerade: subnets.iter().any(|net| has(Element::Masquerade(*net))),
            between_containers: has(Element::Within(bridge.name.clone(), bridge.name.clone())),
            isolated: !has(Element::Open(bridge.name.clone())),
            internal: has(Element::Internal(bridge.name.clone())),
        },
        name,
        bridge: bridge.name.clone(),
        bridge_is_ours: true,
        gateway: !gateways.is_empty(),
        gateways,
        subnets,
        mac: bridge.mac.unwrap_or(MacAddr([2, 0, 0, 0, 0, 0])),
        mtu: overlay.as_ref().map(|overlay| overlay.mtu),
        promisc: bridge.promisc,
        vlan: None,
        // Nothing tells what was on it before.
        announces: true,
        // That it has some is told by an element; which, by nothing.
        names: None,
        overlay,
        peers: peers.unwrap_or_default(),
        pending: false,
    })
}

/// An overlay's port as its device tells it, and whom it has entries for.
fn restored(
    netlink: &Netlink,
    link: &Link,
    bridge: &Link,
    (addresses, held): (&BTreeSet<IpNetwork>, &BTreeSet<Element>),
) -> Result<Option<(OverlayPort, BTreeSet<IpAddr>)>, CoreError> {
    let Some(Vxlan { vni, port, local: Some(local), .. }) = link.vxlan else { return Ok(None) };
    let (Ok(vni), Some(mac)) = (Vni::new(vni), bridge.mac) else { return Ok(None) };
    let single = |net: &IpNetwork| net.prefix() == if net.is_ipv4() { 32 } else { 128 };
    let addresses = addresses.iter().filter(|net| !single(net)).copied().collect();
    let flood = link.port.is_some_and(|port| port.flood);
    let vteps = netlink.fdb(link.index)?.into_iter().filter_map(|entry| entry.vtep).collect();
    let encrypted = held.contains(&Element::EncryptedPort(port));
    let port = OverlayPort { vni, port, local, mtu: link.mtu, mac, addresses, flood, encrypted };
    Ok(Some((port, vteps)))
}

fn is_link_local(net: &IpNetwork) -> bool {
    matches!(net, IpNetwork::V6(net) if net.ip().is_unicast_link_local())
}

fn restore_attachment(
    berth: &mut Berth,
    key: AttachmentKey,
    host: &Link,
    bridge: &Link,
    held: &BTreeSet<Element>,
) -> Result<(), CoreError> {
    let network = berth.network(&key.network)?;
    let subnets = network.as_ref().map(|network| network.subnets.clone()).unwrap_or_default();
    let gateways = network.map(|network| network.gateways).unwrap_or_default();
    let mut mac = None;
    let mut leases = Vec::new();
    for element in held {
        match element {
            Element::AllowedMac { port, mac: found } if *port == host.name => mac = Some(*found),
            Element::AllowedAddr { port, addr, .. } if *port == host.name => {
                let Some(subnet) = subnets.iter().find(|subnet| subnet.contains(*addr)) else { continue };
                let gateway = gateways.iter().find(|gateway| subnet.contains(gateway.ip()));
                let Ok(address) = IpNetwork::new(*addr, subnet.prefix()) else { continue };
                leases.push(AddressLease { address, gateway: gateway.map(IpNetwork::ip) });
            }
            _ => (),
        }
    }
    let owner = owner_mark(&key);
    let ports = held.iter().filter_map(|element| match element {
        Element::Port { port, owner: mark } if *mark == owner => Some(*port),
        _ => None,
    });
    let guard = match (mac, leases.is_empty()) {
        (None, _) => Guard::Off,
        (Some(_), true) => Guard::Mac,
        (Some(_), false) => Guard::Full,
    };
    let record = AttachmentRecord {
        version: AttachmentRecord::VERSION,
        bridge: bridge.name.clone(),
        host_ifname: host.name.clone(),
        mac: mac.unwrap_or(MacAddr([0; 6])),
        port: PortSpec {
            hairpin: host.port.as_ref().is_some_and(|port| port.hairpin),
            isolated: host.port.as_ref().is_some_and(|port| port.isolated),
            apart: held.contains(&Element::Apart(host.name.clone())),
            trunk: held.contains(&Element::Trunk(host.name.clone())),
            guard,
        },
        published: Published { ports: ports.collect(), ..Published::default() },
        leases,
        routes: Vec::new(),
        dns: Dns::default(),
        bandwidth: None,
        names: None,
        peer: None,
        sandbox_path: std::path::PathBuf::new(),
        sandbox: None,
        key,
    };
    put(berth, &record)
}

fn put(berth: &mut Berth, record: &AttachmentRecord) -> Result<(), CoreError> {
    let mut published = record.published.clone();
    let text = payload(&Held::Bridge(Box::new(record.clone())))?;
    let new = NewAttachment {
        key: record.key.clone(),
        sandbox: None,
        host_ifname: Some(record.host_ifname.clone()),
        payload: text.clone(),
    };
    berth.store_mut().write(|tx| {
        if tx.attachment(&record.key)?.is_some() {
            return Ok(());
        }
        tx.attachment_begin(&new)?;
        for lease in &record.leases {
            let scope = LeaseScope::new(&record.key.network, None);
            tx.lease_add(&scope, lease.address.ip(), (&record.key, None), 0)?;
        }
        crate::attach::claim(tx, &record.key, &mut published)?;
        tx.attachment_ready(&record.key, &text)?;
        Ok(())
    })
}
