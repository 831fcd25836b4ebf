//! Links: reading them (here), creating, changing and deleting them.

mod change;
mod create;
mod parse;
mod veth;
mod vlan;
mod vxlan;

pub use change::{LinkChange, PortChange};
pub use create::BridgeSpec;
pub use veth::{VethPair, VethSpec};
pub use vlan::{VlanFlags, VlanTarget, vlan_filtering_supported};
pub use vxlan::{Holder, Vxlan, VxlanSpec};

use std::fmt;
use std::time::Duration;

use berth_types::{IfName, MacAddr};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use rustix::io::Errno;

use crate::dump::News;
use crate::error::{Failure, NetlinkError};
use crate::netlink::Netlink;

/// The loopback interface is the first one the kernel makes in every namespace (`LOOPBACK_IFINDEX` in net/flow.h).
pub const LOOPBACK_INDEX: u32 = 1;

/// What sort of interface a link is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    /// A bridge.
    Bridge,
    /// One end of a veth pair.
    Veth,
    /// A VXLAN tunnel endpoint.
    Vxlan,
    /// An intermediate functional block, which shapes what arrives elsewhere.
    Ifb,
    /// The loopback interface.
    Loopback,
    /// An interface of no kind: hardware, mostly.
    Device,
    /// Another kind, by the kernel's name for it.
    Other(String),
}

impl fmt::Display for LinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bridge => "bridge",
            Self::Veth => "veth",
            Self::Vxlan => "vxlan",
            Self::Ifb => "ifb",
            Self::Loopback => "loopback",
            Self::Device => "device",
            Self::Other(kind) => kind,
        })
    }
}

/// Operational state (RFC 2863), as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperState {
    /// The driver does not say; so it is with loopback.
    Unknown,
    /// Down, or its lower layer is.
    Down,
    /// Waiting for something, such as authentication.
    Dormant,
    /// Ready to pass packets.
    Up,
}

/// Settings of a bridge's port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BridgePort {
    /// Frames may leave by the port they came in.
    pub hairpin: bool,
    /// The port exchanges frames only with ports that are not isolated.
    pub isolated: bool,
    /// Source addresses are learned here.
    pub learning: bool,
    /// Frames to unknown unicast addresses are sent here.
    pub flood: bool,
    /// Multicast frames that no one asked for are sent here.
    pub mcast_flood: bool,
    /// Broadcast frames are sent here.
    pub bcast_flood: bool,
    /// ARP and neighbour solicitations are answered from the bridge's own tables.
    pub neigh_suppress: bool,
}

/// A network interface as it was when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The index, unique in its namespace.
    pub index: u32,
    /// The name, unique in its namespace.
    pub name: IfName,
    /// What it is.
    pub kind: LinkKind,
    /// The Ethernet address; tunnels and such have none.
    pub mac: Option<MacAddr>,
    /// Largest packet, bytes.
    pub mtu: u32,
    /// Whether it is set up (`IFF_UP`); whether it works is in `oper_state`.
    pub up: bool,
    /// Whether it was told to take every frame (`IFF_PROMISC`).
    pub promisc: bool,
    /// The index of the bridge or other link it belongs to.
    pub master: Option<u32>,
    /// Free text, by which berth knows its own links.
    pub alias: Option<String>,
    /// The index of a veth's other end or a tunnel's lower link, in the namespace that `link_netnsid` tells.
    pub peer_index: Option<u32>,
    /// The number this namespace knows the peer's namespace by; none if it is the same namespace.
    pub link_netnsid: Option<i32>,
    /// Operational state.
    pub oper_state: OperState,
    /// Settings as a bridge's port, if it is one.
    pub port: Option<BridgePort>,
    /// Whether a bridge keeps VLANs apart; none if it is no bridge, or the kernel lacks the code for it.
    pub vlan_filtering: Option<bool>,
    /// What makes it a VXLAN device, if it is one.
    pub vxlan: Option<Vxlan>,
}

/// Whether the calling thread's namespace has a link called `name`. Cheaper than [`Netlink::link_by_name`], and a hint
/// only: it may come or go at any time.
pub fn link_exists(name: &IfName) -> bool {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
    socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .and_then(|socket| netdevice::name_to_index(&socket, name.as_str()))
        .is_ok()
}

