//! News of the host's links and addresses, as they change.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{NetlinkBuffer, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::error::NetlinkError;

/// `RTNLGRP_LINK`, `RTNLGRP_IPV4_IFADDR` and `RTNLGRP_IPV6_IFADDR` of linux/rtnetlink.h.
const GROUPS: [u32; 3] = [1, 5, 9];

/// Larger than any notification.
const DATAGRAM: usize = 64 * 1024;

/// Whose news concern somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Concern<'a> {
    /// How the interface alias of links begins.
    pub alias: &'a str,
    /// How the names of those begin of which every change matters. Of a port's settings only its bridge tells, and it does not
    /// tell the alias.
    pub names: &'a [&'a str],
}

/// A subscription to changes of links and addresses in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct LinkEvents {
    socket: Socket,
    buffer: Vec<u8>,
}

/// What happened since the last look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkNews {
    /// The queue was full, so anything may have happened.
    pub lost: bool,
    /// Something that concerns networks may be wrong: a link that carries a tag or that can be an uplink came, went, went down
    /// or lost its bridge, one of the named changed at all, or an address was taken away.
    pub suspicious: bool,
}

impl LinkEvents {
    /// Subscribes.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Socket`] if the system gives no socket.
    pub fn open() -> Result<Self, NetlinkError> {
        let opened = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.set_non_blocking(true)?;
            for group in GROUPS {
                socket.add_membership(group)?;
            }
            Ok(socket)
        };
        let socket = opened().map_err(|source| NetlinkError::Socket { operation: "watch", source })?;
        Ok(Self { socket, buffer: Vec::with_capacity(DATAGRAM) })
    }

    /// Reads what has come, without waiting. `of` is what concerns the caller.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Socket`] if the socket is of no more use.
    pub fn read(&mut self, of: Concern<'_>) -> Result<LinkNews, NetlinkError> {
        let mut news = LinkNews::default();
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, libc::MSG_DONTWAIT) {
                Ok(_) => news.suspicious |= is_suspicious(&self.buffer, of),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(news),
                Err(err) if err.kind() == io::ErrorKind::Interrupted => (),
                Err(err) if err.raw_os_error() == Some(libc::ENOBUFS) => news.lost = true,
                Err(source) => return Err(NetlinkError::Socket { operation: "read from", source }),
            }
        }
    }
}

impl AsFd for LinkEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether one of the messages is about something that may be wrong now. What cannot be read may be.
fn is_suspicious(datagram: &[u8], of: Concern<'_>) -> bool {
    let mut rest = datagram;
    while !rest.is_empty() {
        let Ok(frame) = NetlinkBuffer::new_checked(rest) else { return true };
        let length = usize::try_from(frame.length()).unwrap_or(usize::MAX).next_multiple_of(4);
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map(|message| message.payload) {
            Ok(NetlinkPayload::InnerMessage(message)) if !concerns(&message, of) => (),
            _ => return true,
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    false
}

fn concerns(message: &RouteNetlinkMessage, of: Concern<'_>) -> bool {
    let prefix = of.alias;
    match message {
        RouteNetlinkMessage::DelAddress(_) => true,
        // `bridge link set` and files in /sys change a port without a word of the link's own (`br_setlink`, `brport_store`).
        RouteNetlinkMessage::NewLink(link) if is_named(link, of.names) => true,
        RouteNetlinkMessage::DelLink(link) => is_link_itself(link) && of_interest(link, prefix),
        RouteNetlinkMessage::NewLink(link) if is_link_itself(link) && of_interest(link, prefix) => {
            let is_up = link.header.flags.contains(LinkFlags::Up);
            let on_a_bridge = link.attributes.iter().any(|at| matches!(at, LinkAttribute::Controller(_)));
            let is_port = kind(link) == Some(InfoKind::Veth);
            !is_up || is_port != on_a_bridge || !is_tagged(link, prefix)
        }
        _ => false,
    }
}

fn is_named(link: &LinkMessage, prefixes: &[&str]) -> bool {
    let begins = |name: &String| prefixes.iter().any(|prefix| name.starts_with(prefix));
    link.attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::IfName(name) if begins(name)))
}

/// The same group also carries what bridges say of their ports (`br_ifinfo_notify`), which for the most part the links' own news
/// repeat.
fn is_link_itself(link: &LinkMessage) -> bool {
    link.header.interface_family == AddressFamily::Unspec
}

/// Tagged, or possibly an uplink. A veth without the tag leads to somebody else's container.
fn of_interest(link: &LinkMessage, prefix: &str) -> bool {
    is_tagged(link, prefix) || kind(link) != Some(InfoKind::Veth)
}

fn is_tagged(link: &LinkMessage, prefix: &str) -> bool {
    let alias = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfAlias(alias) => Some(alias),
        _ => None,
    });
    alias.is_some_and(|alias| alias.starts_with(prefix))
}

fn kind(link: &LinkMessage) -> Option<InfoKind> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.iter().find_map(|info| match info {
            LinkInfo::Kind(kind) => Some(kind.clone()),
            _ => None,
        }),
        _ => None,
    })
}
