//! Whether a node is reached through a network, and with how large packets: ICMP echoes that must not be fragmented (RFC 792,
//! RFC 4443), small ones and such as just fit.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, Timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recv, sendto, socket_with,
};

/// How long an answer may take.
const ANSWERS: Duration = Duration::from_secs(1);

/// What is sent beside the headers in a small packet, bytes.
const SMALL: usize = 8;

/// The header of an echo, bytes; it is the same in both families.
const ECHO: usize = 8;

/// Why nothing could be sent.
#[derive(Debug, thiserror::Error)]
#[error("failed to {what}")]
pub struct ProbeError {
    what: &'static str,
    #[source]
    source: Errno,
}

/// What came back of packets of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Echoes {
    /// The whole packet, bytes.
    pub size: u32,
    /// How many were sent.
    pub sent: u16,
    /// How many came back.
    pub received: u16,
    /// How long the fastest took.
    pub fastest: Option<Duration>,
    /// What the kernel said instead of sending one.
    pub refused: Option<String>,
}

/// Sends `count` small packets and `count` of `mtu` bytes to `target`.
///
/// # Errors
///
/// There is no raw socket to be had: that needs CAP_NET_RAW.
pub fn probe(target: IpAddr, mtu: u32, count: u16) -> Result<[Echoes; 2], ProbeError> {
    let socket = open(target)?;
    let header: usize = if target.is_ipv4() { 20 } else { 40 };
    let full = usize::try_from(mtu).unwrap_or(0).saturating_sub(header + ECHO);
    let id = u16::from_be_bytes([std::process::id().to_be_bytes()[2], std::process::id().to_be_bytes()[3]]);
    let mut sequence = 0_u16;
    Ok([SMALL, full].map(|payload| {
        let size = u32::try_from(payload + header + ECHO).unwrap_or(u32::MAX);
        let mut echoes = Echoes { size, sent: 0, received: 0, fastest: None, refused: None };
        for _ in 0..count {
            sequence += 1;
            echoes.sent += 1;
            match once(&socket, target, (id, sequence), payload) {
                Ok(Some(took)) => {
                    echoes.received += 1;
                    echoes.fastest = Some(echoes.fastest.map_or(took, |fastest| fastest.min(took)));
                }
                Ok(None) => (),
                Err(err) => echoes.refused = Some(err.to_string()),
            }
        }
        echoes
    }))
}

fn open(target: IpAddr) -> Result<OwnedFd, ProbeError> {
    let failed = |what| move |source| ProbeError { what, source };
    let (family, protocol) = match target {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let socket = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))
        .map_err(failed("open a raw socket"))?;
    let whole = match target {
        IpAddr::V4(_) => sockopt::set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE),
        IpAddr::V6(_) => sockopt::set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::PROBE),
    };
    whole.map_err(failed("forbid fragments"))?;
    let patience = Duration::from_millis(50);
    sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(patience)).map_err(failed("set a deadline"))?;
    Ok(socket)
}

fn once(
    socket: &OwnedFd,
    target: IpAddr,
    (id, sequence): (u16, u16),
    payload: usize,
) -> Result<Option<Duration>, Errno> {
    let packet = request(target.is_ipv4(), id, sequence, payload);
    let began = Instant::now();
    sendto(socket, &packet, SendFlags::empty(), &SocketAddr::new(target, 0))?;
    let mut buffer = vec![0_u8; payload + 256];
    while began.elapsed() < ANSWERS {
        match recv(socket, &mut buffer, RecvFlags::empty()) {
            Ok((length, _)) => {
                if is_answer(buffer.get(..length).unwrap_or_default(), target.is_ipv4(), id, sequence) {
                    return Ok(Some(began.elapsed()));
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => (),
            Err(err) => return Err(err),
        }
    }
    Ok(None)
}

fn request(v4: bool, id: u16, sequence: u16, payload: usize) -> Vec<u8> {
    let mut packet = vec![if v4 { 8 } else { 128 }, 0, 0, 0];
    packet.extend(id.to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    packet.resize(ECHO + payload, 0x62);
    if v4 {
        // Of ICMPv6 the kernel fills it in.
        let [high, low] = checksum(&packet).to_be_bytes();
        packet.splice(2..4, [high, low]);
    }
    packet
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| {
        let high = pair.first().copied().unwrap_or(0);
        u32::from(u16::from_be_bytes([high, pair.get(1).copied().unwrap_or(0)]))
    });
    let mut sum: u32 = words.fold(0, u32::wrapping_add);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// Whether these bytes are the answer; of IPv4 they begin with its header.
fn is_answer(bytes: &[u8], v4: bool, id: u16, sequence: u16) -> bool {
    let header = match bytes.first() {
        Some(first) if v4 => usize::from(first & 0x0f) * 4,
        _ => 0,
    };
    let Some([kind, _, _, _, a, b, c, d]) = bytes.get(header..header + ECHO) else { return false };
    let is_reply = *kind == if v4 { 0 } else { 129 };
    is_reply && u16::from_be_bytes([*a, *b]) == id && u16::from_be_bytes([*c, *d]) == sequence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_a_right_checksum_and_its_answer_is_told_from_others() {
        let packet = request(true, 7, 9, 5);
        assert_eq!(packet.len(), ECHO + 5);
        assert_eq!(checksum(&packet), 0, "of a packet with its checksum");
        let mut answer = vec![0x45; 20];
        answer.extend(&packet);
        assert!(!is_answer(&answer, true, 7, 9), "it is a request still");
        answer[20] = 0;
        assert!(is_answer(&answer, true, 7, 9));
        assert!(!is_answer(&answer, true, 7, 8));
        assert!(!is_answer(&[], true, 7, 9));
        let mut six = request(false, 7, 9, 0);
        six[0] = 129;
        assert!(is_answer(&six, false, 7, 9));
    }
}
