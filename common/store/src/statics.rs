//! Addresses kept for a name: durable in `state.db`, mirrored in `run.db` so that giving an address does not open the
//! durable file.

use std::net::IpAddr;

use rusqlite::{Row, params};

use crate::codec::Addr;
use crate::{BootTime, LeaseScope, ReadTx, StoreError, Tx, unix_ms};

/// An address kept for a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticLease {
    /// The address.
    pub address: IpAddr,
    /// The name it is kept for.
    pub name: String,
    /// When it was last given to that name, milliseconds since 1970.
    pub used_ms: i64,
}

fn read(row: &Row<'_>) -> rusqlite::Result<StaticLease> {
    let Addr(address) = row.get(0)?;
    Ok(StaticLease { address, name: row.get(1)?, used_ms: row.get(2)? })
}

impl ReadTx<'_> {
    /// The kept addresses of a scope, from `state.db`, by address.
    pub fn static_leases(&self, scope: &LeaseScope) -> Result<Vec<StaticLease>, StoreError> {
        let Some(state) = self.state_if_there()? else { return Ok(Vec::new()) };
        let sql = "SELECT address, name, used_ms FROM static_lease WHERE scope = ?1 ORDER BY address";
        state.rows(sql, [scope.as_str()], read)
    }

    /// The addresses kept for `name`, from the mirror, by address.
    pub fn kept_for(&self, scope: &LeaseScope, name: &str) -> Result<Vec<StaticLease>, StoreError> {
        let sql = "SELECT address, name, used_ms FROM kept WHERE scope = ?1 AND name = ?2 ORDER BY address";
        self.run().rows(sql, params![scope.as_str(), name], read)
    }

    /// The kept address from `first` to `last` that nobody holds and that was given longest ago, from the mirror.
    pub fn kept_idle(
        &self,
        scope: &LeaseScope,
        (first, last): (IpAddr, IpAddr),
    ) -> Result<Option<StaticLease>, StoreError> {
        let sql = "SELECT address, name, used_ms FROM kept WHERE scope = ?1 AND address BETWEEN ?2 AND ?3 \
                   AND NOT EXISTS (SELECT 1 FROM lease WHERE lease.scope = ?1 AND lease.address = kept.address) \
                   ORDER BY used_ms, address LIMIT 1";
        self.run().row(sql, params![scope.as_str(), Addr(first), Addr(last)], read)
    }
}

impl Tx<'_> {
    /// Copies the scope's kept addresses from `state.db` into the mirror. Once per boot and range is enough.
    pub fn kept_mirror(&self, scope: &LeaseScope) -> Result<(), StoreError> {
        for StaticLease { address, name, used_ms } in self.static_leases(scope)? {
            let sql = "INSERT OR REPLACE INTO kept (scope, address, name, used_ms) VALUES (?1, ?2, ?3, ?4)";
            self.run().execute(sql, params![scope.as_str(), Addr(address), name, used_ms])?;
        }
        Ok(())
    }

    /// Keeps `address` for `name`, in both databases; whoever it was kept for before loses it.
    pub fn static_lease_put(
        &self,
        scope: &LeaseScope,
        address: IpAddr,
        name: &str,
    ) -> Result<(), StoreError> {
        let now = unix_ms();
        let sql =
            "INSERT OR REPLACE INTO static_lease (scope, address, name, used_ms) VALUES (?1, ?2, ?3, ?4)";
        self.state()?.execute(sql, params![scope.as_str(), Addr(address), name, now])?;
        let sql = "INSERT OR REPLACE INTO kept (scope, address, name, used_ms) VALUES (?1, ?2, ?3, ?4)";
        self.run().execute(sql, params![scope.as_str(), Addr(address), name, now])?;
        let sql = "UPDATE freed SET cursor = 0 WHERE scope = ?1 AND address = ?2";
        self.run().execute(sql, params![scope.as_str(), Addr(address)]).map(drop)
    }

    /// Ends the keeping of `address`. If nobody holds it, it is free from `now`. Whether it was kept.
    pub fn static_lease_remove(
        &self,
        scope: &LeaseScope,
        address: IpAddr,
        now: BootTime,
    ) -> Result<bool, StoreError> {
        let mut removed = 0;
        if let Some(state) = self.state_if_there()? {
            let sql = "DELETE FROM static_lease WHERE scope = ?1 AND address = ?2";
            removed += state.execute(sql, params![scope.as_str(), Addr(address)])?;
        }
        let sql = "DELETE FROM kept WHERE scope = ?1 AND address = ?2";
        removed += self.run().execute(sql, params![scope.as_str(), Addr(address)])?;
        if removed > 0 && self.lease(scope, address)?.is_none() {
            let sql = "INSERT INTO freed (scope, address, cursor, freed_ms) VALUES (?1, ?2, 0, ?3) \
                       ON CONFLICT DO NOTHING";
            self.run().execute(sql, params![scope.as_str(), Addr(address), now.millis])?;
        }
        Ok(removed > 0)
    }
}
