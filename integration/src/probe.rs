//! Traffic that counts its successes.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use crate::Place;

/// Attempts to reach a [`crate::Server`], each with a socket of its own.
#[derive(Debug, Clone)]
pub struct Probe {
    kind: Kind,
    to: SocketAddr,
    from: Option<SocketAddr>,
    times: usize,
    timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp,
    Udp,
    Http,
}

/// The answer to one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Which server answered.
    pub label: String,
    /// Who asked, as the server saw it; not known of HTTP.
    pub seen_as: Option<SocketAddr>,
}

/// What became of the attempts.
#[derive(Debug)]
pub struct Tally {
    /// What was tried, for messages.
    pub what: String,
    /// The answers.
    pub replies: Vec<Reply>,
    /// The failures.
    pub errors: Vec<io::Error>,
}

impl Probe {
    /// TCP: connect, send bytes, and have them back.
    pub fn tcp(to: impl ToString) -> Self {
        Self::new(Kind::Tcp, &to.to_string())
    }

    /// UDP: a datagram and its answer.
    pub fn udp(to: impl ToString) -> Self {
        Self::new(Kind::Udp, &to.to_string())
    }

    /// HTTP: a GET and a 200.
    pub fn http(to: impl ToString) -> Self {
        Self::new(Kind::Http, &to.to_string())
    }

    fn new(kind: Kind, to: &str) -> Self {
        let to = to.parse().unwrap_or_else(|_| panic!("`{to}` is not ADDRESS:PORT"));
        Self { kind, to, from: None, times: 1, timeout: Duration::from_secs(1) }
    }

    /// From this local address; port 0 for any.
    pub fn from(mut self, from: impl ToString) -> Self {
        let from = from.to_string();
        let addr = from.parse().or_else(|_| from.parse().map(|ip: IpAddr| SocketAddr::new(ip, 0)));
        self.from = Some(addr.unwrap_or_else(|_| panic!("`{from}` is not an address")));
        self
    }

    /// How often; once by default.
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// How long each attempt waits; a second by default. That something is *not* reachable takes as long.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn attempt(&self) -> io::Result<Reply> {
        match self.kind {
            Kind::Tcp => self.attempt_tcp(),
            Kind::Udp => self.attempt_udp(),
            Kind::Http => self.attempt_http(),
        }
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let Some(from) = self.from else {
            return TcpStream::connect_timeout(&self.to, self.timeout)
                .and_then(|stream| self.patient(stream));
        };
        let family = if self.to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
        rustix::net::bind(&socket, &from)?;
        // The send timeout bounds connect(2) too, socket(7).
        let timeout = rustix::net::sockopt::Timeout::Send;
        rustix::net::sockopt::set_socket_timeout(&socket, timeout, Some(self.timeout))?;
        connect(&socket, &self.to)?;
        self.patient(TcpStream::from(socket))
    }

    fn patient(&self, stream: TcpStream) -> io::Result<TcpStream> {
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_write_timeout(Some(self.timeout))?;
        Ok(stream)
    }

    fn attempt_tcp(&self) -> io::Result<Reply> {
        let mut stream = BufReader::new(self.connect()?);
        let mut greeting = String::new();
        stream.read_line(&mut greeting)?;
        stream.get_mut().write_all(b"ping")?;
        let mut echo = [0; 4];
        stream.read_exact(&mut echo)?;
        if &echo != b"ping" {
            return Err(io::Error::other(format!("the echo was {echo:?}")));
        }
        parse_reply(greeting.trim_end())
    }

    fn attempt_udp(&self) -> io::Result<Reply> {
        let any =
            if self.to.is_ipv4() { SocketAddr::from(([0; 4], 0)) } else { SocketAddr::from(([0; 16], 0)) };
        let socket = UdpSocket::bind(self.from.unwrap_or(any))?;
        socket.connect(self.to)?;
        socket.set_read_timeout(Some(self.timeout))?;
        socket.send(b"ping")?;
        let mut buffer = [0; 2048];
        let len = socket.recv(&mut buffer)?;
        parse_reply(&String::from_utf8_lossy(&buffer[..len]))
    }

    fn attempt_http(&self) -> io::Result<Reply> {
        let mut stream = self.connect()?;
        write!(stream, "GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.to)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => {
                Ok(Reply { label: body.to_owned(), seen_as: None })
            }
            _ => Err(io::Error::other(format!("the answer was {answer:?}"))),
        }
    }
}

