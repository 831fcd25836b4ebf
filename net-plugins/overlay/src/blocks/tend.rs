//! Blocks claimed, confirmed, drained and given back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use berth_ipam::Span;
use berth_ipam::blocks::{OwnBlock, Stage, Step, SubnetState, next_block, plan};
use berth_store::{
    BlockRow, BlockStage, BootTime, LeaseScope, LendDirection, LendRow, ReadTx, Store, StoreError, unix_ms,
};
use berth_types::NodeName;
use ipnetwork::IpNetwork;

use super::{BlocksError, Keeper, Noted, Tended, is_own, seed};
use crate::cluster::{ClusterError, Entry};
use crate::model::{
    Block, BlockState, LAYOUT, Lend, Occupant, OverlayAttachment, OverlayNetwork, OverlaySubnet,
};
use crate::view::NetworkView;

/// How many blocks are asked for when each turns out to be another's by now: as many as nodes may begin at one moment.
const CLAIMS: usize = 32;

impl Keeper<'_> {
    /// Brings this node's blocks of a network to what its leases need: after each change of the view, each lease and now and
    /// then. What the cluster does not do, because it is away, the next call does.
    ///
    /// # Errors
    ///
    /// [`BlocksError`]: the cluster is away, or fenced this node; the records cannot be read or written.
    pub async fn tend(
        &self,
        store: &mut Store,
        view: &NetworkView,
        now: BootTime,
    ) -> Result<Tended, BlocksError> {
        let mut tended = Tended::default();
        let Some(network) = view.record() else { return Ok(tended) };
        self.settle(store, network, view, &mut tended).await?;
        self.settle_lends(store, network, view).await?;
        for subnet in &network.subnets {
            self.tend_subnet(store, network, subnet, view, now, &mut tended).await?;
        }
        Ok(tended)
    }

    /// Gives back whatever the cluster has as this node's of a network that this node is not on, and of which nothing is written
    /// down here.
    ///
    /// # Errors
    ///
    /// [`BlocksError`]: the cluster is away; what is left then, the next call gives back.
    pub async fn give_all_back(&self, view: &NetworkView) -> Result<Tended, BlocksError> {
        let mut tended = Tended::default();
        for lend in view.lends_of(&self.node.name) {
            self.cluster.remove_lend(lend).await?;
        }
        for block in unused_of(view, &self.node.name) {
            match self.cluster.remove_block(block).await {
                Ok(()) => tended.given_back.push(block.cidr),
                // It changed since it was seen.
                Err(ClusterError::Taken { .. }) => (),
                Err(err) => return Err(err.into()),
            }
        }
        Ok(tended)
    }

    /// Makes what is written down here and what the cluster says of this node's blocks the same.
    async fn settle(
        &self,
        store: &mut Store,
        network: &OverlayNetwork,
        view: &NetworkView,
        tended: &mut Tended,
    ) -> Result<(), BlocksError> {
        let rows = store.read(|tx| tx.cluster_blocks(&network.name))?;
        for row in &rows {
            let seen = view.blocks().find(|block| block.cidr == row.cidr && is_own(block, self.node));
            self.assert(store, row, seen.map(|block| &**block), tended).await?;
        }
        let written = |cidr: IpNetwork| rows.iter().any(|row| row.cidr == cidr);
        for block in view.blocks_of(&self.node.name).filter(|block| !written(block.cidr)) {
            self.adopt(store, network, block, view, tended).await?;
        }
        Ok(())
    }

    /// Says of a block that is written down here that it is this node's. Whoever has it instead keeps it.
    async fn assert(
        &self,
        store: &mut Store,
        row: &BlockRow,
        seen: Option<&Block>,
        tended: &mut Tended,
    ) -> Result<(), BlocksError> {
        let state = match row.stage {
            BlockStage::Open => BlockState::Confirmed,
            BlockStage::Draining => BlockState::Draining,
        };
        let epoch = self.node.epoch;
        if seen.is_some_and(|seen| seen.state == state && seen.epoch == epoch) {
            return Ok(());
        }
        // What the cluster was last told: the view may be behind it.
        let told = Noted::<Block>::read(&row.payload).map(|noted| noted.record);
        let answer = self.say(row, state, told.as_ref()).await;
        let answer = match answer {
            Err(ClusterError::Taken { .. }) => match self.truth(row).await? {
                Some(other) if !is_own(&other, self.node) => {
                    store.write(|tx| tx.cluster_block_remove(&row.network, row.cidr))?;
                    tended.lost.push(row.cidr);
                    return Ok(());
                }
                truth => self.say(row, state, truth.as_ref()).await,
            },
            other => other,
        };
        match answer {
            Ok((block, lends)) => self.write_down(store, &block, row.stage, &lends),
            // It changed again: the next call sees how.
            Err(ClusterError::Taken { .. }) => Ok(()),
            Err(err) => Err(err.into()),
        }
    }

    /// Tells the cluster what has become of a block that is `before` there.
    async fn say(
        &self,
        row: &BlockRow,
        state: BlockState,
        before: Option<&Block>,
    ) -> Result<(Block, Vec<Lend>), ClusterError> {
        let epoch = self.node.epoch;
        let same = before.is_some_and(|before| before.state == state && before.epoch == epoch);
        let sequence = before.map_or(1, |before| before.sequence + u64::from(!same));
        let block = Block {
            v: LAYOUT,
            network: row.network.clone(),
            cidr: row.cidr,
            owner: self.node.name.clone(),
            epoch,
            state,
            sequence,
        };
        let lends = self.cluster.put_block(before, &block).await?;
        Ok((block, lends))
    }

    /// The block as the cluster has it now.
    async fn truth(&self, row: &BlockRow) -> Result<Option<Block>, ClusterError> {
        let listing = self.cluster.list().await?;
        Ok(listing.entries.into_iter().find_map(|entry| match entry {
            Entry::Block(block) if block.network == row.network && block.cidr == row.cidr => Some(block),
            _ => None,
        }))
    }

    /// What to do with a block that is said to be this node's and is not written down here.
    async fn adopt(
        &self,
        store: &mut Store,
        network: &OverlayNetwork,
        block: &Block,
        view: &NetworkView,
        tended: &mut Tended,
    ) -> Result<(), BlocksError> {
        let is_mine = |one: &OverlayAttachment| one.node == self.node.name && one.of == Occupant::Node;
        let mut believed = view.believed().filter(|(_, one)| !is_mine(one));
        let is_used = believed.any(|(address, _)| block.cidr.contains(address));
        let outcome = if block.epoch == self.node.epoch && (block.state == BlockState::Pending || !is_used) {
            // This node was interrupted between the claim and the writing down, or has left the network and comes back: nothing
            // of it is given.
            self.open(store, block).await.map(|()| tended.claimed.push(block.cidr))
        } else if is_used {
            tended.unknown.push(block.cidr);
            Ok(())
        } else {
            // Of an earlier life of the node's name; what it gave ended with it.
            self.cluster
                .remove_block(block)
                .await
                .map_err(BlocksError::from)
                .map(|()| tended.given_back.push(block.cidr))
        };
        match outcome {
            Err(BlocksError::Cluster(ClusterError::Taken { .. })) => {
                tracing::debug!(network = %network.name, cidr = %block.cidr, "a block changed since it was seen");
                Ok(())
            }
            other => other,
        }
    }

    /// Second and third step of a claim: written down, then confirmed.
    async fn open(&self, store: &mut Store, pending: &Block) -> Result<(), BlocksError> {
        let lends = self.cluster.put_block(Some(pending), pending).await?;
        let confirmed =
            Block { state: BlockState::Confirmed, sequence: pending.sequence + 1, ..pending.clone() };
        self.write_down(store, pending, BlockStage::Open, &lends)?;
        let lends = self.cluster.put_block(Some(pending), &confirmed).await?;
        self.write_down(store, &confirmed, BlockStage::Open, &lends)
    }

    /// The block as the cluster was told, and in the same transaction what of it is not this node's to give.
    fn write_down(
        &self,
        store: &mut Store,
        block: &Block,
        stage: BlockStage,
        lends: &[Lend],
    ) -> Result<(), BlocksError> {
        let network = block.network.clone();
        let payload = Noted::text(block.clone());
        let row = BlockRow { network: network.clone(), cidr: block.cidr, stage, payload };
        store.write(|tx| -> Result<(), StoreError> {
            tx.cluster_block_put(&row)?;
            let known = tx.cluster_lends(&network)?;
            let theirs = lends.iter().filter(|lend| lend.state == crate::model::LendState::Granted);
            let theirs = theirs.filter(|lend| lend.borrower != self.node.name);
            for lend in theirs.filter(|lend| !known.iter().any(|known| known.address == lend.address)) {
                let payload = Noted::text(lend.clone());
                let (network, address) = (network.clone(), lend.address);
                tx.cluster_lend_put(&LendRow { network, address, direction: LendDirection::Given, payload })?;
            }
            Ok(())
        })?;
        Ok(())
    }

    async fn tend_subnet(
        &self,
        store: &mut Store,
        network: &OverlayNetwork,
        subnet: &OverlaySubnet,
        view: &NetworkView,
        now: BootTime,
        tended: &mut Tended,
    ) -> Result<(), BlocksError> {
        let own = store.read(|tx| own_blocks(tx, network, subnet, now))?;
        let mut taken: BTreeSet<IpNetwork> = view.blocks().map(|block| block.cidr).collect();
        taken.extend(own.iter().map(|block| block.cidr));
        let state = SubnetState {
            subnet: subnet.subnet,
            length: if subnet.subnet.is_ipv4() { network.block4 } else { network.block6 },
            gateway: subnet.gateway,
            own: &own,
            taken: &taken,
            seed: seed(&self.node.name),
        };
        for step in plan(&state) {
            match step {
                Step::Claim(_) => match self.claim(store, network, &state).await? {
                    Some(cidr) => tended.claimed.push(cidr),
                    None => tended.short.push(subnet.subnet),
                },
                Step::Short => tended.short.push(subnet.subnet),
                Step::Drain(cidr) => self.drain(store, network, cidr)?,
                Step::GiveBack(cidr) => {
                    if self.give_back(store, network, cidr).await? {
                        tended.given_back.push(cidr);
                    }
                }
            }
        }
        Ok(())
    }

    /// Claims the next free block, and the next after it where others were first. `None`: all are taken.
    async fn claim(
        &self,
        store: &mut Store,
        network: &OverlayNetwork,
        state: &SubnetState<'_>,
    ) -> Result<Option<IpNetwork>, BlocksError> {
        let mut taken = state.taken.clone();
        for _ in 0..CLAIMS {
            let Some(cidr) = next_block(&SubnetState { taken: &taken, ..*state }) else { return Ok(None) };
            let pending = Block {
                v: LAYOUT,
                network: network.name.clone(),
                cidr,
                owner: self.node.name.clone(),
                epoch: self.node.epoch,
                state: BlockState::Pending,
                sequence: 1,
            };
            match self.cluster.put_block(None, &pending).await {
                Ok(_) => return self.open(store, &pending).await.map(|()| Some(cidr)),
                Err(ClusterError::Taken { .. }) => drop(taken.insert(cidr)),
                Err(err) => return Err(err.into()),
            }
        }
        Ok(None)
    }

    /// First step of giving a block back: nothing is given from it from now on, if nothing of it is given.
    fn drain(&self, store: &mut Store, network: &OverlayNetwork, cidr: IpNetwork) -> Result<(), BlocksError> {
        store.write(|tx| -> Result<(), StoreError> {
            let row = tx.cluster_blocks(&network.name)?.into_iter().find(|row| row.cidr == cidr);
            let Some(row) = row else { return Ok(()) };
            if used(tx, network, cidr)? > 0 {
                return Ok(());
            }
            tx.cluster_block_put(&BlockRow { stage: BlockStage::Draining, ..row })
        })?;
        Ok(())
    }

    /// Last step: gone in the cluster, then here. Whether it is.
    async fn give_back(
        &self,
        store: &mut Store,
        network: &OverlayNetwork,
        cidr: IpNetwork,
    ) -> Result<bool, BlocksError> {
        let rows = store.read(|tx| tx.cluster_blocks(&network.name))?;
        let noted =
            rows.iter().find(|row| row.cidr == cidr).and_then(|row| Noted::<Block>::read(&row.payload));
        let Some(Noted { record, .. }) = noted else { return Ok(false) };
        match self.cluster.remove_block(&record).await {
            Ok(()) => {
                store.write(|tx| tx.cluster_block_remove(&network.name, cidr))?;
                Ok(true)
            }
            // Not as it is written down here: what it is, the next call finds out.
            Err(ClusterError::Taken { .. }) => Ok(false),
            Err(err) => Err(err.into()),
        }
    }
}

