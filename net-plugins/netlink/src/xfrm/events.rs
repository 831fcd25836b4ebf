//! News of states and policies: that there are some, not which.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::{Socket, SocketAddr};

use super::NETLINK_XFRM;
use crate::error::NetlinkError;

/// `XFRMNLGRP_SA` and `XFRMNLGRP_POLICY` of linux/xfrm.h: changes and flushes. Not that of acquisition: whoever listens to
/// that is taken for a key exchange daemon by the kernel (`xfrm_acquire_is_on`).
const GROUPS: [u32; 2] = [3, 4];

/// A socket that can be read as soon as somebody has changed a state or a policy of the namespace it was opened in.
#[derive(Debug)]
pub struct XfrmEvents {
    socket: Socket,
}

impl XfrmEvents {
    /// Hears of everything from now on.
    ///
    /// # Errors
    ///
    /// The kernel has no such sockets, or gives none.
    pub fn open() -> Result<Self, NetlinkError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_XFRM)?;
            socket.set_non_blocking(true)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            GROUPS.iter().try_for_each(|group| socket.add_membership(*group))?;
            Ok(socket)
        };
        let socket = open().map_err(|source| NetlinkError::Socket { operation: "watch", source })?;
        Ok(Self { socket })
    }

    /// Takes what is there. Having missed some is news, too.
    ///
    /// # Errors
    ///
    /// The socket failed.
    pub fn drain(&mut self) -> Result<(), NetlinkError> {
        let mut piece = Vec::with_capacity(crate::dump::PIECE_MAX);
        loop {
            piece.clear();
            match self.socket.recv(&mut piece, 0) {
                Ok(_) => (),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(err) if err.kind() == io::ErrorKind::Interrupted => (),
                Err(err) if err.raw_os_error() == Some(libc::ENOBUFS) => (),
                Err(source) => return Err(NetlinkError::Socket { operation: "watch", source }),
            }
        }
    }
}

impl AsFd for XfrmEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
