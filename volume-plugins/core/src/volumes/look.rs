//! Looking at volumes. Waits for nobody and changes nothing.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_store::{BootTime, VolumeRow, VolumeState, VolumeUse};
use berth_types::VolumeName;
use rustix::fs::FileType;

use super::Volumes;
use super::users::VolumeUser;
use crate::error::VolumeError;
use crate::kind::{Site, Space, kind_of, mounted};
use crate::options::{Options, Spec};
use crate::place::Root;
use crate::record::{Record, differences};
use crate::walk::{Entry, Visitor, walk};

/// A volume, as far as the records tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeInfo {
    /// Its name.
    pub name: VolumeName,
    /// Its kind, in one word.
    pub kind: &'static str,
    /// Its options, as given.
    pub options: Options,
    /// When it was made, milliseconds since 1970.
    pub created_ms: i64,
    /// Where its data is, while it is mounted if it is of a kind that is.
    pub data: PathBuf,
    /// Whether the data is there at all times, mounted or not.
    pub always_there: bool,
    /// Who is counted as a user.
    pub users: Vec<VolumeUser>,
    /// Other options that somebody asked for since and did not get, as differences in words.
    pub differs: Option<String>,
}

/// How much a volume holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes; what is not known is `None`.
    pub space: Space,
    /// The directory is so large that it was not counted to its end; it is at least as much.
    pub at_least: bool,
    /// Whether it is mounted; `None` for a kind that is not.
    pub mounted: Option<bool>,
}

impl Volumes {
    /// The volumes that are there, by name.
    pub fn list(&mut self) -> Result<Vec<VolumeInfo>, VolumeError> {
        let (rows, uses) = self.store.read(|tx| {
            let rows = tx.volumes()?;
            Ok::<_, VolumeError>((rows, tx.all_volume_uses()?))
        })?;
        let root = self.root_path()?;
        let now = BootTime::now();
        let ready = rows.iter().filter(|row| row.state == VolumeState::Ready);
        let mut list = Vec::new();
        for row in ready {
            let from = uses.partition_point(|one| one.volume < row.name);
            let own = uses.get(from..).unwrap_or_default().iter().take_while(|one| one.volume == row.name);
            match info(&root, row, own, now) {
                Ok(info) => list.push(info),
                // One that cannot be read does not hide the others.
                Err(err) => tracing::error!(volume = %row.name, error = %err, "record cannot be read"),
            }
        }
        Ok(list)
    }

    /// The names of the volumes that are there, in order, and nothing more.
    pub fn names(&mut self) -> Result<Vec<VolumeName>, VolumeError> {
        let rows = self.store.read(|tx| tx.volumes().map_err(VolumeError::from))?;
        Ok(rows.into_iter().filter(|row| row.state == VolumeState::Ready).map(|row| row.name).collect())
    }

    /// A volume; `None` where there is none.
    pub fn inspect(&mut self, name: &VolumeName) -> Result<Option<VolumeInfo>, VolumeError> {
        let (row, uses) = self.store.read(|tx| {
            let row = tx.volume(name)?;
            Ok::<_, VolumeError>((row, tx.volume_uses(name)?))
        })?;
        let Some(row) = row.filter(|row| row.state == VolumeState::Ready) else { return Ok(None) };
        info(&self.root_path()?, &row, uses.iter(), BootTime::now()).map(Some)
    }

    /// How much a volume holds. A directory is counted, for at most `patience`.
    pub fn usage(&mut self, name: &VolumeName, patience: Duration) -> Result<Usage, VolumeError> {
        let row = self.row(name)?.filter(|row| row.state == VolumeState::Ready);
        let row = row.ok_or_else(|| VolumeError::NotFound { name: name.clone() })?;
        let record = Record::of(&row)?;
        let spec = record.spec(name)?;
        let place = self.place(name)?;
        let kind = kind_of(&spec);
        let site = Site { name, place: &place, record: &record };
        let opened = || place.open_dir(kind.data()).ok();
        if matches!(spec, Spec::Directory(_)) {
            let Some(top) = opened() else { return Ok(Usage::default()) };
            let (used, at_least) = count(top, &place.join(kind.data()), patience)?;
            return Ok(Usage { space: Space { size: None, used: Some(used) }, at_least, mounted: None });
        }
        let is_mounted = mounted(&*kind, &site)?.is_some();
        let filesystem = if is_mounted && kind.is_own_size() { opened() } else { None };
        let stat = filesystem.and_then(|top| rustix::fs::fstatvfs(&top).ok());
        let space = stat.map_or_else(
            || kind.space_at_rest(&site),
            |stat| {
                let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
                Space {
                    size: Some(bytes(stat.f_blocks)),
                    used: Some(bytes(stat.f_blocks.saturating_sub(stat.f_bfree))),
                }
            },
        );
        Ok(Usage { space, at_least: false, mounted: Some(is_mounted) })
    }

    /// The directory of all volumes, without links.
    fn root_path(&self) -> Result<PathBuf, VolumeError> {
        let root = Root::open(&self.dirs)?;
        Ok(root.map_or_else(|| Root::path_in(&self.dirs), |root| root.path().to_owned()))
    }
}

fn info<'u>(
    root: &Path,
    row: &VolumeRow,
    uses: impl Iterator<Item = &'u VolumeUse>,
    now: BootTime,
) -> Result<VolumeInfo, VolumeError> {
    let record = Record::of(row)?;
    let spec = record.spec(&row.name)?;
    let kind = kind_of(&spec);
    let differs =
        record.asked.as_ref().map(|asked| differences(&record.options, asked).trim_start().to_owned());
    Ok(VolumeInfo {
        name: row.name.clone(),
        kind: spec.kind(),
        created_ms: row.created_ms,
        data: root.join(row.name.as_str()).join(kind.data()),
        always_there: kind.data() == crate::kind::DATA,
        users: uses.map(|row| VolumeUser::of(row, now)).collect(),
        differs: differs.filter(|text| !text.is_empty()),
        options: record.options.clone(),
    })
}

/// Bytes allocated below a directory; a file of several names counts once. Ends when `patience` does.
fn count(top: OwnedFd, path: &Path, patience: Duration) -> Result<(u64, bool), VolumeError> {
    let mut counter =
        Counter { used: 0, seen: Default::default(), until: Instant::now() + patience, over: false };
    match walk(top, path, &mut counter) {
        Err(_) if counter.over => Ok((counter.used, true)),
        other => other.map(|()| (counter.used, false)),
    }
}

struct Counter {
    used: u64,
    seen: std::collections::HashSet<(u64, u64)>,
    until: Instant,
    over: bool,
}

impl Counter {
    fn add(&mut self, entry: &Entry<'_>) -> Result<(), VolumeError> {
        if Instant::now() >= self.until {
            self.over = true;
            return Err(VolumeError::io("count", entry.path, std::io::ErrorKind::TimedOut.into()));
        }
        let shared = entry.stat.st_nlink > 1 && entry.file_type() != FileType::Directory;
        if !shared || self.seen.insert((entry.stat.st_dev, entry.stat.st_ino)) {
            self.used += u64::try_from(entry.stat.st_blocks).unwrap_or(0).saturating_mul(512);
        }
        Ok(())
    }
}

impl Visitor for Counter {
    fn enter(&mut self, dir: &Entry<'_>) -> Result<(), VolumeError> {
        self.add(dir)
    }

    fn leaf(&mut self, entry: &Entry<'_>) -> Result<(), VolumeError> {
        self.add(entry)
    }

    fn leave(&mut self, _dir: &Entry<'_>) -> Result<(), VolumeError> {
        Ok(())
    }
}
