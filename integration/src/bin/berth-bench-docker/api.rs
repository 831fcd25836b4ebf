//! Docker's API, one connection a call, without a client program whose own start would be measured.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use berth_integration::Host;
use serde_json::Value;

/// The API of the dockerd on a host.
pub(crate) struct Api<'h> {
    host: &'h Host,
}

impl<'h> Api<'h> {
    pub(crate) fn new(host: &'h Host) -> Self {
        Self { host }
    }

    /// Posts `body`; the answer, and how long it took.
    pub(crate) fn post(&self, path: &str, body: &Value) -> (String, Duration) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.call("POST", path, &body)
    }

    /// Deletes; how long it took.
    pub(crate) fn delete(&self, path: &str) -> Duration {
        self.call("DELETE", path, "").1
    }

    fn call(&self, method: &str, path: &str, body: &str) -> (String, Duration) {
        let request = format!(
            "{method} /v1.41{path} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let mut stream = self.host.inside(|| UnixStream::connect("/run/docker.sock").unwrap());
        let started = Instant::now();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let took = started.elapsed();
        let status = answer.split(' ').nth(1).unwrap();
        assert!(status.starts_with('2'), "{method} {path} {body}: {answer}");
        (answer, took)
    }
}
