//! Looking at a tree without leaving it, directories before and after what is in them.
//!
//! As in [`crate::tree`], everything is opened from an open directory, no link is followed, and what is mounted in the tree is
//! not entered: it is shown as an empty directory.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Stat};
use rustix::io::Errno;

use crate::error::VolumeError;
use crate::place::{CONFINED, open_dir};

/// How deep a tree may be. Each level is an open directory, and 1,024 files may be open by default.
const DEPTH_MAX: usize = 500;

/// One thing in a tree.
pub(crate) struct Entry<'w> {
    /// The directory it is in.
    pub(crate) parent: BorrowedFd<'w>,
    /// Its name there.
    pub(crate) name: &'w CStr,
    /// Its path from the top.
    pub(crate) path: &'w Path,
    /// What it is.
    pub(crate) stat: Stat,
}

impl Entry<'_> {
    /// What kind of thing it is.
    pub(crate) fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    /// A path by which this process reaches it, not following it if it is a link.
    pub(crate) fn handle(&self) -> PathBuf {
        let dir = PathBuf::from(format!("/proc/thread-self/fd/{}", self.parent.as_raw_fd()));
        dir.join(OsStr::from_bytes(self.name.to_bytes()))
    }
}

/// What is done at each thing.
pub(crate) trait Visitor {
    /// Before what is in a directory.
    fn enter(&mut self, dir: &Entry<'_>) -> Result<(), VolumeError>;
    /// At anything else.
    fn leaf(&mut self, entry: &Entry<'_>) -> Result<(), VolumeError>;
    /// After what is in a directory.
    fn leave(&mut self, dir: &Entry<'_>) -> Result<(), VolumeError>;
}

struct Frame {
    dir: OwnedFd,
    /// Last first.
    names: Vec<CString>,
    /// The directory itself, as it is left.
    own: Option<(CString, Stat)>,
}

/// Walks the open directory `top`, whose `shown` path is only told. Names come in order. What vanishes meanwhile is left out.
pub(crate) fn walk(top: OwnedFd, shown: &Path, visitor: &mut dyn Visitor) -> Result<(), VolumeError> {
    let names = names_of(&top, shown)?;
    let mut frames = vec![Frame { dir: top, names, own: None }];
    let mut path = PathBuf::new();
    while let Some(frame) = frames.last_mut() {
        let Some(name) = frame.names.pop() else {
            let done = frames.pop();
            if let (Some(parent), Some((name, stat))) = (frames.last(), done.and_then(|frame| frame.own)) {
                visitor.leave(&Entry { parent: parent.dir.as_fd(), name: &name, path: &path, stat })?;
                path.pop();
            }
            continue;
        };
        let failed =
            |action, err: Errno| VolumeError::io(action, &shown.join(&path).join(os(&name)), err.into());
        let stat = match rustix::fs::statat(&frame.dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(err) => return Err(failed("look at", err)),
        };
        path.push(os(&name));
        let entry = Entry { parent: frame.dir.as_fd(), name: &name, path: &path, stat };
        if entry.file_type() != FileType::Directory {
            visitor.leaf(&entry)?;
            path.pop();
            continue;
        }
        let (dir, names) = match open_dir(frame.dir.as_fd(), os(&name), CONFINED) {
            Ok(dir) => {
                let names = names_of(&dir, &shown.join(&path))?;
                (dir, names)
            }
            // A mount: its contents belong to something else. Nothing of it is opened, so its parent stands in.
            Err(Errno::XDEV) => {
                let again = frame.dir.try_clone();
                (again.map_err(|err| VolumeError::io("open", &shown.join(&path), err))?, Vec::new())
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                path.pop();
                continue;
            }
            Err(err) => return Err(VolumeError::io("open", &shown.join(&path), err.into())),
        };
        visitor.enter(&entry)?;
        if frames.len() >= DEPTH_MAX {
            let source = std::io::Error::other(format!("it is more than {DEPTH_MAX} directories deep"));
            return Err(VolumeError::io("read", &shown.join(&path), source));
        }
        frames.push(Frame { dir, names, own: Some((name, stat)) });
    }
    Ok(())
}

fn os(name: &CStr) -> &OsStr {
    OsStr::from_bytes(name.to_bytes())
}

/// The names in a directory, the last in order first.
fn names_of(dir: &OwnedFd, path: &Path) -> Result<Vec<CString>, VolumeError> {
    let failed = |err: Errno| VolumeError::io("read", path, err.into());
    let mut names = Vec::new();
    for entry in Dir::read_from(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort_unstable_by(|one, other| other.cmp(one));
    Ok(names)
}
