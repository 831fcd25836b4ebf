//! Removing volumes: the only place where data is deleted.
//!
//! 1. Nobody uses it, and it is unmounted. What is mounted in its directory by somebody else stops the removal.
//! 2. It is written down as being removed.
//! 3. Its directory is moved to the trash, and it is forgotten: its name is free.
//! 4. The trash is emptied, by a walk that enters no mount and follows no link.
//!
//! A crash after 2 is finished by the next call for the volume or by a collection, one after 3 by whoever empties the trash.

use std::path::PathBuf;

use berth_store::{VolumeRow, VolumeState};
use berth_types::VolumeName;
use rustix::fs::{Dir, OFlags};

use super::Volumes;
use super::users::{Doubt, Source};
use crate::error::VolumeError;
use crate::kind::{Kind, Site, ensure_unmounted, kind_of};
use crate::place::{Place, Root};
use crate::record::Record;
use crate::tree::remove_contents;
use crate::{mount_table, options::Spec};

/// What a prune took away, or would.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The volumes.
    pub removed: Vec<VolumeName>,
    /// Volumes that could not be removed, and why.
    pub kept: Vec<(VolumeName, String)>,
}

impl Volumes {
    /// Removes a volume. A bind or device volume is only forgotten: its data is not berth's.
    ///
    /// `asked_by` is the engine that asks, if it is one that refuses by itself to remove what its containers use: counts of
    /// its own are then left over from a crash.
    ///
    /// # Errors
    ///
    /// [`VolumeError::InUse`] with who uses it; whatever keeps it from being unmounted. It is there as before then.
    pub fn remove(&mut self, name: &VolumeName, asked_by: Option<Source>) -> Result<(), VolumeError> {
        self.retire(name, asked_by)?;
        self.empty_trash()
    }

    /// As [`Volumes::remove`], up to the point where the volume is gone for everybody; its data waits for
    /// [`Volumes::empty_trash`], which may take as long as it takes.
    pub fn retire(&mut self, name: &VolumeName, asked_by: Option<Source>) -> Result<(), VolumeError> {
        let lock = self.lock(name)?;
        let Some(row) = self.settled_row(name)? else {
            return Err(VolumeError::NotFound { name: name.clone() });
        };
        let record = Record::of(&row)?;
        let spec = record.spec(name)?;
        let root = Root::make(&self.dirs)?;
        if let Some(place) = root.place(name)? {
            let site = Site { name, place: &place, record: &record };
            self.check_unused(&spec, &site, asked_by)?;
        }
        self.update(name, VolumeState::Removing, &record)?;
        self.move_to_trash(&root, name)?;
        drop(lock);
        tracing::info!(volume = %name, kind = spec.kind(), "volume removed");
        Ok(())
    }

    /// Says why [`Volumes::remove`] would refuse, if it would. Changes nothing.
    pub fn check_removable(&mut self, name: &VolumeName) -> Result<(), VolumeError> {
        let held = self.hold(name)?;
        let users = self.users(&*kind_of(&held.spec), &held.site(), Doubt::None)?;
        if users.is_none() {
            Ok(())
        } else {
            Err(VolumeError::InUse { name: name.clone(), users: users.in_words() })
        }
    }

    /// Makes sure that the volume can be removed, and unmounts it. Changes no data.
    fn check_unused(
        &mut self,
        spec: &Spec,
        site: &Site<'_>,
        asked_by: Option<Source>,
    ) -> Result<(), VolumeError> {
        let kind = kind_of(spec);
        let doubt = asked_by.map_or(Doubt::None, Doubt::Of);
        let users = self.users(&*kind, site, doubt)?;
        if !users.is_none() {
            return Err(VolumeError::InUse { name: site.name.clone(), users: users.in_words() });
        }
        ensure_unmounted(&*kind, site)?;
        check_nothing_mounted(site.place)?;
        check_only_forgotten(&*kind, site.place)
    }

    /// Finishes what a dead process began: the removal of a volume, or the taking back of one that was half made. The
    /// volume's lock is held.
    pub(super) fn finish_removal(&mut self, row: &VolumeRow) -> Result<(), VolumeError> {
        let root = Root::make(&self.dirs)?;
        if let Some(place) = root.place(&row.name)? {
            let record = Record::of(row)?;
            let spec = record.spec(&row.name)?;
            let site = Site { name: &row.name, place: &place, record: &record };
            let kind = kind_of(&spec);
            ensure_unmounted(&*kind, &site)?;
            check_nothing_mounted(&place)?;
            check_only_forgotten(&*kind, &place)?;
        }
        self.move_to_trash(&root, &row.name)?;
        self.empty_trash()
    }

    fn move_to_trash(&mut self, root: &Root, name: &VolumeName) -> Result<(), VolumeError> {
        root.discard(name)?;
        root.sync()?;
        self.store.write(|tx| tx.volume_remove(name).map_err(VolumeError::from))
    }

    /// Deletes what was moved to the trash, by this call or by one that was killed.
    pub fn empty_trash(&mut self) -> Result<(), VolumeError> {
        let Some(root) = Root::open(&self.dirs)? else { return Ok(()) };
        let Some(trash) = root.trash(false)? else { return Ok(()) };
        let path = root.trash_path();
        // What somebody mounted there since stops it here; the walk would stop at it too.
        if let Some(entry) = mount_table()?.iter().find(|entry| entry.is_under(&path)) {
            let by = format!("{} `{}` is mounted there", entry.fstype, entry.source.display());
            return Err(VolumeError::Foreign { path: entry.target.clone(), by });
        }
        remove_contents(&trash, &path)?;
        root.remove_trash();
        Ok(())
    }

