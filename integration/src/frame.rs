//! Frames by hand: what no honest stack would send.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A MAC address as it is on the wire.
pub type Mac = [u8; 6];

/// The MAC address of all.
pub const BROADCAST: Mac = [0xff; 6];

/// `a0:b1:…` as bytes.
pub fn mac(text: &str) -> Mac {
    let bytes: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    bytes.try_into().unwrap_or_else(|_| panic!("`{text}` is not a MAC address"))
}

/// An Ethernet frame.
pub fn ethernet(src: Mac, dst: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&dst[..], &src, &ethertype.to_be_bytes(), payload].concat()
}

/// An ARP reply that says `sender_ip` is at `sender`, to `target`.
pub fn arp_reply(sender: Mac, sender_ip: Ipv4Addr, target: Mac, target_ip: Ipv4Addr) -> Vec<u8> {
    let body =
        [&[0, 1, 8, 0, 6, 4, 0, 2][..], &sender, &sender_ip.octets(), &target, &target_ip.octets()].concat();
    ethernet(sender, target, 0x0806, &body)
}

/// The Ethernet and IP sides of a packet.
#[derive(Debug, Clone, Copy)]
pub struct V4 {
    /// Source MAC address.
    pub src_mac: Mac,
    /// Destination MAC address.
    pub dst_mac: Mac,
    /// Source address.
    pub src: Ipv4Addr,
    /// Destination address.
    pub dst: Ipv4Addr,
}

impl V4 {
    /// A UDP datagram.
    pub fn udp(&self, src_port: u16, dst_port: u16, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(8 + payload.len()).unwrap().to_be_bytes();
        // Over IPv4 the checksum 0 means that there is none.
        let body = [&src_port.to_be_bytes()[..], &dst_port.to_be_bytes(), &length, &[0, 0], payload].concat();
        self.packet(17, &body)
    }

    /// The first segment of a TCP connection.
    pub fn tcp_syn(&self, src_port: u16, dst_port: u16) -> Vec<u8> {
        let fixed = [0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0];
        let mut body = [&src_port.to_be_bytes()[..], &dst_port.to_be_bytes(), &fixed].concat();
        let pseudo = [&self.src.octets()[..], &self.dst.octets(), &[0, 6, 0, 20], &body].concat();
        body[16..18].copy_from_slice(&checksum(&pseudo).to_be_bytes());
        self.packet(6, &body)
    }

    /// An ICMP echo request.
    pub fn ping(&self, id: u16) -> Vec<u8> {
        let mut body = [&[8, 0, 0, 0][..], &id.to_be_bytes(), &[0, 1], b"berth"].concat();
        let sum = checksum(&body);
        body[2..4].copy_from_slice(&sum.to_be_bytes());
        self.packet(1, &body)
    }

    fn packet(&self, protocol: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(20 + body.len()).unwrap().to_be_bytes();
        let start = [0x45, 0, length[0], length[1], 0, 1, 0, 0, 64, protocol, 0, 0];
        let mut header = [&start[..], &self.src.octets(), &self.dst.octets()].concat();
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        ethernet(self.src_mac, self.dst_mac, 0x0800, &[&header, body].concat())
    }
}

/// The Ethernet and IP sides of an IPv6 packet.
#[derive(Debug, Clone, Copy)]
pub struct V6 {
    /// Source MAC address.
    pub src_mac: Mac,
    /// Destination MAC address.
    pub dst_mac: Mac,
    /// Source address.
    pub src: Ipv6Addr,
    /// Destination address.
    pub dst: Ipv6Addr,
}

impl V6 {
    /// A neighbour advertisement, with the override flag: `target` is at `at`.
    pub fn neighbour_advertisement(&self, target: Ipv6Addr, at: Mac) -> Vec<u8> {
        self.icmp(&[&[136, 0, 0, 0, 0x20, 0, 0, 0][..], &target.octets(), &[2, 1], &at].concat())
    }

    /// A router advertisement that offers this sender as default router and `prefix`/64 for addresses.
    pub fn router_advertisement(&self, prefix: Ipv6Addr) -> Vec<u8> {
        let router = [134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
        let option = [3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0];
        self.icmp(&[&router[..], &option, &prefix.octets()].concat())
    }

    fn icmp(&self, message: &[u8]) -> Vec<u8> {
        let length = u16::try_from(message.len()).unwrap().to_be_bytes();
        let (src, dst) = (self.src.octets(), self.dst.octets());
        let mut body = message.to_vec();
        let sum = checksum(&[&src[..], &dst, &[0, 0], &length, &[0, 0, 0, 58], message].concat());
        body[2..4].copy_from_slice(&sum.to_be_bytes());
        // Hop limit 255: neighbours drop what may have come by a router.
        let header = [&[0x60, 0, 0, 0, length[0], length[1], 58, 255][..], &src, &dst].concat();
        ethernet(self.src_mac, self.dst_mac, 0x86dd, &[&header, &body[..]].concat())
    }
}

/// The checksum of RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded to 16 bits")
}
