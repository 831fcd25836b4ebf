//! Questions written by hand, for what `dig` does not do.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use berth_integration::Place;

/// A question for `name`, number `id`.
pub(crate) fn question(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

/// The response code of an answer.
pub(crate) fn code(answer: &[u8]) -> u8 {
    answer[3] & 0xf
}

/// How many records the answer section has.
pub(crate) fn count(answer: &[u8]) -> u16 {
    u16::from_be_bytes([answer[6], answer[7]])
}

/// A socket in `place` that talks to `server`.
pub(crate) fn socket(place: &Place, server: impl ToString) -> UdpSocket {
    let server: SocketAddr = server.to_string().parse().unwrap();
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = place.inside(|| UdpSocket::bind(any).unwrap());
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    socket
}

/// Asks and waits for the answer.
pub(crate) fn ask(socket: &UdpSocket, message: &[u8]) -> Option<Vec<u8>> {
    socket.send(message).ok()?;
    receive(socket)
}

pub(crate) fn receive(socket: &UdpSocket) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 65536];
    let len = socket.recv(&mut buffer).ok()?;
    buffer.truncate(len);
    Some(buffer)
}
