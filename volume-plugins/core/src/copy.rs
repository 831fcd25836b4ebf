//! Copying a tree: everything as it is, with links between files, holes, owners, attributes and times.
//!
//! Where the file system can, contents are shared instead of copied (reflinks): the copy of a database is made in
//! milliseconds and takes no room until one of the two changes.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use crate::attributes::{Attributes, apply, xattrs_of};
use crate::error::VolumeError;
use crate::place::{CONFINED, open_dir};
use crate::walk::{Entry, Visitor, walk};

/// Told how many bytes more have been copied. Its error ends the copying, and what was begun is taken back.
pub type Report<'r> = &'r mut dyn FnMut(u64) -> std::io::Result<()>;

/// How much is copied between two reports.
const CHUNK: usize = 8 << 20;

/// Copies what is in `from` into the empty directory `to`, and `to` is given the attributes of `from`. `shown` is the source's
/// path, which is only told. `report` is told how many bytes more there are.
pub(crate) fn copy_tree(
    from: OwnedFd,
    to: OwnedFd,
    shown: &Path,
    report: Report<'_>,
) -> Result<(), VolumeError> {
    let stat = rustix::fs::fstat(&from).map_err(|err| VolumeError::io("look at", shown, err.into()))?;
    let own = PathBuf::from(format!("/proc/thread-self/fd/{}/.", std::os::fd::AsRawFd::as_raw_fd(&from)));
    let xattrs = xattrs_of(&own)?;
    let top = to.try_clone().map_err(|err| VolumeError::io("open", shown, err))?;
    let mut copier = Copier { shown, dirs: vec![to], links: HashMap::new(), report, can_share: true };
    walk(from, shown, &mut copier)?;
    apply(top.as_fd(), c".", FileType::Directory, &Attributes::of(&stat), &xattrs)
}

struct Copier<'c> {
    shown: &'c Path,
    /// The directories of the copy, from the top to where the walk is.
    dirs: Vec<OwnedFd>,
    /// Files with several names: where the first of them is in the copy.
    links: HashMap<(u64, u64), PathBuf>,
    report: Report<'c>,
    can_share: bool,
}

impl Visitor for Copier<'_> {
    fn enter(&mut self, dir: &Entry<'_>) -> Result<(), VolumeError> {
        let here = self.here()?;
        rustix::fs::mkdirat(here, dir.name, Mode::RWXU).map_err(|err| self.failed("copy", dir, err))?;
        let name = dir.path.file_name().unwrap_or_default();
        let made = open_dir(here, name, CONFINED).map_err(|err| self.failed("copy", dir, err))?;
        self.dirs.push(made);
        Ok(())
    }

    fn leaf(&mut self, entry: &Entry<'_>) -> Result<(), VolumeError> {
        let key = (entry.stat.st_dev, entry.stat.st_ino);
        if entry.stat.st_nlink > 1
            && let Some(first) = self.links.get(&key)
        {
            let Some(top) = self.dirs.first() else { return Ok(()) };
            let linked = rustix::fs::linkat(top, first, self.here()?, entry.name, AtFlags::empty());
            return linked.map_err(|err| self.failed("link", entry, err));
        }
        let xattrs = match xattrs_of(&entry.handle()) {
            Ok(xattrs) => xattrs,
            Err(VolumeError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Ok(());
            }
            Err(err) => return Err(err),
        };
        let kind = entry.file_type();
        let made = match kind {
            FileType::RegularFile => self.file(entry)?,
            FileType::Symlink => self.link(entry)?,
            _ => {
                let mode = Mode::from_raw_mode(entry.stat.st_mode & 0o7777);
                rustix::fs::mknodat(self.here()?, entry.name, kind, mode, entry.stat.st_rdev)
                    .map_err(|err| self.failed("copy", entry, err))?;
                true
            }
        };
        if made {
            apply(self.here()?, entry.name, kind, &Attributes::of(&entry.stat), &xattrs)?;
            if entry.stat.st_nlink > 1 {
                self.links.insert(key, entry.path.to_owned());
            }
        }
        Ok(())
    }

    fn leave(&mut self, dir: &Entry<'_>) -> Result<(), VolumeError> {
        self.dirs.pop();
        let xattrs = xattrs_of(&dir.handle())?;
        apply(self.here()?, dir.name, FileType::Directory, &Attributes::of(&dir.stat), &xattrs)
    }
}

