//! Cloning, exporting and importing.
//!
//! They may take long, so the volume's lock is not held meanwhile: the source has this process as a user, which keeps it mounted and
//! there, and the target is written down as being made, which keeps others from it and lets anybody take it back if this
//! process dies.

use std::io::{BufRead, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use berth_store::VolumeState;
use berth_types::VolumeName;

use super::Volumes;
use super::users::User;
use crate::archive::{Origin, Unpacked, Unpacker, pack};
use crate::copy::{Report, copy_tree};
use crate::error::VolumeError;
use crate::kind::{Site, ensure_mounted, ensure_unmounted, kind_of};
use crate::options::{Options, Spec, parse_options};
use crate::record::Record;

/// Where an archive comes from.
pub type ImportSource<'s> = &'s mut dyn BufRead;

/// What an import found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// Whether the archive had a checksum, which was right. One of another program has none.
    pub checked: bool,
    /// Bytes of contents.
    pub bytes: u64,
}

/// What an export found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    /// Files that changed while they were read; what the archive has of them may never have been there at one time.
    pub changed: u64,
}

impl Volumes {
    /// Makes `new` with the data of `name`: with the options given, else with those of `name` if they make a volume that data
    /// can be put into, else without any.
    ///
    /// What is written to `name` meanwhile may be in the clone or not, file by file.
    pub fn clone_volume(
        &mut self,
        name: &VolumeName,
        new: &VolumeName,
        options: Option<&Options>,
        report: Report<'_>,
    ) -> Result<(), VolumeError> {
        if name == new {
            return Err(VolumeError::Exists { name: new.clone(), differs: String::new() });
        }
        self.reading(name, "clone", |volumes, source| {
            let options = options.cloned().unwrap_or_else(|| fillable(&source.options));
            volumes.making(new, &options, |target| copy_tree(source.top, target, &source.path, report))
        })
    }

    /// Writes the data of `name` to `to`, as an archive.
    ///
    /// What is written to `name` meanwhile may be in the archive or not, file by file.
    pub fn export(
        &mut self,
        name: &VolumeName,
        to: &mut dyn Write,
        report: Report<'_>,
    ) -> Result<Exported, VolumeError> {
        self.reading(name, "export", |_, source| {
            let origin = Origin { name: name.to_string(), options: source.options };
            let changed = pack(source.top, &source.path, &origin, to, report)?;
            Ok(Exported { changed })
        })
    }

    /// Makes `name` of an archive: with the options given, else with those that the archive says its volume had if they make a
    /// volume that data can be put into, else without any.
    ///
    /// # Errors
    ///
    /// An archive that is cut off, that was changed, or that leads out of the volume. No volume is made then.
    pub fn import(
        &mut self,
        name: &VolumeName,
        options: Option<&Options>,
        from: ImportSource<'_>,
        report: Report<'_>,
    ) -> Result<Imported, VolumeError> {
        let reader = Unpacker::new(from)?;
        let mut making = None;
        let unpacked = reader.unpack(
            |origin| {
                let told = origin.map(|origin| fillable(&origin.options)).unwrap_or_default();
                let begun = self.begin_making(name, options.unwrap_or(&told))?;
                let target = begun.data.try_clone().map_err(|err| VolumeError::io("open", &begun.path, err));
                making = Some(begun);
                target
            },
            report,
        );
        match (making, unpacked) {
            (Some(begun), unpacked) => {
                let Unpacked { checked, bytes } = self.end_making(name, begun, unpacked)?;
                Ok(Imported { checked, bytes })
            }
            (None, Err(err)) => Err(err),
            (None, Ok(_)) => Err(VolumeError::Archive { why: "it is empty".to_owned() }),
        }
    }

    /// Runs `read` while this process is a user of the volume.
    fn reading<T>(
        &mut self,
        name: &VolumeName,
        what: &'static str,
        read: impl FnOnce(&mut Self, SourceData) -> Result<T, VolumeError>,
    ) -> Result<T, VolumeError> {
        let user = User::this_process(what);
        let path = self.mount(name, &user)?;
        let outcome = self.source(name, path).and_then(|source| read(self, source));
        let released = self.unmount(name, &user);
        let value = outcome?;
        released?;
        Ok(value)
    }