impl Netlink {
    /// The link called `name`, if there is one.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Kernel`] or [`NetlinkError::Answer`].
    pub fn link_by_name(&self, name: &IfName) -> Result<Option<Link>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.as_str().to_owned()));
        self.link_get(message, &format_args!("`{name}`"))
    }

    /// The link with `index`, if there is one.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Kernel`] or [`NetlinkError::Answer`].
    pub fn link_by_index(&self, index: u32) -> Result<Option<Link>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.link_get(message, &format_args!("number {index}"))
    }

    /// Every link of the namespace.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Interrupted`] if links come and go faster than they can be listed, or as for one link.
    pub fn links(&self) -> Result<Vec<Link>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(without_statistics());
        let entries = self.lists.list("list links", &RouteNetlinkMessage::GetLink(message))?;
        entries
            .into_iter()
            .filter_map(|entry| match entry {
                RouteNetlinkMessage::NewLink(message) => {
                    Some(read("list links", "of the namespace", message))
                }
                _ => None,
            })
            .collect()
    }

    /// Waits until the link with `index` passes packets, at most `timeout`. Whether it does.
    ///
    /// A veth's end that is up gets its carrier when the other end goes up, but the kernel puts that into effect (it
    /// sends, and a bridge forwards to it) from a work queue a little later. Reading the link does it at once, so
    /// that this usually takes one message (`rtnl_getlink` calls `linkwatch_sync_dev` since Linux 6.8); otherwise it
    /// waits for the kernel's notification. The same holds for a bridge, whose carrier is that of its first port.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Socket`], or as [`Netlink::link_by_index`]; no link is no error, it does not pass packets.
    pub fn link_await_up(&self, index: u32, timeout: Duration) -> Result<bool, NetlinkError> {
        let passes = || Ok(self.link_by_index(index)?.is_some_and(|link| link.oper_state == OperState::Up));
        self.lists.await_that(News::Links, timeout, passes)
    }

    fn link_get(
        &self,
        mut message: LinkMessage,
        object: &dyn fmt::Display,
    ) -> Result<Option<Link>, NetlinkError> {
        const OPERATION: &str = "read link";
        message.attributes.push(without_statistics());
        match self.request(RouteNetlinkMessage::GetLink(message), 0) {
            Ok(answers) => match first_link(answers) {
                Some(message) => read(OPERATION, object, message).map(Some),
                None => Err(NetlinkError::Answer {
                    operation: OPERATION,
                    object: object.to_string(),
                    why: "it holds no link that can be decoded".to_owned(),
                }),
            },
            Err(failure) if failure.errno() == Some(Errno::NODEV) => Ok(None),
            Err(failure) => Err(failure.on(OPERATION, object)),
        }
    }

    /// Deletes the link with `index`; with one end of a veth pair goes the other. False if there was none.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Kernel`].
    pub fn link_del(&self, index: u32) -> Result<bool, NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        present(self.request(RouteNetlinkMessage::DelLink(message), 0), &[Errno::NODEV])
            .map_err(|failure| failure.on("delete link", format_args!("number {index}")))
    }
}

impl Netlink {
    /// That the bridge with index `master` takes no more ports (`find_portno` in net/bridge/br_if.c).
    fn bridge_full(&self, master: u32) -> Result<NetlinkError, NetlinkError> {
        let bridge = self.link_by_index(master)?;
        let name = bridge.map_or_else(|| format!("number {master}"), |bridge| format!("`{}`", bridge.name));
        Ok(NetlinkError::BridgeFull { bridge: name })
    }
}

/// The first link among what the kernel sent.
fn first_link(answers: Vec<RouteNetlinkMessage>) -> Option<LinkMessage> {
    answers.into_iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(message) => Some(message),
        _ => None,
    })
}

fn read(
    operation: &'static str,
    object: impl fmt::Display,
    message: LinkMessage,
) -> Result<Link, NetlinkError> {
    parse::link(message).map_err(|why| NetlinkError::Answer { operation, object: object.to_string(), why })
}

/// Counters are of no use here, and a quarter of the kernel's work for a link.
fn without_statistics() -> LinkAttribute {
    LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])
}

/// Turns "it is not there" (any of `absent`) into false.
pub(crate) fn present<T>(outcome: Result<T, Failure>, absent: &[Errno]) -> Result<bool, Failure> {
    match outcome {
        Ok(_) => Ok(true),
        Err(failure) if failure.errno().is_some_and(|errno| absent.contains(&errno)) => Ok(false),
        Err(failure) => Err(failure),
    }
}
