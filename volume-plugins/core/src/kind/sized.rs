//! An image file with a file system of its own, mounted on `fs` by a loop device; the data is `_data` in it.
//!
//! The data is below the file system's root because that is not empty (`lost+found`), and an engine fills a volume from
//! the image only if it is. The image's space is reserved when it is made, unless asked otherwise, so that a volume that
//! is written cannot run into a full host.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::{Kind, Made, Site, Space, apply_top};
use crate::error::VolumeError;
use crate::loop_device::{loop_attach_file, loop_detach, loop_grow, loops_of};
use crate::mount::filesystem;
use crate::options::{Filesystem, Flags, SizedSpec, Top};
use crate::place::{CONFINED, Place, open_dir};
use crate::record::ImageIdentity;
use crate::size::Size;
use crate::superblock::{FilesystemInfo, signature};
use crate::tool::{run_tool, run_tool_that};
use crate::{Access, MountEntry};

/// The image.
pub(crate) const IMAGE: &str = "image";

/// The image while it is made.
const IMAGE_NEW: &str = "image.new";

/// The mount point.
const POINT: &str = "fs";

/// The data, as users are given it, and its name in the file system.
const DATA_PATH: &str = "fs/_data";
const DATA_NAME: &str = "_data";
const DATA_NEW: &str = ".berth-new-data";

/// What is left free on the host's file system: a host that is full to the last byte is no use to anybody.
const HOST_RESERVE: u64 = 16 << 20;

/// A sized volume.
pub(super) struct Sized<'s>(pub(super) &'s SizedSpec);

impl Kind for Sized<'_> {
    fn create(&self, place: &Place) -> Result<Made, VolumeError> {
        let SizedSpec { size, fs, sparse, top: _ } = *self.0;
        place.make_dir(POINT, 0o700)?;
        // What an interrupted call left.
        place.remove_file(IMAGE_NEW)?;
        place.remove_file(IMAGE)?;
        let path = place.join(IMAGE_NEW);
        let failed = |action, err: io::Error| VolumeError::io(action, &path, err);
        if !sparse {
            check_room(place, size)?;
        }
        let file = place
            .open_file(IMAGE_NEW, OFlags::CREATE | OFlags::EXCL | OFlags::RDWR)
            .map_err(|err| failed("make the image", err))?;
        extend(&file, &path, 0, size, sparse)?;
        if let Some(found) = signature(&file).map_err(|err| failed("read", err))? {
            let by = format!("an image that was just made holds {}", found.name);
            return Err(VolumeError::Foreign { path, by });
        }
        format(fs, &path)?;
        let Some(made) = filesystem_of(&file).map_err(|err| failed("read", err))? else {
            let by = format!("mkfs.{} succeeded and left no file system", fs.name());
            return Err(VolumeError::Foreign { path, by });
        };
        file.sync_all().map_err(|err| failed("sync", err))?;
        rustix::fs::renameat_with(place.fd(), IMAGE_NEW, place.fd(), IMAGE, RenameFlags::NOREPLACE)
            .map_err(|err| failed("rename", err.into()))?;
        place.sync()?;
        Ok(Made { resolved: None, image: Some(ImageIdentity { size, uuid: made.uuid, growing_to: None }) })
    }

    fn mount_point(&self) -> Option<&'static str> {
        Some(POINT)
    }

    fn data(&self) -> &'static str {
        DATA_PATH
    }

    fn mount(&self, site: &Site<'_>) -> Result<(), VolumeError> {
        let target = site.place.join(POINT);
        site.place.open_dir_unmounted(POINT)?;
        let image = site.place.join(IMAGE);
        let file = open_image(site)?;
        let mount = |device: &Path| filesystem(device, self.0.fs.name(), &target, Flags::default(), "");
        // One device for one image, whatever crash left it attached or container still has it mounted: two would be two
        // caches of the same blocks, and that destroys the file system.
        let mounted = match loops_of(&file, &image)?.first() {
            Some(device) => mount(device)?,
            None => {
                self.keep_reserved(&file, &image);
                let attached = loop_attach_file(&file, &image, Access::ReadWrite)?;
                let mounted = mount(attached.path())?;
                attached.keep();
                mounted
            }
        };
        // On error `mounted` is dropped.
        make_data(site, &self.0.top)?;
        mounted.keep();
        Ok(())
    }

    fn is_own(&self, site: &Site<'_>, entry: &MountEntry) -> Result<bool, VolumeError> {
        let image = site.place.join(IMAGE);
        // A deleted image is still mounted, and its loop device says what it was.
        let source = PathBuf::from(&entry.source);
        let Ok(file) = site.place.open_file(IMAGE, OFlags::RDONLY) else {
            let deleted = format!("{} (deleted)", image.display());
            let all = crate::attached_loops()?;
            return Ok(all.iter().any(|info| info.device == source && info.backing_file == *deleted));
        };
        if loops_of(&file, &image)?.contains(&source) {
            return Ok(true);
        }
        // Replaced while it was mounted.
        let all = crate::attached_loops()?;
        Ok(all.iter().any(|info| info.device == source && info.backing_file.starts_with(site.place.path())))
    }

    fn after_unmount(&self, site: &Site<'_>) -> Result<(), VolumeError> {
        // Attached and never mounted: a call was killed in between.
        let Ok(file) = site.place.open_file(IMAGE, OFlags::RDONLY) else { return Ok(()) };
        for device in loops_of(&file, &site.place.join(IMAGE))? {
            // Where a container still has it mounted, the kernel only notes that it is to go with the last of them.
            loop_detach(&device)?;
        }
        Ok(())
    }

    fn look_after(&self, site: &Site<'_>) -> Result<(), VolumeError> {
        self.keep_reserved(&open_image(site)?, &site.place.join(IMAGE));
        Ok(())
    }

    fn owns_filesystem(&self) -> bool {
        true
    }

    fn removes_data(&self) -> bool {
        true
    }

    fn space_at_rest(&self, site: &Site<'_>) -> Space {
        let file = site.place.open_file(IMAGE, OFlags::RDONLY).ok();
        let found = file.and_then(|file| filesystem_of(&file).ok()).flatten();
        let size = site.record.image.as_ref().map(|image| image.size);
        Space { size, used: found.map(|found| found.space.1) }
    }
}

