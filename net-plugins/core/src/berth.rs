//! The core as a value: the boot it runs in and the records.

use std::path::PathBuf;

use berth_netlink::Netlink;
use berth_store::lock::AttachmentLock;
use berth_store::{AttachmentRow, AttachmentState, Dirs, LeaseRow, Store};
use berth_types::{AttachmentKey, BootId, NetworkName, SandboxId};

use crate::attachment::AttachmentRecord;
use crate::error::{Chain, CoreError};
use crate::network::NetworkRecord;
use crate::published::Held;

/// berth on one host.
pub struct Berth {
    store: Store,
}

impl Berth {
    /// Opens the records, making them where they do not exist. Where they are new though the kernel has berth's tags
    /// (lost, damaged and put aside), they are rebuilt from the tags.
    pub fn open(dirs: &Dirs) -> Result<Self, CoreError> {
        let mut berth = Self::open_plain(dirs)?;
        for damaged in berth.store.recovered() {
            tracing::error!(path = %damaged.path.display(), moved_to = %damaged.moved_to.display(), why = damaged.why, "damaged records were put aside");
        }
        if berth.store.is_unsettled() {
            crate::rebuild::from_kernel(&mut berth)?;
        }
        Ok(berth)
    }

    /// Makes an opened core fit for another call, after any time: where its records were wiped or put aside meanwhile,
    /// fresh ones are built from the kernel, as [`Berth::open`] does.
    pub fn renew(&mut self) -> Result<(), CoreError> {
        let known = self.store.recovered().len();
        self.store.read(|_| Ok::<_, CoreError>(()))?;
        for damaged in self.store.recovered().iter().skip(known) {
            tracing::error!(path = %damaged.path.display(), moved_to = %damaged.moved_to.display(), why = damaged.why, "damaged records were put aside");
        }
        if self.store.is_unsettled() {
            crate::rebuild::from_kernel(self)?;
        }
        Ok(())
    }

    /// Opens the records for looking only; `None` where there are none.
    pub(crate) fn look(dirs: &Dirs) -> Result<Option<Self>, CoreError> {
        Ok(Store::open_read_only(dirs, boot_id()?)?.map(|store| Self { store }))
    }

    /// As [`Berth::open`], without looking at the kernel.
    pub(crate) fn open_plain(dirs: &Dirs) -> Result<Self, CoreError> {
        Ok(Self { store: Store::open(dirs, boot_id()?)? })
    }

    /// Where the records are.
    pub fn dirs(&self) -> &Dirs {
        self.store.dirs()
    }

    /// This boot.
    pub fn boot(&self) -> &BootId {
        self.store.boot()
    }

    /// The records.
    pub fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    pub(crate) fn attachment_lock(&self, key: &AttachmentKey) -> Result<AttachmentLock, CoreError> {
        Ok(AttachmentLock::exclusive(self.dirs(), key)?)
    }

    /// Whether an attachment's record stands for something that lives: of this boot, its process alive while it is
    /// pending, its host link there once it is ready. The link goes with the sandbox, so it tells of both.
    pub(crate) fn is_live(&self, row: &AttachmentRow) -> Result<bool, CoreError> {
        if row.boot_id != *self.boot() {
            return Ok(false);
        }
        match row.state {
            AttachmentState::Pending => Ok(row.is_owner_alive(self.boot())),
            AttachmentState::Deleting => Ok(false),
            AttachmentState::Ready => match &row.host_ifname {
                Some(name) => Ok(Netlink::open()?.link_by_name(name)?.is_some() && !is_orphaned(row)),
                None => Ok(!sandbox_is_gone(row.sandbox.as_ref())),
            },
        }
    }

    /// All networks in the kernel, by the records. What is recorded of another boot is in no kernel.
    pub fn networks(&mut self) -> Result<Vec<NetworkRecord>, CoreError> {
        let rows = self.store.read(|tx| tx.live_networks().map_err(CoreError::from))?;
        let boot = self.boot().clone();
        rows.into_iter()
            .filter(|row| row.boot_id == boot)
            .map(|row| parsed(&row.name, &row.payload))
            .collect()
    }

