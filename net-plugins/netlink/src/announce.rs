//! Telling the link's neighbours which Ethernet address an IP address has, unasked.
//!
//! An address that moves to another container keeps its old Ethernet address in its neighbours' tables until they ask
//! again. [`announce`] sends a gratuitous ARP, as a request and as a reply because hosts differ in which of the two
//! they believe (RFC 5227 section 3), and an unsolicited neighbour advertisement with the override flag (RFC 4861
//! section 7.2.6).
//!
//! Closing a packet socket waits until no processor can be using it (`synchronize_net` in `packet_release`): 10 ms and
//! more, several times the rest of an attachment. On that path have the kernel do it:
//! [`crate::Netlink::link_announce`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use berth_types::MacAddr;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::sys;

/// An announcement that was not sent. Nothing depends on it: the neighbours find out later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnnounceError {
    /// No packet socket is to be had.
    #[error("open packet socket")]
    Open {
        /// The system's error.
        #[source]
        source: Errno,
    },
    /// The link did not take the frame: it is down, or gone.
    #[error("announce {addr} on link number {index}")]
    Send {
        /// The address.
        addr: IpAddr,
        /// The link's index.
        index: u32,
        /// The system's error.
        #[source]
        source: Errno,
    },
}

/// Announces that `addrs` are at `mac`, on the link with `index` of the calling thread's namespace.
///
/// # Errors
///
/// The first failure, once all were tried.
pub fn announce(index: u32, mac: MacAddr, addrs: &[IpAddr]) -> Result<(), AnnounceError> {
    if addrs.is_empty() {
        return Ok(());
    }
    // Protocol 0: the socket receives nothing.
    let socket = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)
        .map_err(|source| AnnounceError::Open { source })?;
    let mut outcome = Ok(());
    for addr in addrs {
        for frame in frames(mac, *addr) {
            if let Err(source) = sys::send_frame(&socket, &frame, index) {
                outcome = outcome.and(Err(AnnounceError::Send { addr: *addr, index, source }));
            }
        }
    }
    outcome
}

fn frames(mac: MacAddr, addr: IpAddr) -> Vec<Vec<u8>> {
    match addr {
        IpAddr::V4(v4) => vec![arp(mac, v4, ArpForm::Request), arp(mac, v4, ArpForm::Reply)],
        IpAddr::V6(v6) => vec![advertisement(mac, v6)],
    }
}

#[derive(Clone, Copy)]
enum ArpForm {
    Request,
    Reply,
}

/// RFC 826 over Ethernet: sender and target protocol address are both `addr`.
fn arp(MacAddr(mac): MacAddr, addr: Ipv4Addr, form: ArpForm) -> Vec<u8> {
    let (operation, target): (u8, [u8; 6]) = match form {
        ArpForm::Request => (1, [0; 6]),
        ArpForm::Reply => (2, [0xff; 6]),
    };
    let ip = addr.octets();
    let mut frame = Vec::with_capacity(42);
    frame.extend_from_slice(&[0xff; 6]);
    frame.extend_from_slice(&mac);
    frame.extend_from_slice(&[0x08, 0x06]); // ARP
    frame.extend_from_slice(&[0, 1, 0x08, 0, 6, 4, 0, operation]); // Ethernet, IPv4, their lengths
    frame.extend_from_slice(&mac);
    frame.extend_from_slice(&ip);
    frame.extend_from_slice(&target);
    frame.extend_from_slice(&ip);
    frame
}

/// RFC 4861 section 4.4, to all nodes of the link.
fn advertisement(MacAddr(mac): MacAddr, addr: Ipv6Addr) -> Vec<u8> {
    const OVERRIDE: u8 = 0x20;
    const ICMPV6: u8 = 58;
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets();
    let source = addr.octets();
    let mut message = vec![136, 0, 0, 0, OVERRIDE, 0, 0, 0];
    message.extend_from_slice(&source);
    message.extend_from_slice(&[2, 1]); // target link-layer address, 8 bytes
    message.extend_from_slice(&mac);

    // RFC 8200 section 8.1: the sum covers addresses, length and protocol too.
    let mut summed = [source, all_nodes].concat();
    summed.extend_from_slice(&[0, 0, 0, 32, 0, 0, 0, ICMPV6]);
    summed.extend_from_slice(&message);
    if let Some(field) = message.get_mut(2..4) {
        field.copy_from_slice(&checksum(&summed).to_be_bytes());
    }

    let mut frame = Vec::with_capacity(86);
    frame.extend_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
    frame.extend_from_slice(&mac);
    frame.extend_from_slice(&[0x86, 0xdd]); // IPv6
    frame.extend_from_slice(&[0x60, 0, 0, 0, 0, 32, ICMPV6, 255]); // 32 bytes follow; hop limit 255
    frame.extend_from_slice(&source);
    frame.extend_from_slice(&all_nodes);
    frame.extend_from_slice(&message);
    frame
}

/// RFC 1071, over an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.as_chunks::<2>().0.iter().map(|pair| u32::from(u16::from_be_bytes(*pair))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 7]);

    #[test]
    fn arp_names_the_address_as_sender_and_target() {
        for (form, operation) in [(ArpForm::Request, 1), (ArpForm::Reply, 2)] {
            let frame = arp(MAC, Ipv4Addr::new(10, 1, 2, 3), form);
            assert_eq!(frame.len(), 42);
            assert_eq!(frame[21], operation);
            assert_eq!(frame[22..28], MAC.0);
            assert_eq!(frame[28..32], [10, 1, 2, 3]);
            assert_eq!(frame[38..42], [10, 1, 2, 3]);
        }
    }

    #[test]
    fn an_advertisement_sums_to_nothing() {
        let addr: Ipv6Addr = "fd80:1:2::3".parse().unwrap();
        let frame = advertisement(MAC, addr);
        assert_eq!(frame.len(), 86);
        assert_eq!(frame[62..78], addr.octets());
        // A receiver's check: the sum over everything, checksum included, is zero.
        let mut summed = frame[22..54].to_vec();
        summed.extend_from_slice(&[0, 0, 0, 32, 0, 0, 0, 58]);
        summed.extend_from_slice(&frame[54..]);
        assert_eq!(checksum(&summed), 0);
    }
}
