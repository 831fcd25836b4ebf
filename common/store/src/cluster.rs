//! What this node knows of its cluster when it cannot ask: who it is there, the cluster as last seen, and its blocks of
//! addresses. Durable (`state.db`): a node that boots while the cluster is away forwards as before, and gives from its blocks.

use std::net::IpAddr;

use berth_types::{NetworkName, NodeName};
use ipnetwork::IpNetwork;
use rusqlite::{Row, params};

use crate::codec::{Addr, parsed};
use crate::{ReadTx, StoreError, Tx};

/// Who this node is in its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterNode {
    /// Its name there.
    pub name: NodeName,
    /// Which host it is, whatever it is called.
    pub identity: String,
    /// Its epoch; 0 before it joined.
    pub epoch: u64,
    /// The caller's, versioned by the caller: how the cluster is reached, keys.
    pub payload: String,
}

/// How far a block of this node has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockStage {
    /// Addresses are given from it.
    Open,
    /// Nothing is given from it any more.
    Draining,
}

/// A block of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockRow {
    /// The network.
    pub network: NetworkName,
    /// The block.
    pub cidr: IpNetwork,
    /// How far it has come.
    pub stage: BlockStage,
    /// The caller's, versioned by the caller.
    pub payload: String,
}

/// Which way a single address went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LendDirection {
    /// Of this node's block, to another node.
    Given,
    /// To this node.
    Taken,
}

/// A single address that is not with its block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LendRow {
    /// The network.
    pub network: NetworkName,
    /// The address.
    pub address: IpAddr,
    /// Which way it went.
    pub direction: LendDirection,
    /// The caller's, versioned by the caller.
    pub payload: String,
}

impl BlockStage {
    fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Draining => "draining",
        }
    }
}

impl LendDirection {
    fn as_str(self) -> &'static str {
        match self {
            Self::Given => "given",
            Self::Taken => "taken",
        }
    }
}

fn read_node(row: &Row<'_>) -> rusqlite::Result<ClusterNode> {
    let epoch: i64 = row.get(2)?;
    Ok(ClusterNode {
        name: parsed(row, 0)?,
        identity: row.get(1)?,
        epoch: epoch.unsigned_abs(),
        payload: row.get(3)?,
    })
}

fn read_block(row: &Row<'_>) -> rusqlite::Result<BlockRow> {
    // The schema admits no third.
    let stage = if row.get_ref(2)?.as_str()? == "open" { BlockStage::Open } else { BlockStage::Draining };
    Ok(BlockRow { network: parsed(row, 0)?, cidr: parsed(row, 1)?, stage, payload: row.get(3)? })
}

fn read_lend(row: &Row<'_>) -> rusqlite::Result<LendRow> {
    let Addr(address) = row.get(1)?;
    let given = row.get_ref(2)?.as_str()? == "given";
    let direction = if given { LendDirection::Given } else { LendDirection::Taken };
    Ok(LendRow { network: parsed(row, 0)?, address, direction, payload: row.get(3)? })
}

impl ReadTx<'_> {
    /// Who this node is in its cluster; `None` if it is in none.
    pub fn cluster_node(&self) -> Result<Option<ClusterNode>, StoreError> {
        let Some(state) = self.state_if_there()? else { return Ok(None) };
        state.row("SELECT name, identity, epoch, payload FROM cluster_node", [], read_node)
    }

    /// The revision of the cluster that was last seen; 0 if none was.
    pub fn cluster_revision(&self) -> Result<i64, StoreError> {
        let Some(state) = self.state_if_there()? else { return Ok(0) };
        let revision = state.row("SELECT revision FROM cluster_seen", [], |row| row.get(0))?;
        Ok(revision.unwrap_or(0))
    }

    /// The cluster's records as last seen, by path: path and value.
    pub fn cluster_records(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let Some(state) = self.state_if_there()? else { return Ok(Vec::new()) };
        let sql = "SELECT path, value FROM cluster_record ORDER BY path";
        state.rows(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))
    }

    /// Tells `each` of the cluster's records as last seen, by path, one at a time: there may be tens of thousands.
    pub fn cluster_records_each(&self, mut each: impl FnMut(&str, &[u8])) -> Result<(), StoreError> {
        let Some(state) = self.state_if_there()? else { return Ok(()) };
        let sql = "SELECT path, value FROM cluster_record ORDER BY path";
        let read = |row: &Row<'_>| {
            let (path, value): (String, Vec<u8>) = (row.get(0)?, row.get(1)?);
            each(&path, &value);
            Ok(())
        };
        state.rows(sql, [], read).map(drop)
    }

    /// The cluster's records as last seen whose path begins with `prefix`, by path: path and value.
    pub fn cluster_records_below(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let Some(state) = self.state_if_there()? else { return Ok(Vec::new()) };
        let sql = "SELECT path, value FROM cluster_record WHERE path >= ?1 AND substr(path, 1, length(?1)) = ?1 ORDER BY path";
        state.rows(sql, [prefix], |row| Ok((row.get(0)?, row.get(1)?)))
    }

    /// This node's blocks of a network, by prefix.
    pub fn cluster_blocks(&self, network: &NetworkName) -> Result<Vec<BlockRow>, StoreError> {
        let Some(state) = self.state_if_there()? else { return Ok(Vec::new()) };
        let sql = "SELECT network, cidr, stage, payload FROM cluster_block WHERE network = ?1";
        let mut rows = state.rows(sql, [network.as_str()], read_block)?;
        rows.sort_by_key(|row| row.cidr);
        Ok(rows)
    }

    /// The networks that this node has blocks or single addresses of, by name.
    pub fn cluster_block_networks(&self) -> Result<Vec<NetworkName>, StoreError> {
        let Some(state) = self.state_if_there()? else { return Ok(Vec::new()) };
        let sql = "SELECT network FROM cluster_block UNION SELECT network FROM cluster_lend ORDER BY 1";
        state.rows(sql, [], |row| parsed(row, 0))
    }

    /// The single addresses of a network that this node gave or took, by address.
    pub fn cluster_lends(&self, network: &NetworkName) -> Result<Vec<LendRow>, StoreError> {
        let Some(state) = self.state_if_there()? else { return Ok(Vec::new()) };
        let sql = "SELECT network, address, direction, payload FROM cluster_lend WHERE network = ?1 ORDER BY address";
        state.rows(sql, [network.as_str()], read_lend)
    }
}

