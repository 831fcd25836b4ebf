//! Networks that an engine knows by numbers of its own and berth by a name: which is which, durable (`state.db`).

use berth_types::NetworkName;
use rusqlite::{Row, params};

use crate::codec::parsed;
use crate::{ReadTx, StoreError, Tx, unix_ms};

/// A network, as an engine knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineNetworkRow {
    /// The engine's number of it.
    pub id: String,
    /// Its name here. An engine has each network once.
    pub network: NetworkName,
    /// The caller's, versioned by the caller.
    pub payload: String,
    /// When it was first put, milliseconds since 1970.
    pub created_ms: i64,
}

fn read(row: &Row<'_>) -> rusqlite::Result<EngineNetworkRow> {
    Ok(EngineNetworkRow {
        id: row.get(0)?,
        network: parsed(row, 1)?,
        payload: row.get(2)?,
        created_ms: row.get(3)?,
    })
}

impl ReadTx<'_> {
    /// The network that `engine` knows by `id`.
    pub fn engine_network(&self, engine: &str, id: &str) -> Result<Option<EngineNetworkRow>, StoreError> {
        let Some(state) = self.state_if_there()? else { return Ok(None) };
        let sql = "SELECT id, network, payload, created_ms FROM engine_network WHERE engine = ?1 AND id = ?2";
        state.row(sql, params![engine, id], read)
    }

    /// All networks of `engine`, by number.
    pub fn engine_networks(&self, engine: &str) -> Result<Vec<EngineNetworkRow>, StoreError> {
        let Some(state) = self.state_if_there()? else { return Ok(Vec::new()) };
        let sql = "SELECT id, network, payload, created_ms FROM engine_network WHERE engine = ?1 ORDER BY id";
        state.rows(sql, [engine], read)
    }
}

impl Tx<'_> {
    /// Notes that `engine` knows `network` by `id`. `false` if it knows that network by another number, or another network by
    /// that number: the schema refuses it.
    pub fn engine_network_add(
        &self,
        engine: &str,
        (id, network): (&str, &NetworkName),
        payload: &str,
    ) -> Result<bool, StoreError> {
        let sql = "INSERT INTO engine_network (engine, id, network, payload, created_ms) \
                   VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";
        let values = params![engine, id, network.as_str(), payload, unix_ms()];
        Ok(self.state()?.execute(sql, values)? > 0)
    }

    /// Forgets a number. Whether it was known.
    pub fn engine_network_remove(&self, engine: &str, id: &str) -> Result<bool, StoreError> {
        let Some(state) = self.state_if_there()? else { return Ok(false) };
        let sql = "DELETE FROM engine_network WHERE engine = ?1 AND id = ?2";
        Ok(state.execute(sql, params![engine, id])? > 0)
    }
}
