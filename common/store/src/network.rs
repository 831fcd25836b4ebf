//! Networks: the declared ones, which outlive a boot, and the live ones, which the kernel has now.

use berth_types::{BootId, IfName, NetworkName};
use rusqlite::{Row, params};

use crate::codec::{parsed, parsed_opt};
use crate::{ReadTx, StoreError, Tx, unix_ms};

/// A declared network (`state.db`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkRow {
    /// Its name.
    pub name: NetworkName,
    /// The caller's, versioned by the caller.
    pub payload: String,
    /// When it was first put, milliseconds since 1970.
    pub created_ms: i64,
}

/// A network that is set up in the kernel (`run.db`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveNetworkRow {
    /// Its name.
    pub name: NetworkName,
    /// Its bridge, if it has one. Several networks may share a bridge.
    pub bridge: Option<IfName>,
    /// The caller's, versioned by the caller.
    pub payload: String,
    /// The boot it was set up in; in another one it is not set up.
    pub boot_id: BootId,
}

fn read_network(row: &Row<'_>) -> rusqlite::Result<NetworkRow> {
    Ok(NetworkRow { name: parsed(row, 0)?, payload: row.get(1)?, created_ms: row.get(2)? })
}

fn read_live(row: &Row<'_>) -> rusqlite::Result<LiveNetworkRow> {
    Ok(LiveNetworkRow {
        name: parsed(row, 0)?,
        bridge: parsed_opt(row, 1)?,
        payload: row.get(2)?,
        boot_id: BootId::new(row.get_ref(3)?.as_str()?),
    })
}

impl ReadTx<'_> {
    /// A declared network.
    pub fn network(&self, name: &NetworkName) -> Result<Option<NetworkRow>, StoreError> {
        let Some(state) = self.state_if_there()? else { return Ok(None) };
        let sql = "SELECT name, payload, created_ms FROM network WHERE name = ?1";
        state.row(sql, [name.as_str()], read_network)
    }

    /// The declared networks, by name.
    pub fn networks(&self) -> Result<Vec<NetworkRow>, StoreError> {
        let Some(state) = self.state_if_there()? else { return Ok(Vec::new()) };
        state.rows("SELECT name, payload, created_ms FROM network ORDER BY name", [], read_network)
    }

    /// A live network, of whatever boot.
    pub fn live_network(&self, name: &NetworkName) -> Result<Option<LiveNetworkRow>, StoreError> {
        let sql = "SELECT name, bridge, payload, boot_id FROM network WHERE name = ?1";
        self.run().row(sql, [name.as_str()], read_live)
    }

    /// The live networks of whatever boot, by name.
    pub fn live_networks(&self) -> Result<Vec<LiveNetworkRow>, StoreError> {
        self.run().rows("SELECT name, bridge, payload, boot_id FROM network ORDER BY name", [], read_live)
    }
}

impl Tx<'_> {
    /// Declares a network, or replaces its payload.
    pub fn network_put(&self, name: &NetworkName, payload: &str) -> Result<(), StoreError> {
        let sql = "INSERT INTO network (name, payload, created_ms) VALUES (?1, ?2, ?3) \
                   ON CONFLICT (name) DO UPDATE SET payload = excluded.payload";
        self.state()?.execute(sql, params![name.as_str(), payload, unix_ms()]).map(drop)
    }

    /// Forgets a declared network. Whether there was one.
    pub fn network_remove(&self, name: &NetworkName) -> Result<bool, StoreError> {
        let Some(state) = self.state_if_there()? else { return Ok(false) };
        Ok(state.execute("DELETE FROM network WHERE name = ?1", [name.as_str()])? > 0)
    }

    /// Records that the network is set up in this boot, or replaces what was recorded.
    pub fn live_network_put(
        &self,
        name: &NetworkName,
        bridge: Option<&IfName>,
        payload: &str,
    ) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO network (name, bridge, payload, boot_id) VALUES (?1, ?2, ?3, ?4)";
        let bridge = bridge.map(IfName::as_str);
        self.run().execute(sql, params![name.as_str(), bridge, payload, self.boot().as_str()]).map(drop)
    }

    /// Forgets a live network. Whether there was one.
    pub fn live_network_remove(&self, name: &NetworkName) -> Result<bool, StoreError> {
        Ok(self.run().execute("DELETE FROM network WHERE name = ?1", [name.as_str()])? > 0)
    }
}
