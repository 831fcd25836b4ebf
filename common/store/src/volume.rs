//! Volumes, which outlive a boot, and who uses them, which does not.

use std::fmt;
use std::str::FromStr;

use berth_types::{BootId, VolumeName};
use rusqlite::{Row, params};

use crate::codec::parsed;
use crate::{BootTime, Owner, ReadTx, StoreError, Tx, unix_ms};

/// How far a volume has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeState {
    /// Its owner is making it; if the owner is dead, it is half made and has no data that anybody was told of.
    Pending,
    /// It is there.
    Ready,
    /// Its owner is removing it; if the owner is dead, it is half gone.
    Removing,
}

impl VolumeState {
    /// The stored word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ready => "ready",
            Self::Removing => "removing",
        }
    }
}

impl fmt::Display for VolumeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The stored state is none of the three.
#[derive(Debug, thiserror::Error)]
#[error("unknown volume state")]
struct UnknownState;

struct StoredState(VolumeState);

impl FromStr for StoredState {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, UnknownState> {
        [VolumeState::Pending, VolumeState::Ready, VolumeState::Removing]
            .into_iter()
            .find(|state| state.as_str() == text)
            .map(Self)
            .ok_or(UnknownState)
    }
}

/// A volume as recorded (`state.db`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeRow {
    /// Its name.
    pub name: VolumeName,
    /// How far it has come.
    pub state: VolumeState,
    /// The boot in which `state` was changed last.
    pub boot_id: BootId,
    /// The process that changed `state` last.
    pub owner: Owner,
    /// The caller's, versioned by the caller.
    pub payload: String,
    /// When it was begun, milliseconds since 1970.
    pub created_ms: i64,
}

impl VolumeRow {
    /// Whether the process that changed the state last still runs, in this boot.
    pub fn is_owner_alive(&self, boot: &BootId) -> bool {
        self.boot_id == *boot && self.owner.is_alive()
    }
}

/// One user of a volume (`run.db`): an engine's mount id, or a place where it was mounted by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeUse {
    /// The volume.
    pub volume: VolumeName,
    /// Who, in the words of `source`.
    pub user: String,
    /// Through which door it came, for instance `docker`.
    pub source: String,
    /// How often it took the volume and did not give it back.
    pub count: u32,
    /// When it took it last.
    pub since: BootTime,
}

fn read_volume(row: &Row<'_>) -> rusqlite::Result<VolumeRow> {
    let StoredState(state) = parsed(row, 1)?;
    let start: i64 = row.get(4)?;
    Ok(VolumeRow {
        name: parsed(row, 0)?,
        state,
        boot_id: BootId::new(row.get_ref(2)?.as_str()?),
        owner: Owner { pid: row.get(3)?, start: start.cast_unsigned() },
        payload: row.get(5)?,
        created_ms: row.get(6)?,
    })
}

fn read_use(row: &Row<'_>) -> rusqlite::Result<VolumeUse> {
    Ok(VolumeUse {
        volume: parsed(row, 0)?,
        user: row.get(1)?,
        source: row.get(2)?,
        count: row.get(3)?,
        since: BootTime { millis: row.get(4)? },
    })
}

const VOLUME: &str = "SELECT name, state, boot_id, owner_pid, owner_start, payload, created_ms FROM volume";
const USE: &str = "SELECT volume, user, source, count, since_ms FROM volume_use";

impl ReadTx<'_> {
    /// A volume.
    pub fn volume(&self, name: &VolumeName) -> Result<Option<VolumeRow>, StoreError> {
        let Some(state) = self.state_if_there()? else { return Ok(None) };
        state.row(&format!("{VOLUME} WHERE name = ?1"), [name.as_str()], read_volume)
    }

    /// The volumes, by name.
    pub fn volumes(&self) -> Result<Vec<VolumeRow>, StoreError> {
        let Some(state) = self.state_if_there()? else { return Ok(Vec::new()) };
        state.rows(&format!("{VOLUME} ORDER BY name"), [], read_volume)
    }

    /// Who uses the volume, by user.
    pub fn volume_uses(&self, name: &VolumeName) -> Result<Vec<VolumeUse>, StoreError> {
        self.run().rows(&format!("{USE} WHERE volume = ?1 ORDER BY user"), [name.as_str()], read_use)
    }

    /// Who uses which volume, by volume and user.
    pub fn all_volume_uses(&self) -> Result<Vec<VolumeUse>, StoreError> {
        self.run().rows(&format!("{USE} ORDER BY volume, user"), [], read_use)
    }
}