/// The blocks of `node` of which the cluster knows nobody who has an address.
pub fn unused_of<'v>(
    view: &'v NetworkView,
    node: &NodeName,
) -> impl Iterator<Item = &'v Arc<Block>> + use<'v> {
    let is_used = |cidr: IpNetwork| view.believed().any(|(address, _)| cidr.contains(address));
    view.blocks_of(node).filter(move |block| !is_used(block.cidr))
}

/// This node's blocks of a subnet with what is given of them.
fn own_blocks(
    tx: &ReadTx<'_>,
    network: &OverlayNetwork,
    subnet: &OverlaySubnet,
    now: BootTime,
) -> Result<Vec<OwnBlock>, StoreError> {
    let rows = tx.cluster_blocks(&network.name)?;
    let rows = rows.into_iter().filter(|row| subnet.subnet.contains(row.cidr.network()));
    let own = |row: BlockRow| {
        let stage = match row.stage {
            BlockStage::Open => Stage::Open,
            BlockStage::Draining => Stage::Draining,
        };
        let used = used(tx, network, row.cidr)?;
        let idle = if used == 0 { Some(idle(tx, network, &row, now)?) } else { None };
        Ok(OwnBlock { cidr: row.cidr, stage, used, idle })
    };
    rows.map(own).collect()
}