    /// One network.
    pub fn network(&mut self, name: &NetworkName) -> Result<Option<NetworkRecord>, CoreError> {
        let row = self.store.read(|tx| tx.live_network(name).map_err(CoreError::from))?;
        row.filter(|row| row.boot_id == *self.boot()).map(|row| parsed(&row.name, &row.payload)).transpose()
    }

    /// Every record of an attachment or of published ports, with how far it has come. One that cannot be read is
    /// logged and left out, so that it does not hide the others.
    pub fn held(&mut self) -> Result<Vec<(AttachmentRow, Held)>, CoreError> {
        let rows = self.store.read(|tx| tx.attachments().map_err(CoreError::from))?;
        Ok(rows.into_iter().filter_map(read_held).collect())
    }

    /// The same of one network.
    pub fn held_on(&mut self, network: &NetworkName) -> Result<Vec<(AttachmentRow, Held)>, CoreError> {
        let rows = self.store.read(|tx| tx.attachments_of(network).map_err(CoreError::from))?;
        Ok(rows.into_iter().filter_map(read_held).collect())
    }

    /// All attachments berth made that are ready.
    pub fn attachments(&mut self) -> Result<Vec<AttachmentRecord>, CoreError> {
        let all = self.held()?.into_iter();
        let boot = self.boot().clone();
        let ready = all.filter(|(row, _)| row.state == AttachmentState::Ready && row.boot_id == boot);
        Ok(ready
            .filter_map(|(_, held)| match held {
                Held::Bridge(record) => Some(*record),
                Held::Ports(_) => None,
            })
            .collect())
    }

    /// The record of `key`.
    pub fn held_of(&mut self, key: &AttachmentKey) -> Result<Option<(AttachmentRow, Held)>, CoreError> {
        let row = self.store.read(|tx| tx.attachment(key).map_err(CoreError::from))?;
        row.map(|row| parsed(&row.key, &row.payload).map(|held| (row, held))).transpose()
    }
}

fn read_held(row: AttachmentRow) -> Option<(AttachmentRow, Held)> {
    match parsed(&row.key, &row.payload) {
        Ok(held) => Some((row, held)),
        Err(err) => {
            tracing::error!(attachment = %row.key, error = %Chain(&err), "record cannot be read");
            None
        }
    }
}

/// Whether the engine took the container's end into a sandbox that is gone since. The kernel takes a namespace and its
/// links apart in its own time; until then the host link is still there.
fn is_orphaned(row: &AttachmentRow) -> bool {
    let Ok(Held::Bridge(record)) = parsed::<Held>(&row.key, &row.payload) else { return false };
    let (Some(peer), Some(dir)) = (&record.peer, record.sandbox_path.parent()) else { return false };
    // Where the engine's directory cannot be seen, its files say nothing.
    dir.is_dir()
        && std::fs::symlink_metadata(&record.sandbox_path)
            .is_err_and(|err| err.kind() == std::io::ErrorKind::NotFound)
        && !berth_netlink::link_exists(peer)
}

/// A stored text as the record it is.
pub(crate) fn parsed<T: serde::de::DeserializeOwned>(
    what: &impl std::fmt::Display,
    text: &str,
) -> Result<T, CoreError> {
    serde_json::from_str(text).map_err(|source| CoreError::Record { what: what.to_string(), source })
}

/// Whether a lease's owner is provably gone: its sandbox's path leads nowhere or to another namespace. Unsure is
/// alive. (Leases of another boot are gone already: the store drops them.)
pub(crate) fn is_dead(row: &LeaseRow) -> bool {
    sandbox_is_gone(row.sandbox.as_ref())
}

/// Whether the sandbox is gone or its path leads to another one. Without an identity to compare, it is taken to live.
pub(crate) fn sandbox_is_gone(sandbox: Option<&(PathBuf, SandboxId)>) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let Some((path, id)) = sandbox else { return false };
    match std::fs::metadata(path) {
        Ok(meta) => meta.dev() != id.dev || meta.ino() != id.ino,
        Err(err) => err.kind() == std::io::ErrorKind::NotFound,
    }
}

fn boot_id() -> Result<BootId, CoreError> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(path)
        .map_err(|err| CoreError::Missing { what: format!("failed to read {path}: {err}") })?;
    Ok(BootId::new(&text))
}
