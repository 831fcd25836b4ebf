//! Single addresses: lent, borrowed, given back.

use std::net::IpAddr;
use std::time::Duration;

use berth_ipam::blocks::{SubnetState, block_around, borrowable};
use berth_store::{LeaseScope, LendDirection, LendRow, Store, StoreError, unix_ms};
use ipnetwork::IpNetwork;

use super::{BlocksError, Keeper, Noted, is_own, seed};
use crate::cluster::ClusterError;
use crate::model::{BlockState, LAYOUT, Lend, LendState, Occupant, OverlayNetwork, OverlaySubnet};
use crate::view::NetworkView;

/// How long a borrowed address may lie unused: its container is being attached.
const UNUSED: Duration = Duration::from_secs(60);

/// What came of asking for an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Borrowed {
    /// It is this node's, and written down: whoever asks the local pool for it gets it.
    Granted(IpAddr),
    /// Its owner has to answer; the answer comes with the view, and asking again tells it.
    Asked(IpAddr),
    /// Its owner gave it to a container of its own.
    Refused(IpAddr),
}

impl Keeper<'_> {
    /// Asks for `address`, which is in no block of this node's: because a container is to have just this one, or because the
    /// subnet is short (then of [`borrowable_of`]). Asking again for the same tells how far it has come.
    ///
    /// # Errors
    ///
    /// [`BlocksError`]: it is outside the network, another's, the network lends nothing, or the cluster is away.
    pub async fn borrow(
        &self,
        store: &mut Store,
        network: &OverlayNetwork,
        of: &Occupant,
        address: IpAddr,
    ) -> Result<Borrowed, BlocksError> {
        let around = network.subnets.iter().find_map(|subnet| around(network, subnet, address));
        let outside = || ClusterError::Taken {
            what: format!("address {address}"),
            holder: format!("no subnet of network `{}`", network.name),
        };
        let around = around.ok_or_else(outside)?;
        let lend = self.lend(network, of, address);
        match self.cluster.put_lend(&lend, around).await? {
            LendState::Granted => {
                let payload = Noted::text(Lend { state: LendState::Granted, ..lend });
                let network = network.name.clone();
                let row = LendRow { network, address, direction: LendDirection::Taken, payload };
                store.write(|tx| tx.cluster_lend_put(&row))?;
                Ok(Borrowed::Granted(address))
            }
            LendState::Asked => Ok(Borrowed::Asked(address)),
            LendState::Refused => {
                self.cluster.remove_lend(&lend).await?;
                Ok(Borrowed::Refused(address))
            }
        }
    }

    /// Gives a borrowed address back: nothing holds it any more.
    ///
    /// # Errors
    ///
    /// [`BlocksError`]: the cluster is away; then it is done by a later [`Keeper::tend`].
    pub async fn return_borrowed(
        &self,
        store: &mut Store,
        network: &OverlayNetwork,
        address: IpAddr,
    ) -> Result<(), BlocksError> {
        let rows = store.read(|tx| tx.cluster_lends(&network.name))?;
        let row = rows.iter().find(|row| row.address == address && row.direction == LendDirection::Taken);
        let Some(row) = row else { return Ok(()) };
        self.return_row(store, row).await
    }

    /// Out of the local pool first, so that nobody here is given it once it is another's.
    async fn return_row(&self, store: &mut Store, row: &LendRow) -> Result<(), BlocksError> {
        let scope = LeaseScope::new(&row.network, None);
        let free = store.write(|tx| -> Result<bool, StoreError> {
            if tx.lease(&scope, row.address)?.is_some() {
                return Ok(false);
            }
            tx.cluster_lend_remove(&row.network, row.address)
        })?;
        let noted = Noted::<Lend>::read(&row.payload).filter(|_| free);
        let Some(Noted { record, .. }) = noted else { return Ok(()) };
        if let Err(err) = self.cluster.remove_lend(&record).await {
            // Written down again, so that it is not forgotten.
            store.write(|tx| tx.cluster_lend_put(row))?;
            return Err(err.into());
        }
        Ok(())
    }

    /// Answers what others ask of this node's blocks, and follows what became of loans.
    pub(super) async fn settle_lends(
        &self,
        store: &mut Store,
        network: &OverlayNetwork,
        view: &NetworkView,
    ) -> Result<(), BlocksError> {
        for lend in view.lends().filter(|lend| lend.state == LendState::Asked) {
            let block = view.block_around(lend.address).filter(|block| is_own(block, self.node));
            if block.is_some() && lend.borrower != self.node.name {
                let state = if self.take_out(store, network, lend)? {
                    LendState::Granted
                } else {
                    LendState::Refused
                };
                self.cluster.settle_lend(&Lend { state, ..Lend::clone(lend) }).await?;
            }
        }
        let rows = store.read(|tx| tx.cluster_lends(&network.name))?;
        for row in &rows {
            match row.direction {
                LendDirection::Given => self.follow_given(store, view, row)?,
                LendDirection::Taken => self.follow_taken(store, view, row).await?,
            }
        }
        Ok(())
    }

    /// Takes an address out of the local pool, if it is in it and nobody has it. Whether it is lent now.
    fn take_out(&self, store: &mut Store, network: &OverlayNetwork, lend: &Lend) -> Result<bool, StoreError> {
        let scope = LeaseScope::new(&network.name, None);
        let gateway = network.subnets.iter().any(|subnet| subnet.gateway == lend.address);
        store.write(|tx| {
            let known = tx.cluster_lends(&network.name)?;
            if let Some(known) = known.iter().find(|known| known.address == lend.address) {
                let to = Noted::<Lend>::read(&known.payload).map(|noted| noted.record);
                return Ok(to.is_some_and(|to| to.borrower == lend.borrower && to.of == lend.of));
            }
            let own = tx.cluster_blocks(&network.name)?.iter().any(|block| block.cidr.contains(lend.address));
            if gateway || !own || tx.lease(&scope, lend.address)?.is_some() {
                return Ok(false);
            }
            let payload = Noted::text(Lend { state: LendState::Granted, ..lend.clone() });
            let (network, address) = (network.name.clone(), lend.address);
            tx.cluster_lend_put(&LendRow { network, address, direction: LendDirection::Given, payload })?;
            Ok(true)
        })
    }

    /// An address that was lent is this node's again when the loan is gone. A view in which this node's block is confirmed is
    /// later than any loan that was found at its claim.
    fn follow_given(&self, store: &mut Store, view: &NetworkView, row: &LendRow) -> Result<(), BlocksError> {
        let block = view.block_around(row.address).filter(|block| is_own(block, self.node));
        let current = block.is_some_and(|block| block.state != BlockState::Pending);
        let lent = view.lends().any(|lend| lend.address == row.address);
        if current && !lent {
            store.write(|tx| tx.cluster_lend_remove(&row.network, row.address))?;
        }
        Ok(())
    }

    /// An address that is borrowed and lies unused is given back.
    async fn follow_taken(
        &self,
        store: &mut Store,
        _: &NetworkView,
        row: &LendRow,
    ) -> Result<(), BlocksError> {
        let since = Noted::<Lend>::read(&row.payload).map_or(0, |noted| noted.since_ms);
        let age = Duration::from_millis((unix_ms() - since).max(0).unsigned_abs());
        if age < UNUSED {
            return Ok(());
        }
        self.return_row(store, row).await
    }

    fn lend(&self, network: &OverlayNetwork, of: &Occupant, address: IpAddr) -> Lend {
        Lend {
            v: LAYOUT,
            network: network.name.clone(),
            address,
            borrower: self.node.name.clone(),
            of: of.clone(),
            state: LendState::Asked,
            sequence: 0,
        }
    }
}

