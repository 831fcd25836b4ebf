//! Pools that an engine opens by themselves and asks for addresses, long before it says what they are for.
//!
//! Such an engine asks for everything it holds again when it starts (Docker's *request replay*). What was held before
//! that start and is asked for again is a replay, and given again; asked for twice since the start, it is taken. So each
//! pool and each address carries the number of the engine's start, the *session*, in which it was last asked for.

use std::collections::BTreeSet;
use std::net::IpAddr;

use berth_ipam::choose::{choose_v4, choose_v6, default_pools};
use berth_ipam::{AllocateError, ConfigError, PoolConfig, Request, allocate};
use berth_store::{BootTime, LeaseScope, ReadTx, Tx, unix_ms};
use berth_types::{Family, NetworkName};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::attach::payload;
use crate::berth::{Berth, parsed};
use crate::error::CoreError;
use crate::hold::{Holder, random_number};
use crate::network::subnet_of;
use crate::plan::overlap;
use crate::published::Held;

/// An open pool. Stored as JSON; `version` tells the layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Layout of this record; 1 so far.
    pub version: u32,
    /// Who opened it: the name under which the engine knows berth.
    pub driver: String,
    /// The subnet.
    pub subnet: IpNetwork,
    /// The part of it that is given out unasked; absent is all of it.
    pub range: Option<IpNetwork>,
    /// Its gateway, once one was asked for.
    pub gateway: Option<IpAddr>,
    /// Choices of whoever opened it.
    pub settings: PoolSettings,
    /// The session in which it was last asked for.
    pub session: i64,
}

/// Choices about a pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolSettings {
    /// How long a freed address rests where others can be given, seconds; absent is the usual.
    pub quarantine: Option<u32>,
    /// Whether a name gets the address again that it had before.
    pub sticky: bool,
}

/// A pool, as an engine asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolRequest {
    /// The name under which the engine knows berth.
    pub driver: String,
    /// The subnet; absent is one that nobody on this host uses.
    pub subnet: Option<IpNetwork>,
    /// The part of it that is given out unasked.
    pub range: Option<IpNetwork>,
    /// The family of a subnet that is to be chosen.
    pub family: Family,
    /// Choices.
    pub settings: PoolSettings,
}

/// An address of a pool, as an engine asks for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressRequest {
    /// This one; absent is any.
    pub address: Option<IpAddr>,
    /// It is to be the gateway.
    pub is_gateway: bool,
    /// What the holder is called, where the engine says.
    pub name: Option<String>,
}

/// Why a pool or an address of it cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The engine has a pool there already.
    #[error("subnet {subnet} overlaps pool {other}, which is in use\ngive the network another subnet")]
    Overlap {
        /// The subnet asked for.
        subnet: IpNetwork,
        /// The pool.
        other: IpNetwork,
    },
    /// The range is not in the subnet.
    #[error("range {range} is not a part of subnet {subnet}")]
    Range {
        /// The range.
        range: IpNetwork,
        /// The subnet.
        subnet: IpNetwork,
    },
    /// The subnet cannot be a pool.
    #[error("subnet {subnet} cannot be a pool")]
    Subnet {
        /// The subnet.
        subnet: IpNetwork,
        /// Why not.
        #[source]
        source: Box<ConfigError>,
    },
    /// The whole host is in use.
    #[error(transparent)]
    NoFreeSubnet(#[from] berth_ipam::choose::NoFreeSubnet),
    /// The text is no pool's.
    #[error("there is no pool `{id}`")]
    Unknown {
        /// The text.
        id: String,
    },
    /// The address is somewhere else.
    #[error("address {address} is not in subnet {subnet}")]
    Outside {
        /// The address.
        address: IpAddr,
        /// The subnet.
        subnet: IpNetwork,
    },
    /// The address names the subnet, or everybody in it.
    #[error("address {address} is no host's in subnet {subnet}")]
    NotAHost {
        /// The address.
        address: IpAddr,
        /// The subnet.
        subnet: IpNetwork,
    },
    /// Somebody has it.
    #[error("address {address} is in use{}", .holder.as_ref().map(|name| format!(" by {name}")).unwrap_or_default())]
    Taken {
        /// The address.
        address: IpAddr,
        /// Who, where it was said.
        holder: Option<String>,
    },
}

