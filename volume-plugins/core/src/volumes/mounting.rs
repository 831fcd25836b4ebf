//! Mounting and unmounting: by an engine, which is given the path of the data, and by hand, on a place of one's own.

use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_types::VolumeName;

use super::users::{Doubt, Source, User};
use super::{Held, Volumes};
use crate::error::VolumeError;
use crate::kind::{ensure_mounted, ensure_unmounted, kind_of};
use crate::mount::bind_with;
use crate::options::Flags;
use crate::seen::top_at;
use crate::{Access, MountEntry, mount_table, unmount};

/// How often, and how far apart, the mount tables are looked at again when nobody is counted and somebody is seen: the mounts
/// of a container go a moment after its last process.
const LOOKS: u32 = 5;
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

impl Volumes {
    /// Gives a volume to `user`: mounts it, if it is of a kind that is and nobody has it yet. Returns where the data is.
    pub fn mount(&mut self, name: &VolumeName, user: &User) -> Result<PathBuf, VolumeError> {
        let held = self.hold(name)?;
        let path = ensure_mounted(&*kind_of(&held.spec), &held.site())?;
        // After the mount: what a crash leaves is a mount that nobody is counted for, and the next call takes it for its own.
        self.count(name, user)?;
        Ok(path)
    }

    /// Takes a volume back from `user`, and unmounts it with the last. A user that had not taken it is no error.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Held`] where something that no count knows keeps it from being unmounted; `user` is no user then.
    pub fn unmount(&mut self, name: &VolumeName, user: &User) -> Result<(), VolumeError> {
        let held = self.hold(name)?;
        self.store.write(|tx| tx.volume_use_give_back(name, &user.id).map_err(VolumeError::from))?;
        self.release(&held)
    }

    /// Forgets one user of a volume, however often it took it: for an engine that is known to be gone. Whether it was one.
    pub fn forget_user(&mut self, name: &VolumeName, id: &str) -> Result<bool, VolumeError> {
        let held = self.hold(name)?;
        let forgotten = self.store.write(|tx| tx.volume_use_forget(name, id).map_err(VolumeError::from))?;
        self.release(&held)?;
        Ok(forgotten)
    }

    /// Mounts a volume's data on `target` as well, an existing directory or file of the caller's. Needs no daemon.
    pub fn mount_on(&mut self, name: &VolumeName, target: &Path, access: Access) -> Result<(), VolumeError> {
        let target = real_target(target)?;
        let held = self.hold(name)?;
        let table = mount_table()?;
        if let Some(top) = top_at(&table, &target) {
            let by = format!("{} `{}` is mounted there already", top.fstype, top.source.display());
            return Err(VolumeError::Foreign { path: target, by });
        }
        if target.starts_with(held.place.path()) {
            return Err(VolumeError::Foreign { path: target, by: "it is in the volume itself".to_owned() });
        }
        let data = ensure_mounted(&*kind_of(&held.spec), &held.site())?;
        let user = User { source: Source::Target, id: target.display().to_string() };
        let relative = data.strip_prefix(held.place.path()).unwrap_or(&data);
        let opened = held.place.open_dir(&relative.to_string_lossy());
        let fd = opened.map_err(|err| VolumeError::io("open", &data, err))?;
        let source = PathBuf::from(format!("/proc/thread-self/fd/{}", fd.as_raw_fd()));
        let flags = Flags { read_only: access == Access::ReadOnly, ..Flags::default() };
        // Before the mount: one of a killed call would belong to nobody, and a count without a mount is not believed.
        self.count(name, &user)?;
        let mounted = bind_with(&source, &data, &target, flags);
        drop(fd);
        match mounted {
            Ok(mounted) => {
                mounted.keep();
                Ok(())
            }
            Err(err) => {
                self.store.write(|tx| tx.volume_use_forget(name, &user.id).map_err(VolumeError::from))?;
                self.release(&held)?;
                Err(err.into())
            }
        }
    }

    /// Takes away mounts by hand: the one on `target`, or all of the volume. Returns where they were. One that is gone already is
    /// no error.
    pub fn unmount_from(
        &mut self,
        name: &VolumeName,
        target: Option<&Path>,
    ) -> Result<Vec<PathBuf>, VolumeError> {
        let target = target.map(real_target).transpose()?;
        let held = self.hold(name)?;
        let uses = self.store.read(|tx| tx.volume_uses(name).map_err(VolumeError::from))?;
        let by_hand = uses.into_iter().filter(|row| row.source == Source::Target.as_str());
        let wanted = by_hand.map(|row| PathBuf::from(row.user));
        let wanted: Vec<PathBuf> =
            wanted.filter(|path| target.as_ref().is_none_or(|target| target == path)).collect();
        let extent = crate::kind::extent(&*kind_of(&held.spec), &held.site())?;
        for path in &wanted {
            let shows = |entry: &MountEntry| extent.as_ref().is_some_and(|extent| extent.is_shown_by(entry));
            // Somebody else's mount on the same place is left where it is.
            if top_at(&mount_table()?, path).is_some_and(shows) {
                self.unmount_target(name, path)?;
            }
            let user = path.display().to_string();
            self.store.write(|tx| tx.volume_use_forget(name, &user).map_err(VolumeError::from))?;
        }
        self.release(&held)?;
        Ok(wanted)
    }

    fn unmount_target(&mut self, name: &VolumeName, target: &Path) -> Result<(), VolumeError> {
        match unmount(target) {
            Err(crate::MountError::Unmount { source, .. })
                if source.kind() == std::io::ErrorKind::ResourceBusy =>
            {
                Err(VolumeError::Held { name: name.clone(), holders: crate::seen::holders_of(target) })
            }
            other => Ok(other?),
        }
    }

    fn count(&mut self, name: &VolumeName, user: &User) -> Result<(), VolumeError> {
        let source = user.source.as_str();
        self.store.write(|tx| tx.volume_use_add(name, &user.id, source).map_err(VolumeError::from))
    }

    /// Unmounts a volume if nobody uses it any more.
    pub(super) fn release(&mut self, held: &Held) -> Result<(), VolumeError> {
        let kind = kind_of(&held.spec);
        if kind.mount_point().is_none() {
            return Ok(());
        }
        for look in 1..=LOOKS {
            let users = self.users(&*kind, &held.site(), Doubt::None)?;
            if users.is_none() {
                return ensure_unmounted(&*kind, &held.site());
            }
            if !users.counted.is_empty() || look == LOOKS {
                break;
            }
            std::thread::sleep(BETWEEN_LOOKS);
        }
        // Somebody has it who was never counted, or no more: it stays as it is until they are gone.
        Ok(())
    }
}

/// A place to mount on, as the mount table will name it.
fn real_target(target: &Path) -> Result<PathBuf, VolumeError> {
    std::fs::canonicalize(target).map_err(|err| VolumeError::io("find", target, err))
}
