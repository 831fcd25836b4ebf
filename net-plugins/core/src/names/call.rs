//! Calls of the server's socket, by whoever changed records: blocking, with a deadline, without a runtime.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::exchange::{self, ExchangeError, Service};

/// The server's socket, in the run directory.
pub const SOCKET: &str = "dns.sock";

/// The server.
const SERVER: Service = Service { name: "DNS server", socket: SOCKET, missed: "" };

/// What a server that was started on demand says, in the run directory.
pub const LOG: &str = "dns.log";

/// The server was not asked, or did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no answer.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// The server refused.
    #[error("the DNS server refused: {why}")]
    Refused {
        /// Its words.
        why: String,
    },
    /// What came back is no answer.
    #[error("the answer of the DNS server cannot be read")]
    Answer(#[source] serde_json::Error),
    /// None could be started.
    #[error(transparent)]
    Start(#[from] super::start::StartError),
}

impl CallError {
    /// Whether no server listened in the first place.
    pub fn is_nobody(&self) -> bool {
        matches!(self, Self::Exchange(err) if err.is_nobody())
    }

    /// Whether nobody serves the socket, now or any more.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Exchange(err) if err.is_absent())
    }
}

/// Whether a server runs.
pub fn is_served(run_dir: &Path) -> bool {
    UnixStream::connect(run_dir.join(SOCKET)).is_ok()
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
    let answer = exchange::exchange(SERVER, run_dir, request, body, deadline)?;
    match answer.is_success {
        true => Ok(answer.body),
        false => Err(CallError::Refused { why: String::from_utf8_lossy(&answer.body).trim().to_owned() }),
    }
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
        let hung_up = |err| matches!(err, CallError::Exchange(ExchangeError::HungUp { .. }));
        assert!(hung_up(wrong(b"")));
        assert!(hung_up(wrong(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n17")));
        let refused = wrong(b"HTTP/1.1 500 No\r\ncontent-length: 8\r\n\r\nnot now\n");
        assert!(matches!(&refused, CallError::Refused { why } if why == "not now"), "{refused}");

        let dir = tempfile::tempdir().unwrap();
        let nobody = ask(dir.path(), "/", SOON).unwrap_err();
        assert!(nobody.is_nobody() && nobody.is_absent(), "{nobody}");
        drop(UnixListener::bind(dir.path().join(SOCKET)).unwrap());
        assert!(ask(dir.path(), "/", SOON).unwrap_err().is_absent(), "a socket that nobody has open");
        std::fs::remove_file(dir.path().join(SOCKET)).unwrap();
        let _silent = UnixListener::bind(dir.path().join(SOCKET)).unwrap();
        let late = ask(dir.path(), "/", SOON).unwrap_err();
        assert!(matches!(late, CallError::Exchange(ExchangeError::TimedOut { .. })), "{late}");
    }
}
