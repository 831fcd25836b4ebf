//! Calls of the server's socket, by whoever changed records: blocking, with a deadline, without a runtime.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::exchange::{ExchangeError, exchange_at};

/// The server's socket, in the run directory.
pub const SOCKET: &str = "dns.sock";

/// What a server that was started on demand says, in the run directory.
pub const LOG: &str = "dns.log";

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
    request: (&str, &str),
    body: &[u8],
    deadline: Duration,
) -> Result<Vec<u8>, CallError> {
    let path = run_dir.join(SOCKET);
    exchange_at(&path, request, body, deadline).map_err(|failed| match failed {
        ExchangeError::Nobody => CallError::Nobody { path },
        ExchangeError::HungUp => CallError::HungUp { path },
        ExchangeError::TimedOut => CallError::TimedOut { path, after: deadline },
        ExchangeError::Refused { body, .. } => {
            CallError::Refused { why: String::from_utf8_lossy(&body).trim().to_owned() }
        }
        ExchangeError::Io(source) => CallError::Io { path, source },
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
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
