//! Addresses that an engine asks for before it says what for.
//!
//! Such an address is held by its engine: by the number of the engine's start, the *session*, in which it was last asked for,
//! and a name where one was said. In a pool of the engine's own that is all there is to a lease ([`crate::pool`]). On a
//! network whose pools are others' too, the holds stand among the leases of the network, so that nobody else on this host is
//! given the address; what is attached with a held address has no lease of its own.

use std::collections::BTreeSet;
use std::net::IpAddr;

use berth_ipam::{AllocateError, PoolConfig, Request, allocate};
use berth_store::{BootTime, LeaseRow, LeaseScope, Tx, unix_ms};
use berth_types::{AttachmentKey, Family, NetworkName};
use ipnetwork::IpNetwork;

use crate::berth::{Berth, is_dead};
use crate::error::CoreError;
use crate::pool::PoolError;
use crate::request::PoolsRead;

/// An address of a network, as an engine asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldRequest {
    /// The name under which the engine knows berth.
    pub driver: String,
    /// The network.
    pub network: NetworkName,
    /// The family.
    pub family: Family,
    /// This one; absent is any.
    pub address: Option<IpAddr>,
    /// What the holder is called, where the engine says.
    pub name: Option<String>,
}

/// Whose a held address is: the session's, and the name or a number.
pub(crate) struct Holder {
    pub(crate) session: i64,
    pub(crate) name: Option<String>,
}

impl Holder {
    pub(crate) const GATEWAY: &'static str = "gateway";

    /// In the place of an interface: that it is none's.
    const IFNAME: &'static str = "pool";

    pub(crate) fn key(
        &self,
        network: &NetworkName,
        address_or_number: &str,
    ) -> Result<AttachmentKey, CoreError> {
        let kind = match self.name.as_deref() {
            Some(name) => format!("n-{name}"),
            None => format!("a-{address_or_number}"),
        };
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '-' };
        let text: String = format!("s{}.{kind}", self.session).chars().map(plain).collect();
        let missing = |err: berth_types::NameError| CoreError::Missing { what: err.to_string() };
        Ok(AttachmentKey {
            network: network.clone(),
            container: text.parse().map_err(missing)?,
            ifname: Self::IFNAME.parse().map_err(missing)?,
        })
    }

    pub(crate) fn of(row: &LeaseRow) -> Self {
        let text = row.owner.container.as_str();
        let (session, kind) = text.split_once('.').unwrap_or(("s0", text));
        let session = session.strip_prefix('s').and_then(|number| number.parse().ok()).unwrap_or(0);
        Self { session, name: kind.strip_prefix("n-").map(str::to_owned) }
    }
}

/// Whether `owner` is an engine that holds an address, and no attachment.
pub(crate) fn is_hold(owner: &AttachmentKey) -> bool {
    let session = owner.container.as_str().strip_prefix('s').and_then(|text| text.split_once('.'));
    owner.ifname.as_str() == Holder::IFNAME
        && session.is_some_and(|(number, _)| number.parse::<i64>().is_ok())
}

impl Berth {
    /// Gives an address of a network to an engine, to be held until it is released. One that the engine asked for in an earlier
    /// session is given again. `pools` is what this host may give.
    ///
    /// # Errors
    ///
    /// Somebody else has it, it is nobody's to give here, or there is none.
    pub fn hold(&mut self, request: &HoldRequest, pools: &PoolsRead) -> Result<IpNetwork, CoreError> {
        let number = format!("{:016x}", random_number()?);
        self.store_mut().write(|tx| {
            let session = tx.session(&request.driver)?;
            if let Some(address) = request.address {
                free_replayed(tx, &request.network, address, session)?;
            }
            // A name may be asked for again before the address it had is released; the number keeps the two apart.
            let name = request.name.as_ref().map(|name| format!("{name}-{number}"));
            let owner = Holder { session, name }.key(&request.network, &number)?;
            let requested = request.address.into_iter().collect();
            let asked = Request { owner, sandbox: None, requested, sticky: None };
            let pools = of_family(pools(tx)?, request.family);
            let given = allocate(tx, &pools, &asked, BootTime::now(), &mut is_dead)?;
            given.addresses.first().map(|lease| lease.address).ok_or_else(|| {
                CoreError::Ipam(AllocateError::Unused { addresses: asked.requested, sets: pools.sets })
            })
        })
    }

