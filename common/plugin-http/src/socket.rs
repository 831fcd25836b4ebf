//! A listening socket with a path.
//!
//! It appears under its path only once it listens, and replaces a stale one in the same instant: dockerd looks into
//! every socket of the plugin directory, and waits 15 s for one that nobody answers. For the same reason it is made in
//! a directory beside it, which dockerd does not take for a plugin, and is unlinked when its owner ends, in whatever
//! way short of SIGKILL.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::Inherited;

/// Why a socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process serves it.
    #[error("socket `{path}` is served by another process; stop that one first")]
    Served {
        /// The path.
        path: PathBuf,
    },
    /// Something that is not a socket has its name.
    #[error("`{path}` exists and is no socket")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The path has no directory or no name.
    #[error("`{path}` cannot be a socket's path")]
    NoName {
        /// The path.
        path: PathBuf,
    },
    /// The system refused.
    #[error("failed to {action} `{path}`")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A listening socket. Dropped, its path is gone, unless systemd owns it.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    own: Option<Own>,
}

/// What of a socket is ours to remove.
#[derive(Debug)]
struct Own {
    path: PathBuf,
    id: (u64, u64),
    /// Where it was made. The lock on it says that somebody serves the socket.
    nursery: Nursery,
}

/// Paths to unlink when the process ends without unwinding.
static LIVE: Mutex<Vec<(PathBuf, (u64, u64))>> = Mutex::new(Vec::new());

impl Socket {
    /// The socket of `path`: the one that was handed over, or a new one with mode 0600.
    pub fn open(path: &Path, inherited: &mut Inherited) -> Result<Self, SocketError> {
        match inherited.take(path) {
            Some(listener) => Ok(Self { listener, own: None }),
            None => Self::bind(path),
        }
    }

    /// Makes the socket, in place of a stale one.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| SocketError::Io { action, path, source }
        };
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(SocketError::NoName { path: path.to_owned() });
        };
        // As dockerd and the plugin helpers make it.
        let made = DirBuilder::new().recursive(true).mode(0o755).create(dir);
        made.map_err(io("create directory", dir))?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(".d");
        let nursery = Nursery::claim(&dir.join(hidden), path)?;
        match std::fs::symlink_metadata(path) {
            Ok(there) if !std::os::unix::fs::FileTypeExt::is_socket(&there.file_type()) => {
                return Err(SocketError::NotASocket { path: path.to_owned() });
            }
            _ => (),
        }
        let young = nursery.path.join("s");
        let _ = std::fs::remove_file(&young);
        let listener = UnixListener::bind(&young).map_err(io("bind socket", &young))?;
        // The nursery's mode kept others out until here.
        std::fs::set_permissions(&young, Permissions::from_mode(0o600))
            .map_err(io("set the mode of", &young))?;
        let meta = std::fs::symlink_metadata(&young).map_err(io("look at", &young))?;
        let id = (meta.dev(), meta.ino());
        std::fs::rename(&young, path).map_err(io("rename a socket to", path))?;
        if let Ok(mut live) = LIVE.lock() {
            live.push((path.to_owned(), id));
        }
        Ok(Self { listener, own: Some(Own { path: path.to_owned(), id, nursery }) })
    }

    /// Whether a service manager opened it, and has it open as well.
    pub fn is_inherited(&self) -> bool {
        self.own.is_none()
    }

    /// The listener, for the runtime that calls this.
    pub(crate) fn listener(&self) -> io::Result<tokio::net::UnixListener> {
        let listener = self.listener.try_clone()?;
        listener.set_nonblocking(true)?;
        tokio::net::UnixListener::from_std(listener)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let Some(Own { path, id, nursery }) = self.own.take() else { return };
        unlink(&path, id);
        if let Ok(mut live) = LIVE.lock() {
            live.retain(|(live, _)| *live != path);
        }
        nursery.remove();
    }
}

/// Unlinks every socket of this process, for a panic that ends it without unwinding.
pub fn unlink_all() {
    // A panic while the list was held: it is short and holds nothing that could be half done.
    let live = LIVE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for (path, id) in live.iter() {
        unlink(path, *id);
    }
}

/// Unlinks the socket if it is still the one that was made.
fn unlink(path: &Path, id: (u64, u64)) {
    if std::fs::symlink_metadata(path).is_ok_and(|meta| (meta.dev(), meta.ino()) == id) {
        let _ = std::fs::remove_file(path);
    }
}

/// The directory in which a socket is made, mode 0700, and locked by whoever serves the socket.
#[derive(Debug)]
struct Nursery {
    path: PathBuf,
    lock: File,
}

impl Nursery {
    fn claim(path: &Path, socket: &Path) -> Result<Self, SocketError> {
        let io = |action| move |source| SocketError::Io { action, path: path.to_owned(), source };
        // Each round another owner went between two of these steps.
        for _ in 0..100 {
            match DirBuilder::new().mode(0o700).create(path) {
                Err(err) if err.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(io("create directory")(err));
                }
                _ => (),
            }
            let opened = OpenOptions::new()
                .read(true)
                .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
                .open(path);
            let lock = match opened {
                Err(err) if err.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.map_err(io("open directory"))?,
            };
            match lock.try_lock() {
                Ok(()) => (),
                Err(TryLockError::WouldBlock) => {
                    return Err(SocketError::Served { path: socket.to_owned() });
                }
                Err(TryLockError::Error(err)) => return Err(io("lock directory")(err)),
            }
            let (ours, there) = (lock.metadata(), std::fs::symlink_metadata(path));
            if let (Ok(ours), Ok(there)) = (ours, there)
                && (ours.dev(), ours.ino()) == (there.dev(), there.ino())
            {
                return Ok(Self { path: path.to_owned(), lock });
            }
        }
        Err(SocketError::Served { path: socket.to_owned() })
    }

    /// Removes the directory while the lock is held, then releases it.
    fn remove(self) {
        let _ = std::fs::remove_file(self.path.join("s"));
        let _ = std::fs::remove_dir(&self.path);
        drop(self.lock);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_stale_socket_is_replaced_and_nothing_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plugins/x.sock");
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        drop(UnixListener::bind(&path).unwrap());
        assert!(UnixStream::connect(&path).is_err());
        let socket = Socket::bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(socket);
        assert_eq!(names(path.parent().unwrap()), Vec::<String>::new());
    }

    #[test]
    fn a_second_server_is_refused_and_the_first_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let first = Socket::bind(&path).unwrap();
        let err = Socket::bind(&path).unwrap_err();
        assert!(matches!(err, SocketError::Served { .. }), "{err}");
        UnixStream::connect(&path).unwrap();
        drop(first);
        Socket::bind(&path).unwrap();
    }

    #[test]
    fn somebody_elses_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(Socket::bind(&path), Err(SocketError::NotASocket { .. })));
        std::fs::remove_file(&path).unwrap();
        let socket = Socket::bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let theirs = UnixListener::bind(&path).unwrap();
        drop(socket);
        UnixStream::connect(&path).unwrap();
        drop(theirs);
    }
}
