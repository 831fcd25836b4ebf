//! Blocks and single addresses of this node, looked after ([`crate::blocks`]); nodes that are lost; and room for those who
//! wait for it.
//!
//! One task at a time looks after a network. It has records of its own to read and write, and a view that may be behind: what
//! is so, the cluster says.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_core::Chain;
use berth_store::{BootTime, Dirs, Store};
use berth_types::{BootId, NetworkName, NodeName};

use super::networks::Claimed;
use super::state::{Agent, Link, TEND};
use crate::blocks::{BlocksError, Borrowed, Keeper, Tended, borrowable_of, lost_nodes};
use crate::cluster::{Cluster, Removal};
use crate::model::{LendState, Node, Occupant, OverlayNetwork};
use crate::view::{Deltas, NetworkView};
use crate::wire::{Refusal, RefusalCode};

/// How long another node may take to answer for a single address; one that is silent does not.
const ANSWERS: Duration = Duration::from_secs(2);

/// Between two looks whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(40);

/// How many single addresses are asked for when a subnet is short.
const CANDIDATES: usize = 8;

/// What is needed of a network.
#[derive(Debug, Clone, Copy)]
pub(super) enum Need {
    /// That its blocks are as they should be.
    Order,
    /// Addresses.
    Room,
    /// A certain address.
    Address(IpAddr),
    /// Nothing any more: this node is not on it.
    Nothing,
}

/// What a task works with.
pub(super) struct Tending {
    pub(super) dirs: Dirs,
    pub(super) boot: BootId,
    pub(super) cluster: Arc<dyn Cluster>,
    pub(super) node: Node,
    pub(super) view: NetworkView,
}

impl Agent {
    /// Has a look soon.
    pub(super) fn tend_soon(&mut self) {
        self.tend_at = self.tend_at.min(Instant::now() + Duration::from_millis(200));
    }

    /// Looks after all networks.
    pub(super) fn tend(&mut self) {
        self.tend_at = Instant::now() + TEND;
        if !self.link.as_ref().is_some_and(Link::is_usable) {
            return;
        }
        for name in self.joined.keys().cloned().collect::<Vec<_>>() {
            self.tend_network(&name, Need::Order);
        }
        self.clear();
        self.forget_lost_nodes(Instant::now());
    }

    /// Looks after one network, if the cluster has it and nobody does already.
    pub(super) fn tend_network(&mut self, name: &NetworkName, need: Need) {
        let Some(view) = self.view.network(name).cloned() else { return };
        let Some(link) = self.link.as_ref().filter(|link| link.is_usable()) else { return };
        if !self.tending.insert(name.clone()) {
            // The task at work may have begun before what is to be seen now.
            self.tend_soon();
            return;
        }
        let tending = Tending {
            dirs: self.dirs.clone(),
            boot: self.boot.clone(),
            cluster: Arc::clone(&link.cluster),
            node: link.node.borrow().clone(),
            view,
        };
        let name = name.clone();
        let runtime = tokio::runtime::Handle::current();
        self.claims.spawn(async move {
            let done = tokio::task::spawn_blocking(move || runtime.block_on(tending.work(need))).await;
            let lost =
                |_| Err(Refusal::new(RefusalCode::Failed, "the task that looked for addresses is gone"));
            let done = done.unwrap_or_else(lost);
            match need {
                Need::Nothing => Claimed::Cleared(name, done.map(drop)),
                Need::Order | Need::Room | Need::Address(_) => Claimed::Tended(name, done),
            }
        });
    }

