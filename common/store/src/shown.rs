//! What people call networks and containers that an engine knows by numbers. Only shown, never decided by: it is
//! learned late, from whoever knows, and may be missing.

use berth_types::AttachmentKey;
use rusqlite::params;

use crate::codec::key;
use crate::{ReadTx, StoreError, Tx};

impl ReadTx<'_> {
    /// Everything known, by key: the key and what was written of it.
    pub fn shown(&self) -> Result<Vec<(AttachmentKey, String)>, StoreError> {
        let sql = "SELECT network, container, ifname, payload FROM shown ORDER BY network, container, ifname";
        self.run().rows(sql, [], |row| Ok((key(row, 0)?, row.get(3)?)))
    }

    /// What is known of `of`.
    pub fn shown_of(&self, of: &AttachmentKey) -> Result<Option<String>, StoreError> {
        let AttachmentKey { network, container, ifname } = of;
        let sql = "SELECT payload FROM shown WHERE network = ?1 AND container = ?2 AND ifname = ?3";
        self.run().row(sql, params![network.as_str(), container.as_str(), ifname.as_str()], |row| row.get(0))
    }
}

impl Tx<'_> {
    /// Writes what is known of `of`.
    pub fn shown_put(&self, of: &AttachmentKey, payload: &str) -> Result<(), StoreError> {
        let AttachmentKey { network, container, ifname } = of;
        let sql =
            "INSERT OR REPLACE INTO shown (network, container, ifname, payload) VALUES (?1, ?2, ?3, ?4)";
        let values = params![network.as_str(), container.as_str(), ifname.as_str(), payload];
        self.run().execute(sql, values).map(drop)
    }

    /// Forgets what is known of `of`.
    pub fn shown_remove(&self, of: &AttachmentKey) -> Result<(), StoreError> {
        let AttachmentKey { network, container, ifname } = of;
        let sql = "DELETE FROM shown WHERE network = ?1 AND container = ?2 AND ifname = ?3";
        self.run().execute(sql, params![network.as_str(), container.as_str(), ifname.as_str()]).map(drop)
    }
}
