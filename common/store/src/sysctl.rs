//! Values of sysctls before berth changed them, to be put back by whoever no longer needs the change, and the links
//! that were closed to each other because of them.

use berth_types::{BootId, Family, IfName};
use rusqlite::params;

use crate::codec::parsed;
use crate::{ReadTx, StoreError, Tx};

/// A changed sysctl.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedSysctl {
    /// Its path under `/proc/sys`, such as `net/ipv4/ip_forward`.
    pub key: String,
    /// The value found.
    pub before: String,
    /// The value berth wrote. If it is another by now, somebody else changed it and it is theirs.
    pub after: String,
    /// The boot it was changed in.
    pub boot_id: BootId,
}

impl ReadTx<'_> {
    /// The changed sysctls of this boot, by key.
    pub fn sysctls_saved(&self) -> Result<Vec<SavedSysctl>, StoreError> {
        self.run().rows("SELECT key, before, after, boot_id FROM sysctl_saved ORDER BY key", [], |row| {
            Ok(SavedSysctl {
                key: row.get(0)?,
                before: row.get(1)?,
                after: row.get(2)?,
                boot_id: BootId::new(row.get_ref(3)?.as_str()?),
            })
        })
    }
}

impl ReadTx<'_> {
    /// The links between which nothing of the family is forwarded, because berth turned its forwarding on.
    pub fn uplinks_closed(&self) -> Result<Vec<(Family, IfName)>, StoreError> {
        self.run().rows("SELECT family, link FROM uplink_closed ORDER BY family, link", [], |row| {
            let family = if row.get::<_, i64>(0)? == number(Family::V4) { Family::V4 } else { Family::V6 };
            Ok((family, parsed(row, 1)?))
        })
    }
}

/// A family as stored: the version of its protocol.
const fn number(family: Family) -> i64 {
    match family {
        Family::V4 => 4,
        Family::V6 => 6,
    }
}

impl Tx<'_> {
    /// Remembers that a link was closed. Whether it was not before.
    pub fn uplink_close(&self, family: Family, link: &IfName) -> Result<bool, StoreError> {
        let sql = "INSERT INTO uplink_closed (family, link) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        Ok(self.run().execute(sql, params![number(family), link.as_str()])? > 0)
    }

    /// Forgets a closed link.
    pub fn uplink_forget(&self, family: Family, link: &IfName) -> Result<(), StoreError> {
        let sql = "DELETE FROM uplink_closed WHERE family = ?1 AND link = ?2";
        self.run().execute(sql, params![number(family), link.as_str()]).map(drop)
    }

    /// Forgets all closed links.
    pub fn uplinks_forget(&self) -> Result<(), StoreError> {
        self.run().execute("DELETE FROM uplink_closed", []).map(drop)
    }

    /// Remembers what a sysctl was, unless that is remembered already: the first value is the host's own. Whether it
    /// was new.
    pub fn sysctl_save(&self, key: &str, before: &str, after: &str) -> Result<bool, StoreError> {
        let sql = "INSERT INTO sysctl_saved (key, before, after, boot_id) VALUES (?1, ?2, ?3, ?4) \
                   ON CONFLICT DO NOTHING";
        Ok(self.run().execute(sql, params![key, before, after, self.boot().as_str()])? > 0)
    }

    /// Forgets a saved value. Whether there was one.
    pub fn sysctl_forget(&self, key: &str) -> Result<bool, StoreError> {
        Ok(self.run().execute("DELETE FROM sysctl_saved WHERE key = ?1", [key])? > 0)
    }
}