    /// Other nodes ask for single addresses of this node's blocks, or their answers have come.
    pub(super) fn questions(&mut self, deltas: &Deltas) {
        let asks = |turn: &&crate::view::Turn<crate::model::Lend>| {
            turn.after.as_ref().is_some_and(|lend| lend.state == LendState::Asked)
        };
        let networks = deltas.networks.iter().filter(|(name, _)| self.joined.contains_key(*name));
        let asked = networks.filter(|(_, delta)| delta.lends.values().any(|turn| asks(&turn)));
        for name in asked.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.tend_network(&name, Need::Order);
        }
    }

    /// Nodes that were silent for so long that nobody expects them back: their blocks are others' from then on.
    fn forget_lost_nodes(&mut self, now: Instant) {
        let Some(link) = &self.link else { return };
        let silent: BTreeMap<NodeName, Duration> = self.silence.all(now).collect();
        for (name, epoch) in lost_nodes(&self.view, &link.membership.name, &silent, self.settings.lost_after)
        {
            let cluster = Arc::clone(&link.cluster);
            self.claims.spawn(async move {
                match cluster.remove_node(&name, Removal::Lost { epoch }).await {
                    Ok(()) => tracing::warn!(node = %name, "lost for ever: what it had is given back"),
                    Err(err) => tracing::info!(node = %name, error = %Chain(&err), "not removed"),
                }
                Claimed::Done
            });
        }
    }
}

impl Tending {
    async fn work(&self, need: Need) -> Result<Tended, Refusal> {
        let keeper = Keeper { cluster: &*self.cluster, node: &self.node };
        let failed =
            |err: berth_store::StoreError| Refusal::new(RefusalCode::Failed, Chain(&err).to_string());
        let mut store = Store::open(&self.dirs, self.boot.clone()).map_err(failed)?;
        let Some(network) = self.view.record() else { return Ok(Tended::default()) };
        match need {
            Need::Order | Need::Room => (),
            Need::Address(address) => {
                borrow(&keeper, &mut store, network, address).await?;
                return Ok(Tended::default());
            }
            Need::Nothing => return keeper.give_all_back(&self.view).await.map_err(|err| refusal(&err)),
        }
        let tended =
            keeper.tend(&mut store, &self.view, BootTime::now()).await.map_err(|err| refusal(&err))?;
        if let (Need::Room, false) = (need, tended.short.is_empty()) {
            self.borrow_any(&keeper, &mut store, network, &tended).await?;
        }
        Ok(tended)
    }

    /// A single address of each subnet that is short.
    async fn borrow_any(
        &self,
        keeper: &Keeper<'_>,
        store: &mut Store,
        network: &OverlayNetwork,
        tended: &Tended,
    ) -> Result<(), Refusal> {
        for subnet in network.subnets.iter().filter(|subnet| tended.short.contains(&subnet.subnet)) {
            let mut why = None;
            let candidates = borrowable_of(keeper, network, subnet, &self.view, CANDIDATES);
            let mut found = false;
            for address in candidates {
                match borrow(keeper, store, network, address).await {
                    Ok(()) => found = true,
                    Err(refusal) => why = Some(refusal.text),
                }
                if found {
                    break;
                }
            }
            if !found {
                let why = why.map(|why| format!(": {why}")).unwrap_or_default();
                let text = format!(
                    "subnet {} of network `{}` has no address left for this node{why}\ngive it a larger subnet",
                    subnet.subnet, network.name
                );
                return Err(Refusal::new(RefusalCode::Exhausted, text));
            }
        }
        Ok(())
    }
}

async fn borrow(
    keeper: &Keeper<'_>,
    store: &mut Store,
    network: &OverlayNetwork,
    address: IpAddr,
) -> Result<(), Refusal> {
    let until = Instant::now() + ANSWERS;
    let taken = |why: &str| Refusal::new(RefusalCode::Taken, format!("address {address} {why}"));
    loop {
        match keeper.borrow(store, network, &Occupant::Node, address).await.map_err(|err| refusal(&err))? {
            Borrowed::Granted(_) => return Ok(()),
            Borrowed::Refused(_) => {
                return Err(taken("is given to a container of the node whose block it is in"));
            }
            Borrowed::Asked(_) if Instant::now() < until => tokio::time::sleep(LOOK_AGAIN).await,
            Borrowed::Asked(_) => return Err(taken("is in the block of a node that does not answer")),
        }
    }
}

fn refusal(err: &BlocksError) -> Refusal {
    match err {
        BlocksError::Cluster(err) => Refusal::from(err),
        BlocksError::Store(err) => Refusal::new(RefusalCode::Failed, Chain(err).to_string()),
    }
}
