//! The rows behind the allocator. Policy (which address next, who may lose one) is `berth-ipam`'s; here is only what is
//! stored, and that an address of a scope has one holder.

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use berth_types::{AttachmentKey, NetworkName, SandboxId};
use rusqlite::{Row, params};

use crate::codec::{Addr, key, sandbox, sandbox_columns};
use crate::{BootTime, ReadTx, StoreError, Tx, unix_ms};

/// Within what an address is unique: a network, or a network in a data directory of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseScope(String);

impl LeaseScope {
    /// The scope of `network`; host-local's `dataDir` sets two networks of one name apart.
    pub fn new(network: &NetworkName, data_dir: Option<&Path>) -> Self {
        // `@` is in no network name.
        Self(data_dir.map_or_else(|| network.to_string(), |dir| format!("{network}@{}", dir.display())))
    }

    /// The scope as stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An address and who holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    /// The scope.
    pub scope: LeaseScope,
    /// The address.
    pub address: IpAddr,
    /// Who holds it.
    pub owner: AttachmentKey,
    /// The holder's sandbox, if one was given: the path and the namespace it led to.
    pub sandbox: Option<(PathBuf, SandboxId)>,
    /// When it was first given, milliseconds since 1970.
    pub created_ms: i64,
}

/// How far the never-used addresses of one range are handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Names the range in the rows of addresses taken from it; never 0, which stands for none.
    pub id: i64,
    /// The next address never used; `None` when all were.
    pub next: Option<IpAddr>,
}

/// An address that was used and is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freed {
    /// The address.
    pub address: IpAddr,
    /// Since when.
    pub since: BootTime,
}

const COLUMNS: &str =
    "scope, address, network, container, ifname, sandbox_path, sandbox_dev, sandbox_ino, created_ms";

fn read_lease(row: &Row<'_>) -> rusqlite::Result<LeaseRow> {
    let Addr(address) = row.get(1)?;
    Ok(LeaseRow {
        scope: LeaseScope(row.get(0)?),
        address,
        owner: key(row, 2)?,
        sandbox: sandbox(row, 5)?,
        created_ms: row.get(8)?,
    })
}

fn read_addr(row: &Row<'_>) -> rusqlite::Result<IpAddr> {
    let Addr(address) = row.get(0)?;
    Ok(address)
}