/// Addresses of others' blocks to ask for when a subnet is short, most promising first.
pub fn borrowable_of(
    keeper: &Keeper<'_>,
    network: &OverlayNetwork,
    subnet: &OverlaySubnet,
    view: &NetworkView,
    limit: usize,
) -> Vec<IpAddr> {
    let others = view.blocks().filter(|block| !is_own(block, keeper.node));
    let others = others.map(|block| block.cidr).filter(|cidr| subnet.subnet.contains(cidr.network()));
    let others: Vec<IpNetwork> = others.collect();
    let taken = others.iter().copied().collect();
    let state = SubnetState {
        subnet: subnet.subnet,
        length: if subnet.subnet.is_ipv4() { network.block4 } else { network.block6 },
        gateway: subnet.gateway,
        own: &[],
        taken: &taken,
        seed: seed(&keeper.node.name),
    };
    let lent = |address: IpAddr| view.lends().any(|lend| lend.address == address);
    borrowable(&state, &others, |address| view.holders(address).is_some() || lent(address), limit)
}

fn around(network: &OverlayNetwork, subnet: &OverlaySubnet, address: IpAddr) -> Option<IpNetwork> {
    let length = if subnet.subnet.is_ipv4() { network.block4 } else { network.block6 };
    block_around(subnet.subnet, length, address)
}