/// Makes a sized volume's image larger.
///
/// The caller has recorded `size` as the one that the image is growing to, so that a crash leaves nothing that is refused.
pub(crate) fn grow_image(site: &Site<'_>, spec: &SizedSpec, size: u64) -> Result<(), VolumeError> {
    let path = site.place.join(IMAGE);
    let failed = |action, err: io::Error| VolumeError::io(action, &path, err);
    let file = open_image(site)?;
    let old = file.metadata().map_err(|err| failed("look at", err))?.len();
    if old >= size {
        // A call that was killed did this.
        return Ok(());
    }
    if !spec.sparse {
        check_room(site.place, size - old)?;
    }
    extend(&file, &path, old, size, spec.sparse)?;
    file.sync_all().map_err(|err| failed("sync", err))
}

/// Makes the file system as large as its image, which is in use or mounted for it.
pub(crate) fn grow_mounted(site: &Site<'_>, spec: &SizedSpec) -> Result<(), VolumeError> {
    let path = site.place.join(IMAGE);
    let devices = loops_of(&open_image(site)?, &path)?;
    for device in &devices {
        loop_grow(device)?;
    }
    let Some(device) = devices.first() else {
        return Err(VolumeError::Resize { name: site.name.clone(), why: "it is not mounted".to_owned() });
    };
    let point = site.place.join(POINT);
    match spec.fs {
        Filesystem::Xfs => run_tool("xfs_growfs", "xfsprogs", &[OsStr::new("-d"), point.as_os_str()])?,
        _ => run_tool("resize2fs", "e2fsprogs", &[device.as_os_str()])?,
    }
    Ok(())
}

/// Makes an ext4 file system as large as its image, which is not mounted: this needs none of the privileges that the
/// kernel asks for while it is.
pub(crate) fn grow_at_rest(site: &Site<'_>) -> Result<(), VolumeError> {
    let path = site.place.join(IMAGE);
    // It insists on a check; 1 is "mended".
    let check = [OsStr::new("-f"), OsStr::new("-p"), path.as_os_str()];
    run_tool_that("e2fsck", "e2fsprogs", &check, |status| matches!(status.code(), Some(0 | 1)))?;
    run_tool("resize2fs", "e2fsprogs", &[path.as_os_str()])?;
    let synced = open_image(site)?.sync_all();
    synced.map_err(|err| VolumeError::io("sync", &path, err))
}

impl Sized<'_> {
    /// Reserves again what a trim of all mounted file systems, as many hosts run it weekly, has given back to the host.
    fn keep_reserved(&self, file: &File, image: &Path) {
        let blocks_of = |meta: std::fs::Metadata| (meta.blocks().saturating_mul(512), meta.len());
        let Ok((reserved, size)) = file.metadata().map(blocks_of) else { return };
        if self.0.sparse || reserved >= size {
            return;
        }
        match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, size) {
            Ok(()) => {
                tracing::info!(image = %image.display(), bytes = size - reserved, "space reserved again");
            }
            // What is lost is the reservation and no data.
            Err(err) => tracing::warn!(image = %image.display(), error = %err, "space not reserved again"),
        }
    }
}