impl Pool {
    /// The layout this version writes.
    pub const VERSION: u32 = 1;

    /// What the engine calls it by: the driver, the subnet and the range.
    pub fn id(&self) -> String {
        let Self { driver, subnet, range, .. } = self;
        match range {
            Some(range) => format!("{driver}/{subnet}@{range}"),
            None => format!("{driver}/{subnet}"),
        }
    }

    /// Reads an [`Pool::id`] of `driver` back, for a pool whose record was lost.
    fn of_id(driver: &str, id: &str) -> Option<Self> {
        let rest = id.strip_prefix(driver)?.strip_prefix('/')?;
        let (subnet, range) = match rest.split_once('@') {
            Some((subnet, range)) => (subnet, Some(range.parse().ok()?)),
            None => (rest, None),
        };
        let subnet = subnet.parse().ok()?;
        let driver = driver.to_owned();
        Some(Self {
            version: Self::VERSION,
            driver,
            subnet,
            range,
            gateway: None,
            settings: PoolSettings::default(),
            session: 0,
        })
    }

    /// Within what its addresses are unique, as the leases know it.
    fn network(&self) -> NetworkName {
        let text: String =
            self.id().chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' }).collect();
        text.parse().expect(
            "a driver's name begins with a letter, and the rest are letters, digits, dots and underscores",
        )
    }

    fn scope(&self) -> LeaseScope {
        LeaseScope::new(&self.network(), None)
    }

    fn config(&self) -> Result<PoolConfig, PoolError> {
        let Self { subnet, range, gateway, settings, .. } = self;
        let ends = range.map(|range| (berth_ipam::Span::of_network(range)).ends());
        // What is null is absent.
        let set = json!({
            "subnet": subnet,
            "rangeStart": ends.map(|(first, _)| first),
            "rangeEnd": ends.map(|(_, last)| last),
            "gateway": gateway,
        });
        let ipam = json!({
            "ranges": [[set]],
            "sticky": settings.sticky,
            "quarantine": settings.quarantine,
        });
        PoolConfig::parse(&ipam, None)
            .map_err(|source| PoolError::Subnet { subnet: *subnet, source: Box::new(source) })
    }

    /// The gateway where none is asked for by address: the subnet's first.
    fn usual_gateway(&self) -> Result<IpAddr, PoolError> {
        let config = self.config()?;
        let first = config.sets.first().and_then(|set| set.ranges().first()).map(berth_ipam::Range::gateway);
        Ok(first.unwrap_or_else(|| self.subnet.network()))
    }

    fn with_prefix(&self, address: IpAddr) -> IpNetwork {
        IpNetwork::new(address, self.subnet.prefix()).unwrap_or(self.subnet)
    }

    fn check(&self, address: IpAddr) -> Result<(), PoolError> {
        let subnet = self.subnet;
        if !subnet.contains(address) {
            return Err(PoolError::Outside { address, subnet });
        }
        let names_all = address == subnet.network() || (address.is_ipv4() && address == subnet.broadcast());
        if names_all { Err(PoolError::NotAHost { address, subnet }) } else { Ok(()) }
    }
}

impl Berth {
    /// Notes that the engine behind `driver` started anew: what it holds it asks for again.
    pub fn session_begin(&mut self, driver: &str) -> Result<(), CoreError> {
        self.store_mut().write(|tx| tx.session_begin(driver).map(drop).map_err(CoreError::from))
    }

