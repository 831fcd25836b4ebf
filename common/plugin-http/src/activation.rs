//! Sockets that systemd opened for us (`LISTEN_FDS`, sd_listen_fds(3)).

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use listenfd::ListenFd;

/// The listening Unix sockets this process was started with, by their paths.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<(PathBuf, UnixListener)>,
}

/// A descriptor was handed over that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum InheritedError {
    /// It is something else than a listening Unix socket.
    #[error("descriptor {index} of LISTEN_FDS is not a listening Unix socket")]
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
        let mut handed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..handed.len() {
            let taken =
                handed.take_unix_listener(index).map_err(|source| InheritedError::Kind { index, source })?;
            let Some(listener) = taken else { continue };
            let path = listener.local_addr().ok().and_then(|addr| addr.as_pathname().map(Path::to_owned));
            sockets.push((path.ok_or(InheritedError::NoPath { index })?, listener));
        }
        Ok(Self { sockets })
    }

    /// Takes out the socket of `path`.
    pub fn take(&mut self, path: &Path) -> Option<UnixListener> {
        let place = self.sockets.iter().position(|(found, _)| found == path)?;
        Some(self.sockets.swap_remove(place).1)
    }

    /// The paths nobody took.
    pub fn left(&self) -> Vec<&Path> {
        self.sockets.iter().map(|(path, _)| path.as_path()).collect()
    }
}