/// Opens the image if it is the one that berth made, by its size and its file system's identity.
fn open_image(site: &Site<'_>) -> Result<File, VolumeError> {
    let path = site.place.join(IMAGE);
    let Some(identity) = &site.record.image else {
        return Err(VolumeError::Record { name: site.name.clone(), why: "it has no image".to_owned() });
    };
    let expected = |what: String| (path.clone(), what);
    let refuse =
        |(path, expected): (PathBuf, String), found: String| VolumeError::Image { path, expected, found };
    let opened = site.place.open_file(IMAGE, OFlags::RDWR);
    let file = opened.map_err(|err| match err.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) => refuse(expected("an image".to_owned()), "nothing".to_owned()),
        Some(Errno::LOOP) => refuse(expected("an image".to_owned()), "a symbolic link".to_owned()),
        Some(Errno::ISDIR) => refuse(expected("an image".to_owned()), "a directory".to_owned()),
        _ => VolumeError::io("open", &path, err),
    })?;
    let meta = file.metadata().map_err(|err| VolumeError::io("look at", &path, err))?;
    if !meta.is_file() {
        return Err(refuse(expected("a file".to_owned()), "something else".to_owned()));
    }
    let ImageIdentity { size, uuid, growing_to } = identity;
    if meta.len() != *size && Some(meta.len()) != *growing_to {
        let bytes = |size: u64| format!("{size} bytes ({})", Size(size));
        return Err(refuse(expected(bytes(*size)), bytes(meta.len())));
    }
    match filesystem_of(&file).map_err(|err| VolumeError::io("read", &path, err))? {
        Some(found) if found.uuid == *uuid => Ok(file),
        Some(found) => {
            let found = format!("{} {}", found.kind.name(), found.uuid);
            Err(refuse(expected(format!("file system {uuid}")), found))
        }
        None => Err(refuse(expected(format!("file system {uuid}")), "no file system".to_owned())),
    }
}

fn filesystem_of(file: &File) -> io::Result<Option<FilesystemInfo>> {
    Ok(signature(file)?.and_then(|found| found.filesystem))
}

/// Refuses what does not fit before any of it is taken: a reservation that fails half way has filled the disk first.
fn check_room(place: &Place, needed: u64) -> Result<(), VolumeError> {
    let stat = rustix::fs::fstatvfs(place.fd())
        .map_err(|err| VolumeError::io("look at the file system of", place.path(), err.into()))?;
    let available = stat.f_bavail.saturating_mul(stat.f_frsize).saturating_sub(HOST_RESERVE);
    if needed <= available {
        return Ok(());
    }
    Err(VolumeError::Full { needed, available, path: place.path().to_owned() })
}

/// Makes the image `to` bytes long, with its space reserved unless `sparse`. On failure it is as long as before.
fn extend(file: &File, path: &Path, from: u64, to: u64, sparse: bool) -> Result<(), VolumeError> {
    if sparse {
        return file.set_len(to).map_err(|err| VolumeError::io("extend", path, err));
    }
    let reserved = loop {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), from, to - from) {
            Err(Errno::INTR) => (),
            other => break other,
        }
    };
    reserved.map_err(|err| {
        let _ = file.set_len(from);
        match err {
            Errno::OPNOTSUPP => VolumeError::Unsupported {
                what: "way to reserve space on the file system of berth's state directory\n`sparse=true` does without",
            },
            err => VolumeError::io("reserve the space of", path, err.into()),
        }
    })
}

/// Makes the file system. Without discards, which would give the reserved space back.
fn format(fs: Filesystem, path: &Path) -> Result<(), VolumeError> {
    match fs {
        Filesystem::Xfs => {
            run_tool("mkfs.xfs", "xfsprogs", &[OsStr::new("-q"), OsStr::new("-K"), path.as_os_str()])?
        }
        _ => {
            let words = ["-q", "-F", "-m", "0", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1"];
            let mut args: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
            args.push(path.as_os_str());
            run_tool("mkfs.ext4", "e2fsprogs", &args)?;
        }
    }
    Ok(())
}

/// Makes the data directory in a file system that is mounted for the first time. It has its name only when its owner and
/// permission bits are right.
fn make_data(site: &Site<'_>, top: &Top) -> Result<(), VolumeError> {
    let path = site.place.join(DATA_PATH);
    let failed = |err: io::Error| VolumeError::io("make the directory", &path, err);
    let point: OwnedFd = site.place.open_dir(POINT).map_err(failed)?;
    match open_dir(point.as_fd(), DATA_NAME, CONFINED) {
        Ok(_) => return Ok(()),
        Err(Errno::NOENT) => (),
        Err(err) => return Err(failed(err.into())),
    }
    match rustix::fs::mkdirat(&point, DATA_NEW, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => (),
        Err(err) => return Err(failed(err.into())),
    }
    let data = open_dir(point.as_fd(), DATA_NEW, CONFINED).map_err(|err| failed(err.into()))?;
    apply_top(&data, &path, top)?;
    rustix::fs::renameat_with(&point, DATA_NEW, &point, DATA_NAME, RenameFlags::NOREPLACE)
        .map_err(|err| failed(err.into()))
}
