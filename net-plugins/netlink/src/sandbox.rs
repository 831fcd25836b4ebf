//! Network namespaces: opening, recognising and entering them.
//!
//! A thread's namespace is never changed under a caller: whatever must happen in a sandbox happens on a fresh thread
//! that ends with it. A netlink socket belongs to the namespace it was opened in for all its life, so only opening it
//! needs that thread ([`crate::Netlink::open_in`]).

use std::any::Any;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_types::SandboxId;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::LinkNameSpaceType;

use crate::sys;

/// `NSFS_MAGIC` of linux/magic.h.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// The namespace of the calling thread. `/proc/self` would be that of the process's first thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// A sandbox that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The path cannot be opened.
    #[error("open network namespace `{}`", path.display())]
    Open {
        /// The path.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: Errno,
    },
    /// The path leads to something that is no namespace: an unmounted one leaves an empty file behind.
    #[error("`{}` is not a network namespace", path.display())]
    NotNetwork {
        /// The path.
        path: PathBuf,
    },
    /// A thread could not be started or could not change its namespace.
    #[error("enter network namespace `{}`", path.display())]
    Enter {
        /// The path.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// What was run inside panicked.
    #[error("work inside network namespace `{}` panicked: {message}", path.display())]
    Panicked {
        /// The path.
        path: PathBuf,
        /// The panic's message.
        message: String,
    },
}

impl SandboxError {
    /// The system's error number.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Open { source, .. } => Some(*source),
            Self::Enter { source, .. } => Errno::from_io_error(source),
            Self::NotNetwork { .. } | Self::Panicked { .. } => None,
        }
    }

    /// Whether there is no namespace (any more) where the path leads, so that nothing in it needs undoing.
    pub fn is_gone(&self) -> bool {
        match self {
            Self::Open { source, .. } => matches!(*source, Errno::NOENT | Errno::NOTDIR | Errno::SRCH),
            Self::NotNetwork { .. } => true,
            Self::Enter { .. } | Self::Panicked { .. } => false,
        }
    }
}

/// A network namespace, held open: it lives at least as long as this value.
#[derive(Debug)]
pub struct Sandbox {
    fd: OwnedFd,
    id: SandboxId,
    path: PathBuf,
}

impl Sandbox {
    /// Opens the network namespace at `path`, a bind mount of one or a `/proc/<pid>/ns/net`.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Open`] if it cannot be opened, [`SandboxError::NotNetwork`] if it is something else.
    pub fn open(path: &Path) -> Result<Self, SandboxError> {
        let fail = |source| SandboxError::Open { path: path.to_owned(), source };
        // NONBLOCK and NOCTTY: should the path lead to a FIFO or a terminal, opening it has no effect.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(fail)?;
        let magic = rustix::fs::fstatfs(&fd).map_err(fail)?.f_type;
        if magic.cast_unsigned() != NSFS_MAGIC || sys::namespace_type(fd.as_fd()) != Ok(libc::CLONE_NEWNET) {
            return Err(SandboxError::NotNetwork { path: path.to_owned() });
        }
        let stat = rustix::fs::fstat(&fd).map_err(fail)?;
        Ok(Self { fd, id: SandboxId { dev: stat.st_dev, ino: stat.st_ino }, path: path.to_owned() })
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// As [`Sandbox::open`].
    pub fn current() -> Result<Self, SandboxError> {
        Self::open(Path::new(OWN))
    }

    /// A new, empty namespace that nothing else refers to. It goes when this value does.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Enter`] if the kernel makes none, for want of `CAP_SYS_ADMIN` or of namespaces.
    pub fn anonymous() -> Result<Self, SandboxError> {
        let mut sandbox = on_thread(Path::new(OWN), || {
            sys::unshare_network().map_err(|errno| enter_error(Path::new(OWN), errno))?;
            Self::current()
        })??;
        // The thread's path is gone with it; the open descriptor is a path of its own.
        sandbox.path = format!("/proc/{}/fd/{}", std::process::id(), sandbox.fd.as_raw_fd()).into();
        Ok(sandbox)
    }

    /// The namespace's identity.
    pub fn id(&self) -> SandboxId {
        self.id
    }

    /// The path it was opened by. It may lead elsewhere by now; the open descriptor does not.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is the calling thread's own namespace.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Open`] if `/proc` does not tell.
    pub fn is_current(&self) -> Result<bool, SandboxError> {
        let stat = rustix::fs::stat(OWN).map_err(|source| SandboxError::Open { path: OWN.into(), source })?;
        Ok(self.id == SandboxId { dev: stat.st_dev, ino: stat.st_ino })
    }

    /// Runs `work` inside the namespace, on a thread of its own, and waits for it.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Enter`] if the namespace cannot be entered, [`SandboxError::Panicked`] if `work` panics.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, SandboxError> {
        on_thread(&self.path, || {
            rustix::thread::move_into_link_name_space(self.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|errno| enter_error(&self.path, errno))?;
            Ok(work())
        })?
    }
}

impl AsFd for Sandbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Runs `work` on a fresh thread and waits for it; `path` is what errors are about.
fn on_thread<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> Result<T, SandboxError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("sandbox".to_owned())
            .spawn_scoped(scope, work)
            .map_err(|source| SandboxError::Enter { path: path.to_owned(), source })?;
        thread
            .join()
            .map_err(|panic| SandboxError::Panicked { path: path.to_owned(), message: panic_text(&*panic) })
    })
}

fn enter_error(path: &Path, errno: Errno) -> SandboxError {
    SandboxError::Enter { path: path.to_owned(), source: errno.into() }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_runs_in_the_sandbox_and_the_caller_stays_where_it_was() {
        let before = Sandbox::current().unwrap().id();
        let sandbox = Sandbox::anonymous().unwrap();
        let inside = sandbox.run(|| Sandbox::current().unwrap().id()).unwrap();
        assert_eq!(inside, sandbox.id());
        assert_ne!(inside, before);
        assert_eq!(Sandbox::current().unwrap().id(), before);
        assert!(!sandbox.is_current().unwrap());
        assert!(sandbox.run(|| sandbox.is_current().unwrap()).unwrap());
    }

    #[test]
    fn the_path_of_an_anonymous_sandbox_opens_the_same_one() {
        let sandbox = Sandbox::anonymous().unwrap();
        assert_eq!(Sandbox::open(sandbox.path()).unwrap().id(), sandbox.id());
    }

    #[test]
    fn other_files_and_other_namespaces_are_refused() {
        for path in ["/proc/self/ns/mnt", "/proc/self/ns/uts", "/proc/self/status", "/dev/null", "/"] {
            let err = Sandbox::open(Path::new(path)).unwrap_err();
            assert!(matches!(err, SandboxError::NotNetwork { .. }), "{path}: {err}");
            assert!(err.is_gone());
        }
    }

    #[test]
    fn a_missing_path_is_gone() {
        let err = Sandbox::open(Path::new("/run/netns/no such thing")).unwrap_err();
        assert!(err.is_gone());
        assert_eq!(err.errno(), Some(Errno::NOENT));
    }

    #[test]
    fn a_panic_inside_is_an_error() {
        let sandbox = Sandbox::anonymous().unwrap();
        let err = sandbox.run(|| panic!("about {}", 7)).unwrap_err();
        assert!(matches!(&err, SandboxError::Panicked { message, .. } if message == "about 7"), "{err}");
    }
}
