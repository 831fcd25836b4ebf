//! The volumes of one host: what every front end calls.
//!
//! A change of a volume holds the volume's lock. It is written down before anything is touched and again when it is done, so
//! that whoever comes next finds what a crash left and takes it back; only what makes nothing that needs taking back is
//! written once. Nothing here waits for an engine.
//!
//! Where the data of a volume is:
//!
//! | kind | in the volume's directory | what users are given |
//! |---|---|---|
//! | directory | `_data` | `_data` |
//! | sized | `image`, and `fs` where it is mounted | `fs/_data` |
//! | bind, tmpfs, device | `_data`, where it is mounted | `_data` |

mod change;
mod create;
mod look;
mod mounting;
mod remove;
mod transfer;
mod users;

use std::time::Duration;

use berth_store::lock::VolumeLock;
use berth_store::{Dirs, Store, VolumeRow, VolumeState};
use berth_types::{BootId, VolumeName};

use crate::error::VolumeError;
use crate::kind::Site;
use crate::options::Spec;
use crate::place::{Place, Root};
use crate::record::Record;

pub use create::Created;
pub use look::{Usage, VolumeInfo};
pub use remove::Pruned;
pub use transfer::{Exported, ImportSource, Imported};
pub use users::{Source, User, VolumeUser};

/// How long another change of the same volume is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(30);

/// Where the kernel tells which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The volumes of one host. Cheap to open; one call at a time.
pub struct Volumes {
    store: Store,
    dirs: Dirs,
}

/// A volume that is there, with its lock held.
struct Held {
    name: VolumeName,
    record: Record,
    spec: Spec,
    place: Place,
    _lock: VolumeLock,
}

impl Held {
    fn site(&self) -> Site<'_> {
        Site { name: &self.name, place: &self.place, record: &self.record }
    }
}

impl Volumes {
    /// Opens the records in `dirs`, making them where they are missing.
    pub fn open(dirs: &Dirs) -> Result<Self, VolumeError> {
        let text = std::fs::read_to_string(BOOT_ID)
            .map_err(|source| VolumeError::io("read", BOOT_ID.as_ref(), source))?;
        let store = Store::open(dirs, BootId::new(&text))?;
        for damaged in store.recovered() {
            tracing::error!(path = %damaged.path.display(), moved_to = %damaged.moved_to.display(), why = damaged.why, "damaged records were put aside");
        }
        Ok(Self { store, dirs: dirs.clone() })
    }

    /// Where the records are.
    pub fn dirs(&self) -> &Dirs {
        &self.dirs
    }

    fn lock(&self, name: &VolumeName) -> Result<VolumeLock, VolumeError> {
        Ok(VolumeLock::exclusive(&self.dirs, name, LOCK_WAIT)?)
    }

    fn row(&mut self, name: &VolumeName) -> Result<Option<VolumeRow>, VolumeError> {
        self.store.read(|tx| tx.volume(name).map_err(VolumeError::from))
    }

    /// The row of a volume that is there. What a dead process left of one that is not is taken back. The volume's lock is
    /// held.
    fn settled_row(&mut self, name: &VolumeName) -> Result<Option<VolumeRow>, VolumeError> {
        let Some(row) = self.row(name)? else { return Ok(None) };
        match row.state {
            VolumeState::Ready => {
                let record = Record::of(&row)?;
                if record.renaming_to.is_none() || self.settle_rename(name, &record)? {
                    self.row(name)
                } else {
                    Ok(None)
                }
            }
            // Whoever makes one does so without the lock, for it may take long.
            VolumeState::Pending if row.is_owner_alive(self.store.boot()) => {
                Err(VolumeError::UnderWay { name: name.clone(), doing: "made", pid: row.owner.pid })
            }
            VolumeState::Pending | VolumeState::Removing => {
                self.finish_removal(&row)?;
                Ok(None)
            }
        }
    }

    /// A volume that is there, with its lock.
    fn hold(&mut self, name: &VolumeName) -> Result<Held, VolumeError> {
        let lock = self.lock(name)?;
        self.held(name, lock)
    }

    fn held(&mut self, name: &VolumeName, lock: VolumeLock) -> Result<Held, VolumeError> {
        let Some(row) = self.settled_row(name)? else {
            return Err(VolumeError::NotFound { name: name.clone() });
        };
        let record = Record::of(&row)?;
        let spec = record.spec(name)?;
        let place = self.place(name)?;
        Ok(Held { name: name.clone(), record, spec, place, _lock: lock })
    }

    fn place(&self, name: &VolumeName) -> Result<Place, VolumeError> {
        let missing = || VolumeError::DataMissing {
            name: name.clone(),
            path: Root::path_in(&self.dirs).join(name.as_str()),
        };
        let root = Root::open(&self.dirs)?.ok_or_else(missing)?;
        root.place(name)?.ok_or_else(missing)
    }
}
