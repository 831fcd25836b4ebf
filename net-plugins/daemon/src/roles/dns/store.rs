//! The server's sockets in the service manager's store: they wait there while the daemon is restarted, and so do the
//! questions in them.

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;

use berth_dns::{HandedSocket, Server};

use crate::notify;

/// What is in the store.
#[derive(Debug, Default)]
pub(super) struct Stored {
    names: BTreeSet<String>,
}

impl Stored {
    /// What the service manager gave back at the start is still there.
    pub(super) fn of(handed: &[HandedSocket]) -> Self {
        Self { names: handed.iter().map(|socket| socket.name.clone()).collect() }
    }

    /// Puts what is new into the store, and takes out what is closed.
    pub(super) fn keep(&mut self, server: &Server) {
        if !notify::has_manager() {
            return;
        }
        let sockets = server.hand_over();
        let names: BTreeSet<String> = sockets.iter().map(|socket| socket.name.clone()).collect();
        for socket in sockets.iter().filter(|socket| !self.names.contains(&socket.name)) {
            notify::store(&socket.name, socket.fd.as_fd());
        }
        for name in self.names.difference(&names) {
            notify::unstore(name);
        }
        self.names = names;
    }
}
