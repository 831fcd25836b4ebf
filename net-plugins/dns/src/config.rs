//! What the server is started with, and what it may use.

use std::path::PathBuf;
use std::time::Duration;

/// Settings of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// The port that members ask at.
    pub port: u16,
    /// Threads that answer over UDP; 0 takes one for each processor, four at most.
    pub workers: usize,
    /// The host's servers, for networks without servers of their own.
    pub resolv_conf: PathBuf,
    /// What may be used.
    pub limits: Limits,
}

/// Bounds. Whatever is sent here, by whomever, memory and descriptors stay within.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of answers from elsewhere that are kept.
    pub cache_bytes: usize,
    /// Questions waiting for other servers, in total.
    pub in_flight: usize,
    /// The same, of one source address.
    pub in_flight_per_source: usize,
    /// TCP connections, in total.
    pub tcp: usize,
    /// The same, of one source address.
    pub tcp_per_source: usize,
    /// How long a TCP connection may be silent.
    pub tcp_idle: Duration,
    /// How long a question may wait for other servers before it is answered with SERVFAIL. Less than the five seconds that
    /// resolvers wait.
    pub deadline: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self { port: 53, workers: 0, resolv_conf: "/etc/resolv.conf".into(), limits: Limits::default() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cache_bytes: 2 << 20,
            in_flight: 4096,
            in_flight_per_source: 256,
            tcp: 1024,
            tcp_per_source: 64,
            tcp_idle: Duration::from_secs(5),
            deadline: Duration::from_secs(4),
        }
    }
}
