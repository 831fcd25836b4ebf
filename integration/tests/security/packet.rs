//! Packets by hand that the kit has no words for, and what is counted.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use berth_integration::frame::{self, Mac};
use berth_integration::{Host, Place, RawSocket, Seat};

/// How long a probe waits that should fail.
pub(crate) const SILENCE: Duration = Duration::from_millis(300);

/// The MAC address that no link here has.
pub(crate) const EVIL: &str = "02:00:00:00:00:66";

/// The MAC address of a link.
pub(crate) fn mac_of(place: &Place, ifname: &str) -> Mac {
    frame::mac(place.json(&format!("ip -j link show {ifname}"))[0]["address"].as_str().unwrap())
}

/// The host's MAC address on the LAN.
pub(crate) fn host_mac(host: &Host, seat: &Seat) -> Mac {
    mac_of(host, &seat.ifname)
}

/// Whether `frame` is the answer to a SYN that opens the connection, from `port`.
pub(crate) fn is_syn_ack(frame: &[u8], port: u16) -> bool {
    let [high, low] = port.to_be_bytes();
    frame.get(12..14) == Some(&[0x08, 0x00])
        && frame.get(23) == Some(&6)
        && frame.get(34..36) == Some(&[high, low])
        && frame.get(47).is_some_and(|flags| flags & 0x12 == 0x12)
}

/// Sends `frames` and counts the connections that `port` would have opened.
pub(crate) fn opened(socket: &RawSocket, frames: impl IntoIterator<Item = Vec<u8>>, port: u16) -> usize {
    for frame in frames {
        socket.send(&frame);
    }
    socket.count(SILENCE, |frame| is_syn_ack(frame, port))
}

/// Ten SYNs to `dst`:`port`, from different ports.
pub(crate) fn syns(src_mac: Mac, dst_mac: Mac, src: Ipv4Addr, dst: Ipv4Addr, port: u16) -> Vec<Vec<u8>> {
    let packet = frame::V4 { src_mac, dst_mac, src, dst };
    (0..10).map(|n| packet.tcp_syn(40_000 + n, port)).collect()
}

/// A UDP datagram over IPv6.
pub(crate) fn udp6(packet: &frame::V6, src_port: u16, dst_port: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap().to_be_bytes();
    let body = [&src_port.to_be_bytes()[..], &dst_port.to_be_bytes(), &length, &[0, 0], payload].concat();
    ipv6(packet, 17, 64, body, 6)
}

/// A redirect: what goes to `destination` is to go by `target`.
pub(crate) fn redirect6(packet: &frame::V6, target: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    let body = [&[137, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), &destination.octets()].concat();
    ipv6(packet, 58, 255, body, 2)
}

/// A router advertisement with this lifetime in seconds.
pub(crate) fn router_advertisement(packet: &frame::V6, prefix: Ipv6Addr, lifetime: u16) -> Vec<u8> {
    let [high, low] = lifetime.to_be_bytes();
    let router = [134, 0, 0, 0, 64, 0, high, low, 0, 0, 0, 0, 0, 0, 0, 0];
    let option = [3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0];
    ipv6(packet, 58, 255, [&router[..], &option, &prefix.octets()].concat(), 2)
}

/// A router advertisement behind a destination options header, which hides it from those who look at the first header only
/// (RFC 7113).
pub(crate) fn hidden_advertisement(packet: &frame::V6, prefix: Ipv6Addr) -> Vec<u8> {
    let plain = router_advertisement(packet, prefix, 1800);
    let message = &plain[14 + 40..];
    let body = [&[58, 0, 1, 4, 0, 0, 0, 0][..], message].concat();
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    let mut header = plain[14..14 + 40].to_vec();
    header[4..6].copy_from_slice(&length);
    header[6] = 60;
    frame::ethernet(packet.src_mac, packet.dst_mac, 0x86dd, &[header, body].concat())
}

/// `body` with its checksum, at `at`, in an IPv6 packet.
fn ipv6(packet: &frame::V6, protocol: u8, hops: u8, mut body: Vec<u8>, at: usize) -> Vec<u8> {
    let (src, dst) = (packet.src.octets(), packet.dst.octets());
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    let sum = checksum(&[&src[..], &dst, &[0, 0], &length, &[0, 0, 0, protocol], &body].concat());
    body[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    let header = [&[0x60, 0, 0, 0, length[0], length[1], protocol, hops][..], &src, &dst].concat();
    frame::ethernet(packet.src_mac, packet.dst_mac, 0x86dd, &[header, body].concat())
}

/// The checksum of RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

/// The link-local address that a link with `mac` gives itself.
pub(crate) fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    let mut octets = [0; 16];
    octets[..2].copy_from_slice(&[0xfe, 0x80]);
    octets[8..].copy_from_slice(&[a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    octets.into()
}
