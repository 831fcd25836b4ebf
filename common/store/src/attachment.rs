//! Attachments and how far they have come.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use berth_types::{AttachmentKey, BootId, ContainerId, IfName, NetworkName, SandboxId};
use rusqlite::{Row, params};

use crate::codec::{key, parsed, parsed_opt, sandbox, sandbox_columns};
use crate::{Owner, ReadTx, StoreError, Tx, unix_ms};

/// How far an attachment has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachmentState {
    /// Its owner is building it; if the owner is dead, it is half built.
    Pending,
    /// It is there.
    Ready,
    /// Its owner is taking it down; if the owner is dead, it is half gone.
    Deleting,
}

impl AttachmentState {
    /// The stored word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ready => "ready",
            Self::Deleting => "deleting",
        }
    }
}

impl fmt::Display for AttachmentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The stored state is none of the three.
#[derive(Debug, thiserror::Error)]
#[error("unknown attachment state")]
struct UnknownState;

struct StoredState(AttachmentState);

impl FromStr for StoredState {
    type Err = UnknownState;
    fn from_str(text: &str) -> Result<Self, UnknownState> {
        [AttachmentState::Pending, AttachmentState::Ready, AttachmentState::Deleting]
            .into_iter()
            .find(|state| state.as_str() == text)
            .map(Self)
            .ok_or(UnknownState)
    }
}

/// An attachment about to be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAttachment {
    /// Identity.
    pub key: AttachmentKey,
    /// Its sandbox: the path given and the namespace it led to.
    pub sandbox: Option<(PathBuf, SandboxId)>,
    /// The host's end, if it has one; no two attachments may have the same.
    pub host_ifname: Option<IfName>,
    /// What the caller wants to find again, versioned by the caller.
    pub payload: String,
}

/// An attachment as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachmentRow {
    /// Identity.
    pub key: AttachmentKey,
    /// How far it has come.
    pub state: AttachmentState,
    /// While deleting: its rules are out of the kernel already.
    pub rules_gone: bool,
    /// The boot it was built in.
    pub boot_id: BootId,
    /// The process that changed `state` last.
    pub owner: Owner,
    /// Its sandbox: the path given and the namespace it led to.
    pub sandbox: Option<(PathBuf, SandboxId)>,
    /// The host's end, if it has one.
    pub host_ifname: Option<IfName>,
    /// The caller's, as last written.
    pub payload: String,
    /// When it was begun, milliseconds since 1970.
    pub created_ms: i64,
}

impl AttachmentRow {
    /// Whether the process that changed the state last still runs, in this boot.
    pub fn is_owner_alive(&self, boot: &BootId) -> bool {
        self.boot_id == *boot && self.owner.is_alive()
    }
}

/// Why an attachment cannot be begun.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// The same interface of the same container on the same network is recorded already.
    #[error("attachment {} already exists and is {}", .0.key, .0.state)]
    Exists(Box<AttachmentRow>),
    /// The host interface name belongs to another attachment.
    #[error("interface `{name}` is held by attachment {holder}")]
    HostIfname {
        /// The name asked for.
        name: IfName,
        /// Who has it.
        holder: AttachmentKey,
    },
    /// The records failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

const COLUMNS: &str = "network, container, ifname, state, rules_gone, boot_id, owner_pid, owner_start, \
     sandbox_path, sandbox_dev, sandbox_ino, host_ifname, payload, created_ms";

fn read(row: &Row<'_>) -> rusqlite::Result<AttachmentRow> {
    let StoredState(state) = parsed(row, 3)?;
    let start: i64 = row.get(7)?;
    Ok(AttachmentRow {
        key: key(row, 0)?,
        state,
        rules_gone: row.get(4)?,
        boot_id: BootId::new(row.get_ref(5)?.as_str()?),
        owner: Owner { pid: row.get(6)?, start: start.cast_unsigned() },
        sandbox: sandbox(row, 8)?,
        host_ifname: parsed_opt(row, 11)?,
        payload: row.get(12)?,
        created_ms: row.get(13)?,
    })
}

impl ReadTx<'_> {
    /// One attachment.
    pub fn attachment(&self, key: &AttachmentKey) -> Result<Option<AttachmentRow>, StoreError> {
        let sql =
            format!("SELECT {COLUMNS} FROM attachment WHERE network = ?1 AND container = ?2 AND ifname = ?3");
        let AttachmentKey { network, container, ifname } = key;
        self.run().row(&sql, params![network.as_str(), container.as_str(), ifname.as_str()], read)
    }

    /// All attachments, by key.
    pub fn attachments(&self) -> Result<Vec<AttachmentRow>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM attachment ORDER BY network, container, ifname");
        self.run().rows(&sql, [], read)
    }

    /// All attachments of one network, by key.
    pub fn attachments_of(&self, network: &NetworkName) -> Result<Vec<AttachmentRow>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM attachment WHERE network = ?1 ORDER BY network, container, ifname"
        );
        self.run().rows(&sql, [network.as_str()], read)
    }

    /// The keys of all attachments of one container. The payloads are not touched: it costs little beside thousands of
    /// others.
    pub fn attachments_of_container(
        &self,
        container: &ContainerId,
    ) -> Result<Vec<AttachmentKey>, StoreError> {
        let sql = "SELECT network, container, ifname FROM attachment WHERE container = ?1 \
                   ORDER BY network, container, ifname";
        self.run().rows(sql, [container.as_str()], |row| key(row, 0))
    }

    /// The attachments of other boots than `boot`: their sandboxes are gone with the boot.
    pub fn stale_attachments(&self, boot: &BootId) -> Result<Vec<AttachmentRow>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM attachment WHERE boot_id <> ?1 ORDER BY network, container, ifname"
        );
        self.run().rows(&sql, [boot.as_str()], read)
    }

    /// The attachments being deleted whose rules are still in the kernel, oldest first: whoever holds the rules lock
    /// deletes them in one batch, for itself and for those who wait.
    pub fn attachments_to_unrule(&self) -> Result<Vec<AttachmentRow>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM attachment WHERE state = 'deleting' AND rules_gone = 0 \
             ORDER BY created_ms, network, container, ifname"
        );
        self.run().rows(&sql, [], read)
    }
}

