//! Servers inside a place: threads of the test whose sockets were made there.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use crate::Place;

/// One connection or datagram that a server got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// The other side, as the server saw it.
    pub peer: SocketAddr,
    /// The datagram, or nothing for a connection.
    pub payload: String,
}

/// A server that answers until it is dropped.
///
/// TCP: one line `LABEL PEER`, then everything is sent back. UDP: `LABEL PEER PAYLOAD`. HTTP: 200 with the body `LABEL`.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
    /// Closing it ends the thread.
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy)]
enum Speech {
    Echo,
    Http,
}

impl Place {
    /// A TCP echo server on all addresses, IPv4 and IPv6. Port 0 picks a free one.
    pub fn serve_tcp(&self, port: u16, label: &str) -> Server {
        self.serve_tcp_on(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port), label)
    }

    /// A TCP echo server on one address.
    pub fn serve_tcp_on(&self, addr: SocketAddr, label: &str) -> Server {
        serve_stream(self, addr, label, Speech::Echo)
    }

    /// A web server with one page, its label.
    pub fn serve_http(&self, port: u16, label: &str) -> Server {
        serve_stream(self, SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port), label, Speech::Http)
    }

    /// A UDP server on all IPv4 addresses. Answers leave by the route's source address, as simple servers do.
    pub fn serve_udp(&self, port: u16, label: &str) -> Server {
        self.serve_udp_on(SocketAddr::from(([0, 0, 0, 0], port)), label)
    }

    /// A UDP server on one address.
    pub fn serve_udp_on(&self, addr: SocketAddr, label: &str) -> Server {
        let socket = self
            .inside(|| UdpSocket::bind(addr))
            .unwrap_or_else(|err| panic!("cannot listen on udp {addr}: {err}"));
        let addr = socket.local_addr().unwrap();
        let label = label.to_owned();
        Server::start(addr, move |stop, heard| {
            let mut buffer = [0; 65536];
            while ready(&socket, stop) {
                // An answer that was refused is reported on the next receive; the server goes on.
                let Ok((len, peer)) = socket.recv_from(&mut buffer) else { continue };
                let payload = String::from_utf8_lossy(&buffer[..len]).into_owned();
                let answer = format!("{label} {} {payload}", plain(peer));
                heard.lock().expect("no panic while noting").push(Heard { peer: plain(peer), payload });
                let _ = socket.send_to(answer.as_bytes(), peer);
            }
        })
    }
}

impl Server {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// What it got so far.
    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().expect("no panic while noting").clone()
    }

    fn start(addr: SocketAddr, work: impl FnOnce(&OwnedFd, &Mutex<Vec<Heard>>) + Send + 'static) -> Self {
        let (reader, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&heard);
        let thread = std::thread::spawn(move || work(&reader, &noted));
        Self { addr, heard, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A server that panicked has printed why, and the test that needed it fails by itself.
            let _ = thread.join();
        }
    }
}

fn serve_stream(place: &Place, addr: SocketAddr, label: &str, speech: Speech) -> Server {
    let listener = place
        .inside(|| TcpListener::bind(addr))
        .unwrap_or_else(|err| panic!("cannot listen on tcp {addr}: {err}"));
    listener.set_nonblocking(true).unwrap();
    let addr = listener.local_addr().unwrap();
    let label = label.to_owned();
    Server::start(addr, move |stop, heard| {
        let mut clients = Vec::new();
        while ready(&listener, stop) {
            // Nonblocking: a client that gave up between poll and accept does not hold the server.
            let Ok((stream, peer)) = listener.accept() else { continue };
            let peer = plain(peer);
            heard.lock().expect("no panic while noting").push(Heard { peer, payload: String::new() });
            let Ok(handle) = stream.try_clone() else { continue };
            let label = label.clone();
            let talk = move || match speech {
                Speech::Echo => echo(stream, &label, peer),
                Speech::Http => http(stream, &label),
            };
            clients.push((handle, std::thread::spawn(talk)));
        }
        for (stream, thread) in clients {
            let _ = stream.shutdown(Shutdown::Both);
            let _ = thread.join();
        }
    })
}

fn echo(mut stream: TcpStream, label: &str, peer: SocketAddr) {
    let mut buffer = [0; 65536];
    if stream.set_nonblocking(false).is_err()
        || stream.write_all(format!("{label} {peer}\n").as_bytes()).is_err()
    {
        return;
    }
    while let Ok(len @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..len]).is_err() {
            return;
        }
    }
}

fn http(mut stream: TcpStream, label: &str) {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    let patient =
        stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(Duration::from_secs(5))));
    while patient.is_ok() && !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(len @ 1..) => request.extend_from_slice(&buffer[..len]),
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            _ => return,
        }
    }
    let length = label.len();
    let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{label}");
    // The server still holds a handle, so that dropping this one says nothing to the client.
    let _ = stream.shutdown(Shutdown::Both);
}

/// Waits until `socket` has something (true) or the server is to stop (false).
fn ready(socket: &impl std::os::fd::AsFd, stop: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
    loop {
        match poll(&mut fds, None) {
            Ok(_) => return fds[1].revents().is_empty(),
            Err(rustix::io::Errno::INTR) => (),
            Err(error) => panic!("cannot wait for a socket: {error}"),
        }
    }
}

/// An IPv4 address that an IPv6 socket saw, as IPv4.
fn plain(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or(addr, |ip| SocketAddr::new(ip.into(), addr.port())),
        IpAddr::V4(_) => addr,
    }
}
