//! Where volumes are: `volumes` in the state directory, and in it one directory for each.
//!
//! Every path below is walked from an open directory by `openat2`, which refuses to leave it, to follow a symbolic link and to
//! enter what is mounted on the way. So no name, no link swapped in at any moment and no foreign mount leads out.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_store::Dirs;
use berth_types::VolumeName;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::VolumeError;

/// Below a directory, without links and without other file systems.
pub(crate) const CONFINED: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// As [`CONFINED`], where something of berth's own may be mounted.
pub(crate) const CONFINED_WITH_MOUNTS: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Searchable, not readable, but for root.
const DIR_MODE: u32 = 0o711;

/// Where removed volumes wait to be deleted. No volume's name begins with a dot.
const TRASH: &str = ".trash";

/// The directory of all volumes.
#[derive(Debug)]
pub(crate) struct Root {
    fd: OwnedFd,
    path: PathBuf,
}

/// The directory of one volume.
#[derive(Debug)]
pub(crate) struct Place {
    fd: OwnedFd,
    path: PathBuf,
}

impl Root {
    /// Its path.
    pub(crate) fn path_in(dirs: &Dirs) -> PathBuf {
        dirs.state.join("volumes")
    }

    /// Opens it, and makes it where it is missing.
    pub(crate) fn make(dirs: &Dirs) -> Result<Self, VolumeError> {
        if let Some(root) = Self::open(dirs)? {
            return Ok(root);
        }
        let path = Self::path_in(dirs);
        for (dir, mode) in [(dirs.state.as_path(), 0o700), (path.as_path(), DIR_MODE)] {
            use std::os::unix::fs::DirBuilderExt as _;
            let made = std::fs::DirBuilder::new().recursive(true).mode(mode).create(dir);
            made.map_err(|source| VolumeError::io("make the directory", dir, source))?;
        }
        let root = Self::open(dirs)?;
        root.ok_or_else(|| VolumeError::io("open", &path, io::ErrorKind::NotFound.into()))
    }

    /// Opens it; `None` where there is none.
    pub(crate) fn open(dirs: &Dirs) -> Result<Option<Self>, VolumeError> {
        let path = Self::path_in(dirs);
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        match rustix::fs::open(&path, flags, Mode::empty()) {
            // The path as the mount table has it: the state directory itself may be reached by links.
            Ok(fd) => Ok(Some(Self { path: std::fs::canonicalize(&path).unwrap_or(path), fd })),
            Err(Errno::NOENT) => Ok(None),
            Err(err) => Err(VolumeError::io("open", &path, err.into())),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The directory of a volume; `None` where there is none.
    pub(crate) fn place(&self, name: &VolumeName) -> Result<Option<Place>, VolumeError> {
        let path = self.path.join(name.as_str());
        match open_dir(self.fd.as_fd(), name.as_str(), CONFINED) {
            Ok(fd) => Ok(Some(Place { fd, path })),
            Err(Errno::NOENT) => Ok(None),
            Err(err) => Err(not_entered(&path, err)),
        }
    }

    /// Makes the directory of a volume; one that is there and is one stays.
    pub(crate) fn make_place(&self, name: &VolumeName) -> Result<Place, VolumeError> {
        let path = self.path.join(name.as_str());
        match rustix::fs::mkdirat(&self.fd, name.as_str(), Mode::from_raw_mode(DIR_MODE)) {
            Ok(()) | Err(Errno::EXIST) => (),
            Err(err) => return Err(VolumeError::io("make the directory", &path, err.into())),
        }
        let place = self.place(name)?;
        place.ok_or_else(|| VolumeError::io("open", &path, io::ErrorKind::NotFound.into()))
    }

    /// Gives a volume's directory another name, which must be free.
    pub(crate) fn rename(&self, name: &VolumeName, new: &VolumeName) -> Result<(), VolumeError> {
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        rustix::fs::renameat_with(&self.fd, name.as_str(), &self.fd, new.as_str(), flags)
            .map_err(|err| VolumeError::io("rename", &self.path.join(name.as_str()), err.into()))
    }

    /// Moves a volume's directory to the trash; one that is not there is there already.
    pub(crate) fn discard(&self, name: &VolumeName) -> Result<(), VolumeError> {
        let path = self.path.join(name.as_str());
        let failed = |err: Errno| VolumeError::io("move away", &path, err.into());
        let mut attempt = 0_u32;
        loop {
            attempt += 1;
            let Some(trash) = self.trash(true)? else { continue };
            let target = format!("{:016x}.{attempt}", berth_types::fnv64([name.as_str()]));
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(&self.fd, name.as_str(), &trash, &target, flags) {
                Ok(()) => return Ok(()),
                // Which of the two is not there? Whoever empties the trash takes it away.
                Err(Errno::NOENT) => {
                    match rustix::fs::statat(&self.fd, name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
                        Err(Errno::NOENT) => return Ok(()),
                        other => {
                            other.map_err(failed)?;
                        }
                    }
                }
                Err(Errno::EXIST | Errno::NOTEMPTY) => (),
                Err(err) => return Err(failed(err)),
            }
            if attempt >= 10_000 {
                return Err(failed(Errno::EXIST));
            }
        }
    }

    /// The trash, made where it is missing if `make`.
    pub(crate) fn trash(&self, make: bool) -> Result<Option<OwnedFd>, VolumeError> {
        let path = self.path.join(TRASH);
        if make {
            match rustix::fs::mkdirat(&self.fd, TRASH, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => (),
                Err(err) => return Err(VolumeError::io("make the directory", &path, err.into())),
            }
        }
        match open_dir(self.fd.as_fd(), TRASH, CONFINED) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => Ok(None),
            Err(err) => Err(not_entered(&path, err)),
        }
    }

    /// The trash's path, to be named.
    pub(crate) fn trash_path(&self) -> PathBuf {
        self.path.join(TRASH)
    }

    /// Takes the empty trash away; one that is not empty stays.
    pub(crate) fn remove_trash(&self) {
        let _ = rustix::fs::unlinkat(&self.fd, TRASH, AtFlags::REMOVEDIR);
    }

    /// Makes names made and taken in it outlive a power failure.
    pub(crate) fn sync(&self) -> Result<(), VolumeError> {
        rustix::fs::fsync(&self.fd).map_err(|err| VolumeError::io("sync", &self.path, err.into()))
    }
}

impl Place {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of something in it.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// A directory in it, by a path without links; what berth mounted may be entered.
    pub(crate) fn open_dir(&self, path: &str) -> io::Result<OwnedFd> {
        Ok(open_dir(self.fd.as_fd(), path, CONFINED_WITH_MOUNTS)?)
    }