/// `LABEL PEER …`.
fn parse_reply(line: &str) -> io::Result<Reply> {
    let mut words = line.split(' ');
    match (words.next(), words.next().map(str::parse)) {
        (Some(label), Some(Ok(peer))) => Ok(Reply { label: label.to_owned(), seen_as: Some(peer) }),
        _ => Err(io::Error::other(format!("the answer was {line:?}"))),
    }
}

impl Tally {
    /// How many attempts were answered.
    pub fn succeeded(&self) -> usize {
        self.replies.len()
    }

    /// Requires that every attempt was answered, by the server `label`.
    #[track_caller]
    pub fn all_from(self, label: &str) -> Vec<Reply> {
        assert!(
            self.errors.is_empty() && self.replies.iter().all(|reply| reply.label == label),
            "not all from {label}: {self:?}"
        );
        self.replies
    }

    /// Requires that not one attempt was answered.
    #[track_caller]
    pub fn none(self) {
        assert!(self.replies.is_empty(), "was reachable: {self:?}");
    }
}

impl Place {
    /// Makes the attempts from inside, one after the other.
    pub fn probe(&self, probe: &Probe) -> Tally {
        let what = format!("{probe:?}");
        self.inside(|| {
            let mut tally = Tally { what, replies: Vec::new(), errors: Vec::new() };
            for _ in 0..probe.times {
                match probe.attempt() {
                    Ok(reply) => tally.replies.push(reply),
                    Err(error) => tally.errors.push(error),
                }
            }
            tally
        })
    }

    /// Makes the attempts until one is answered: for paths that the kernel opens in its own time.
    #[track_caller]
    pub fn reach(&self, probe: &Probe) -> Reply {
        crate::eventually(Duration::from_secs(5), || {
            let mut tally = self.probe(probe);
            tally.replies.pop().ok_or_else(|| format!("{tally:?}"))
        })
    }

    /// Sends `times` echo requests to `addr` and counts the answers.
    pub fn ping(&self, addr: impl ToString, times: usize) -> usize {
        let count = times.to_string();
        let ran =
            self.cmd("ping").args(["-n", "-i", "0.05", "-W", "1", "-c", &count, &addr.to_string()]).output();
        ran.stdout.lines().filter(|line| line.contains(" bytes from ")).count()
    }

    /// The TCP ports of `addr`, in `ports`, that accept connections. Silence for `timeout` is a closed port.
    pub fn scan(&self, addr: IpAddr, ports: std::ops::RangeInclusive<u16>, timeout: Duration) -> Vec<u16> {
        let ports: Vec<u16> = ports.collect();
        self.inside(|| ports.chunks(256).flat_map(|chunk| scan_chunk(addr, chunk, timeout)).collect())
    }
}

/// Connects to all ports of the chunk at once.
fn scan_chunk(addr: IpAddr, ports: &[u16], timeout: Duration) -> Vec<u16> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let mut waiting: Vec<_> = ports
        .iter()
        .map(|port| {
            let socket = socket_with(family, SocketType::STREAM, flags, None).unwrap();
            // In progress, or refused at once: told apart when the deadline is over.
            let _ = connect(&socket, &SocketAddr::new(addr, *port));
            (*port, socket)
        })
        .collect();
    let started = std::time::Instant::now();
    let mut open = Vec::new();
    while let Some(left) = timeout.checked_sub(started.elapsed()).filter(|_| !waiting.is_empty()) {
        let mut fds: Vec<_> = waiting
            .iter()
            .map(|(_, socket)| rustix::event::PollFd::new(socket, rustix::event::PollFlags::OUT))
            .collect();
        let limit = rustix::event::Timespec::try_from(left).unwrap();
        rustix::event::poll(&mut fds, Some(&limit)).unwrap();
        let answered: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut answered = answered.into_iter();
        waiting.retain(|(port, socket)| {
            let done = answered.next().unwrap_or(false);
            if done && rustix::net::getpeername(socket).is_ok() {
                open.push(*port);
            }
            !done
        });
    }
    open.sort_unstable();
    open
}
