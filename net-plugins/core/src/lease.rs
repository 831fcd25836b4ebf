//! Leases for containers that another plugin attaches (`ripam` behind any main plugin).

use berth_ipam::{PoolConfig, Request};
use berth_store::{BootTime, LeaseRow};
use berth_types::{AddressLease, AttachmentKey, NetworkName};

use crate::berth::{Berth, is_dead};
use crate::error::{Chain, CoreError};

impl Berth {
    /// Leases addresses. Asked again by the same owner, it answers the same.
    pub fn lease(&mut self, config: &PoolConfig, request: &Request) -> Result<Vec<AddressLease>, CoreError> {
        let given = self.store_mut().write(|tx| {
            berth_ipam::allocate(tx, config, request, BootTime::now(), &mut is_dead).map_err(CoreError::from)
        })?;
        self.clear_after(&given.reclaimed, &request.owner);
        Ok(given.addresses)
    }

    /// Removes what the kernel still has of owners whose addresses were taken back, before they are used again. What
    /// cannot be removed is logged: the address is given already, and `gc` tries again.
    pub(crate) fn clear_after(&mut self, reclaimed: &[LeaseRow], new_owner: &AttachmentKey) {
        for lease in reclaimed.iter().filter(|lease| lease.owner != *new_owner) {
            if let Err(err) = self.detach(&lease.owner) {
                tracing::warn!(owner = %lease.owner, error = %Chain(&err), "left behind; `berth gc` removes it");
            }
        }
    }

    /// Releases what `key` holds; nothing is success.
    pub fn release(&mut self, key: &AttachmentKey) -> Result<(), CoreError> {
        self.store_mut()
            .write(|tx| berth_ipam::release(tx, key, BootTime::now()).map(drop).map_err(CoreError::from))
    }

    /// What `key` holds.
    pub fn leases_of(&mut self, key: &AttachmentKey) -> Result<Vec<LeaseRow>, CoreError> {
        self.store_mut().read(|tx| tx.leases_of(key).map_err(CoreError::from))
    }

    /// Whether the pools have an address left.
    pub fn pool_has_room(&mut self, config: &PoolConfig, network: &NetworkName) -> Result<bool, CoreError> {
        self.store_mut().read(|tx| berth_ipam::has_room(tx, config, network).map_err(CoreError::from))
    }

    /// All leases, of one network or of all.
    pub fn all_leases(&mut self, network: Option<&NetworkName>) -> Result<Vec<LeaseRow>, CoreError> {
        self.store_mut().read(|tx| match network {
            Some(network) => tx.leases_of_network(network).map_err(CoreError::from),
            None => tx.leases().map_err(CoreError::from),
        })
    }
}