    /// Opens a pool.
    pub fn pool_open(&mut self, request: &PoolRequest) -> Result<Pool, CoreError> {
        let used = if request.subnet.is_none() { self.prefixes_in_use()? } else { Vec::new() };
        let seed = if request.subnet.is_none() { host_seed() } else { 0 };
        let attached = self.addresses_attached()?;
        self.store_mut().write(|tx| {
            let session = tx.session(&request.driver)?;
            let open = pools(tx)?;
            let subnet = match request.subnet {
                Some(subnet) => subnet,
                None => {
                    let mut used = used;
                    used.extend(open.iter().map(|pool| pool.subnet));
                    chosen(request.family, seed, &used)?
                }
            };
            let pool = Pool {
                version: Pool::VERSION,
                driver: request.driver.clone(),
                subnet,
                range: request.range,
                gateway: None,
                settings: request.settings,
                session,
            };
            if let Some(range) = pool.range
                && !(subnet.contains(range.network()) && range.prefix() >= subnet.prefix())
            {
                return Err(PoolError::Range { range, subnet }.into());
            }
            pool.config()?;
            if let Some(had) = open.iter().find(|had| had.id() == pool.id()) {
                if had.session >= session {
                    return Err(PoolError::Overlap { subnet, other: had.subnet }.into());
                }
                let again = Pool { gateway: had.gateway, ..pool };
                tx.pool_put(&again.id(), &payload(&again)?)?;
                return Ok(again);
            }
            if let Some(other) = open.iter().find(|other| overlap(&other.subnet, &subnet)) {
                return Err(PoolError::Overlap { subnet, other: other.subnet }.into());
            }
            begin(tx, &pool, &attached)?;
            Ok(pool)
        })
    }

    /// Gives an address of the pool `id`.
    pub fn pool_address(
        &mut self,
        driver: &str,
        id: &str,
        request: &AddressRequest,
    ) -> Result<IpNetwork, CoreError> {
        let attached = self.addresses_attached()?;
        let number = format!("{:016x}", random_number()?);
        self.store_mut().write(|tx| {
            let mut pool = opened(tx, driver, id, &attached)?;
            let session = tx.session(driver)?;
            let holder = Holder { session, name: request.name.clone() };
            let address = if request.is_gateway {
                let address = request.address.map_or_else(|| pool.usual_gateway(), Ok)?;
                pool.check(address)?;
                pool.gateway = Some(address);
                tx.pool_put(id, &payload(&pool)?)?;
                let gateway = Holder { session, name: Some(Holder::GATEWAY.to_owned()) };
                take(tx, &pool, address, &gateway, &number)?;
                address
            } else if let Some(address) = request.address {
                pool.check(address)?;
                take(tx, &pool, address, &holder, &number)?;
                address
            } else {
                any(tx, &pool, &holder, &number)?
            };
            Ok(pool.with_prefix(address))
        })
    }

    /// Takes an address back. One that nobody has, and a pool that is not open, are success.
    pub fn pool_release(&mut self, driver: &str, id: &str, address: IpAddr) -> Result<(), CoreError> {
        self.store_mut().write(|tx| {
            let Some(pool) = found(tx, driver, id)? else { return Ok(()) };
            if pool.gateway == Some(address) {
                tx.pool_put(id, &payload(&Pool { gateway: None, ..pool.clone() })?)?;
            }
            tx.lease_remove(&pool.scope(), address, BootTime::now())?;
            Ok(())
        })
    }

    /// Closes a pool and takes back whatever is held of it. One that is not open is success.
    pub fn pool_close(&mut self, driver: &str, id: &str) -> Result<(), CoreError> {
        self.store_mut().write(|tx| match found(tx, driver, id)? {
            Some(pool) => close(tx, &pool),
            None => Ok(()),
        })
    }

    /// All open pools.
    pub fn pools(&mut self) -> Result<Vec<Pool>, CoreError> {
        self.store_mut().read(pools)
    }

