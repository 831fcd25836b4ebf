//! Changing links. Whatever changes together goes in one message.

use berth_types::MacAddr;
use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoBridgePort, InfoPortData, InfoPortKind, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use crate::error::NetlinkError;
use crate::netlink::Netlink;

/// `IFLA_INET_CONF` of linux/if_link.h and `IPV4_DEVCONF_ARP_NOTIFY` of linux/ip.h.
const IFLA_INET_CONF: u16 = 1;
const IPV4_DEVCONF_ARP_NOTIFY: u16 = 22;

/// Settings of a bridge's port to change; what is none stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PortChange {
    /// Frames may leave by the port they came in.
    pub hairpin: Option<bool>,
    /// The port exchanges frames only with ports that are not isolated.
    pub isolated: Option<bool>,
    /// Learn source addresses here.
    pub learning: Option<bool>,
    /// Send frames to unknown unicast addresses here.
    pub flood: Option<bool>,
    /// Send multicast frames here that no one asked for.
    pub mcast_flood: Option<bool>,
    /// Send broadcast frames here.
    pub bcast_flood: Option<bool>,
    /// Answer ARP and neighbour solicitations from the bridge's own tables (for a VXLAN port).
    pub neigh_suppress: Option<bool>,
}

impl PortChange {
    fn settings(&self) -> Vec<InfoBridgePort> {
        let Self { hairpin, isolated, learning, flood, mcast_flood, bcast_flood, neigh_suppress } = *self;
        [
            hairpin.map(InfoBridgePort::HairpinMode),
            isolated.map(InfoBridgePort::Isolated),
            learning.map(InfoBridgePort::Learning),
            flood.map(InfoBridgePort::UnicastFlood),
            mcast_flood.map(InfoBridgePort::MulticastFlood),
            bcast_flood.map(InfoBridgePort::BroadcastFlood),
            neigh_suppress.map(InfoBridgePort::NeighSupress),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// What to change of a link; what is none stays.
///
/// The kernel applies the fields in its own order (`do_setlink` in net/core/rtnetlink.c): `up` comes before
/// `link_local` and `arp_notify`, which therefore only help a link that goes up in a later change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkChange {
    /// Set it up or down.
    pub up: Option<bool>,
    /// Largest packet, bytes.
    pub mtu: Option<u32>,
    /// The Ethernet address.
    pub mac: Option<MacAddr>,
    /// Take every frame.
    pub promisc: Option<bool>,
    /// Free text, at most 255 bytes; empty removes it.
    pub alias: Option<String>,
    /// Make it a port of the bridge with this index; 0 releases it.
    pub master: Option<u32>,
    /// Whether it gets an IPv6 link-local address when it goes up. Without IPv6 in the kernel this is not an error.
    pub link_local: Option<bool>,
    /// Whether the kernel announces the link's IPv4 addresses when it goes up or its Ethernet address is set
    /// (`arp_notify`). See [`Netlink::link_announce`].
    pub arp_notify: Option<bool>,
    /// Settings as a bridge's port, which it must be already.
    pub port: PortChange,
}

impl LinkChange {
    /// The message for the link with `index`; `inet6` is whether the kernel knows that family.
    fn message(&self, index: u32, inet6: bool) -> RouteNetlinkMessage {
        let Self { up, mtu, mac, promisc, alias, master, link_local, arp_notify, port } = self;
        let mut message = LinkMessage::default();
        message.header.index = index;
        for (flag, value) in [(LinkFlags::Up, *up), (LinkFlags::Promisc, *promisc)] {
            if let Some(value) = value {
                message.header.change_mask |= flag;
                message.header.flags.set(flag, value);
            }
        }
        let mut families = Vec::new();
        families.extend(arp_notify.map(arp_notify_attribute));
        families.extend(link_local.filter(|_| inet6).map(link_local_attribute));

        let attributes = &mut message.attributes;
        attributes.extend(mtu.map(LinkAttribute::Mtu));
        attributes.extend(mac.map(|MacAddr(bytes)| LinkAttribute::Address(bytes.to_vec())));
        attributes.extend(alias.clone().map(LinkAttribute::IfAlias));
        attributes.extend(master.map(LinkAttribute::Controller));
        if !families.is_empty() {
            attributes.push(LinkAttribute::AfSpecUnspec(families));
        }
        let settings = port.settings();
        if settings.is_empty() {
            return RouteNetlinkMessage::SetLink(message);
        }
        // Settings of a port are read from RTM_NEWLINK only; without NLM_F_CREATE it changes what exists.
        let data = InfoPortData::BridgePort(settings);
        let infos = vec![LinkInfo::PortKind(InfoPortKind::Bridge), LinkInfo::PortData(data)];
        attributes.push(LinkAttribute::LinkInfo(infos));
        RouteNetlinkMessage::NewLink(message)
    }
}

fn link_local_attribute(on: bool) -> AfSpecUnspec {
    let mode = if on { In6AddrGenMode::Eui64 } else { In6AddrGenMode::None };
    AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(mode)])
}

/// The netlink crate reads IPv4 settings as one structure, but they are written one by one.
fn arp_notify_attribute(on: bool) -> AfSpecUnspec {
    let setting = DefaultNla::new(IPV4_DEVCONF_ARP_NOTIFY, u32::from(on).to_ne_bytes().to_vec());
    let settings = DefaultNla::new(IFLA_INET_CONF | NLA_F_NESTED, emitted(&setting));
    let family = u16::from(u8::from(AddressFamily::Inet));
    AfSpecUnspec::Other(DefaultNla::new(family | NLA_F_NESTED, emitted(&settings)))
}

