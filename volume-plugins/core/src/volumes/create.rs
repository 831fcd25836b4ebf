//! Making volumes.

use std::io;

use berth_store::VolumeState;
use berth_types::VolumeName;
use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::Volumes;
use crate::error::VolumeError;
use crate::kind::{IMAGE, kind_of};
use crate::options::{Options, Spec, parse_options};
use crate::place::{Place, Root};
use crate::record::{Record, differences};

/// Whether a volume was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// It was.
    New,
    /// It was there, with the same options.
    Existing,
}

impl Volumes {
    /// Makes a volume. One that is there with the same options is a success.
    ///
    /// # Errors
    ///
    /// Options that cannot be; a volume of that name with other options, which is noted on it; whatever the kind finds
    /// wrong with its device or its size. Nothing is left then.
    pub fn create(&mut self, name: &VolumeName, options: &Options) -> Result<Created, VolumeError> {
        let spec = parse_options(options)?;
        let lock = self.lock(name)?;
        if let Some(row) = self.settled_row(name)? {
            return self.compare(&Record::of(&row)?, name, options);
        }
        let root = self.clear(name)?;
        let mut record = Record::new(options.clone());
        // Only an image takes long to make and leaves much if that is interrupted. What else there is is made before it is
        // written down, in one transaction: until then it is an empty directory that the next call takes for its own.
        let slow = matches!(spec, Spec::Sized(_));
        if slow && !self.insert(name, VolumeState::Pending, &record)? {
            return Err(VolumeError::Exists { name: name.clone(), differs: String::new() });
        }
        let made = self.make(&root, name, &spec, &mut record).and_then(|()| {
            if slow {
                self.update(name, VolumeState::Ready, &record)
            } else {
                self.insert(name, VolumeState::Ready, &record).map(drop)
            }
        });
        if let Err(err) = made {
            // What cannot be taken back now is by the next call; the first error is what counts.
            let back = self.row(name).and_then(|row| match row {
                Some(row) => self.finish_removal(&row),
                None => root
                    .place(name)
                    .map(|place| place.map_or((), |place| remove_skeleton(&root, &place, name))),
            });
            if let Err(again) = back {
                tracing::warn!(volume = %name, error = %again, "what is left of a volume that was not made stays for now");
            }
            return Err(err);
        }
        drop(lock);
        tracing::info!(volume = %name, kind = spec.kind(), "volume made");
        Ok(Created::New)
    }

    /// Makes what lies in the volume's directory.
    pub(super) fn make(
        &mut self,
        root: &Root,
        name: &VolumeName,
        spec: &Spec,
        record: &mut Record,
    ) -> Result<(), VolumeError> {
        let place = root.make_place(name)?;
        let made = kind_of(spec).create(&place)?;
        record.resolved = made.resolved;
        record.image = made.image;
        place.sync()?;
        root.sync()
    }

    pub(super) fn insert(
        &mut self,
        name: &VolumeName,
        state: VolumeState,
        record: &Record,
    ) -> Result<bool, VolumeError> {
        let payload = record.to_payload();
        self.store.write(|tx| tx.volume_insert(name, state, &payload).map_err(VolumeError::from))
    }

    pub(super) fn update(
        &mut self,
        name: &VolumeName,
        state: VolumeState,
        record: &Record,
    ) -> Result<(), VolumeError> {
        let payload = record.to_payload();
        self.store.write(|tx| tx.volume_update(name, state, &payload).map_err(VolumeError::from))
    }

    /// The directory of all volumes, with no directory of this name in it: one that a killed call left is empty and is taken
    /// away, one with something in it is somebody's data and is never touched.
    pub(super) fn clear(&mut self, name: &VolumeName) -> Result<Root, VolumeError> {
        let root = Root::make(&self.dirs)?;
        if let Some(place) = root.place(name)? {
            if let Some(other) = self.is_renamed_to(name)? {
                let differs = format!(": it is `{other}`, which is just being renamed");
                return Err(VolumeError::Exists { name: name.clone(), differs });
            }
            remove_skeleton(&root, &place, name);
            if root.place(name)?.is_some() {
                return Err(VolumeError::Foreign {
                    path: place.path().to_owned(),
                    by: "it has data that no record knows".to_owned(),
                });
            }
        }
        Ok(root)
    }

    /// A volume of this name is there: says whether it is the one asked for, and notes on it if it is not.
    fn compare(
        &mut self,
        have: &Record,
        name: &VolumeName,
        options: &Options,
    ) -> Result<Created, VolumeError> {
        let differs = differences(&have.options, options);
        let asked = (!differs.is_empty()).then(|| options.clone());
        if have.asked != asked {
            let record = Record { asked, ..have.clone() };
            self.update(name, VolumeState::Ready, &record)?;
        }
        if differs.is_empty() {
            return Ok(Created::Existing);
        }
        Err(VolumeError::Exists { name: name.clone(), differs })
    }
}

/// Takes away a volume's directory if nothing but empty directories of berth's is in it.
pub(super) fn remove_skeleton(root: &Root, place: &Place, name: &VolumeName) {
    // An image that was never given its name has no data; one that has may.
    if place.open_file(IMAGE, rustix::fs::OFlags::PATH).is_err() {
        let _ = place.remove_file("image.new");
    }
    for dir in ["_data", "fs"] {
        let _ = rustix::fs::unlinkat(place.fd(), dir, AtFlags::REMOVEDIR);
    }
    root.remove_empty(name);
}

impl Root {
    /// Takes away a volume's directory if it is empty.
    fn remove_empty(&self, name: &VolumeName) {
        let _ = self.remove_dir(name);
    }

    /// Takes away a volume's empty directory.
    pub(super) fn remove_dir(&self, name: &VolumeName) -> Result<(), VolumeError> {
        match rustix::fs::unlinkat(self.fd(), name.as_str(), AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(err) => {
                Err(VolumeError::io("remove", &self.path().join(name.as_str()), io::Error::from(err)))
            }
        }
    }
}