    /// Takes back what the engine does not know of: pools of earlier sessions whose subnet is not in `subnets`, and
    /// addresses that are neither in `known` nor an attachment's and were given more than `older_than_ms` ago. To be called once
    /// the engine has asked for everything it holds. How many addresses that were.
    pub fn pools_keep(
        &mut self,
        driver: &str,
        subnets: &BTreeSet<IpNetwork>,
        known: &BTreeSet<IpAddr>,
        older_than_ms: i64,
    ) -> Result<usize, CoreError> {
        let attached = self.addresses_attached()?;
        self.store_mut().write(|tx| {
            let session = tx.session(driver)?;
            let mut released = 0;
            for pool in pools(tx)?.into_iter().filter(|pool| pool.driver == driver) {
                let leases = tx.leases_of_network(&pool.network())?;
                let in_use = leases.iter().any(|lease| attached.contains(&lease.address));
                if pool.session < session && !subnets.contains(&pool.subnet) && !in_use {
                    released += leases.len();
                    close(tx, &pool)?;
                    continue;
                }
                if !subnets.contains(&pool.subnet) {
                    continue;
                }
                for lease in leases {
                    let old = unix_ms().saturating_sub(lease.created_ms) > older_than_ms;
                    if old && !known.contains(&lease.address) && !attached.contains(&lease.address) {
                        tx.lease_remove(&lease.scope, lease.address, BootTime::now())?;
                        released += 1;
                    }
                }
            }
            Ok(released)
        })
    }

    /// The addresses of all attachments. A pool whose record was lost must not give them again.
    fn addresses_attached(&mut self) -> Result<BTreeSet<IpAddr>, CoreError> {
        let held = self.held()?;
        let of = |held: &Held| match held {
            Held::Bridge(record) => record.leases.iter().map(|lease| lease.address.ip()).collect(),
            Held::Ports(_) => Vec::new(),
        };
        Ok(held.iter().flat_map(|(_, held)| of(held)).collect())
    }
}

fn pools(tx: &ReadTx<'_>) -> Result<Vec<Pool>, CoreError> {
    tx.pools()?.iter().map(|(id, text)| parsed(id, text)).collect()
}

fn found(tx: &ReadTx<'_>, driver: &str, id: &str) -> Result<Option<Pool>, CoreError> {
    let Some(text) = tx.pool(id)? else { return Ok(None) };
    let pool: Pool = parsed(&id, &text)?;
    Ok((pool.driver == driver).then_some(pool))
}

/// The pool, opened again by its id where its record was lost.
fn opened(tx: &Tx<'_>, driver: &str, id: &str, attached: &BTreeSet<IpAddr>) -> Result<Pool, CoreError> {
    if let Some(pool) = found(tx, driver, id)? {
        return Ok(pool);
    }
    let lost = Pool::of_id(driver, id).filter(|pool| pool.id() == id);
    let pool = lost.ok_or_else(|| PoolError::Unknown { id: id.chars().take(80).collect() })?;
    pool.config()?;
    begin(tx, &pool, attached)?;
    Ok(pool)
}

/// Records a new pool, with the addresses that attachments have of it already.
fn begin(tx: &Tx<'_>, pool: &Pool, attached: &BTreeSet<IpAddr>) -> Result<(), CoreError> {
    tx.pool_put(&pool.id(), &payload(pool)?)?;
    let before = Holder { session: 0, name: None };
    for address in attached.iter().filter(|address| pool.subnet.contains(**address)) {
        let key = before.key(&pool.network(), &address.to_string())?;
        tx.lease_add(&pool.scope(), *address, (&key, None), 0)?;
    }
    Ok(())
}

fn close(tx: &Tx<'_>, pool: &Pool) -> Result<(), CoreError> {
    for lease in tx.leases_of_network(&pool.network())? {
        tx.lease_remove(&lease.scope, lease.address, BootTime::now())?;
    }
    tx.pool_remove(&pool.id())?;
    Ok(())
}

