//! What a file is besides its contents: owner, permission bits, times, extended attributes (access control lists are some).

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::error::VolumeError;

/// Extended attributes by name.
pub(crate) type Xattrs = Vec<(CString, Vec<u8>)>;

/// Owner, permission bits and times.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Permission bits, with those for set-user-id and the like.
    pub(crate) mode: u32,
    /// Last access and last change: seconds and nanoseconds.
    pub(crate) times: [(i64, i64); 2],
}

impl Attributes {
    pub(crate) fn of(stat: &Stat) -> Self {
        let nanos = |value: u64| i64::try_from(value).unwrap_or(0);
        Self {
            uid: stat.st_uid,
            gid: stat.st_gid,
            mode: stat.st_mode & 0o7777,
            times: [(stat.st_atime, nanos(stat.st_atime_nsec)), (stat.st_mtime, nanos(stat.st_mtime_nsec))],
        }
    }
}

/// The extended attributes of what `handle` leads to, not following it if it is a link.
pub(crate) fn xattrs_of(handle: &Path) -> Result<Xattrs, VolumeError> {
    let failed = |err: Errno| VolumeError::io("read the extended attributes of", handle, err.into());
    let mut names = vec![0_u8; 1024];
    let length = loop {
        match rustix::fs::llistxattr(handle, &mut names[..]) {
            Ok(length) => break length,
            Err(Errno::RANGE) => names.resize(names.len() * 4, 0),
            // A file system without any.
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(err) => return Err(failed(err)),
        }
    };
    let list = names.get(..length).unwrap_or_default();
    let mut found = Vec::new();
    for name in list.split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let Ok(name) = CString::new(name) else { continue };
        let mut value = vec![0_u8; 256];
        loop {
            match rustix::fs::lgetxattr(handle, &name, &mut value[..]) {
                Ok(length) => {
                    value.truncate(length);
                    found.push((name, value));
                    break;
                }
                Err(Errno::RANGE) if value.len() < 1 << 20 => value.resize(value.len() * 4, 0),
                // Gone since it was listed, or a name that is only listed.
                Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) => break,
                Err(err) => return Err(failed(err)),
            }
        }
    }
    Ok(found)
}

/// Gives what is called `name` in `dir` these attributes; it is new, and nobody else's.
pub(crate) fn apply(
    dir: BorrowedFd<'_>,
    name: &CStr,
    kind: FileType,
    attributes: &Attributes,
    xattrs: &Xattrs,
) -> Result<(), VolumeError> {
    let handle = handle_of(dir, name);
    let failed = |action, err: Errno| VolumeError::io(action, &handle, err.into());
    let Attributes { uid, gid, mode, times: [accessed, modified] } = *attributes;
    rustix::fs::chownat(
        dir,
        name,
        Some(Uid::from_raw(uid)),
        Some(Gid::from_raw(gid)),
        AtFlags::SYMLINK_NOFOLLOW,
    )
    .map_err(|err| failed("set the owner of", err))?;
    for (key, value) in xattrs {
        match rustix::fs::lsetxattr(&handle, key, value, XattrFlags::empty()) {
            // A label of another system's, or a file system that has none: the data is worth more.
            Ok(()) | Err(Errno::OPNOTSUPP) => (),
            Err(Errno::PERM | Errno::INVAL) if key.to_bytes().starts_with(b"security.") => (),
            Err(err) => return Err(failed("set an extended attribute of", err)),
        }
    }
    // After the owner, which clears bits, and after the lists, which change them. A link has none.
    if kind != FileType::Symlink {
        rustix::fs::chmodat(dir, name, Mode::from_raw_mode(mode), AtFlags::empty())
            .map_err(|err| failed("set the permissions of", err))?;
    }
    let spec = |(tv_sec, tv_nsec)| Timespec { tv_sec, tv_nsec };
    let times = Timestamps { last_access: spec(accessed), last_modification: spec(modified) };
    rustix::fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|err| failed("set the times of", err))
}

/// A path by which this process reaches what is called `name` in `dir`.
pub(crate) fn handle_of(dir: BorrowedFd<'_>, name: &CStr) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    PathBuf::from(format!("/proc/thread-self/fd/{}", dir.as_raw_fd()))
        .join(std::ffi::OsStr::from_bytes(name.to_bytes()))
}
