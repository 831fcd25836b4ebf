//! What this host's records say of its attachments to networks of the cluster, in the cluster's words.

use std::collections::BTreeMap;

use berth_core::names::{ServedMember, ServiceName};
use berth_core::network::NetworkRecord;
use berth_core::shown::Shown;
use berth_core::{Berth, CoreError, Held};
use berth_store::{AttachmentRow, AttachmentState};
use berth_types::{AttachmentKey, BootId, NetworkName, NodeName};

use crate::cluster::EntryKey;
use crate::joined::Joined;
use crate::model::{LAYOUT, Occupant, OverlayAttachment, Service};

/// This node, as its records are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Me {
    /// Its name.
    pub name: NodeName,
    /// Its epoch.
    pub epoch: u64,
}

impl Me {
    /// The cluster's key for a container of this node.
    pub fn entry_key(&self, key: &AttachmentKey) -> EntryKey {
        EntryKey::Attachment(key.network.clone(), self.name.clone(), occupant(key))
    }
}

/// Everything that this node is to publish, generations left at 0.
pub fn wanted(
    berth: &mut Berth,
    me: &Me,
    joined: &BTreeMap<NetworkName, Joined>,
) -> Result<BTreeMap<EntryKey, OverlayAttachment>, CoreError> {
    let shown = berth.names()?;
    let (networks, held, boot) = (berth.networks()?, berth.held()?, berth.boot().clone());
    let mut wanted = BTreeMap::new();
    for joined in joined.values() {
        let own = of_node(me, joined);
        wanted.insert(own.key(), own);
    }
    for (row, held) in held.iter().filter(|(row, _)| joined.contains_key(&row.key.network)) {
        let Some(network) = networks.iter().find(|network| network.name == row.key.network) else { continue };
        let found = of_container(me, network, (row, held), shown.attachment(&row.key), &boot);
        wanted.extend(found.map(|attachment| (attachment.key(), attachment)));
    }
    Ok(wanted)
}

/// What this node is to publish of one attachment; nothing if it is gone, or not of a network of the cluster.
pub fn wanted_of(
    berth: &mut Berth,
    me: &Me,
    joined: &BTreeMap<NetworkName, Joined>,
    key: &AttachmentKey,
) -> Result<Option<OverlayAttachment>, CoreError> {
    let Some(_) = joined.get(&key.network) else { return Ok(None) };
    let Some(network) = berth.network(&key.network)? else { return Ok(None) };
    let Some((row, held)) = berth.held_of(key)? else { return Ok(None) };
    let (shown, boot) = (berth.name_of(key)?, berth.boot().clone());
    Ok(of_container(me, &network, (&row, &held), shown.as_ref(), &boot))
}

/// The node's own addresses in a network: for traffic that starts on it, or is masqueraded there.
fn of_node(me: &Me, joined: &Joined) -> OverlayAttachment {
    OverlayAttachment {
        v: LAYOUT,
        network: joined.declaration.name.clone(),
        of: Occupant::Node,
        node: me.name.clone(),
        epoch: me.epoch,
        mac: joined.overlay.mac,
        addresses: joined.overlay.addresses.iter().map(|own| own.ip()).collect(),
        names: Box::default(),
        services: Box::default(),
        generation: 0,
    }
}

fn of_container(
    me: &Me,
    network: &NetworkRecord,
    (row, held): (&AttachmentRow, &Held),
    shown: Option<&Shown>,
    boot: &BootId,
) -> Option<OverlayAttachment> {
    let Held::Bridge(record) = held else { return None };
    if row.state != AttachmentState::Ready || row.boot_id != *boot {
        return None;
    }
    let served = ServedMember::of(network, held, shown);
    let (names, services) = served.map(|served| (served.names, served.services)).unwrap_or_default();
    let service = |ServiceName { name, proto, port }: ServiceName| Service { name: Some(name), proto, port };
    Some(OverlayAttachment {
        v: LAYOUT,
        network: row.key.network.clone(),
        of: occupant(&row.key),
        node: me.name.clone(),
        epoch: me.epoch,
        mac: record.mac,
        addresses: record.leases.iter().map(|lease| lease.address.ip()).collect(),
        names: names.into(),
        services: services.into_iter().map(service).collect(),
        generation: 0,
    })
}

fn occupant(key: &AttachmentKey) -> Occupant {
    Occupant::Container { id: key.container.clone(), ifname: key.ifname.clone() }
}
