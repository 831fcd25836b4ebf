//! Which ports of the host have sockets at all, by one question to the kernel (`sock_diag(7)`).
//!
//! It only spares trying each of many ports ([`crate::port_probe::try_bind`]): a port that is listed is still to be
//! tried, for the address and the options of its socket decide. Where the kernel does not answer, or not wholly, the
//! answer is "unknown" and never a shorter list.

use std::collections::BTreeSet;
use std::io;

use berth_types::Proto;
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};

/// Larger than any piece the kernel sends: `netlink_dump` in net/netlink/af_netlink.c allocates at most 32 KiB.
const PIECE_MAX: usize = 64 * 1024;

/// The ports of any local address that a TCP socket listens on, or that a UDP socket is bound to, in the calling
/// thread's namespace. None where that is unknown: for SCTP, and where the kernel cannot tell.
pub fn ports_in_use(proto: Proto) -> Option<BTreeSet<u16>> {
    let (protocol, states) = match proto {
        Proto::Tcp => (IPPROTO_TCP, StateFlags::LISTEN),
        Proto::Udp => (IPPROTO_UDP, StateFlags::all()),
        Proto::Sctp => return None,
    };
    let mut ports = BTreeSet::new();
    for (family, socket_id) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
        let request = InetRequest {
            family,
            protocol,
            extensions: ExtensionFlags::empty(),
            states: states.clone(),
            socket_id,
        };
        match list(request, &mut ports) {
            Ok(true) => (),
            Ok(false) => return None,
            Err(err) => {
                tracing::debug!(%proto, %err, "sockets cannot be listed");
                return None;
            }
        }
    }
    Some(ports)
}

/// Adds the local ports of the sockets that `request` asks for. Whether the list is whole.
fn list(request: InetRequest, ports: &mut BTreeSet<u16>) -> io::Result<bool> {
    let socket = Socket::new(NETLINK_SOCK_DIAG)?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
    let mut piece = Vec::with_capacity(PIECE_MAX);
    loop {
        piece.clear();
        match socket.recv(&mut piece, 0) {
            Ok(_) => (),
            Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
            Err(err) => return Err(err),
        }
        let mut rest = piece.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest).map_err(io::Error::other)?;
            if message.header.flags & NLM_F_DUMP_INTR != 0 {
                return Ok(false);
            }
            let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
            match message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(socket)) => {
                    ports.insert(socket.header.socket_id.source_port);
                }
                NetlinkPayload::Done(done) => return Ok(done.code == 0),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => (),
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    #[test]
    fn sockets_of_both_families_are_listed_and_connections_are_not() {
        let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
        let v6 = TcpListener::bind("[::1]:0").unwrap();
        let client = TcpStream::connect(v4.local_addr().unwrap()).unwrap();
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = |addr: io::Result<std::net::SocketAddr>| addr.unwrap().port();
        let tcp = ports_in_use(Proto::Tcp).unwrap();
        assert!(tcp.contains(&port(v4.local_addr())) && tcp.contains(&port(v6.local_addr())));
        assert!(!tcp.contains(&port(client.local_addr())));
        assert!(ports_in_use(Proto::Udp).unwrap().contains(&port(datagrams.local_addr())));
        assert_eq!(ports_in_use(Proto::Sctp), None);
    }
}