/// How many addresses of a block are given, to containers here or to other nodes.
fn used(tx: &ReadTx<'_>, network: &OverlayNetwork, cidr: IpNetwork) -> Result<u128, StoreError> {
    let scope = LeaseScope::new(&network.name, None);
    let leases = tx.lease_count(&scope, Span::of_network(cidr).ends())?;
    let lends = tx.cluster_lends(&network.name)?;
    let given =
        lends.iter().filter(|lend| lend.direction == LendDirection::Given && cidr.contains(lend.address));
    Ok(u128::from(leases) + given.count() as u128)
}

/// Since how long a block is empty: since its last address came back, since it was claimed, since the host was booted.
fn idle(
    tx: &ReadTx<'_>,
    network: &OverlayNetwork,
    row: &BlockRow,
    now: BootTime,
) -> Result<Duration, StoreError> {
    let scope = LeaseScope::new(&network.name, None);
    let freed = tx.freed_latest(&scope, Span::of_network(row.cidr).ends())?;
    let since_freed = now.millis - freed.map_or(0, |freed| freed.millis);
    let opened = Noted::<Block>::read(&row.payload).map_or(0, |noted| noted.since_ms);
    let millis = since_freed.min(unix_ms() - opened).max(0);
    Ok(Duration::from_millis(millis.unsigned_abs()))
}
