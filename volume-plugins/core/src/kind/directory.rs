//! A directory of berth's: `_data` in the volume's directory. Nothing is mounted.

use super::{DATA, Kind, Made, Site, apply_top};
use crate::MountEntry;
use crate::error::VolumeError;
use crate::options::Top;
use crate::place::Place;

/// A directory volume.
pub(super) struct Directory<'s>(pub(super) &'s Top);

impl Kind for Directory<'_> {
    fn create(&self, place: &Place) -> Result<Made, VolumeError> {
        place.make_dir(DATA, 0o700)?;
        let data = place.open_dir_unmounted(DATA)?;
        apply_top(&data, &place.join(DATA), self.0)?;
        Ok(Made::default())
    }

    fn mount_point(&self) -> Option<&'static str> {
        None
    }

    fn mount(&self, site: &Site<'_>) -> Result<(), VolumeError> {
        match site.place.open_dir_unmounted(DATA) {
            Ok(_) => Ok(()),
            // Never made again here: an empty directory in place of lost data would be taken for a new beginning.
            Err(VolumeError::Io { source, path, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Err(VolumeError::DataMissing { name: site.name.clone(), path })
            }
            Err(err) => Err(err),
        }
    }

    fn is_own(&self, _site: &Site<'_>, _entry: &MountEntry) -> Result<bool, VolumeError> {
        Ok(false)
    }

    fn removes_data(&self) -> bool {
        true
    }
}
