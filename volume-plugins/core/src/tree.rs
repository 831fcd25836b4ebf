//! Deleting a tree without leaving it.
//!
//! Every name is unlinked in, and every directory opened from, a directory that is open: nothing is looked up by a path, no
//! symbolic link is followed, and a directory that something is mounted on is neither entered nor removed. However deep
//! the tree is, two directories are open: one that is not empty is moved up first.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType};
use rustix::io::Errno;

use crate::error::VolumeError;
use crate::place::{CONFINED, open_dir};

/// Deletes everything in the open directory `top`, whose `path` is only told.
pub(crate) fn remove_contents(top: &OwnedFd, path: &Path) -> Result<(), VolumeError> {
    let mut moved = 0_u64;
    loop {
        let names = names_of(top, path)?;
        if names.is_empty() {
            return Ok(());
        }
        for (name, kind) in names {
            if kind != FileType::Directory && unlink(top, &name, path)? {
                continue;
            }
            empty(top, &name, path, &mut moved)?;
            remove_dir(top, &name, path)?;
        }
    }
}

/// Empties one directory in `top`: what is in it and is no empty directory is deleted or moved up to `top`.
fn empty(top: &OwnedFd, name: &CStr, path: &Path, moved: &mut u64) -> Result<(), VolumeError> {
    let path = path.join(name.to_string_lossy().as_ref());
    let dir = match open_dir(top.as_fd(), std::ffi::OsStr::from_bytes(name.to_bytes()), CONFINED) {
        Ok(dir) => dir,
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::XDEV) => {
            return Err(VolumeError::Foreign { path, by: "something is mounted there".to_owned() });
        }
        Err(err) => return Err(VolumeError::io("open", &path, err.into())),
    };
    for (inner, kind) in names_of(&dir, &path)? {
        if kind != FileType::Directory && unlink(&dir, &inner, &path)? {
            continue;
        }
        match rustix::fs::unlinkat(&dir, &inner, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => (),
            Err(Errno::NOTEMPTY | Errno::EXIST) => move_up(&dir, &inner, top, &path, moved)?,
            Err(err) => return Err(not_removed(&path, &inner, err)),
        }
    }
    Ok(())
}

fn move_up(
    dir: &OwnedFd,
    name: &CStr,
    top: &OwnedFd,
    path: &Path,
    moved: &mut u64,
) -> Result<(), VolumeError> {
    loop {
        *moved += 1;
        // A name that no volume has: it begins with a dot, and has no other.
        let target = format!(".berth-moved-{moved}");
        match rustix::fs::renameat_with(dir, name, top, &target, rustix::fs::RenameFlags::NOREPLACE) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::EXIST) => (),
            Err(err) => return Err(not_removed(path, name, err)),
        }
    }
}

/// Unlinks what is no directory. `false`: it is one.
fn unlink(dir: &OwnedFd, name: &CStr, path: &Path) -> Result<bool, VolumeError> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::ISDIR) => Ok(false),
        Err(err) => Err(not_removed(path, name, err)),
    }
}

fn remove_dir(dir: &OwnedFd, name: &CStr, path: &Path) -> Result<(), VolumeError> {
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        // Not empty: something appeared in it meanwhile, and the next round finds it.
        Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
        Err(err) => Err(not_removed(path, name, err)),
    }
}

fn not_removed(path: &Path, name: &CStr, err: Errno) -> VolumeError {
    let path = path.join(name.to_string_lossy().as_ref());
    match err {
        Errno::BUSY => VolumeError::Foreign { path, by: "something is mounted there".to_owned() },
        err => VolumeError::io("remove", &path, err.into()),
    }
}

/// The names in a directory, with what they are as far as it tells.
fn names_of(dir: &OwnedFd, path: &Path) -> Result<Vec<(CString, FileType)>, VolumeError> {
    let failed = |err: Errno| VolumeError::io("read", path, err.into());
    let mut names = Vec::new();
    for entry in Dir::read_from(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push((name.to_owned(), entry.file_type()));
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn open(path: &Path) -> OwnedFd {
        rustix::fs::open(path, rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap()
    }

    #[test]
    fn a_deep_and_wide_tree_goes_and_what_its_links_lead_to_stays() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("kept"), "kept").unwrap();
        let root = tempfile::tempdir().unwrap();
        // Deeper than a path can be long, made as a container can make it: by changing into each directory.
        let mut at = open(root.path());
        for level in 0..3000 {
            rustix::fs::mkdirat(&at, "directory", rustix::fs::Mode::RWXU).unwrap();
            rustix::fs::symlinkat(outside.path(), &at, "link").unwrap();
            if level % 500 == 0 {
                rustix::fs::mkdirat(&at, ".berth-moved-1", rustix::fs::Mode::RWXU).unwrap();
                rustix::fs::symlinkat(outside.path(), &at, "weird \u{202e}\n name").unwrap();
            }
            at = rustix::fs::openat(
                &at,
                "directory",
                rustix::fs::OFlags::DIRECTORY,
                rustix::fs::Mode::empty(),
            )
            .unwrap();
        }
        remove_contents(&open(root.path()), root.path()).unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        assert_eq!(fs::read_to_string(outside.path().join("kept")).unwrap(), "kept");
    }

    #[test]
    fn names_that_are_no_text_are_removed_too() {
        use std::os::unix::ffi::OsStrExt as _;
        let root = tempfile::tempdir().unwrap();
        let name = std::ffi::OsStr::from_bytes(b"\xff\xfe");
        fs::create_dir(root.path().join(name)).unwrap();
        fs::write(root.path().join(name).join(name), "").unwrap();
        remove_contents(&open(root.path()), root.path()).unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
