//! A path of the host, mounted on `_data`. It is the user's: nothing in it is ever changed or removed.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{DATA, Kind, Made, Site, apply_top, device_error, open_resolved};
use crate::MountEntry;
use crate::error::VolumeError;
use crate::mount::{TreeError, bind_tree_with, bind_with, make_slave};
use crate::options::{BindSpec, Top};
use crate::place::Place;

/// A bind volume.
pub(super) struct Bind<'s>(pub(super) &'s BindSpec);

impl Kind for Bind<'_> {
    fn create(&self, place: &Place) -> Result<Made, VolumeError> {
        let path = &self.0.device;
        if let Some(top) = &self.0.create {
            make_missing(path, top)?;
        }
        let resolved = std::fs::canonicalize(path).map_err(|err| match err.kind() {
            std::io::ErrorKind::NotFound => VolumeError::Device {
                path: path.clone(),
                why: "there is no such directory; `create=true` makes it".to_owned(),
            },
            _ => device_error(path, &err),
        })?;
        if !resolved.is_dir() {
            return Err(VolumeError::Device { path: path.clone(), why: "it is not a directory".to_owned() });
        }
        // A volume in itself would be a tree without end; one in another would be removed with it.
        let volumes = place.path().parent().unwrap_or(place.path());
        if resolved.starts_with(volumes) || volumes.starts_with(&resolved) && self.0.recursive {
            return Err(VolumeError::Device {
                path: path.clone(),
                why: "berth's own volumes are there".to_owned(),
            });
        }
        if resolved == Path::new("/") {
            return Err(VolumeError::Device {
                path: path.clone(),
                why: "the whole host is no volume".to_owned(),
            });
        }
        place.make_dir(DATA, 0o700)?;
        Ok(Made { resolved: Some(resolved), image: None })
    }

    fn mount(&self, site: &Site<'_>) -> Result<(), VolumeError> {
        let target = site.place.join(DATA);
        site.place.open_dir_unmounted(DATA)?;
        let file = self.open(site)?;
        let source = PathBuf::from(format!("/proc/thread-self/fd/{}", file.as_raw_fd()));
        let flags = self.0.flags;
        if self.0.recursive {
            bind_tree_with(&source, &self.0.device, &target, flags).map_err(|err| match err {
                TreeError::Mount(err) => VolumeError::from(err),
                TreeError::Table(err) => err.into(),
            })?;
        } else {
            bind_with(&source, &self.0.device, &target, flags)?.keep();
        }
        if self.0.slave { Ok(make_slave(&target)?) } else { Ok(()) }
    }

    fn is_own(&self, site: &Site<'_>, _entry: &MountEntry) -> Result<bool, VolumeError> {
        let target = site.place.join(DATA);
        let mounted = std::fs::metadata(&target).map_err(|err| VolumeError::io("look at", &target, err))?;
        match self
            .open(site)
            .and_then(|file| file.metadata().map_err(|err| device_error(&self.0.device, &err)))
        {
            Ok(given) => Ok((mounted.dev(), mounted.ino()) == (given.dev(), given.ino())),
            // The path is gone, and the mount is still of what was there.
            Err(_) => Ok(true),
        }
    }

    fn removes_data(&self) -> bool {
        false
    }

    fn is_own_size(&self) -> bool {
        false
    }
}

impl Bind<'_> {
    fn open(&self, site: &Site<'_>) -> Result<File, VolumeError> {
        open_resolved(site.record.resolved.as_ref().unwrap_or(&self.0.device))
    }
}

/// Makes a directory and those above it where they are missing, as anybody may search them. Only the last one, and only if
/// it was made, is given an owner and permission bits.
fn make_missing(path: &Path, top: &Top) -> Result<(), VolumeError> {
    let failed = |err: std::io::Error| VolumeError::io("make the directory", path, err);
    let above: Vec<&Path> = path.ancestors().skip(1).collect();
    for dir in above.into_iter().rev() {
        make(dir, &Top::default()).map_err(failed)??;
    }
    make(path, top).map_err(failed)?
}

/// The outer error is of the making, the inner one of the owner.
fn make(path: &Path, top: &Top) -> std::io::Result<Result<(), VolumeError>> {
    match std::fs::create_dir(path) {
        Ok(()) => {
            let made = File::open(path)?;
            let applied = apply_top(&made, path, top);
            made.sync_all()?;
            Ok(applied)
        }
        Err(_) if path.is_dir() => Ok(Ok(())),
        Err(err) => Err(err),
    }
}
