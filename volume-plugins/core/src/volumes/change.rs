//! Renaming and resizing.

use berth_store::VolumeState;
use berth_store::lock::VolumeLock;
use berth_types::VolumeName;

use super::users::Doubt;
use super::{Held, LOCK_WAIT, Volumes};
use crate::error::VolumeError;
use crate::kind::{
    Site, ensure_mounted, ensure_unmounted, grow_at_rest, grow_image, grow_mounted, kind_of, mounted,
};
use crate::options::{Filesystem, Options, SizedSpec, Spec, parse_options};
use crate::place::Root;
use crate::record::Record;
use crate::size::{Size, parse_size};

impl Volumes {
    /// Gives a volume another name. Nobody may use it, for whoever does knows it by its old one.
    pub fn rename(&mut self, name: &VolumeName, new: &VolumeName) -> Result<(), VolumeError> {
        let locks = VolumeLock::both(&self.dirs, name, new, LOCK_WAIT)?;
        let Some(row) = self.settled_row(name)? else {
            return Err(VolumeError::NotFound { name: name.clone() });
        };
        if self.settled_row(new)?.is_some() {
            return Err(VolumeError::Exists { name: new.clone(), differs: String::new() });
        }
        let root = self.clear(new)?;
        let mut record = Record::of(&row)?;
        let spec = record.spec(name)?;
        let place = self.place(name)?;
        let kind = kind_of(&spec);
        let site = Site { name, place: &place, record: &record };
        let users = self.users(&*kind, &site, Doubt::None)?;
        if !users.is_none() {
            return Err(VolumeError::InUse { name: name.clone(), users: users.in_words() });
        }
        ensure_unmounted(&*kind, &site)?;
        record.renaming_to = Some(new.clone());
        self.update(name, VolumeState::Ready, &record)?;
        root.rename(name, new)?;
        root.sync()?;
        self.finish_rename(name, new, record)?;
        drop(locks);
        Ok(())
    }

    /// Says in the records what was done to the directory.
    fn finish_rename(
        &mut self,
        name: &VolumeName,
        new: &VolumeName,
        mut record: Record,
    ) -> Result<(), VolumeError> {
        record.renaming_to = None;
        let payload = record.to_payload();
        let renamed = self.store.write(|tx| {
            let renamed = tx.volume_rename(name, new)?;
            if renamed {
                tx.volume_update(new, VolumeState::Ready, &payload)?;
            }
            Ok::<bool, VolumeError>(renamed)
        })?;
        if renamed { Ok(()) } else { Err(VolumeError::Exists { name: new.clone(), differs: String::new() }) }
    }

    /// Ends what a call began that was killed while it renamed the volume: as its directory is called. Whether it has its
    /// old name.
    pub(super) fn settle_rename(&mut self, name: &VolumeName, record: &Record) -> Result<bool, VolumeError> {
        let Some(new) = &record.renaming_to else { return Ok(true) };
        let root = Root::make(&self.dirs)?;
        if root.place(name)?.is_none() && root.place(new)?.is_some() {
            self.finish_rename(name, new, record.clone())?;
            return Ok(false);
        }
        let record = Record { renaming_to: None, ..record.clone() };
        self.update(name, VolumeState::Ready, &record)?;
        Ok(true)
    }

    /// Whether a volume is just being given the name `new`, so that a directory of that name is its.
    pub(super) fn is_renamed_to(&mut self, new: &VolumeName) -> Result<Option<VolumeName>, VolumeError> {
        let rows = self.store.read(|tx| tx.volumes().map_err(VolumeError::from))?;
        let is_it = |row: &berth_store::VolumeRow| {
            Record::of(row).is_ok_and(|record| record.renaming_to.as_ref() == Some(new))
        };
        Ok(rows.into_iter().find(is_it).map(|row| row.name))
    }

    /// Gives a volume another size: a sized one more, a tmpfs any that its contents fit into. It may be in use.
    pub fn resize(&mut self, name: &VolumeName, size: &str) -> Result<(), VolumeError> {
        let mut held = self.hold(name)?;
        let refuse = |why: String| VolumeError::Resize { name: name.clone(), why };
        let bytes = parse_size(size).map_err(|err| refuse(err.to_string()))?;
        let options = with_size(&held.record.options, size);
        let new = parse_options(&options)?;
        match (&held.spec, &new) {
            (Spec::Sized(old), Spec::Sized(new)) if new.size < old.size => {
                let why = format!(
                    "it has {}, and file systems are only made larger; clone it into a smaller one",
                    Size(old.size)
                );
                Err(refuse(why))
            }
            (Spec::Sized(_), Spec::Sized(new)) => {
                let Some(image) = &mut held.record.image else {
                    return Err(VolumeError::Record {
                        name: name.clone(),
                        why: "it has no image".to_owned(),
                    });
                };
                image.growing_to = Some(new.size);
                self.update(name, VolumeState::Ready, &held.record)?;
                self.grow(&held, new)?;
                if let Some(image) = &mut held.record.image {
                    image.size = new.size;
                    image.growing_to = None;
                }
                held.record.options = options;
                self.update(name, VolumeState::Ready, &held.record)?;
                self.release(&held)
            }
            (Spec::Tmpfs(_), Spec::Tmpfs(_)) => {
                let kind = kind_of(&new);
                if mounted(&*kind, &held.site())?.is_some() {
                    kind.resize(&held.site(), bytes)?;
                }
                held.record.options = options;
                self.update(name, VolumeState::Ready, &held.record)
            }
            (old, _) => Err(VolumeError::Kind {
                what: "resizing",
                kind: old.kind(),
                why: "it has no size of its own; clone it into one that has: `berth volume clone NAME NEW -o size=…`",
            }),
        }
    }
}

impl Volumes {
    /// Grows a sized volume where it is: mounted if it is used, else at rest if its file system can.
    fn grow(&mut self, held: &Held, new: &SizedSpec) -> Result<(), VolumeError> {
        let (kind, site) = (kind_of(&held.spec), held.site());
        grow_image(&site, new, new.size)?;
        let is_idle = self.users(&*kind, &site, Doubt::None)?.is_none();
        if is_idle && new.fs != Filesystem::Xfs {
            ensure_unmounted(&*kind, &site)?;
            return grow_at_rest(&site);
        }
        ensure_mounted(&*kind, &site)?;
        grow_mounted(&site, new)
    }
}

/// The options with another size, wherever it stands.
fn with_size(options: &Options, size: &str) -> Options {
    let mut options = options.clone();
    if !matches!(options.get("type").map(String::as_str), None | Some("tmpfs"))
        || (!options.contains_key("type") && !options.contains_key("size"))
    {
        return options;
    }
    if let Some(words) = options.remove("o") {
        let rest: Vec<&str> = words.split(',').filter(|word| !word.starts_with("size=")).collect();
        if !rest.is_empty() {
            options.insert("o".to_owned(), rest.join(","));
        }
    }
    options.insert("size".to_owned(), size.to_owned());
    options
}