impl Tx<'_> {
    /// Writes down who this node is in its cluster.
    pub fn cluster_node_put(&self, node: &ClusterNode) -> Result<(), StoreError> {
        let ClusterNode { name, identity, epoch, payload } = node;
        let epoch = i64::try_from(*epoch).unwrap_or(i64::MAX);
        let sql = "INSERT OR REPLACE INTO cluster_node (id, name, identity, epoch, payload) VALUES (1, ?1, ?2, ?3, ?4)";
        self.state()?.execute(sql, params![name.as_str(), identity, epoch, payload]).map(drop)
    }

    /// Forgets the cluster: who this node was, what was seen, blocks and single addresses.
    pub fn cluster_forget(&self) -> Result<(), StoreError> {
        let Some(state) = self.state_if_there()? else { return Ok(()) };
        for sql in [
            "DELETE FROM cluster_node",
            "DELETE FROM cluster_seen",
            "DELETE FROM cluster_record",
            "DELETE FROM cluster_block",
            "DELETE FROM cluster_lend",
        ] {
            state.execute(sql, [])?;
        }
        Ok(())
    }

    /// Notes what was seen last at `revision`: of each path the value, or that it is gone.
    pub fn cluster_seen<V: AsRef<[u8]>>(
        &self,
        revision: i64,
        records: impl IntoIterator<Item = (impl AsRef<str>, Option<V>)>,
    ) -> Result<(), StoreError> {
        let state = self.state()?;
        for (path, value) in records {
            match value {
                Some(value) => {
                    let sql = "INSERT OR REPLACE INTO cluster_record (path, value) VALUES (?1, ?2)";
                    state.execute(sql, params![path.as_ref(), value.as_ref()])?;
                }
                None => drop(state.execute("DELETE FROM cluster_record WHERE path = ?1", [path.as_ref()])?),
            }
        }
        let sql = "INSERT OR REPLACE INTO cluster_seen (id, revision) VALUES (1, ?1)";
        state.execute(sql, [revision]).map(drop)
    }

    /// Writes down a block of this node, or what has become of it.
    pub fn cluster_block_put(&self, block: &BlockRow) -> Result<(), StoreError> {
        let BlockRow { network, cidr, stage, payload } = block;
        let sql =
            "INSERT OR REPLACE INTO cluster_block (network, cidr, stage, payload) VALUES (?1, ?2, ?3, ?4)";
        let values = params![network.as_str(), cidr.to_string(), stage.as_str(), payload];
        self.state()?.execute(sql, values).map(drop)
    }

    /// Forgets a block. Whether there was one.
    pub fn cluster_block_remove(&self, network: &NetworkName, cidr: IpNetwork) -> Result<bool, StoreError> {
        let Some(state) = self.state_if_there()? else { return Ok(false) };
        let sql = "DELETE FROM cluster_block WHERE network = ?1 AND cidr = ?2";
        Ok(state.execute(sql, params![network.as_str(), cidr.to_string()])? > 0)
    }

    /// Writes down a single address.
    pub fn cluster_lend_put(&self, lend: &LendRow) -> Result<(), StoreError> {
        let LendRow { network, address, direction, payload } = lend;
        let sql = "INSERT OR REPLACE INTO cluster_lend (network, address, direction, payload) VALUES (?1, ?2, ?3, ?4)";
        let values = params![network.as_str(), Addr(*address), direction.as_str(), payload];
        self.state()?.execute(sql, values).map(drop)
    }

    /// Forgets a single address. Whether there was one.
    pub fn cluster_lend_remove(&self, network: &NetworkName, address: IpAddr) -> Result<bool, StoreError> {
        let Some(state) = self.state_if_there()? else { return Ok(false) };
        let sql = "DELETE FROM cluster_lend WHERE network = ?1 AND address = ?2";
        Ok(state.execute(sql, params![network.as_str(), Addr(address)])? > 0)
    }
}