/// Takes this address, from a holder of an earlier session too.
fn take(tx: &Tx<'_>, pool: &Pool, address: IpAddr, holder: &Holder, number: &str) -> Result<(), CoreError> {
    let scope = pool.scope();
    if let Some(row) = tx.lease(&scope, address)? {
        let had = Holder::of(&row);
        let is_gateway = |holder: &Holder| holder.name.as_deref() == Some(Holder::GATEWAY);
        if had.session >= holder.session && !(is_gateway(&had) && is_gateway(holder)) {
            return Err(PoolError::Taken { address, holder: had.name }.into());
        }
        tx.lease_remove(&scope, address, BootTime::now())?;
    }
    let key = holder.key(&pool.network(), number)?;
    let config = pool.config()?;
    let in_range = config.sets.iter().any(|set| set.range_of(address).is_some());
    if !in_range || pool.gateway == Some(address) {
        tx.lease_add(&scope, address, (&key, None), 0)?;
        return Ok(());
    }
    let request = Request { owner: key, sandbox: None, requested: vec![address], sticky: None };
    allocate(tx, &config, &request, BootTime::now(), &mut |_| false)?;
    Ok(())
}

fn any(tx: &Tx<'_>, pool: &Pool, holder: &Holder, number: &str) -> Result<IpAddr, CoreError> {
    let sticky = holder.name.clone().filter(|_| pool.settings.sticky);
    // A name may be asked for again before the address it had is released; the number keeps the two apart.
    let name = holder.name.as_ref().map(|name| format!("{name}-{number}"));
    let owner = Holder { name, ..*holder }.key(&pool.network(), number)?;
    let request = Request { owner, sandbox: None, requested: Vec::new(), sticky };
    let given = allocate(tx, &pool.config()?, &request, BootTime::now(), &mut |_| false)?;
    let address = given.addresses.first().map(|lease| lease.address.ip());
    address.ok_or_else(|| {
        let sets = Vec::new();
        CoreError::Ipam(AllocateError::Unused { addresses: Vec::new(), sets })
    })
}

fn chosen(family: Family, seed: u64, used: &[IpNetwork]) -> Result<IpNetwork, PoolError> {
    let used: Vec<IpNetwork> = used.iter().map(|net| subnet_of(*net)).collect();
    Ok(match family {
        Family::V4 => choose_v4(&default_pools(), &used)?,
        Family::V6 => choose_v6(seed, &used)?,
    })
}

/// A number of this host's, the same each time.
fn host_seed() -> u64 {
    let id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    berth_types::fnv64(["berth subnets", id.trim()])
}

#[cfg(test)]
mod tests {
    use berth_store::LeaseRow;

    use super::*;

    #[test]
    fn a_pools_id_gives_it_back() {
        for id in ["rbridge/10.80.0.0/24", "rbridge/10.80.0.0/16@10.80.5.0/24", "ripam/fd00:80::/64"] {
            let driver = id.split('/').next().unwrap();
            assert_eq!(Pool::of_id(driver, id).unwrap().id(), id);
        }
        for id in ["", "rbridge", "rbridge/", "other/10.80.0.0/24", "rbridge/10.80.0.0/99", "rbridge/x@y"] {
            assert_eq!(Pool::of_id("rbridge", id), None, "{id}");
        }
    }

    #[test]
    fn a_holder_is_read_back_from_its_lease() {
        let pool = Pool::of_id("ripam", "ripam/fd00:80::/64").unwrap();
        let key =
            Holder { session: 7, name: Some("web/1".to_owned()) }.key(&pool.network(), "fd00:80::2").unwrap();
        assert_eq!(key.network.as_str(), "ripam_fd00_80___64");
        let row = LeaseRow {
            scope: pool.scope(),
            address: "fd00:80::2".parse().unwrap(),
            owner: key,
            sandbox: None,
            created_ms: 0,
        };
        let holder = Holder::of(&row);
        assert_eq!((holder.session, holder.name.as_deref()), (7, Some("web-1")));
    }
}