    /// Takes a held address back. One that is not held is success: whatever else has it keeps it.
    pub fn hold_release(&mut self, network: &NetworkName, address: IpAddr) -> Result<(), CoreError> {
        self.store_mut().write(|tx| {
            let scope = LeaseScope::new(network, None);
            if tx.lease(&scope, address)?.is_some_and(|row| is_hold(&row.owner)) {
                tx.lease_remove(&scope, address, BootTime::now())?;
            }
            Ok(())
        })
    }

    /// Whether `address` is held, and no attachment's.
    pub fn is_held(&mut self, network: &NetworkName, address: IpAddr) -> Result<bool, CoreError> {
        let scope = LeaseScope::new(network, None);
        let row = self.store_mut().read(|tx| tx.lease(&scope, address).map_err(CoreError::from))?;
        Ok(row.is_some_and(|row| is_hold(&row.owner)))
    }

    /// Takes back held addresses of a network that are not in `known` and were given more than `older_than_ms` ago. How many
    /// those were.
    pub fn holds_keep(
        &mut self,
        network: &NetworkName,
        known: &BTreeSet<IpAddr>,
        older_than_ms: i64,
    ) -> Result<usize, CoreError> {
        self.store_mut().write(|tx| {
            let is_over = |row: &LeaseRow| {
                let old = unix_ms().saturating_sub(row.created_ms) > older_than_ms;
                is_hold(&row.owner) && old && !known.contains(&row.address)
            };
            let over: Vec<LeaseRow> = tx.leases_of_network(network)?.into_iter().filter(is_over).collect();
            for row in &over {
                tx.lease_remove(&row.scope, row.address, BootTime::now())?;
            }
            Ok(over.len())
        })
    }
}

/// Takes the address from a holder of an earlier session, and refuses to take it from anybody else.
fn free_replayed(tx: &Tx<'_>, network: &NetworkName, address: IpAddr, session: i64) -> Result<(), CoreError> {
    let scope = LeaseScope::new(network, None);
    let Some(row) = tx.lease(&scope, address)? else { return Ok(()) };
    let holder = Holder::of(&row);
    if !is_hold(&row.owner) {
        let holder = Some(format!("container {}", row.owner.container.short()));
        return Err(PoolError::Taken { address, holder }.into());
    }
    if holder.session >= session {
        return Err(PoolError::Taken { address, holder: None }.into());
    }
    tx.lease_remove(&scope, address, BootTime::now()).map(drop).map_err(CoreError::from)
}

fn of_family(mut pools: PoolConfig, family: Family) -> PoolConfig {
    let is_of = |set: &berth_ipam::RangeSet| {
        set.ranges().first().is_some_and(|range| Family::of(range.subnet().network()) == family)
    };
    pools.sets.retain(is_of);
    pools
}

pub(crate) fn random_number() -> Result<u64, CoreError> {
    let mut bytes = [0_u8; 8];
    crate::attach::random(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_is_told_from_an_attachment() {
        let blue: NetworkName = "blue".parse().unwrap();
        let hold = Holder { session: 3, name: Some("web".to_owned()) }.key(&blue, "").unwrap();
        assert!(is_hold(&hold) && is_hold(&Holder { session: 0, name: None }.key(&blue, "17").unwrap()));
        let other = |container: &str, ifname: &str| AttachmentKey {
            network: blue.clone(),
            container: container.parse().unwrap(),
            ifname: ifname.parse().unwrap(),
        };
        assert!(!is_hold(&other("s3.n-web", "eth0")));
        assert!(!is_hold(&other("storage.1", "pool")));
    }
}