    /// A directory in it that nothing is mounted on.
    pub(crate) fn open_dir_unmounted(&self, path: &str) -> Result<OwnedFd, VolumeError> {
        open_dir(self.fd.as_fd(), path, CONFINED).map_err(|err| not_entered(&self.join(path), err))
    }

    /// Makes a directory in it; one that is there stays.
    pub(crate) fn make_dir(&self, name: &str, mode: u32) -> Result<(), VolumeError> {
        match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(mode)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(err) => Err(VolumeError::io("make the directory", &self.join(name), err.into())),
        }
    }

    /// Opens a file in it.
    pub(crate) fn open_file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mode = if flags.contains(OFlags::CREATE) { Mode::from_raw_mode(0o600) } else { Mode::empty() };
        Ok(rustix::fs::openat2(&self.fd, name, flags, mode, CONFINED)?.into())
    }

    /// Removes a file in it; one that is not there is gone.
    pub(crate) fn remove_file(&self, name: &str) -> Result<(), VolumeError> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(err) => Err(VolumeError::io("remove", &self.join(name), err.into())),
        }
    }

    /// Makes names made and taken in it outlive a power failure.
    pub(crate) fn sync(&self) -> Result<(), VolumeError> {
        rustix::fs::fsync(&self.fd).map_err(|err| VolumeError::io("sync", &self.path, err.into()))
    }
}

/// Opens a directory for reading.
pub(crate) fn open_dir(
    dir: BorrowedFd<'_>,
    path: impl AsRef<OsStr>,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    loop {
        match rustix::fs::openat2(dir, path.as_ref(), flags, Mode::empty(), resolve) {
            // A rename somewhere while `..` was looked at, or a signal: openat2(2) says to try again.
            Err(Errno::AGAIN | Errno::INTR) => (),
            other => return other,
        }
    }
}

/// Says in words what `openat2` refused.
fn not_entered(path: &Path, err: Errno) -> VolumeError {
    match err {
        Errno::XDEV => {
            VolumeError::Foreign { path: path.to_owned(), by: "something is mounted there".to_owned() }
        }
        Errno::LOOP => VolumeError::Foreign { path: path.to_owned(), by: "it is a symbolic link".to_owned() },
        Errno::NOTDIR => {
            VolumeError::Foreign { path: path.to_owned(), by: "it is not a directory".to_owned() }
        }
        Errno::NOSYS => VolumeError::Unsupported { what: "openat2 (Linux 5.6)" },
        err => VolumeError::io("open", path, err.into()),
    }
}
