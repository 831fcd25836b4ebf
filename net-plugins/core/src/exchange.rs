//! One request and its answer on a Unix socket of berth's own: HTTP, blocking, with a deadline, without a runtime.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// The largest answer that is read, bytes: a list of 100,000 names is a fifth of it.
const ANSWER_LIMIT: u64 = 64 << 20;

/// Why there is no answer.
#[derive(Debug)]
pub enum ExchangeError {
    /// Nobody listens.
    Nobody,
    /// The connection broke off.
    HungUp,
    /// There was no answer in time.
    TimedOut,
    /// The answer is a refusal.
    Refused {
        /// Its status, 400 and more.
        status: u16,
        /// Its body.
        body: Vec<u8>,
    },
    /// The socket cannot be used.
    Io(io::Error),
}

impl From<io::Error> for ExchangeError {
    fn from(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Self::Nobody,
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => {
                Self::HungUp
            }
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Io(source),
        }
    }
}

/// Sends one request to the socket at `path` and reads the body of its answer.
pub fn exchange_at(
    socket: &Path,
    (method, path): (&str, &str),
    body: &[u8],
    deadline: Duration,
) -> Result<Vec<u8>, ExchangeError> {
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
    let (status, answer) = parsed(&answer).ok_or(ExchangeError::HungUp)?;
    match status {
        200..=299 => Ok(answer.to_vec()),
        _ => Err(ExchangeError::Refused { status, body: answer.to_vec() }),
    }
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
