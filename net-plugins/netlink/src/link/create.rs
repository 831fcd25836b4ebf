//! Creating bridges and functional blocks.

use berth_types::{IfName, MacAddr};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoBridge, InfoData, LinkMessage};
use rtnetlink::{LinkBridge, LinkIfb, LinkMessageBuilder};
use rustix::io::Errno;

use super::{Link, LinkChange, first_link, read};
use crate::error::{NetlinkError, Side};
use crate::netlink::Netlink;

/// A bridge to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeSpec {
    /// Its name.
    pub name: IfName,
    /// Largest packet, bytes; none is the kernel's default, the least of its ports'.
    pub mtu: Option<u32>,
    /// Its Ethernet address; none keeps the random one the kernel gives. Either is fixed: it does not follow the
    /// ports, as an address that nobody set does.
    pub mac: Option<MacAddr>,
    /// Free text, at most 255 bytes.
    pub alias: Option<String>,
    /// Whether it keeps VLANs apart.
    pub vlan_filtering: bool,
    /// Whether it takes every frame.
    pub promisc: bool,
}

/// What [`Netlink::bridge_add`] and the VLAN calls say where the kernel keeps no VLANs apart.
pub(super) const VLAN_FILTERING_MISSING: NetlinkError =
    NetlinkError::Unsupported { feature: "VLAN filtering on bridges" };

/// Whether the kernel lacks the driver itself (`rtnl_newlink` in net/core/rtnetlink.c says so in words alone).
fn is_unknown_kind(err: &NetlinkError) -> bool {
    let words = match err {
        NetlinkError::Kernel { source, .. } => source.message.as_deref(),
        _ => None,
    };
    words.is_some_and(|words| words.starts_with("Unknown device type"))
}

impl Netlink {
    /// Creates a bridge, which is down and without addresses.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::NameTaken`] if a link of the name exists; [`NetlinkError::Unsupported`] if VLAN filtering is
    /// asked for and the kernel lacks it; [`NetlinkError::Kernel`]. After an error there is no bridge.
    pub fn bridge_add(&self, spec: &BridgeSpec) -> Result<Link, NetlinkError> {
        let BridgeSpec { name, mtu, mac, alias, vlan_filtering, promisc } = spec;
        let mut builder = LinkMessageBuilder::<LinkBridge>::new(name.as_str());
        if *vlan_filtering {
            builder = builder.set_info_data(InfoData::Bridge(vec![InfoBridge::VlanFiltering(true)]));
        }
        if let Some(mtu) = mtu {
            builder = builder.mtu(*mtu);
        }
        if let Some(MacAddr(bytes)) = mac {
            builder = builder.address(bytes.to_vec());
        }
        let created = match self.link_add("create bridge", name, builder.build()) {
            // Newer kernels refuse what they lack; but so they do where they have no bridges at all.
            Err(err) if *vlan_filtering && err.is_unsupported() && !is_unknown_kind(&err) => {
                return Err(VLAN_FILTERING_MISSING);
            }
            outcome => outcome?,
        };
        // Older ones without CONFIG_BRIDGE_VLAN_FILTERING ignore the attribute (`br_changelink` in
        // net/bridge/br_netlink.c), which would leave VLANs open to each other.
        if *vlan_filtering && created.vlan_filtering != Some(true) {
            self.link_del(created.index)?;
            return Err(VLAN_FILTERING_MISSING);
        }
        let change = LinkChange {
            // Setting the address it has makes it its own (`NET_ADDR_SET`, `br_stp_recalculate_bridge_id`).
            mac: if mac.is_none() { created.mac } else { None },
            promisc: promisc.then_some(true),
            alias: alias.clone(),
            ..LinkChange::default()
        };
        self.finish(created, change)
    }

    /// Creates a functional block, to which [`Netlink::ingress_redirect`] can lead what arrives elsewhere.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::NameTaken`]; [`NetlinkError::Kernel`], which [`NetlinkError::is_unsupported`] if the kernel
    /// has no such driver.
    pub fn ifb_add(
        &self,
        name: &IfName,
        alias: Option<&str>,
        mtu: Option<u32>,
    ) -> Result<Link, NetlinkError> {
        let mut builder = LinkIfb::new(name.as_str());
        if let Some(mtu) = mtu {
            builder = builder.mtu(mtu);
        }
        let created = self.link_add("create functional block", name, builder.build())?;
        self.finish(created, LinkChange { alias: alias.map(str::to_owned), ..LinkChange::default() })
    }

    /// Creates the link that `message` describes and reads it back.
    pub(super) fn link_add(
        &self,
        operation: &'static str,
        name: &IfName,
        message: LinkMessage,
    ) -> Result<Link, NetlinkError> {
        let flags = NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO;
        let answers = self.request(RouteNetlinkMessage::NewLink(message), flags).map_err(|failure| {
            if failure.errno() == Some(Errno::EXIST) {
                NetlinkError::NameTaken { name: name.clone(), side: Side::Host }
            } else {
                failure.on(operation, format_args!("`{name}`"))
            }
        })?;
        self.created(operation, name, answers)
    }

    /// The link just created: as the kernel echoed it, or read by name where it does not echo (before Linux 6.1).
    pub(super) fn created(
        &self,
        operation: &'static str,
        name: &IfName,
        answers: Vec<RouteNetlinkMessage>,
    ) -> Result<Link, NetlinkError> {
        if let Some(message) = first_link(answers) {
            return read(operation, format_args!("`{name}`"), message);
        }
        self.link_by_name(name)?.ok_or_else(|| NetlinkError::Answer {
            operation,
            object: format!("`{name}`"),
            why: "it was created, and is gone".to_owned(),
        })
    }

    /// Applies to a new link what the kernel does not take at creation; deletes the link if that fails.
    pub(super) fn finish(&self, mut link: Link, change: LinkChange) -> Result<Link, NetlinkError> {
        if change != LinkChange::default() {
            if let Err(err) = self.link_change(link.index, &change) {
                // The first error is the one to tell; a link left behind carries berth's name and is found by it.
                let _ = self.link_del(link.index);
                return Err(err);
            }
            link.promisc |= change.promisc == Some(true);
            link.alias = change.alias.or(link.alias);
        }
        Ok(link)
    }
}
