//! Watches the places where sandboxes are pinned, for those of attachments that have no link on the host to go with them.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use crate::berth::Berth;
use crate::error::CoreError;
use crate::published::Held;

/// Engines pin sandboxes in one directory each; somebody who has more loses only the news of them.
const MOST: usize = 16;

pub(super) struct Sandboxes {
    inotify: OwnedFd,
    watched: BTreeSet<PathBuf>,
}

impl Sandboxes {
    pub(super) fn new() -> Result<Self, CoreError> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(|err| CoreError::Missing { what: format!("failed to watch directories: {err}") })?;
        Ok(Self { inotify, watched: BTreeSet::new() })
    }

    /// Watches the directories of all sandboxes that the records know.
    pub(super) fn follow(&mut self, berth: &mut Berth) -> Result<(), CoreError> {
        for (row, held) in berth.held()? {
            let path = match &held {
                Held::Bridge(record) => Some(record.sandbox_path.clone()),
                Held::Ports(_) => row.sandbox.map(|(path, _)| path),
            };
            let Some(dir) = path.as_deref().and_then(std::path::Path::parent) else { continue };
            if self.watched.contains(dir) || self.watched.len() >= MOST || dir.as_os_str().is_empty() {
                continue;
            }
            match inotify::add_watch(&self.inotify, dir, WatchFlags::DELETE | WatchFlags::ONLYDIR) {
                Ok(_) => drop(self.watched.insert(dir.to_owned())),
                // It may come; the next look tries again.
                Err(err) => tracing::debug!(dir = %dir.display(), %err, "sandboxes there are not watched"),
            }
        }
        Ok(())
    }

    /// Whether something was taken out of one of them since the last look.
    pub(super) fn changed(&mut self) -> bool {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut changed = false;
        loop {
            match reader.next() {
                Ok(event) => {
                    changed = true;
                    if event.events().contains(inotify::ReadFlags::IGNORED) {
                        // A directory went. Watching one twice is the same as once.
                        self.watched.clear();
                    }
                }
                Err(Errno::INTR) => (),
                Err(_) => return changed,
            }
        }
    }
}

impl AsFd for Sandboxes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}