    fn source(&mut self, name: &VolumeName, path: PathBuf) -> Result<SourceData, VolumeError> {
        let held = self.hold(name)?;
        let top = held.place.open_dir(kind_of(&held.spec).data());
        let top = top.map_err(|err| VolumeError::io("open", &path, err))?;
        Ok(SourceData { top, path, options: held.record.options })
    }

    /// Makes a volume and runs `fill` with its data directory before anybody sees it.
    fn making<T>(
        &mut self,
        name: &VolumeName,
        options: &Options,
        fill: impl FnOnce(OwnedFd) -> Result<T, VolumeError>,
    ) -> Result<T, VolumeError> {
        let begun = self.begin_making(name, options)?;
        let target = begun.data.try_clone().map_err(|err| VolumeError::io("open", &begun.path, err));
        let filled = target.and_then(fill);
        self.end_making(name, begun, filled)
    }

    fn begin_making(&mut self, name: &VolumeName, options: &Options) -> Result<Begun, VolumeError> {
        let spec = parse_options(options)?;
        if !matches!(spec, Spec::Directory(_) | Spec::Sized(_)) {
            let why = "its data is not berth's to write; make it, mount it and copy into it";
            return Err(VolumeError::Kind { what: "filling a new volume", kind: spec.kind(), why });
        }
        let lock = self.lock(name)?;
        if self.settled_row(name)?.is_some() {
            return Err(VolumeError::Exists { name: name.clone(), differs: String::new() });
        }
        let root = self.clear(name)?;
        let mut record = Record::new(options.clone());
        if !self.insert(name, VolumeState::Pending, &record)? {
            return Err(VolumeError::Exists { name: name.clone(), differs: String::new() });
        }
        let begun = self.make(&root, name, &spec, &mut record).and_then(|()| {
            let place = self.place(name)?;
            let kind = kind_of(&spec);
            let path = ensure_mounted(&*kind, &Site { name, place: &place, record: &record })?;
            let data = place.open_dir(kind.data()).map_err(|err| VolumeError::io("open", &path, err))?;
            Ok((data, path))
        });
        drop(lock);
        match begun {
            Ok((data, path)) => Ok(Begun { spec, record, data, path }),
            Err(err) => Err(self.take_back(name, err)),
        }
    }

    /// Makes a filled volume visible, or takes it back.
    fn end_making<T>(
        &mut self,
        name: &VolumeName,
        begun: Begun,
        filled: Result<T, VolumeError>,
    ) -> Result<T, VolumeError> {
        let Begun { spec, record, data, path } = begun;
        let ended = filled.and_then(|value| {
            rustix::fs::syncfs(&data).map_err(|err| VolumeError::io("sync", &path, err.into()))?;
            Ok(value)
        });
        // An open directory keeps a mount busy.
        drop(data);
        let ended = ended.and_then(|value| {
            let lock = self.lock(name)?;
            let place = self.place(name)?;
            ensure_unmounted(&*kind_of(&spec), &Site { name, place: &place, record: &record })?;
            self.update(name, VolumeState::Ready, &record)?;
            drop(lock);
            Ok(value)
        });
        ended.map_err(|err| self.take_back(name, err))
    }

    /// Takes back a volume that this process was making, and returns why.
    fn take_back(&mut self, name: &VolumeName, why: VolumeError) -> VolumeError {
        let back = self.lock(name).and_then(|_lock| match self.row(name)? {
            Some(row) => self.finish_removal(&row),
            None => Ok(()),
        });
        if let Err(again) = back {
            tracing::warn!(volume = %name, error = %again, "what is left of a volume that was not made stays for now");
        }
        why
    }
}

struct SourceData {
    top: OwnedFd,
    path: PathBuf,
    options: Options,
}

struct Begun {
    spec: Spec,
    record: Record,
    data: OwnedFd,
    path: PathBuf,
}

/// The options, if they make a volume that data can be put into; else none.
fn fillable(options: &Options) -> Options {
    match parse_options(options) {
        Ok(Spec::Directory(_) | Spec::Sized(_)) => options.clone(),
        _ => Options::new(),
    }
}
