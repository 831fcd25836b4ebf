//! The cluster this host is in and how it was last seen (`state.db`): what a node is that starts while nobody answers.

use rusqlite::params;

use crate::{ReadTx, StoreError, Tx};

/// A cluster as last seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterSeen {
    /// When that was, in the cluster's own count.
    pub revision: i64,
    /// Its records: key and value, by key.
    pub records: Vec<(String, Vec<u8>)>,
}

impl ReadTx<'_> {
    /// This host's membership, versioned by the caller; `None` where it is in no cluster.
    pub fn cluster(&self) -> Result<Option<String>, StoreError> {
        let Some(state) = self.state_if_there()? else { return Ok(None) };
        state.row("SELECT payload FROM cluster", [], |row| row.get(0))
    }

    /// How the cluster was last seen.
    pub fn cluster_seen(&self) -> Result<ClusterSeen, StoreError> {
        let Some(state) = self.state_if_there()? else { return Ok(ClusterSeen::default()) };
        let revision = state.row("SELECT revision FROM cluster", [], |row| row.get(0))?;
        let sql = "SELECT key, value FROM cluster_seen ORDER BY key";
        let records = state.rows(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(ClusterSeen { revision: revision.unwrap_or_default(), records })
    }
}

impl Tx<'_> {
    /// Writes this host's membership. What was seen of the cluster stays.
    pub fn cluster_put(&self, payload: &str) -> Result<(), StoreError> {
        let sql = "INSERT INTO cluster (only, payload, revision) VALUES (1, ?1, 0) \
                   ON CONFLICT (only) DO UPDATE SET payload = excluded.payload";
        self.state()?.execute(sql, [payload]).map(drop)
    }

    /// Forgets the cluster, and how it was seen.
    pub fn cluster_forget(&self) -> Result<(), StoreError> {
        let Some(state) = self.state_if_there()? else { return Ok(()) };
        state.execute("DELETE FROM cluster_seen", [])?;
        state.execute("DELETE FROM cluster", []).map(drop)
    }

    /// Notes what has changed of the cluster, up to `revision`: records that are new or others, and keys that are gone.
    pub fn cluster_note(
        &self,
        revision: i64,
        put: &[(String, Vec<u8>)],
        gone: &[String],
    ) -> Result<(), StoreError> {
        let state = self.state()?;
        for key in gone {
            state.execute("DELETE FROM cluster_seen WHERE key = ?1", [key])?;
        }
        for (key, value) in put {
            let sql = "INSERT OR REPLACE INTO cluster_seen (key, value) VALUES (?1, ?2)";
            state.execute(sql, params![key, value])?;
        }
        state.execute("UPDATE cluster SET revision = ?1", [revision]).map(drop)
    }
}
