//! Sockets that systemd opened for us or kept for us over a restart (`LISTEN_FDS`, sd_listen_fds(3); file descriptor store,
//! systemd.service(5)).

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use listenfd::ListenFd;

/// The listening Unix sockets this process was started with, by their paths; and sockets of the Internet, by the names
/// they were put into the store under.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<(PathBuf, UnixListener)>,
    stored: Vec<(String, OwnedFd)>,
}

/// A descriptor was handed over that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum InheritedError {
    /// It is something else than a listening Unix socket.
    #[error("descriptor {index} of LISTEN_FDS is neither a listening Unix socket nor one of the Internet")]
    Kind {
        /// Its place in the list, from 0.
        index: usize,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// It has no path.
    #[error("descriptor {index} of LISTEN_FDS is a socket without a path")]
    NoPath {
        /// Its place in the list, from 0.
        index: usize,
    },
}

impl Inherited {
    /// Takes them from the environment; none where there are none for this process.
    pub fn from_env() -> Result<Self, InheritedError> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut handed = ListenFd::from_env();
        let (mut sockets, mut stored) = (Vec::new(), Vec::new());
        for index in 0..handed.len() {
            let name = names.next().unwrap_or_default();
            if let Some(fd) = of_internet(&mut handed, index) {
                stored.push((name.to_owned(), fd));
                continue;
            }
            let taken =
                handed.take_unix_listener(index).map_err(|source| InheritedError::Kind { index, source })?;
            let Some(listener) = taken else { continue };
            let path = listener.local_addr().ok().and_then(|addr| addr.as_pathname().map(Path::to_owned));
            sockets.push((path.ok_or(InheritedError::NoPath { index })?, listener));
        }
        Ok(Self { sockets, stored })
    }

    /// Takes out the socket of `path`.
    pub fn take(&mut self, path: &Path) -> Option<UnixListener> {
        let place = self.sockets.iter().position(|(found, _)| found == path)?;
        Some(self.sockets.swap_remove(place).1)
    }

    /// Takes out the sockets that were kept over a restart, with their names.
    pub fn take_stored(&mut self) -> Vec<(String, OwnedFd)> {
        std::mem::take(&mut self.stored)
    }

    /// The paths nobody took.
    pub fn left(&self) -> Vec<&Path> {
        self.sockets.iter().map(|(path, _)| path.as_path()).collect()
    }
}

/// A UDP socket or a listening TCP socket.
fn of_internet(handed: &mut ListenFd, index: usize) -> Option<OwnedFd> {
    // What is of another kind stays at its place.
    let udp = handed.take_udp_socket(index).ok().flatten().map(OwnedFd::from);
    udp.or_else(|| handed.take_tcp_listener(index).ok().flatten().map(OwnedFd::from))
}
