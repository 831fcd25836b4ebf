//! A client that waits for each answer, for latencies.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use berth_integration::Host;

use crate::serve::{GATEWAY, MEMBER, PORT};

/// Questions of one figure.
const SAMPLES: u16 = 10_000;

/// The 99th of a hundred latencies, milliseconds.
pub(crate) fn p99(host: &Host) -> f64 {
    let socket = host.inside(|| UdpSocket::bind((MEMBER, 0)).unwrap());
    socket.connect((GATEWAY, PORT)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut took: Vec<Duration> = (0..SAMPLES).map(|number| once(&socket, number)).collect();
    took.sort();
    took[took.len() * 99 / 100].as_secs_f64() * 1000.0
}

fn once(socket: &UdpSocket, number: u16) -> Duration {
    let mut message = number.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    let label = format!("c{}", number % 1000);
    message.push(u8::try_from(label.len()).unwrap());
    message.extend(label.bytes());
    message.extend([0, 0, 1, 0, 1]);
    let started = Instant::now();
    socket.send(&message).unwrap();
    let mut buffer = [0; 512];
    let len = socket.recv(&mut buffer).unwrap();
    assert!(buffer[..2] == message[..2] && buffer[7] == 1, "{:?}", &buffer[..len]);
    started.elapsed()
}
