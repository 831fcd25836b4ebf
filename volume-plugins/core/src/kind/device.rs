//! A file system of the user's, on a block device or in an image file, mounted on `_data`. Never formatted, never emptied.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::{DATA, Kind, Made, Site, Space, device_error, open_resolved};
use crate::error::VolumeError;
use crate::loop_device::{loop_attach_file, loops_of};
use crate::mount::filesystem;
use crate::options::{DeviceSpec, Filesystem};
use crate::place::Place;
use crate::superblock::signature;
use crate::{Access, MountEntry, MountError};

/// A volume on a device.
pub(super) struct Device<'s>(pub(super) &'s DeviceSpec);

impl Kind for Device<'_> {
    fn create(&self, place: &Place) -> Result<Made, VolumeError> {
        let path = &self.0.device;
        let resolved = std::fs::canonicalize(path).map_err(|err| device_error(path, &err))?;
        self.open_checked(&resolved)?;
        place.make_dir(DATA, 0o700)?;
        Ok(Made { resolved: Some(resolved), image: None })
    }

    fn mount(&self, site: &Site<'_>) -> Result<(), VolumeError> {
        let target = site.place.join(DATA);
        site.place.open_dir_unmounted(DATA)?;
        let path = self.path(site);
        let file = self.open_checked(path)?;
        let DeviceSpec { device: _, fs, flags, data } = self.0;
        let data = data.join(",");
        let mount = |source: &Path| {
            let mounted = filesystem(source, fs.name(), &target, *flags, &data);
            mounted.map_err(|err| busy_in_words(path, err))
        };
        if is_block(&file, path)? {
            mount(path)?.keep();
            return Ok(());
        }
        // One device for one file: two would be two caches of the same blocks.
        if let Some(attached) = loops_of(&file, path)?.first() {
            mount(attached)?.keep();
            return Ok(());
        }
        let access = if flags.read_only { Access::ReadOnly } else { Access::ReadWrite };
        let attached = loop_attach_file(&file, path, access)?;
        mount(attached.path())?.keep();
        attached.keep();
        Ok(())
    }

    fn is_own(&self, site: &Site<'_>, entry: &MountEntry) -> Result<bool, VolumeError> {
        let path = self.path(site);
        let Ok(file) = File::open(path) else {
            // The device's name is gone, and the mount is still of it.
            return Ok(entry.fstype == self.0.fs.name());
        };
        let source = Path::new(&entry.source);
        if !is_block(&file, path)? {
            return Ok(loops_of(&file, path)?.iter().any(|device| device == source));
        }
        let meta = file.metadata().map_err(|err| device_error(path, &err))?;
        let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
        // btrfs has a device number of its own in the mount table, and there its source tells.
        Ok(entry.device == (major, minor) || source == path)
    }

    fn removes_data(&self) -> bool {
        false
    }

    fn space_at_rest(&self, site: &Site<'_>) -> Space {
        let found = File::open(self.path(site)).ok().and_then(|file| signature(&file).ok()).flatten();
        let space = found.and_then(|found| found.filesystem).map(|filesystem| filesystem.space);
        space.map_or(Space::default(), |(size, used)| Space { size: Some(size), used: Some(used) })
    }
}

impl Device<'_> {
    fn path<'p>(&'p self, site: &'p Site<'_>) -> &'p PathBuf {
        site.record.resolved.as_ref().unwrap_or(&self.0.device)
    }

    /// Opens the device, if it is one and has the file system asked for.
    fn open_checked(&self, path: &Path) -> Result<File, VolumeError> {
        let refuse = |why: String| VolumeError::Device { path: path.to_owned(), why };
        // What it is, is looked at before it is opened: opening a fifo waits, and opening some devices does something.
        let meta = open_resolved(path)?.metadata().map_err(|err| device_error(path, &err))?;
        if meta.is_dir() {
            return Err(refuse("it is a directory; `type=none` with `o=bind` is for those".to_owned()));
        }
        if !meta.is_file() && !meta.file_type().is_block_device() {
            return Err(refuse("it is neither a block device nor a file".to_owned()));
        }
        let flags = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
        let write = !self.0.flags.read_only;
        let file = OpenOptions::new().read(true).write(write).custom_flags(flags).open(path);
        let file = file.map_err(|err| device_error(path, &err))?;
        let again = file.metadata().map_err(|err| device_error(path, &err))?;
        if (again.dev(), again.ino()) != (meta.dev(), meta.ino()) {
            return Err(refuse("it was replaced while it was looked at".to_owned()));
        }
        let wanted = self.0.fs;
        let found = signature(&file).map_err(|err| device_error(path, &err))?;
        match found {
            Some(found) if found.filesystem.as_ref().is_some_and(|found| serves(found.kind, wanted)) => {
                Ok(file)
            }
            Some(found) => Err(refuse(format!("it holds {}, not {}", found.name, wanted.name()))),
            None => Err(refuse(format!(
                "it holds no file system, and berth formats no device; `mkfs.{} {}` would",
                wanted.name(),
                path.display()
            ))),
        }
    }
}

/// Whether a file system found is one that can be mounted as the one asked for: ext4 mounts what was before it.
fn serves(found: Filesystem, wanted: Filesystem) -> bool {
    use Filesystem::{Ext2, Ext3, Ext4};
    found == wanted || matches!((found, wanted), (Ext2 | Ext3, Ext4) | (Ext2, Ext3) | (Ext3, Ext2))
}

fn is_block(file: &File, path: &Path) -> Result<bool, VolumeError> {
    Ok(file.metadata().map_err(|err| device_error(path, &err))?.file_type().is_block_device())
}

fn busy_in_words(path: &Path, err: MountError) -> VolumeError {
    match err {
        MountError::Mount { source, .. } if source.kind() == std::io::ErrorKind::ResourceBusy => {
            device_error(path, &source)
        }
        err => err.into(),
    }
}
