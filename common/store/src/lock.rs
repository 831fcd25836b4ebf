//! Locks on files in the run directory (flock), held as values and released when dropped or when the process dies.
//!
//! **Lock order**, for every caller in berth; a later one is never held while an earlier one is taken:
//!
//! 1. [`AttachmentLock`]: so that an attach and a detach of the same container take turns;
//! 2. [`HostLock`]: shared for attach and publish, exclusive for taking berth's traces off the host;
//! 3. [`NamesLock`]: around the start, the replacement and the end of the DNS server;
//! 4. [`NetworkLock`]: shared for attach and detach, exclusive for creating, changing and removing the network;
//! 5. [`RulesLock`]: around a batch of nftables changes that several processes share;
//! 6. the database: a [`Store::write`](crate::Store::write) transaction. Nothing waits inside one.
//!
//! Two network locks at once are taken in the order of the names. A [`VolumeLock`] is held with none of 1 to 5, and only
//! the database is taken below it; two of them are taken by [`VolumeLock::both`].
//!
//! A wait is bounded ([`WAIT`]), and who holds the lock is named from `/proc/locks` when it ends in vain. A lock's file
//! may be removed by its exclusive holder; whoever waited on the removed file notices and takes the new one.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_types::{AttachmentKey, NetworkName, VolumeName, fnv64};

use crate::Dirs;

/// How long a lock is waited for: longer than any one change of berth takes, shorter than an engine's patience.
pub const WAIT: Duration = Duration::from_secs(30);

/// A lock could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Others held it for the whole wait.
    #[error("lock `{path}` was held for {}: {}", seconds(*.waited), holders_text(.holders))]
    Held {
        /// The lock's file.
        path: PathBuf,
        /// How long this call waited.
        waited: Duration,
        /// The processes that hold it, as far as `/proc/locks` tells.
        holders: Vec<i32>,
    },
    /// The lock's file cannot be used.
    #[error("failed to {action} lock `{path}`")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The lock's file or its directory.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Removes the lock files nobody holds, and their directory when it is empty: for `gc` on a host that berth leaves.
/// Whoever waits on a removed file notices and takes the new one.
pub fn sweep(dirs: &Dirs) -> Result<(), LockError> {
    let dir = dirs.run.join("locks");
    let Ok(entries) = std::fs::read_dir(&dir) else { return Ok(()) };
    for path in entries.flatten().map(|entry| entry.path()) {
        match FileLock::take(&path, Mode::Exclusive, Duration::ZERO) {
            Ok(lock) => lock.remove()?,
            Err(LockError::Held { .. }) => (),
            Err(err) => return Err(err),
        }
    }
    // Not empty: somebody is at work, and the directory stays for them.
    let _ = std::fs::remove_dir(&dir);
    Ok(())
}