impl ReadTx<'_> {
    /// Who holds `address`.
    pub fn lease(&self, scope: &LeaseScope, address: IpAddr) -> Result<Option<LeaseRow>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM lease WHERE scope = ?1 AND address = ?2");
        self.run().row(&sql, params![scope.as_str(), Addr(address)], read_lease)
    }

    /// What `owner` holds, in all scopes, by address.
    pub fn leases_of(&self, owner: &AttachmentKey) -> Result<Vec<LeaseRow>, StoreError> {
        let AttachmentKey { network, container, ifname } = owner;
        let sql = format!(
            "SELECT {COLUMNS} FROM lease WHERE network = ?1 AND container = ?2 AND ifname = ?3 ORDER BY scope, address"
        );
        self.run().rows(&sql, params![network.as_str(), container.as_str(), ifname.as_str()], read_lease)
    }

    /// Every lease, by network and address.
    pub fn leases(&self) -> Result<Vec<LeaseRow>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM lease ORDER BY network, scope, address");
        self.run().rows(&sql, [], read_lease)
    }

    /// The leases of a network, in all its scopes, by address.
    pub fn leases_of_network(&self, network: &NetworkName) -> Result<Vec<LeaseRow>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM lease WHERE network = ?1 ORDER BY scope, address");
        self.run().rows(&sql, [network.as_str()], read_lease)
    }

    /// The leases from `first` to `last`, in order, until `each` breaks.
    pub fn leases_between(
        &self,
        scope: &LeaseScope,
        (first, last): (IpAddr, IpAddr),
        each: impl FnMut(LeaseRow) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM lease WHERE scope = ?1 AND address BETWEEN ?2 AND ?3 ORDER BY address"
        );
        self.run().each(&sql, params![scope.as_str(), Addr(first), Addr(last)], read_lease, each)
    }

    /// How many leases there are from `first` to `last`. Its time grows with the answer.
    pub fn lease_count(
        &self,
        scope: &LeaseScope,
        (first, last): (IpAddr, IpAddr),
    ) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM lease WHERE scope = ?1 AND address BETWEEN ?2 AND ?3";
        let count = self
            .run()
            .row(sql, params![scope.as_str(), Addr(first), Addr(last)], |row| row.get::<_, i64>(0))?;
        Ok(count.unwrap_or(0).unsigned_abs())
    }

    /// The addresses from `first` to `last` that are or were used or are kept for a name, in order and each possibly
    /// more than once, until `each` breaks.
    pub fn known_between(
        &self,
        scope: &LeaseScope,
        (first, last): (IpAddr, IpAddr),
        each: impl FnMut(IpAddr) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let sql = "SELECT address FROM lease WHERE scope = ?1 AND address BETWEEN ?2 AND ?3 \
                   UNION ALL SELECT address FROM freed WHERE scope = ?1 AND address BETWEEN ?2 AND ?3 \
                   UNION ALL SELECT address FROM kept WHERE scope = ?1 AND address BETWEEN ?2 AND ?3 ORDER BY 1";
        self.run().each(sql, params![scope.as_str(), Addr(first), Addr(last)], read_addr, each)
    }

    /// The cursor of the range that `spec` describes.
    pub fn cursor(&self, scope: &LeaseScope, spec: &str) -> Result<Option<Cursor>, StoreError> {
        let sql = "SELECT id, next FROM cursor WHERE scope = ?1 AND spec = ?2";
        self.run().row(sql, params![scope.as_str(), spec], |row| {
            let next: Option<Addr> = row.get(1)?;
            Ok(Cursor { id: row.get(0)?, next: next.map(|Addr(address)| address) })
        })
    }

    /// The address of a range that is free for the longest time.
    pub fn freed_oldest(&self, cursor: i64) -> Result<Option<Freed>, StoreError> {
        let sql = "SELECT address, freed_ms FROM freed WHERE cursor = ?1 ORDER BY freed_ms, address LIMIT 1";
        self.run().row(sql, [cursor], |row| {
            let Addr(address) = row.get(0)?;
            Ok(Freed { address, since: BootTime { millis: row.get(1)? } })
        })
    }
}

impl ReadTx<'_> {
    /// When the last address from `first` to `last` was taken back that nobody holds; `None` if there is none.
    pub fn freed_latest(
        &self,
        scope: &LeaseScope,
        (first, last): (IpAddr, IpAddr),
    ) -> Result<Option<BootTime>, StoreError> {
        let sql = "SELECT max(freed_ms) FROM freed WHERE scope = ?1 AND address BETWEEN ?2 AND ?3";
        let latest =
            self.run().row(sql, params![scope.as_str(), Addr(first), Addr(last)], |row| row.get(0))?;
        Ok(latest.flatten().map(|millis| BootTime { millis }))
    }
}

