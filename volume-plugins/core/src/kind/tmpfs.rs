//! Memory: a tmpfs on `_data`, capped in bytes and files, gone with the last unmount.

use super::{DATA, Kind, Made, Site, Space};
use crate::MountEntry;
use crate::error::VolumeError;
use crate::mount::{filesystem, remount};
use crate::options::{TmpfsSpec, Top};
use crate::place::Place;

/// The part of the memory that a tmpfs without a size may take.
const DEFAULT_PART: u64 = 10;

/// A page, and so the least that a file of a tmpfs takes.
const PAGE: u64 = 4096;

/// A tmpfs volume.
pub(super) struct Tmpfs<'s>(pub(super) &'s TmpfsSpec);

impl Tmpfs<'_> {
    fn size(&self) -> u64 {
        self.0.size.unwrap_or_else(|| (memory() / DEFAULT_PART).next_multiple_of(PAGE))
    }

    fn data(&self, size: u64) -> String {
        let TmpfsSpec { size: _, inodes, top: Top { uid, gid, mode }, flags: _ } = *self.0;
        let inodes = inodes.unwrap_or((size / PAGE).max(16));
        let mode = mode.unwrap_or(0o755);
        let mut data = format!("size={size},nr_inodes={inodes},mode={mode:o}");
        for (key, id) in [("uid", uid), ("gid", gid)] {
            if let Some(id) = id {
                data.push_str(&format!(",{key}={id}"));
            }
        }
        data
    }

    /// What the mount table shows as its source: by it berth knows its own.
    fn source(site: &Site<'_>) -> String {
        format!("berth:{}", site.name)
    }
}

impl Kind for Tmpfs<'_> {
    fn create(&self, place: &Place) -> Result<Made, VolumeError> {
        let (size, memory) = (self.size(), memory());
        if size > memory {
            let path = std::path::PathBuf::from("memory");
            return Err(VolumeError::Full { needed: size, available: memory, path });
        }
        place.make_dir(DATA, 0o700)?;
        Ok(Made::default())
    }

    fn mount(&self, site: &Site<'_>) -> Result<(), VolumeError> {
        let target = site.place.join(DATA);
        site.place.open_dir_unmounted(DATA)?;
        let source = Self::source(site);
        filesystem(source.as_ref(), "tmpfs", &target, self.0.flags, &Self::data(self, self.size()))?.keep();
        Ok(())
    }

    fn is_own(&self, site: &Site<'_>, entry: &MountEntry) -> Result<bool, VolumeError> {
        Ok(entry.fstype == "tmpfs" && entry.source == *Self::source(site))
    }

    fn owns_filesystem(&self) -> bool {
        true
    }

    fn removes_data(&self) -> bool {
        true
    }

    fn resize(&self, site: &Site<'_>, size: u64) -> Result<(), VolumeError> {
        let memory = memory();
        if size > memory {
            return Err(VolumeError::Full { needed: size, available: memory, path: "memory".into() });
        }
        let inodes = self.0.inodes.unwrap_or((size / PAGE).max(16));
        Ok(remount(&site.place.join(DATA), self.0.flags, &format!("size={size},nr_inodes={inodes}"))?)
    }

    fn space_at_rest(&self, _site: &Site<'_>) -> Space {
        Space { size: Some(self.size()), used: Some(0) }
    }
}

/// The machine's memory in bytes.
fn memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}