    /// Takes away what is left of volumes: finishes what dead processes began, forgets users that are gone, unmounts what
    /// nobody uses, and empties the trash. Returns what was done, in words. Nothing that anybody has is touched.
    pub fn tidy(&mut self) -> Result<Vec<String>, VolumeError> {
        let (rows, uses) = self.store.read(|tx| {
            let rows = tx.volumes()?;
            Ok::<_, VolumeError>((rows, tx.all_volume_uses()?))
        })?;
        let table = mount_table()?;
        let root = Root::open(&self.dirs)?;
        let is_mounted = |name: &VolumeName| {
            let dir = root.as_ref().map(|root| root.path().join(name.as_str()));
            dir.is_some_and(|dir| table.iter().any(|entry| entry.is_under(&dir)))
        };
        let is_used = |name: &VolumeName| uses.binary_search_by(|one| one.volume.cmp(name)).is_ok();
        // Of a thousand volumes at rest, none is worth a lock.
        let rows = rows.into_iter().filter(|row| {
            row.state != VolumeState::Ready
                || row.payload.contains("renaming_to")
                || is_used(&row.name)
                || is_mounted(&row.name)
        });
        let mut done = Vec::new();
        for row in rows {
            let said = self.tidy_one(&row);
            match said {
                Ok(Some(what)) => done.push(what),
                Ok(None) => (),
                Err(err) => tracing::warn!(volume = %row.name, error = %err, "volume not tidied"),
            }
        }
        self.empty_trash()?;
        Ok(done)
    }

    fn tidy_one(&mut self, row: &VolumeRow) -> Result<Option<String>, VolumeError> {
        let name = &row.name;
        let lock = self.lock(name)?;
        match self.settled_row(name) {
            Err(VolumeError::UnderWay { .. }) => return Ok(None),
            Ok(None) => return Ok(Some(format!("volume {name}, which was half {}", half(row.state)))),
            other => {
                other?;
            }
        }
        let held = self.held(name, lock)?;
        let kind = kind_of(&held.spec);
        let was = crate::kind::mounted(&*kind, &held.site())?.is_some();
        self.release(&held)?;
        let is = crate::kind::mounted(&*kind, &held.site())?.is_some();
        if is {
            kind.look_after(&held.site())?;
        }
        Ok((was && !is).then(|| format!("the mount of volume {name}, which nobody uses")))
    }

    /// Removes the volumes that nobody uses: those without a name of their own, or with `all` every one. With `dry_run`
    /// only says which.
    pub fn prune(&mut self, all: bool, dry_run: bool) -> Result<Pruned, VolumeError> {
        let rows = self.store.read(|tx| tx.volumes().map_err(VolumeError::from))?;
        let mut pruned = Pruned::default();
        for row in rows.into_iter().filter(|row| row.state == VolumeState::Ready) {
            if !all && !is_anonymous(&row.name) {
                continue;
            }
            let outcome =
                if dry_run { self.is_unused(&row) } else { self.remove(&row.name, None).map(|()| true) };
            match outcome {
                Ok(true) => pruned.removed.push(row.name),
                Ok(false) | Err(VolumeError::InUse { .. } | VolumeError::NotFound { .. }) => (),
                Err(err) => pruned.kept.push((row.name, err.to_string())),
            }
        }
        Ok(pruned)
    }

    fn is_unused(&mut self, row: &VolumeRow) -> Result<bool, VolumeError> {
        let held = self.hold(&row.name)?;
        Ok(self.users(&*kind_of(&held.spec), &held.site(), Doubt::None)?.is_none())
    }
}

/// Whether an engine made the name up: Docker's and podman's are 64 hexadecimal digits.
pub(super) fn is_anonymous(name: &VolumeName) -> bool {
    let name = name.as_str();
    name.len() == 64 && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn half(state: VolumeState) -> &'static str {
    if state == VolumeState::Removing { "removed" } else { "made" }
}

/// Nothing of anybody's is mounted in the volume's directory.
fn check_nothing_mounted(place: &Place) -> Result<(), VolumeError> {
    match mount_table()?.iter().find(|entry| entry.is_under(place.path())) {
        None => Ok(()),
        Some(entry) => {
            let by = format!("{} `{}` is mounted there", entry.fstype, entry.source.display());
            Err(VolumeError::Foreign { path: entry.target.clone(), by })
        }
    }
}

/// What is not berth's is only forgotten. A file in the mount point was written while nothing was mounted: somebody's data as well.
fn check_only_forgotten(kind: &dyn Kind, place: &Place) -> Result<(), VolumeError> {
    let Some(point) = kind.mount_point() else { return Ok(()) };
    let path: PathBuf = place.join(point);
    let opened = rustix::fs::openat2(
        place.fd(),
        point,
        OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
        crate::place::CONFINED,
    );
    let fd = match opened {
        Ok(fd) => fd,
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(err) => return Err(VolumeError::io("open", &path, err.into())),
    };
    let failed = |err: rustix::io::Errno| VolumeError::io("read", &path, err.into());
    for entry in Dir::read_from(&fd).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            let by = format!(
                "`{}` was written there while nothing was mounted",
                entry.file_name().to_string_lossy()
            );
            return Err(VolumeError::Foreign { path, by });
        }
    }
    Ok(())
}
