//! Calls of the server's socket, by whoever changed records: blocking, with a deadline, without a runtime.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The server's socket, in the run directory.
pub const SOCKET: &str = "dns.sock";

/// What a server that was started on demand says, in the run directory.
pub const LOG: &str = "dns.log";

/// The largest answer that is read, bytes: a list of 100,000 names is a fifth of it.
const ANSWER_LIMIT: u64 = 64 << 20;

/// The server was not asked, or did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens: no server runs.
    #[error("no DNS server listens on `{path}`")]
    Nobody {
        /// The socket.
        path: PathBuf,
    },
    /// The connection broke off: the server ended meanwhile.
    #[error("the DNS server on `{path}` hung up")]
    HungUp {
        /// The socket.
        path: PathBuf,
    },
    /// There was no answer in time.
    #[error("the DNS server on `{path}` has not answered for {} s", .after.as_secs())]
    TimedOut {
        /// The socket.
        path: PathBuf,
        /// How long was waited.
        after: Duration,
    },
    /// The server refused.
    #[error("the DNS server refused: {why}")]
    Refused {
        /// Its words.
        why: String,
    },
    /// What came back is no answer.
    #[error("the answer of the DNS server cannot be read")]
    Answer(#[source] serde_json::Error),
    /// The socket cannot be used.
    #[error("failed to use `{path}`")]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// None could be started.
    #[error(transparent)]
    Start(#[from] super::start::StartError),
}

impl CallError {
    /// Whether nobody serves the socket, now or any more.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Nobody { .. } | Self::HungUp { .. })
    }
}

/// Sends `body` to the method at `path` of the server in `run_dir`, and reads its answer.
pub fn call<A: Serialize, R: DeserializeOwned>(
    run_dir: &Path,
    path: &str,
    body: &A,
    deadline: Duration,
) -> Result<R, CallError> {
    let body = serde_json::to_vec(body).map_err(CallError::Answer)?;
    let answer = exchange(run_dir, ("POST", path), &body, deadline)?;
    serde_json::from_slice(&answer).map_err(CallError::Answer)
}

/// Reads what the server in `run_dir` has at `path`, as it is.
pub fn ask(run_dir: &Path, path: &str, deadline: Duration) -> Result<Vec<u8>, CallError> {
    exchange(run_dir, ("GET", path), &[], deadline)
}

fn exchange(
    run_dir: &Path,
    (method, path): (&str, &str),
    body: &[u8],
    deadline: Duration,
) -> Result<Vec<u8>, CallError> {
    let socket = run_dir.join(SOCKET);
    let until = Instant::now() + deadline;
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            CallError::Nobody { path: socket.clone() }
        }
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => {
            CallError::HungUp { path: socket.clone() }
        }
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            CallError::TimedOut { path: socket.clone(), after: deadline }
        }
        _ => CallError::Io { path: socket.clone(), source },
    };
    let mut stream = UnixStream::connect(&socket).map_err(failed)?;
    stream.set_write_timeout(Some(deadline)).map_err(failed)?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: berth\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let mut request = head.into_bytes();
    request.extend(body);
    stream.write_all(&request).map_err(failed)?;
    let answer = read_until(&mut stream, until).map_err(failed)?;
    let (status, answer) = parsed(&answer).ok_or_else(|| CallError::HungUp { path: socket.clone() })?;
    match status {
        200..=299 => Ok(answer.to_vec()),
        _ => Err(CallError::Refused { why: String::from_utf8_lossy(answer).trim().to_owned() }),
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A server that takes one request and answers with these bytes.
    fn server(dir: &Path, answer: &'static [u8]) -> std::thread::JoinHandle<String> {
        let listener = UnixListener::bind(dir.join(SOCKET)).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut text = [0; 4096];
            let length = stream.read(&mut text).unwrap();
            stream.write_all(answer).unwrap();
            String::from_utf8_lossy(&text[..length]).into_owned()
        })
    }

    const SOON: Duration = Duration::from_millis(200);

    #[test]
    fn a_call_is_one_request_and_its_answer() {
        let dir = tempfile::tempdir().unwrap();
        let asked = server(dir.path(), b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n17");
        let answer: u8 = call(dir.path(), "/v1/x", &"hello", SOON * 50).unwrap();
        assert_eq!(answer, 17);
        let asked = asked.join().unwrap();
        assert!(
            asked.starts_with("POST /v1/x HTTP/1.1\r\n") && asked.ends_with("\r\n\r\n\"hello\""),
            "{asked}"
        );
    }

    #[test]
    fn whatever_goes_wrong_has_a_name() {
        let wrong = |answer: &'static [u8]| {
            let dir = tempfile::tempdir().unwrap();
            let _asked = server(dir.path(), answer);
            ask(dir.path(), "/", SOON * 50).unwrap_err()
        };
        assert!(matches!(wrong(b""), CallError::HungUp { .. }));
        assert!(matches!(wrong(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n17"), CallError::HungUp { .. }));
        let refused = wrong(b"HTTP/1.1 500 No\r\ncontent-length: 8\r\n\r\nnot now\n");
        assert!(matches!(&refused, CallError::Refused { why } if why == "not now"), "{refused}");

        let dir = tempfile::tempdir().unwrap();
        assert!(ask(dir.path(), "/", SOON).unwrap_err().is_absent());
        drop(UnixListener::bind(dir.path().join(SOCKET)).unwrap());
        assert!(ask(dir.path(), "/", SOON).unwrap_err().is_absent(), "a socket that nobody has open");
        std::fs::remove_file(dir.path().join(SOCKET)).unwrap();
        let _silent = UnixListener::bind(dir.path().join(SOCKET)).unwrap();
        assert!(matches!(ask(dir.path(), "/", SOON).unwrap_err(), CallError::TimedOut { .. }));
    }
}
