//! Members of this host's networks that are on other hosts: known by name and address, and in no namespace here.

use berth_types::{AttachmentKey, NetworkName};
use rusqlite::{Row, params};

use crate::codec::key;
use crate::{ReadTx, StoreError, Tx};

impl ReadTx<'_> {
    /// Tells `each` of everybody, by key: the key and what was written of it.
    pub fn elsewhere_each(&self, mut each: impl FnMut(AttachmentKey, String)) -> Result<(), StoreError> {
        let sql =
            "SELECT network, container, ifname, payload FROM elsewhere ORDER BY network, container, ifname";
        let read = |row: &Row<'_>| {
            each(key(row, 0)?, row.get(3)?);
            Ok(())
        };
        self.run().rows(sql, [], read).map(drop)
    }

    /// Those of one network, by key.
    pub fn elsewhere_on(&self, network: &NetworkName) -> Result<Vec<(AttachmentKey, String)>, StoreError> {
        let sql = "SELECT network, container, ifname, payload FROM elsewhere WHERE network = ?1 \
                   ORDER BY container, ifname";
        self.run().rows(sql, [network.as_str()], |row| Ok((key(row, 0)?, row.get(3)?)))
    }

    /// What is known of `of`.
    pub fn elsewhere_of(&self, of: &AttachmentKey) -> Result<Option<String>, StoreError> {
        let AttachmentKey { network, container, ifname } = of;
        let sql = "SELECT payload FROM elsewhere WHERE network = ?1 AND container = ?2 AND ifname = ?3";
        self.run().row(sql, params![network.as_str(), container.as_str(), ifname.as_str()], |row| row.get(0))
    }
}

impl Tx<'_> {
    /// Writes what is known of `of`.
    pub fn elsewhere_put(&self, of: &AttachmentKey, payload: &str) -> Result<(), StoreError> {
        let AttachmentKey { network, container, ifname } = of;
        let sql =
            "INSERT OR REPLACE INTO elsewhere (network, container, ifname, payload) VALUES (?1, ?2, ?3, ?4)";
        let values = params![network.as_str(), container.as_str(), ifname.as_str(), payload];
        self.run().execute(sql, values).map(drop)
    }

    /// Forgets `of`.
    pub fn elsewhere_remove(&self, of: &AttachmentKey) -> Result<(), StoreError> {
        let AttachmentKey { network, container, ifname } = of;
        let sql = "DELETE FROM elsewhere WHERE network = ?1 AND container = ?2 AND ifname = ?3";
        self.run().execute(sql, params![network.as_str(), container.as_str(), ifname.as_str()]).map(drop)
    }
}