fn emitted(attribute: &DefaultNla) -> Vec<u8> {
    let mut bytes = vec![0; attribute.buffer_len()];
    attribute.emit(&mut bytes);
    bytes
}

impl Netlink {
    /// Applies `change` to the link with `index`, in one message.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Kernel`]; [`NetlinkError::is_absent`] if there is no such link.
    pub fn link_change(&self, index: u32, change: &LinkChange) -> Result<(), NetlinkError> {
        self.change(index, change, "change link")
    }

    fn change(&self, index: u32, change: &LinkChange, operation: &'static str) -> Result<(), NetlinkError> {
        let outcome = match self.request(change.message(index, true), 0) {
            // A kernel without IPv6 gives no link-local addresses anyway.
            Err(failure) if failure.errno() == Some(Errno::AFNOSUPPORT) && change.link_local.is_some() => {
                self.request(change.message(index, false), 0)
            }
            outcome => outcome,
        };
        match (outcome, change.master) {
            (Err(failure), Some(master)) if failure.errno() == Some(Errno::XFULL) => {
                Err(self.bridge_full(master)?)
            }
            (outcome, _) => {
                outcome.map(drop).map_err(|failure| failure.on(operation, format_args!("number {index}")))
            }
        }
    }

    /// Sets a link up.
    ///
    /// # Errors
    ///
    /// As [`Netlink::link_change`]; [`NetlinkError::UdpPortTaken`] of a VXLAN device whose port somebody else has, looked
    /// for in the calling thread's namespace.
    pub fn link_set_up(&self, index: u32) -> Result<(), NetlinkError> {
        let change = LinkChange { up: Some(true), ..LinkChange::default() };
        match self.change(index, &change, "set up link") {
            Err(err) if err.errno() == Some(Errno::ADDRINUSE) => {
                Err(self.vxlan_port_taken(index)?.unwrap_or(err))
            }
            outcome => outcome,
        }
    }

    /// Sets a link down.
    ///
    /// # Errors
    ///
    /// As [`Netlink::link_change`].
    pub fn link_set_down(&self, index: u32) -> Result<(), NetlinkError> {
        self.change(index, &LinkChange { up: Some(false), ..LinkChange::default() }, "set down link")
    }

    /// Sets a link's MTU, bytes.
    ///
    /// # Errors
    ///
    /// As [`Netlink::link_change`].
    pub fn link_set_mtu(&self, index: u32, mtu: u32) -> Result<(), NetlinkError> {
        self.change(index, &LinkChange { mtu: Some(mtu), ..LinkChange::default() }, "set the MTU of link")
    }

    /// Sets a link's Ethernet address.
    ///
    /// # Errors
    ///
    /// As [`Netlink::link_change`].
    pub fn link_set_mac(&self, index: u32, mac: MacAddr) -> Result<(), NetlinkError> {
        self.change(index, &LinkChange { mac: Some(mac), ..LinkChange::default() }, "set the address of link")
    }

    /// Makes a link take every frame, or only its own again.
    ///
    /// # Errors
    ///
    /// As [`Netlink::link_change`].
    pub fn link_set_promisc(&self, index: u32, on: bool) -> Result<(), NetlinkError> {
        let change = LinkChange { promisc: Some(on), ..LinkChange::default() };
        self.change(index, &change, "set promiscuous mode of link")
    }

    /// Sets a link's alias, at most 255 bytes; an empty one removes it.
    ///
    /// # Errors
    ///
    /// As [`Netlink::link_change`].
    pub fn link_set_alias(&self, index: u32, alias: &str) -> Result<(), NetlinkError> {
        let change = LinkChange { alias: Some(alias.to_owned()), ..LinkChange::default() };
        self.change(index, &change, "set the alias of link")
    }

    /// Has the kernel announce the addresses of a link that is up, by setting its Ethernet address to `mac`, the one it
    /// has: IPv4 ones if [`LinkChange::arp_notify`] was set, IPv6 ones if the switch `ndisc_notify` was.
    ///
    /// It takes one message, where [`crate::announce`] costs a packet socket. The bridge must forward already
    /// ([`Netlink::link_await_up`] on the other end), which it does not yet when the link goes up.
    ///
    /// # Errors
    ///
    /// As [`Netlink::link_change`].
    pub fn link_announce(&self, index: u32, mac: MacAddr) -> Result<(), NetlinkError> {
        // NETDEV_CHANGEADDR, in `inetdev_event` of net/ipv4/devinet.c and `ndisc_netdev_event` of net/ipv6/ndisc.c.
        self.change(
            index,
            &LinkChange { mac: Some(mac), ..LinkChange::default() },
            "announce addresses of link",
        )
    }

    /// Makes a link a port of `master`, or releases it from any.
    ///
    /// # Errors
    ///
    /// As [`Netlink::link_change`].
    pub fn link_set_master(&self, index: u32, master: Option<u32>) -> Result<(), NetlinkError> {
        let change = LinkChange { master: Some(master.unwrap_or(0)), ..LinkChange::default() };
        self.change(index, &change, "set the master of link")
    }

    /// Changes settings of a bridge's port.
    ///
    /// # Errors
    ///
    /// As [`Netlink::link_change`]; the kernel refuses a link that is no port.
    pub fn bridge_port_set(&self, index: u32, port: PortChange) -> Result<(), NetlinkError> {
        self.change(index, &LinkChange { port, ..LinkChange::default() }, "change bridge port")
    }
}
