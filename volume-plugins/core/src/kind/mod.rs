//! The kinds of volumes, each in a module of its own behind one trait.
//!
//! A kind knows what lies in a volume's directory, how it is made, and what is mounted there. It knows neither records nor
//! users; whoever calls it holds the volume's lock.

mod bind;
mod device;
mod directory;
mod owner;
mod sized;
mod tmpfs;

use std::fs::File;
use std::path::{Path, PathBuf};

use berth_types::VolumeName;

use crate::error::VolumeError;
use crate::mount::TreeError;
use crate::options::Spec;
use crate::place::Place;
use crate::record::{ImageIdentity, Record};
use crate::seen::{Extent, extent_of, holders_of, top_at};
use crate::{MountEntry, MountError, mount_table};

pub(crate) use owner::apply_top;
pub(crate) use sized::{IMAGE, grow_at_rest, grow_image, grow_mounted};

/// The data of most kinds, and the mount point of those that are mounted there.
pub(crate) const DATA: &str = "_data";

/// One volume, on its host.
pub(crate) struct Site<'v> {
    pub(crate) name: &'v VolumeName,
    pub(crate) place: &'v Place,
    pub(crate) record: &'v Record,
}

/// What making a volume found out, to be recorded.
#[derive(Debug, Default)]
pub(crate) struct Made {
    pub(crate) resolved: Option<PathBuf>,
    pub(crate) image: Option<ImageIdentity>,
}

/// Bytes of a volume; what is not known is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    /// The most it holds.
    pub size: Option<u64>,
    /// What is in use.
    pub used: Option<u64>,
}

/// A kind of volume.
pub(crate) trait Kind {
    /// Makes what lies in the volume's directory, so that it outlives a power failure.
    fn create(&self, place: &Place) -> Result<Made, VolumeError>;

    /// The mount point in the volume's directory; `None` where nothing is mounted.
    fn mount_point(&self) -> Option<&'static str> {
        Some(DATA)
    }

    /// The data in the volume's directory, which is what users are given.
    fn data(&self) -> &'static str {
        DATA
    }

    /// Mounts it, or where nothing is mounted, makes sure that the data is there.
    fn mount(&self, site: &Site<'_>) -> Result<(), VolumeError>;

    /// Whether a mount on the mount point is the one that [`Kind::mount`] made.
    fn is_own(&self, site: &Site<'_>, entry: &MountEntry) -> Result<bool, VolumeError>;

    /// Takes away what is left beside the mount, once that is gone or was never made.
    fn after_unmount(&self, _site: &Site<'_>) -> Result<(), VolumeError> {
        Ok(())
    }

    /// Puts right, now and then while it is mounted, what others did to it.
    fn look_after(&self, _site: &Site<'_>) -> Result<(), VolumeError> {
        Ok(())
    }

    /// Whether a whole file system is the volume's alone, so that any mount of it is a use.
    fn owns_filesystem(&self) -> bool {
        false
    }

    /// Whether removing the volume removes data; if not, it is only forgotten.
    fn removes_data(&self) -> bool;

    /// Whether the mounted file system's size is the volume's.
    fn is_own_size(&self) -> bool {
        true
    }

    /// Gives what is mounted another size.
    fn resize(&self, _site: &Site<'_>, _size: u64) -> Result<(), VolumeError> {
        Ok(())
    }

    /// Sizes that are known without mounting and without walking.
    fn space_at_rest(&self, _site: &Site<'_>) -> Space {
        Space::default()
    }
}

/// The kind of a specification.
pub(crate) fn kind_of(spec: &Spec) -> Box<dyn Kind + '_> {
    match spec {
        Spec::Directory(top) => Box::new(directory::Directory(top)),
        Spec::Sized(spec) => Box::new(sized::Sized(spec)),
        Spec::Bind(spec) => Box::new(bind::Bind(spec)),
        Spec::Tmpfs(spec) => Box::new(tmpfs::Tmpfs(spec)),
        Spec::Device(spec) => Box::new(device::Device(spec)),
    }
}

/// Whether the volume is mounted where berth mounts it.
///
/// # Errors
///
/// Something else is mounted there: it is somebody's, and berth neither uses nor removes it.
pub(crate) fn mounted(kind: &dyn Kind, site: &Site<'_>) -> Result<Option<MountEntry>, VolumeError> {
    let Some(point) = kind.mount_point() else { return Ok(None) };
    let path = site.place.join(point);
    let table = mount_table()?;
    let Some(top) = top_at(&table, &path) else { return Ok(None) };
    if kind.is_own(site, top)? {
        return Ok(Some(top.clone()));
    }
    let by = format!("{} `{}` is mounted over it", top.fstype, top.source.display());
    Err(VolumeError::Foreign { path, by })
}

/// Mounts the volume unless it is mounted. Returns the path of its data.
pub(crate) fn ensure_mounted(kind: &dyn Kind, site: &Site<'_>) -> Result<PathBuf, VolumeError> {
    if mounted(kind, site)?.is_none() {
        kind.mount(site)?;
    }
    Ok(site.place.join(kind.data()))
}

/// Takes the volume's mount away, if it is there. It is never taken from under a user: who holds it is told instead.
pub(crate) fn ensure_unmounted(kind: &dyn Kind, site: &Site<'_>) -> Result<(), VolumeError> {
    if let (Some(point), Some(_)) = (kind.mount_point(), mounted(kind, site)?) {
        let path = site.place.join(point);
        match crate::mount::unmount_tree(&path) {
            Ok(()) => (),
            Err(TreeError::Mount(MountError::Unmount { source, .. }))
                if source.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()) =>
            {
                return Err(VolumeError::Held { name: site.name.clone(), holders: holders_of(&path) });
            }
            Err(TreeError::Mount(err)) => return Err(err.into()),
            Err(TreeError::Table(err)) => return Err(err.into()),
        }
    }
    kind.after_unmount(site)
}

/// What the mount tables show of the volume, where anything is: of the mounted file system, or of the directory.
pub(crate) fn extent(kind: &dyn Kind, site: &Site<'_>) -> Result<Option<Extent>, VolumeError> {
    let table = mount_table()?;
    if kind.mount_point().is_some() {
        let Some(entry) = mounted(kind, site)? else { return Ok(None) };
        let root = if kind.owns_filesystem() { PathBuf::from("/") } else { entry.root };
        return Ok(Some(Extent { device: entry.device, root }));
    }
    match site.place.open_dir(kind.data()) {
        Ok(fd) => Ok(extent_of(fd, &table)),
        Err(_) => Ok(None),
    }
}

/// Opens a device's path as it was when the volume was made: a link in it now was put there since, by whoever may write
/// there, and leads who knows where.
pub(crate) fn open_resolved(path: &Path) -> Result<File, VolumeError> {
    use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match openat2(rustix::fs::CWD, path, flags, Mode::empty(), resolve) {
        Ok(fd) => Ok(fd.into()),
        Err(rustix::io::Errno::LOOP) => Err(VolumeError::Device {
            path: path.to_owned(),
            why: "a part of its path has become a symbolic link since the volume was made".to_owned(),
        }),
        Err(err) => Err(device_error(path, &err.into())),
    }
}

/// What the operating system says of a device, in words.
pub(crate) fn device_error(path: &Path, err: &std::io::Error) -> VolumeError {
    let why = match err.kind() {
        std::io::ErrorKind::NotFound => "there is no such file or directory".to_owned(),
        std::io::ErrorKind::ResourceBusy => "it is busy: something else uses it".to_owned(),
        _ => err.to_string(),
    };
    VolumeError::Device { path: path.to_owned(), why }
}