/// The lock of one attachment.
#[derive(Debug)]
pub struct AttachmentLock(#[expect(dead_code, reason = "held, never looked at")] FileLock);

impl AttachmentLock {
    /// For every change of the attachment. A DEL that overtakes an ADD waits for its end.
    ///
    /// The files are a fixed number, shared by hash: attachments come and go by the thousand, and a file for each
    /// would have to be removed again. Two that share one wait for each other, which is slow and harmless.
    pub fn exclusive(dirs: &Dirs, key: &AttachmentKey) -> Result<Self, LockError> {
        FileLock::take(&Self::path(dirs, key), Mode::Exclusive, WAIT).map(Self)
    }

    fn path(dirs: &Dirs, key: &AttachmentKey) -> PathBuf {
        let AttachmentKey { network, container, ifname } = key;
        let stripe = fnv64([network.as_str(), container.as_str(), ifname.as_str()]) % 1024;
        dirs.run.join("locks").join(format!("att-{stripe:03x}"))
    }
}

/// The lock of berth's presence on the host: its tables and switches.
#[derive(Debug)]
pub struct HostLock(FileLock);

impl HostLock {
    /// For changes that count on the ruleset and the switches to stay: attach, publish.
    pub fn shared(dirs: &Dirs) -> Result<Self, LockError> {
        FileLock::take(&Self::path(dirs), Mode::Shared, WAIT).map(Self)
    }

    /// For taking them away, if nobody is just coming.
    pub fn try_exclusive(dirs: &Dirs) -> Result<Option<Self>, LockError> {
        Ok(FileLock::try_exclusive(&Self::path(dirs))?.map(Self))
    }

    /// Releases an exclusive lock and removes its file.
    pub fn remove(self) -> Result<(), LockError> {
        self.0.remove()
    }

    fn path(dirs: &Dirs) -> PathBuf {
        dirs.run.join("locks").join("host")
    }
}

/// The lock of one network.
#[derive(Debug)]
pub struct NetworkLock(FileLock);

impl NetworkLock {
    /// For changes that leave the network itself as it is: attach, detach.
    pub fn shared(dirs: &Dirs, network: &NetworkName) -> Result<Self, LockError> {
        FileLock::take(&Self::path(dirs, network), Mode::Shared, WAIT).map(Self)
    }

    /// For changes of the network: create, remove, repair, gc.
    pub fn exclusive(dirs: &Dirs, network: &NetworkName) -> Result<Self, LockError> {
        FileLock::take(&Self::path(dirs, network), Mode::Exclusive, WAIT).map(Self)
    }

    /// Releases an exclusive lock and removes its file, when the network itself is gone. For a shared lock it is only
    /// the release: the file is others' too.
    pub fn remove(self) -> Result<(), LockError> {
        self.0.remove()
    }

    /// Names have no length limit, so the file is named by a hash. Two networks with one hash would share a lock,
    /// which is slow and harmless.
    fn path(dirs: &Dirs, network: &NetworkName) -> PathBuf {
        dirs.run.join("locks").join(format!("net-{:016x}", fnv64([network.as_str()])))
    }
}

/// The lock of the DNS server's coming and going.
#[derive(Debug)]
pub struct NamesLock(FileLock);

impl NamesLock {
    /// For starting a server, taking over from one, and waiting for the end of one.
    pub fn exclusive(dirs: &Dirs) -> Result<Self, LockError> {
        FileLock::take(&Self::path(dirs), Mode::Exclusive, WAIT).map(Self)
    }

    /// For a server that wants to end, if nobody is just looking for one.
    pub fn try_exclusive(dirs: &Dirs) -> Result<Option<Self>, LockError> {
        Ok(FileLock::try_exclusive(&Self::path(dirs))?.map(Self))
    }

    /// Releases the lock and removes its file.
    pub fn remove(self) -> Result<(), LockError> {
        self.0.remove()
    }

    fn path(dirs: &Dirs) -> PathBuf {
        dirs.run.join("locks").join("names")
    }
}

/// The lock of one volume.
#[derive(Debug)]
pub struct VolumeLock(#[expect(dead_code, reason = "held, never looked at")] FileLock);

impl VolumeLock {
    /// For every change of the volume: its making and removing, its mounts and its users. Waits for at most `wait`: whoever
    /// holds it may be copying gigabytes.
    ///
    /// The files are a fixed number, as those of [`AttachmentLock`] are.
    pub fn exclusive(dirs: &Dirs, name: &VolumeName, wait: Duration) -> Result<Self, LockError> {
        FileLock::take(&Self::path(dirs, name), Mode::Exclusive, wait).map(Self)
    }

    /// The locks of two volumes, in one order for everybody: of their files, which two volumes may share.
    pub fn both(
        dirs: &Dirs,
        one: &VolumeName,
        other: &VolumeName,
        wait: Duration,
    ) -> Result<Vec<Self>, LockError> {
        let mut paths = vec![Self::path(dirs, one), Self::path(dirs, other)];
        paths.sort();
        paths.dedup();
        paths.iter().map(|path| FileLock::take(path, Mode::Exclusive, wait).map(Self)).collect()
    }

    fn path(dirs: &Dirs, name: &VolumeName) -> PathBuf {
        dirs.run.join("locks").join(format!("vol-{:03x}", fnv64([name.as_str()]) % 4096))
    }
}

/// The lock of the ruleset's shared batches.
#[derive(Debug)]
pub struct RulesLock(#[expect(dead_code, reason = "held, never looked at")] FileLock);

impl RulesLock {
    /// Waits for the lock.
    pub fn exclusive(dirs: &Dirs) -> Result<Self, LockError> {
        FileLock::take(&Self::path(dirs), Mode::Exclusive, WAIT).map(Self)
    }

    /// Takes the lock if nobody holds it.
    pub fn try_exclusive(dirs: &Dirs) -> Result<Option<Self>, LockError> {
        Ok(FileLock::try_exclusive(&Self::path(dirs))?.map(Self))
    }

    fn path(dirs: &Dirs) -> PathBuf {
        dirs.run.join("locks").join("rules")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Shared,
    Exclusive,
}

/// A held flock. The file is opened close-on-exec, so no child of ours keeps it.
#[derive(Debug)]
pub(crate) struct FileLock {
    file: File,
    path: PathBuf,
    mode: Mode,
}

impl FileLock {
    /// An exclusive lock, if nobody holds it.
    fn try_exclusive(path: &Path) -> Result<Option<Self>, LockError> {
        match Self::take(path, Mode::Exclusive, Duration::ZERO) {
            Ok(lock) => Ok(Some(lock)),
            Err(LockError::Held { .. }) => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// Takes the lock of `path`, waiting for at most `wait`. flock has no timeout of its own, hence the polling; it
    /// starts at 50 µs and never sleeps more than 2 ms, so that a released lock does not stay idle.
    pub(crate) fn take(path: &Path, mode: Mode, wait: Duration) -> Result<Self, LockError> {
        let started = Instant::now();
        let mut pause = Duration::from_micros(50);
        loop {
            let file = open(path)?;
            let held = loop {
                let tried = match mode {
                    Mode::Shared => file.try_lock_shared(),
                    Mode::Exclusive => file.try_lock(),
                };
                match tried {
                    Ok(()) => break true,
                    Err(TryLockError::WouldBlock) => {}
                    Err(TryLockError::Error(source)) => return Err(io_error("take", path, source)),
                }
                let waited = started.elapsed();
                if waited >= wait {
                    return Err(LockError::Held {
                        path: path.to_owned(),
                        waited,
                        holders: holders_of(&file),
                    });
                }
                if !is_current(&file, path) {
                    break false;
                }
                std::thread::sleep(pause.min(wait - waited));
                pause = (pause * 2).min(Duration::from_millis(2));
            };
            // The holder before may have removed the file between the open and the lock: then this lock is of a file
            // that nobody will find again.
            if held && is_current(&file, path) {
                return Ok(Self { file, path: path.to_owned(), mode });
            }
        }
    }

    /// Removes the file while the lock is held, then releases.
    pub(crate) fn remove(self) -> Result<(), LockError> {
        if self.mode == Mode::Exclusive && is_current(&self.file, &self.path) {
            match std::fs::remove_file(&self.path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("remove", &self.path, source));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<File, LockError> {
    let open =
        || OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    match open() {
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            let dir = path.parent().unwrap_or(path);
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .map_err(|source| io_error("create the directory of", dir, source))?;
            open()
        }
        other => other,
    }
    .map_err(|source| io_error("open", path, source))
}

/// Whether `path` still leads to `file`.
fn is_current(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> LockError {
    LockError::Io { action, path: path.to_owned(), source }
}

/// Processes with a flock on `file`, from `/proc/locks` (proc_locks(5)): `1: FLOCK ADVISORY WRITE 4711 00:1a:99 0 EOF`.
fn holders_of(file: &File) -> Vec<i32> {
    let (Ok(metadata), Ok(text)) = (file.metadata(), std::fs::read_to_string("/proc/locks")) else {
        return Vec::new();
    };
    let suffix = format!(":{}", metadata.ino());
    let holder = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (kind, pid, file) = (fields.next()?, fields.nth(2)?, fields.next()?);
        if kind == "FLOCK" && file.ends_with(&suffix) { pid.parse().ok() } else { None }
    };
    text.lines().filter_map(holder).collect()
}

fn seconds(waited: Duration) -> String {
    format!("{:.1} s", waited.as_secs_f64())
}

fn holders_text(holders: &[i32]) -> String {
    if holders.is_empty() {
        return "the holder is not known".to_owned();
    }
    let pids: Vec<String> = holders.iter().map(i32::to_string).collect();
    format!("held by process {}", pids.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture() -> (tempfile::TempDir, Dirs, NetworkName) {
        let root = tempfile::tempdir().unwrap();
        let dirs = Dirs::under(root.path());
        (root, dirs, NetworkName::new("n0").unwrap())
    }

    #[test]
    fn shared_locks_share_and_exclusive_ones_do_not() {
        let (_root, dirs, network) = fixture();
        let path = NetworkLock::path(&dirs, &network);
        let one = NetworkLock::shared(&dirs, &network).unwrap();
        let two = NetworkLock::shared(&dirs, &network).unwrap();
        let err = FileLock::take(&path, Mode::Exclusive, Duration::ZERO).unwrap_err();
        let me = std::process::id().to_string();
        assert!(err.to_string().contains(&me), "{err}");
        drop((one, two));
        let three = NetworkLock::exclusive(&dirs, &network).unwrap();
        assert!(FileLock::take(&path, Mode::Shared, Duration::from_millis(5)).is_err());
        let other = NetworkLock::exclusive(&dirs, &NetworkName::new("n1").unwrap()).unwrap();
        drop((three, other));
    }

    #[test]
    fn changes_of_one_attachment_take_turns() {
        let (_root, dirs, network) = fixture();
        let key = |container: &str| AttachmentKey {
            network: network.clone(),
            container: container.parse().unwrap(),
            ifname: "eth0".parse().unwrap(),
        };
        let path = AttachmentLock::path(&dirs, &key("a"));
        let held = AttachmentLock::exclusive(&dirs, &key("a")).unwrap();
        let err = FileLock::take(&path, Mode::Exclusive, Duration::ZERO).unwrap_err();
        assert!(matches!(err, LockError::Held { .. }), "{err}");
        let other = AttachmentLock::exclusive(&dirs, &key("b")).unwrap();
        drop(held);
        assert!(FileLock::take(&path, Mode::Exclusive, Duration::ZERO).is_ok());
        drop(other);
    }

    #[test]
    fn the_rules_lock_can_be_tried() {
        let (_root, dirs, _) = fixture();
        let held = RulesLock::try_exclusive(&dirs).unwrap();
        assert!(held.is_some());
        assert!(RulesLock::try_exclusive(&dirs).unwrap().is_none());
        drop(held);
        assert!(RulesLock::exclusive(&dirs).is_ok());
    }

    #[test]
    fn a_lock_on_a_removed_file_is_not_mistaken_for_the_lock() {
        let (_root, dirs, network) = fixture();
        let path = NetworkLock::path(&dirs, &network);
        let first = NetworkLock::exclusive(&dirs, &network).unwrap();
        let (dirs_of_thread, name) = (dirs.clone(), network.clone());
        let waiter = std::thread::spawn(move || NetworkLock::exclusive(&dirs_of_thread, &name).unwrap());
        first.remove().unwrap();
        let second = waiter.join().unwrap();
        assert!(is_current(&second.0.file, &path));
        assert!(FileLock::take(&path, Mode::Exclusive, Duration::ZERO).is_err());
        second.remove().unwrap();
        assert!(!path.exists());
    }
}