impl Tx<'_> {
    /// Records `new` as pending, owned by this process. Before the kernel is touched.
    pub fn attachment_begin(&self, new: &NewAttachment) -> Result<(), BeginError> {
        let NewAttachment { key, sandbox, host_ifname, payload } = new;
        let AttachmentKey { network, container, ifname } = key;
        let (path, dev, ino) = sandbox_columns(sandbox.as_ref());
        let Owner { pid, start } = Owner::current();
        let added = self.run().execute(
            &format!(
                "INSERT INTO attachment ({COLUMNS}) \
                 VALUES (?1, ?2, ?3, 'pending', 0, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) ON CONFLICT DO NOTHING"
            ),
            params![
                network.as_str(),
                container.as_str(),
                ifname.as_str(),
                self.boot().as_str(),
                pid,
                start.cast_signed(),
                path,
                dev,
                ino,
                host_ifname.as_ref().map(IfName::as_str),
                payload,
                unix_ms()
            ],
        )?;
        if added == 1 {
            return Ok(());
        }
        if let Some(row) = self.attachment(key)? {
            return Err(BeginError::Exists(Box::new(row)));
        }
        // The key is free, so the refusal came from the one other unique column.
        let name = host_ifname.clone().expect("only a host interface name can conflict beside the key");
        let holder = self.host_ifname_holder(&name)?.expect("the conflicting row is in this transaction");
        Err(BeginError::HostIfname { name, holder })
    }

    /// Records that the attachment is built.
    pub fn attachment_ready(&self, key: &AttachmentKey, payload: &str) -> Result<bool, StoreError> {
        self.change("state = 'ready', payload = ?4", key, params![payload])
    }

    /// Records that this process takes the attachment down. Whether there is one; `rules_gone` starts at no, unless an
    /// earlier deletion got that far.
    pub fn attachment_deleting(&self, key: &AttachmentKey) -> Result<bool, StoreError> {
        let Owner { pid, start } = Owner::current();
        self.change(
            "state = 'deleting', owner_pid = ?4, owner_start = ?5",
            key,
            params![pid, start.cast_signed()],
        )
    }

    /// Makes this process the owner, for instance to finish what a dead one began.
    pub fn attachment_adopt(&self, key: &AttachmentKey) -> Result<bool, StoreError> {
        let Owner { pid, start } = Owner::current();
        self.change("owner_pid = ?4, owner_start = ?5", key, params![pid, start.cast_signed()])
    }

    /// Records that the rules of these attachments are out of the kernel.
    pub fn attachments_unruled(&self, keys: &[AttachmentKey]) -> Result<(), StoreError> {
        for key in keys {
            self.change("rules_gone = 1", key, params![])?;
        }
        Ok(())
    }

    /// Forgets the attachment. Whether there was one.
    pub fn attachment_remove(&self, key: &AttachmentKey) -> Result<bool, StoreError> {
        let AttachmentKey { network, container, ifname } = key;
        let sql = "DELETE FROM attachment WHERE network = ?1 AND container = ?2 AND ifname = ?3";
        let removed =
            self.run().execute(sql, params![network.as_str(), container.as_str(), ifname.as_str()])?;
        Ok(removed > 0)
    }

    fn change(
        &self,
        set: &str,
        key: &AttachmentKey,
        values: &[&dyn rusqlite::ToSql],
    ) -> Result<bool, StoreError> {
        let sql =
            format!("UPDATE attachment SET {set} WHERE network = ?1 AND container = ?2 AND ifname = ?3");
        let AttachmentKey { network, container, ifname } = key;
        let (network, container, ifname) = (network.as_str(), container.as_str(), ifname.as_str());
        let mut all: Vec<&dyn rusqlite::ToSql> = vec![&network, &container, &ifname];
        all.extend_from_slice(values);
        Ok(self.run().execute(&sql, all.as_slice())? > 0)
    }

    fn host_ifname_holder(&self, name: &IfName) -> Result<Option<AttachmentKey>, StoreError> {
        let sql = "SELECT network, container, ifname FROM attachment WHERE host_ifname = ?1";
        self.run().row(sql, [name.as_str()], |row| key(row, 0))
    }
}
