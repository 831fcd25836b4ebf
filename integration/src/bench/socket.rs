//! HTTP on a Unix socket, one connection a call, without a client program whose own start would be measured.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Host;

/// Somebody who answers.
#[derive(Debug)]
pub struct Socket<'h> {
    host: &'h Host,
    path: &'static str,
    prefix: &'static str,
}

impl<'h> Socket<'h> {
    /// The one at `path` on `host`; `prefix` is put in front of every call's path.
    #[must_use]
    pub fn new(host: &'h Host, path: &'static str, prefix: &'static str) -> Self {
        Self { host, path, prefix }
    }

    /// dockerd's API.
    #[must_use]
    pub fn docker(host: &'h Host) -> Self {
        Self::new(host, "/run/docker.sock", "/v1.41")
    }

    /// Posts `body`; the answer, and how long it took.
    pub fn post(&self, path: &str, body: &Value) -> (String, Duration) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.call("POST", path, &body)
    }

    /// The answer, and how long it took.
    pub fn get(&self, path: &str) -> (String, Duration) {
        self.call("GET", path, "")
    }

    /// Deletes; how long it took.
    pub fn delete(&self, path: &str) -> Duration {
        self.call("DELETE", path, "").1
    }

    fn call(&self, method: &str, path: &str, body: &str) -> (String, Duration) {
        let request = format!(
            "{method} {}{path} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.prefix,
            body.len()
        );
        let mut stream = self.host.inside(|| UnixStream::connect(self.path).unwrap());
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