impl Copier<'_> {
    fn here(&self) -> Result<BorrowedFd<'_>, VolumeError> {
        let here = self.dirs.last().map(OwnedFd::as_fd);
        here.ok_or_else(|| VolumeError::io("copy", self.shown, Errno::NOENT.into()))
    }

    fn failed(&self, action: &'static str, entry: &Entry<'_>, err: Errno) -> VolumeError {
        VolumeError::io(action, &self.shown.join(entry.path), err.into())
    }

    fn link(&self, entry: &Entry<'_>) -> Result<bool, VolumeError> {
        let target = match rustix::fs::readlinkat(entry.parent, entry.name, Vec::new()) {
            Ok(target) => target,
            Err(Errno::NOENT | Errno::INVAL) => return Ok(false),
            Err(err) => return Err(self.failed("read", entry, err)),
        };
        rustix::fs::symlinkat(&target, self.here()?, entry.name)
            .map_err(|err| self.failed("copy", entry, err))?;
        Ok(true)
    }

    /// `false`: it vanished.
    fn file(&mut self, entry: &Entry<'_>) -> Result<bool, VolumeError> {
        let Some(source) =
            open_source(entry.parent, entry.name).map_err(|err| self.failed("open", entry, err))?
        else {
            return Ok(false);
        };
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let target = rustix::fs::openat(self.here()?, entry.name, flags, Mode::RUSR | Mode::WUSR);
        let target: File = target.map_err(|err| self.failed("copy", entry, err))?.into();
        if self.can_share {
            match rustix::fs::ioctl_ficlone(&target, &source) {
                Ok(()) => {
                    (self.report)(u64::try_from(entry.stat.st_size).unwrap_or(0))
                        .map_err(|err| VolumeError::io("copy", &self.shown.join(entry.path), err))?;
                    return Ok(true);
                }
                // Another file system, or one that cannot: it will not for the next file either.
                Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::NOSYS | Errno::NOTTY) => self.can_share = false,
                Err(_) => (),
            }
        }
        let copied = copy_contents(&source, &target, self.report);
        copied.map_err(|err| VolumeError::io("copy", &self.shown.join(entry.path), err))?;
        Ok(true)
    }
}

/// Opens a file for reading; `None` if it is gone, or is no regular file any more. Never waits for a fifo's other end.
pub(crate) fn open_source(parent: BorrowedFd<'_>, name: &CStr) -> Result<Option<File>, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file: File = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(fd) => fd.into(),
        Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(None),
        Err(err) => return Err(err),
    };
    let stat = rustix::fs::fstat(&file)?;
    Ok((FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then_some(file))
}

/// The next part of a file that has data, from `offset` on: its beginning and end. `None`: only a hole follows.
pub(crate) fn next_data(file: &File, offset: u64, size: u64) -> Result<Option<(u64, u64)>, Errno> {
    if offset >= size {
        return Ok(None);
    }
    let start = match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // A file system that does not tell: all of it is data.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((offset, size))),
        Err(err) => return Err(err),
    };
    let end = match rustix::fs::seek(file, SeekFrom::Hole(start)) {
        Ok(end) => end,
        Err(Errno::NXIO) => size,
        Err(err) => return Err(err),
    };
    Ok(Some((start, end.min(size))).filter(|(start, end)| start < end))
}

/// Copies contents with their holes.
fn copy_contents(source: &File, target: &File, report: Report<'_>) -> std::io::Result<()> {
    let size = source.metadata()?.len();
    target.set_len(size)?;
    let mut offset = 0;
    while let Some((start, end)) = next_data(source, offset, size)? {
        let (mut from, mut to) = (start, start);
        while from < end {
            let wanted = usize::try_from(end - from).unwrap_or(CHUNK).min(CHUNK);
            let copied =
                match rustix::fs::copy_file_range(source, Some(&mut from), target, Some(&mut to), wanted) {
                    Ok(copied) => copied,
                    Err(Errno::INTR) => continue,
                    // Between two file systems, or from one that is no file system: by hand.
                    Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                        by_hand(source, target, &mut from, wanted)?
                    }
                    Err(err) => return Err(err.into()),
                };
            to = from;
            if copied == 0 {
                // It has become shorter.
                return Ok(());
            }
            report(u64::try_from(copied).unwrap_or(0))?;
        }
        offset = end;
    }
    Ok(())
}

fn by_hand(source: &File, target: &File, offset: &mut u64, wanted: usize) -> std::io::Result<usize> {
    use std::os::unix::fs::FileExt as _;
    let mut buffer = vec![0; wanted.min(1 << 20)];
    let read = source.read_at(&mut buffer, *offset)?;
    target.write_all_at(buffer.get(..read).unwrap_or_default(), *offset)?;
    *offset += u64::try_from(read).unwrap_or(0);
    Ok(read)
}
