//! VXLAN devices, created whole in one message, and who stands in their way.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use berth_types::{IfName, MacAddr, Proto, Vni};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoVxlan, LinkMessage};
use rtnetlink::{LinkMessageBuilder, LinkVxlan};
use rustix::io::Errno;

use super::{Link, LinkChange, PortChange};
use crate::error::{Failure, NetlinkError, Side};
use crate::netlink::Netlink;
use crate::port_probe::{ProcessHolder, holder_of};

/// A VXLAN device to create. It learns nothing: where addresses are is told by forwarding entries alone. Its outer UDP
/// packets carry checksums, and it gets no IPv6 link-local address: it is made to be a bridge's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VxlanSpec {
    /// Its name.
    pub name: IfName,
    /// The network's number on the wire.
    pub vni: Vni,
    /// The UDP port that its packets go to and come in by.
    pub port: u16,
    /// The address its packets leave from, which the host must have when they do.
    pub local: IpAddr,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Largest packet, bytes. Without it the kernel takes 1500, which no underlay of 1500 carries.
    pub mtu: u32,
    /// Hops its packets may take; none is the kernel's default.
    pub ttl: Option<u8>,
    /// Free text, at most 255 bytes.
    pub alias: Option<String>,
    /// Index of the bridge that it becomes a port of.
    pub master: Option<u32>,
    /// Settings as that bridge's port.
    pub port_settings: PortChange,
}

/// What makes a link a VXLAN device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vxlan {
    /// The network's number on the wire; 0 for a device that carries many.
    pub vni: u32,
    /// Its UDP port.
    pub port: u16,
    /// The address its packets leave from.
    pub local: Option<IpAddr>,
    /// Whether it learns where addresses are from packets that come in.
    pub learning: bool,
}

/// Who has what a VXLAN device needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// A link of this namespace.
    Link(IfName),
    /// A process.
    Process(ProcessHolder),
    /// Nobody who can be seen: a device that was moved to another namespace, or one of the kernel's own sockets.
    Unseen,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(name) => write!(f, "link `{name}`"),
            Self::Process(ProcessHolder { pid, command }) => write!(f, "`{command}` (process {pid})"),
            Self::Unseen => f.write_str("a device in another namespace, or the kernel itself"),
        }
    }
}

impl Netlink {
    /// Creates a VXLAN device, which is down, with everything the kernel takes at creation in one message.
    ///
    /// Its UDP socket is opened when it is set up; see [`Netlink::link_set_up`].
    ///
    /// # Errors
    ///
    /// [`NetlinkError::NameTaken`]; [`NetlinkError::VniTaken`] if a device has the VNI on the UDP port;
    /// [`NetlinkError::BridgeFull`]; [`NetlinkError::Kernel`]. After an error there is no device.
    pub fn vxlan_add(&self, spec: &VxlanSpec) -> Result<Link, NetlinkError> {
        const OPERATION: &str = "create VXLAN device";
        let message = RouteNetlinkMessage::NewLink(creation(spec));
        let answers = match self.request(message, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO) {
            Ok(answers) => answers,
            Err(failure) => return Err(self.vxlan_refused(spec, failure, OPERATION)?),
        };
        let link = self.created(OPERATION, &spec.name, answers)?;
        let change = LinkChange {
            alias: spec.alias.clone(),
            link_local: Some(false),
            port: spec.port_settings,
            ..LinkChange::default()
        };
        let finished = self.finish(link, change)?;
        // The echo came before the port settings.
        Ok(self.link_by_index(finished.index)?.unwrap_or(finished))
    }

    /// Why the kernel refused `spec`.
    fn vxlan_refused(
        &self,
        spec: &VxlanSpec,
        failure: Failure,
        operation: &'static str,
    ) -> Result<NetlinkError, NetlinkError> {
        match (failure.errno(), spec.master) {
            (Some(Errno::XFULL), Some(master)) => return self.bridge_full(master),
            (Some(Errno::EXIST), _) => (),
            _ => return Ok(failure.on(operation, format_args!("`{}`", spec.name))),
        }
        // The kernel says the same of the name and of the VNI.
        if self.link_by_name(&spec.name)?.is_some() {
            return Ok(NetlinkError::NameTaken { name: spec.name.clone(), side: Side::Host });
        }
        let (vni, port) = (spec.vni, spec.port);
        let has_both = |vxlan: &Vxlan| vxlan.vni == vni.get() && vxlan.port == port;
        let links = self.links()?.into_iter();
        let holder =
            links.filter(|link| link.vxlan.as_ref().is_some_and(has_both)).map(|link| link.name).next();
        Ok(NetlinkError::VniTaken { vni, port, holder: holder.map_or(Holder::Unseen, Holder::Link) })
    }

    /// What [`NetlinkError::UdpPortTaken`] says of the device with `index`, if it is a VXLAN device.
    pub(super) fn vxlan_port_taken(&self, index: u32) -> Result<Option<NetlinkError>, NetlinkError> {
        let Some(Link { name, vxlan: Some(vxlan), .. }) = self.link_by_index(index)? else { return Ok(None) };
        let port = vxlan.port;
        let any: IpAddr = match vxlan.local {
            Some(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
            _ => Ipv4Addr::UNSPECIFIED.into(),
        };
        // Devices share the socket of their port unless they differ in how they use it.
        let beside = |link: &Link| {
            link.index != index && link.up && link.vxlan.as_ref().is_some_and(|other| other.port == port)
        };
        let holder = match holder_of(Proto::Udp, any, port) {
            Some(process) => Holder::Process(process),
            None => {
                self.links()?.into_iter().find(beside).map_or(Holder::Unseen, |link| Holder::Link(link.name))
            }
        };
        Ok(Some(NetlinkError::UdpPortTaken { name, port, holder }))
    }
}

fn creation(spec: &VxlanSpec) -> LinkMessage {
    let VxlanSpec { name, vni, port, local, mac: MacAddr(mac), mtu, ttl, alias: _, master, port_settings: _ } =
        spec;
    let mut settings = vec![
        InfoVxlan::Id(vni.get()),
        match local {
            IpAddr::V4(v4) => InfoVxlan::Local(*v4),
            IpAddr::V6(v6) => InfoVxlan::Local6(*v6),
        },
        InfoVxlan::Port(*port),
        InfoVxlan::Learning(false),
        InfoVxlan::UDPCsum(true),
        InfoVxlan::UDPZeroCsumTX(false),
        InfoVxlan::UDPZeroCsumRX(false),
    ];
    settings.extend(ttl.map(InfoVxlan::Ttl));
    let builder = LinkMessageBuilder::<LinkVxlan>::new(name.as_str());
    let mut builder = builder.set_info_data(InfoData::Vxlan(settings)).address(mac.to_vec()).mtu(*mtu);
    if let Some(master) = master {
        builder = builder.controller(*master);
    }
    builder.build()
}

/// From the kernel's settings.
pub(super) fn read(settings: &[InfoVxlan]) -> Vxlan {
    let mut vxlan = Vxlan { vni: 0, port: 0, local: None, learning: false };
    for setting in settings {
        match setting {
            InfoVxlan::Id(vni) => vxlan.vni = *vni,
            InfoVxlan::Port(port) => vxlan.port = *port,
            InfoVxlan::Local(v4) => vxlan.local = Some((*v4).into()),
            InfoVxlan::Local6(v6) => vxlan.local = Some((*v6).into()),
            InfoVxlan::Learning(on) => vxlan.learning = *on,
            _ => (),
        }
    }
    vxlan
}
