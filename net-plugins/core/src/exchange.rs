//! One request and its answer on a Unix socket of berth's own: HTTP, blocking, with a deadline, without a runtime.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The largest answer that is read, bytes: a list of 100,000 names is a fifth of it.
const ANSWER_LIMIT: u64 = 64 << 20;

/// A program of berth's that is asked on its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    /// What it is called in a sentence.
    pub name: &'static str,
    /// Its socket, in the run directory.
    pub socket: &'static str,
    /// What whoever misses it is told, on a line of its own; empty where the caller knows better.
    pub missed: &'static str,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// Nobody listens: it does not run.
    #[error("no {} listens on `{path}`{}", .service.name, .service.missed)]
    Nobody {
        /// Who was asked.
        service: Service,
        /// The socket.
        path: PathBuf,
    },
    /// The connection broke off: it ended meanwhile.
    #[error("the {} on `{path}` hung up", .service.name)]
    HungUp {
        /// Who was asked.
        service: Service,
        /// The socket.
        path: PathBuf,
    },
    /// There was no answer in time.
    #[error("the {} on `{path}` has not answered for {} s", .service.name, .after.as_secs())]
    TimedOut {
        /// Who was asked.
        service: Service,
        /// The socket.
        path: PathBuf,
        /// How long was waited.
        after: Duration,
    },
    /// The socket cannot be used.
    #[error("failed to use `{path}`")]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl ExchangeError {
    /// Whether nobody listened in the first place.
    pub fn is_nobody(&self) -> bool {
        matches!(self, Self::Nobody { .. })
    }

    /// Whether nobody serves the socket, now or any more.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Nobody { .. } | Self::HungUp { .. })
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Whether what was asked was done.
    pub is_success: bool,
    /// What it says; of a refusal, why.
    pub body: Vec<u8>,
}

/// Sends one request to the service in `run_dir` and reads its answer.
pub fn exchange(
    service: Service,
    run_dir: &Path,
    request: (&str, &str),
    body: &[u8],
    deadline: Duration,
) -> Result<Answer, ExchangeError> {
    let path = run_dir.join(service.socket);
    exchange_at(&path, request, body, deadline).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ExchangeError::Nobody { service, path },
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => {
            ExchangeError::HungUp { service, path }
        }
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            ExchangeError::TimedOut { service, path, after: deadline }
        }
        _ => ExchangeError::Io { path, source },
    })
}

fn exchange_at(
    socket: &Path,
    (method, path): (&str, &str),
    body: &[u8],
    deadline: Duration,
) -> io::Result<Answer> {
    let until = Instant::now() + deadline;
    let mut stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(deadline))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: berth\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let mut request = head.into_bytes();
    request.extend(body);
    stream.write_all(&request)?;
    let answer = read_until(&mut stream, until)?;
    let (status, body) = parsed(&answer).ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(Answer { is_success: (200..300).contains(&status), body: body.to_vec() })
}

/// Reads to the end, by `until`.
fn read_until(stream: &mut UnixStream, until: Instant) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut part = [0_u8; 16 << 10];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut part) {
            Ok(0) => return Ok(answer),
            Ok(length) => answer.extend(part.iter().take(length)),
            Err(err) if err.kind() == io::ErrorKind::Interrupted => (),
            Err(err) => return Err(err),
        }
        if u64::try_from(answer.len()).unwrap_or(u64::MAX) > ANSWER_LIMIT {
            return Err(io::Error::other("the answer is larger than berth reads"));
        }
    }
}

/// The status and the body of an answer that has arrived whole. The server is berth's own: a body has a length.
fn parsed(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (head, body) = (answer.get(..end)?, answer.get(end + 4..)?);
    let head = std::str::from_utf8(head).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok()).flatten()
    });
    Some((status, body.get(..length.unwrap_or(body.len()))?))
}
