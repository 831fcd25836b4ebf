//! Published ports: each port of the host has at most one owner.

use std::net::IpAddr;

use berth_types::{AttachmentKey, Family, Proto, PublishedPort};
use rusqlite::{Row, params};

use crate::codec::{Addr, key};
use crate::{ReadTx, StoreError, Tx};

/// A port of the host that another attachment, or the same one for another target, holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "host port {port}/{proto} on {host_addr} is published by {holder} already (on {held_addr})\n\
     publish on another port or address, or remove that container"
)]
pub struct PortTaken {
    /// The transport protocol.
    pub proto: Proto,
    /// The address asked for.
    pub host_addr: IpAddr,
    /// The port asked for.
    pub port: u16,
    /// The address it is held on: the same, or the unspecified one on either side.
    pub held_addr: IpAddr,
    /// Who holds it.
    pub holder: AttachmentKey,
}

/// Why ports cannot be claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// One of them is taken.
    #[error(transparent)]
    Taken(#[from] PortTaken),
    /// The records failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One port of one address, as stored.
struct PortRow {
    host_addr: IpAddr,
    owner: AttachmentKey,
    target: IpAddr,
    target_port: u16,
}

fn read_port(row: &Row<'_>) -> rusqlite::Result<PortRow> {
    let (Addr(host_addr), Addr(target)) = (row.get(0)?, row.get(4)?);
    Ok(PortRow { host_addr, owner: key(row, 1)?, target, target_port: row.get(5)? })
}

/// The list as published, or an error that SQLite's own conversion errors are reported with.
fn read_published(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<PublishedPort>> {
    serde_json::from_str(row.get_ref(column)?.as_str()?).map_err(|err| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(err))
    })
}

impl ReadTx<'_> {
    /// Everything published, by owner, as it was claimed.
    pub fn ports(&self) -> Result<Vec<(AttachmentKey, PublishedPort)>, StoreError> {
        let sql =
            "SELECT network, container, ifname, payload FROM published ORDER BY network, container, ifname";
        let lists = self.run().rows(sql, [], |row| Ok((key(row, 0)?, read_published(row, 3)?)))?;
        let flat = |(owner, ports): (AttachmentKey, Vec<PublishedPort>)| {
            ports.into_iter().map(move |port| (owner.clone(), port))
        };
        Ok(lists.into_iter().flat_map(flat).collect())
    }

    /// What `owner` has published, as it was claimed.
    pub fn ports_of(&self, owner: &AttachmentKey) -> Result<Vec<PublishedPort>, StoreError> {
        let AttachmentKey { network, container, ifname } = owner;
        let sql = "SELECT payload FROM published WHERE network = ?1 AND container = ?2 AND ifname = ?3";
        let params = params![network.as_str(), container.as_str(), ifname.as_str()];
        Ok(self.run().row(sql, params, |row| read_published(row, 0))?.unwrap_or_default())
    }

    /// Whoever a connection to this port of this address of the host is led to.
    pub fn port_holder(
        &self,
        proto: Proto,
        addr: IpAddr,
        port: u16,
    ) -> Result<Option<AttachmentKey>, StoreError> {
        let rows = self.port_rows(proto, port)?;
        Ok(rows.into_iter().find(|row| meets(row.host_addr, addr)).map(|row| row.owner))
    }

    fn port_rows(&self, proto: Proto, port: u16) -> Result<Vec<PortRow>, StoreError> {
        let sql = "SELECT host_addr, network, container, ifname, target, target_port FROM port \
                   WHERE proto = ?1 AND port = ?2";
        self.run().rows(sql, params![proto.number(), port], read_port)
    }
}

impl Tx<'_> {
    /// Claims every port of `ports` for `owner`, all or (with the transaction rolled back) none.
    ///
    /// The unspecified address stands for all addresses of its family, so it conflicts with each of them and they with
    /// it; one port on two given addresses does not conflict. A claim that `owner` has already is no change.
    pub fn ports_claim(&self, owner: &AttachmentKey, ports: &[PublishedPort]) -> Result<(), ClaimError> {
        let mut published = self.ports_of(owner)?;
        let before = published.len();
        for wanted in ports {
            if published.contains(wanted) {
                continue;
            }
            for offset in 0..wanted.count {
                self.port_claim(owner, wanted, offset)?;
            }
            published.push(*wanted);
        }
        if published.len() > before {
            let payload =
                serde_json::to_string(&published).expect("ports have no keys that JSON cannot hold");
            let AttachmentKey { network, container, ifname } = owner;
            self.run().execute(
                "INSERT OR REPLACE INTO published (network, container, ifname, payload) VALUES (?1, ?2, ?3, ?4)",
                params![network.as_str(), container.as_str(), ifname.as_str(), payload],
            )?;
        }
        Ok(())
    }

    fn port_claim(
        &self,
        owner: &AttachmentKey,
        wanted: &PublishedPort,
        offset: u16,
    ) -> Result<(), ClaimError> {
        let PublishedPort { proto, host_addr, host_port, target, target_port, count: _ } = *wanted;
        let (port, target_port) = (host_port.saturating_add(offset), target_port.saturating_add(offset));
        for held in self.port_rows(proto, port)? {
            if !meets(held.host_addr, host_addr) {
                continue;
            }
            // Overlapping ranges of one owner with the same targets are one claim written twice.
            let same = held.owner == *owner
                && (held.host_addr, held.target, held.target_port) == (host_addr, target, target_port);
            if same {
                return Ok(());
            }
            let PortRow { host_addr: held_addr, owner: holder, .. } = held;
            return Err(PortTaken { proto, host_addr, port, held_addr, holder }.into());
        }
        let AttachmentKey { network, container, ifname } = owner;
        self.run().execute(
            "INSERT INTO port (proto, port, host_addr, network, container, ifname, target, target_port) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                proto.number(),
                port,
                Addr(host_addr),
                network.as_str(),
                container.as_str(),
                ifname.as_str(),
                Addr(target),
                target_port
            ],
        )?;
        Ok(())
    }

    /// Gives up all ports of `owner`; what they were, as they were claimed.
    pub fn ports_release(&self, owner: &AttachmentKey) -> Result<Vec<PublishedPort>, StoreError> {
        let published = self.ports_of(owner)?;
        let AttachmentKey { network, container, ifname } = owner;
        for sql in [
            "DELETE FROM port WHERE network = ?1 AND container = ?2 AND ifname = ?3",
            "DELETE FROM published WHERE network = ?1 AND container = ?2 AND ifname = ?3",
        ] {
            self.run().execute(sql, params![network.as_str(), container.as_str(), ifname.as_str()])?;
        }
        Ok(published)
    }
}

/// Whether one packet could be for both addresses.
fn meets(one: IpAddr, other: IpAddr) -> bool {
    Family::of(one) == Family::of(other) && (one == other || one.is_unspecified() || other.is_unspecified())
}
