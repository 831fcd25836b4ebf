//! What can go wrong for the whole server. What goes wrong for one question is answered to the one who asked.

use std::io;
use std::net::SocketAddr;

/// Why the server could not start or listen.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// No port of a gateway address could be had.
    #[error("failed to listen for DNS on {addr}, nor on any other port of that address")]
    Listen {
        /// The address, with the port wanted.
        addr: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A thread could not be started, or lacks a descriptor it cannot work without.
    #[error("failed to start the DNS server's {what}")]
    Start {
        /// Which part.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A thread of the server ended, which it never does by itself.
    #[error("the DNS server is not running")]
    Stopped,
}