impl Tx<'_> {
    /// Gives `address` to `owner`. `false` if it has a holder: the schema refuses a second one. `cursor` is the range's,
    /// or 0 for an address that is only given on request.
    pub fn lease_add(
        &self,
        scope: &LeaseScope,
        address: IpAddr,
        (owner, sandbox): (&AttachmentKey, Option<&(PathBuf, SandboxId)>),
        cursor: i64,
    ) -> Result<bool, StoreError> {
        let AttachmentKey { network, container, ifname } = owner;
        let (path, dev, ino) = sandbox_columns(sandbox);
        let sql = format!(
            "INSERT INTO lease ({COLUMNS}, cursor) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) \
             ON CONFLICT DO NOTHING"
        );
        let (network, container, ifname) = (network.as_str(), container.as_str(), ifname.as_str());
        let values = params![
            scope.as_str(),
            Addr(address),
            network,
            container,
            ifname,
            path,
            dev,
            ino,
            unix_ms(),
            cursor
        ];
        if self.run().execute(&sql, values)? == 0 {
            return Ok(false);
        }
        let sql = "DELETE FROM freed WHERE scope = ?1 AND address = ?2";
        self.run().execute(sql, params![scope.as_str(), Addr(address)])?;
        Ok(true)
    }

    /// Records that the holder of `address` now has another sandbox.
    pub fn lease_move(
        &self,
        scope: &LeaseScope,
        address: IpAddr,
        sandbox: Option<&(PathBuf, SandboxId)>,
    ) -> Result<(), StoreError> {
        let (path, dev, ino) = sandbox_columns(sandbox);
        let sql = "UPDATE lease SET sandbox_path = ?3, sandbox_dev = ?4, sandbox_ino = ?5 \
                   WHERE scope = ?1 AND address = ?2";
        self.run().execute(sql, params![scope.as_str(), Addr(address), path, dev, ino]).map(drop)
    }

    /// Takes `address` back; it counts as free from `now`. Whether it had a holder.
    pub fn lease_remove(
        &self,
        scope: &LeaseScope,
        address: IpAddr,
        now: BootTime,
    ) -> Result<bool, StoreError> {
        let sql = "DELETE FROM lease WHERE scope = ?1 AND address = ?2 RETURNING cursor";
        let found: Option<i64> =
            self.run().row(sql, params![scope.as_str(), Addr(address)], |row| row.get(0))?;
        let Some(cursor) = found else { return Ok(false) };
        // An address kept for a name is no range's to hand out.
        let sql = "INSERT OR REPLACE INTO freed (scope, address, cursor, freed_ms) VALUES (?1, ?2, \
                   CASE WHEN EXISTS (SELECT 1 FROM kept WHERE scope = ?1 AND address = ?2) THEN 0 ELSE ?3 END, ?4)";
        self.run().execute(sql, params![scope.as_str(), Addr(address), cursor, now.millis])?;
        Ok(true)
    }

    /// Begins a cursor at `next`; its number.
    pub fn cursor_add(&self, scope: &LeaseScope, spec: &str, next: IpAddr) -> Result<i64, StoreError> {
        let sql = "INSERT INTO cursor (scope, spec, next) VALUES (?1, ?2, ?3)";
        self.run().execute(sql, params![scope.as_str(), spec, Addr(next)])?;
        Ok(self.run().last_id())
    }

    /// Moves a cursor; `None` is past the end.
    pub fn cursor_move(&self, id: i64, next: Option<IpAddr>) -> Result<(), StoreError> {
        self.run().execute("UPDATE cursor SET next = ?2 WHERE id = ?1", params![id, next.map(Addr)]).map(drop)
    }

    /// Makes the freed addresses from `first` to `last` the given range's, but for those kept for a name. How many
    /// there were.
    pub fn freed_adopt(
        &self,
        scope: &LeaseScope,
        (first, last): (IpAddr, IpAddr),
        cursor: i64,
    ) -> Result<usize, StoreError> {
        let sql = "UPDATE freed SET cursor = ?4 WHERE scope = ?1 AND address BETWEEN ?2 AND ?3 AND cursor <> ?4 \
                   AND NOT EXISTS (SELECT 1 FROM kept WHERE kept.scope = ?1 AND kept.address = freed.address)";
        self.run().execute(sql, params![scope.as_str(), Addr(first), Addr(last), cursor])
    }

    /// Forgets one freed address.
    pub fn freed_remove(&self, scope: &LeaseScope, address: IpAddr) -> Result<(), StoreError> {
        let sql = "DELETE FROM freed WHERE scope = ?1 AND address = ?2";
        self.run().execute(sql, params![scope.as_str(), Addr(address)]).map(drop)
    }

    /// Forgets a scope: leases, history, and addresses kept for names (in both databases). For a network that is gone.
    pub fn scope_forget(&self, scope: &LeaseScope) -> Result<(), StoreError> {
        for sql in [
            "DELETE FROM lease WHERE scope = ?1",
            "DELETE FROM freed WHERE scope = ?1",
            "DELETE FROM cursor WHERE scope = ?1",
            "DELETE FROM kept WHERE scope = ?1",
        ] {
            self.run().execute(sql, [scope.as_str()])?;
        }
        if let Some(state) = self.state_if_there()? {
            state.execute("DELETE FROM static_lease WHERE scope = ?1", [scope.as_str()])?;
        }
        Ok(())
    }
}
