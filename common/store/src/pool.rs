//! Pools that an engine opened without saying for which network, and how often each engine was started.

use rusqlite::params;

use crate::{ReadTx, StoreError, Tx};

impl ReadTx<'_> {
    /// An open pool, as its opener wrote it.
    pub fn pool(&self, id: &str) -> Result<Option<String>, StoreError> {
        self.run().row("SELECT payload FROM pool WHERE id = ?1", [id], |row| row.get(0))
    }

    /// All open pools, by id: id and payload.
    pub fn pools(&self) -> Result<Vec<(String, String)>, StoreError> {
        self.run().rows("SELECT id, payload FROM pool ORDER BY id", [], |row| Ok((row.get(0)?, row.get(1)?)))
    }

    /// How often `name` has been started in this boot.
    pub fn session(&self, name: &str) -> Result<i64, StoreError> {
        let number =
            self.run().row("SELECT number FROM session WHERE name = ?1", [name], |row| row.get(0))?;
        Ok(number.unwrap_or(0))
    }
}

impl Tx<'_> {
    /// Opens a pool, or replaces what was written of it.
    pub fn pool_put(&self, id: &str, payload: &str) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO pool (id, payload) VALUES (?1, ?2)";
        self.run().execute(sql, params![id, payload]).map(drop)
    }

    /// Closes a pool. Whether it was open.
    pub fn pool_remove(&self, id: &str) -> Result<bool, StoreError> {
        Ok(self.run().execute("DELETE FROM pool WHERE id = ?1", [id])? > 0)
    }

    /// Counts a start of `name`; the number of this one, from 1.
    pub fn session_begin(&self, name: &str) -> Result<i64, StoreError> {
        let sql = "INSERT INTO session (name, number) VALUES (?1, 1) \
                   ON CONFLICT (name) DO UPDATE SET number = number + 1";
        self.run().execute(sql, [name])?;
        self.session(name)
    }
}