impl Tx<'_> {
    /// Records a volume, of this process. `false`: the name is recorded already, and nothing was changed.
    pub fn volume_insert(
        &self,
        name: &VolumeName,
        state: VolumeState,
        payload: &str,
    ) -> Result<bool, StoreError> {
        let sql = "INSERT INTO volume (name, state, boot_id, owner_pid, owner_start, payload, created_ms) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING";
        let owner = Owner::current();
        let params = params![
            name.as_str(),
            state.as_str(),
            self.boot().as_str(),
            owner.pid,
            owner.start.cast_signed(),
            payload,
            unix_ms(),
        ];
        Ok(self.state()?.execute(sql, params)? > 0)
    }

    /// Changes how far a volume has come, and what the caller keeps of it; this process owns it then.
    pub fn volume_update(
        &self,
        name: &VolumeName,
        state: VolumeState,
        payload: &str,
    ) -> Result<(), StoreError> {
        let sql = "UPDATE volume SET state = ?2, boot_id = ?3, owner_pid = ?4, owner_start = ?5, payload = ?6 \
                   WHERE name = ?1";
        let owner = Owner::current();
        let params = params![
            name.as_str(),
            state.as_str(),
            self.boot().as_str(),
            owner.pid,
            owner.start.cast_signed(),
            payload,
        ];
        self.state()?.execute(sql, params).map(drop)
    }

    /// Gives a volume another name. `false`: that name is recorded already, and nothing was changed.
    pub fn volume_rename(&self, name: &VolumeName, new: &VolumeName) -> Result<bool, StoreError> {
        if self.volume(new)?.is_some() {
            return Ok(false);
        }
        let names = [name.as_str(), new.as_str()];
        self.state()?.execute("UPDATE volume SET name = ?2 WHERE name = ?1", names)?;
        self.run().execute("UPDATE volume_use SET volume = ?2 WHERE volume = ?1", names)?;
        Ok(true)
    }

    /// Forgets a volume and who uses it.
    pub fn volume_remove(&self, name: &VolumeName) -> Result<(), StoreError> {
        if let Some(state) = self.state_if_there()? {
            state.execute("DELETE FROM volume WHERE name = ?1", [name.as_str()])?;
        }
        self.run().execute("DELETE FROM volume_use WHERE volume = ?1", [name.as_str()]).map(drop)
    }

    /// Notes that `user` took the volume once more.
    pub fn volume_use_add(&self, name: &VolumeName, user: &str, source: &str) -> Result<(), StoreError> {
        let sql = "INSERT INTO volume_use (volume, user, source, count, since_ms) VALUES (?1, ?2, ?3, 1, ?4) \
                   ON CONFLICT (volume, user) DO UPDATE SET \
                   count = min(count + 1, 1000000000), source = excluded.source, since_ms = excluded.since_ms";
        let now = BootTime::now().millis;
        self.run().execute(sql, params![name.as_str(), user, source, now]).map(drop)
    }

    /// Notes that `user` gave the volume back once. One that had not taken it is no error.
    pub fn volume_use_give_back(&self, name: &VolumeName, user: &str) -> Result<(), StoreError> {
        let params = [name.as_str(), user];
        let sql = "DELETE FROM volume_use WHERE volume = ?1 AND user = ?2 AND count <= 1";
        if self.run().execute(sql, params)? == 0 {
            let sql = "UPDATE volume_use SET count = count - 1 WHERE volume = ?1 AND user = ?2";
            self.run().execute(sql, params)?;
        }
        Ok(())
    }

    /// Forgets that `user` uses the volume, however often it took it. Whether it did.
    pub fn volume_use_forget(&self, name: &VolumeName, user: &str) -> Result<bool, StoreError> {
        let sql = "DELETE FROM volume_use WHERE volume = ?1 AND user = ?2";
        Ok(self.run().execute(sql, [name.as_str(), user])? > 0)
    }
}
