//! Blocks and single addresses.

use berth_types::NetworkName;
use etcd_client::{Client, GetOptions, KeyValue};
use ipnetwork::IpNetwork;

use super::EtcdCluster;
use super::change::{Decision, Op, Question, Seen};
use super::session::{Again, call};
use crate::cluster::keys::{self, Read};
use crate::cluster::{ClusterError, Entry, EntryKey};
use crate::model::{Block, Lend, LendState, OverlayNetwork};

impl EtcdCluster {
    pub(super) async fn change_block(
        &self,
        before: Option<&Block>,
        block: &Block,
    ) -> Result<Vec<Lend>, ClusterError> {
        let Block { network, cidr, owner, epoch, .. } = block;
        let places = [path_of(network, *cidr), EntryKey::Network(network.clone()).path(), keys::epoch(owner)];
        let [place, network_place, epoch_place] = &places;
        let question = Question { keys: places.to_vec(), ..Question::default() };
        let decide = |seen: &Seen| {
            if seen.text(epoch_place) != Some(&epoch.to_string()) {
                return Err(ClusterError::Fenced { node: owner.clone(), epoch: *epoch });
            }
            let record = seen.slot(network_place).ok_or_else(|| self.no_network(network))?;
            if !keys::record(&record.value).is_ok_and(|network: OverlayNetwork| may_be_block(&network, *cidr))
            {
                return Err(Self::taken(
                    format!("block {cidr}"),
                    format!("another layout of network `{network}`"),
                ));
            }
            let now = block_in(seen, place)?;
            if now.as_ref() == Some(block) {
                return Ok(Decision::Done);
            }
            if now.as_ref() != before {
                return Err(taken_block(*cidr, network, now.as_ref()));
            }
            Ok(Decision::Write(vec![Op::Put(place.clone(), Entry::Block(block.clone()).value())]))
        };
        self.change(question, decide).await?;
        // A loan of an address in no block compares that there is none. So whatever was lent before the claim is seen here.
        self.lends_in(network, *cidr).await
    }

    pub(super) async fn give_block_back(&self, block: &Block) -> Result<(), ClusterError> {
        let place = path_of(&block.network, block.cidr);
        let question = Question { keys: vec![place.clone()], ..Question::default() };
        let decide = |seen: &Seen| match block_in(seen, &place)? {
            None => Ok(Decision::Done),
            Some(now) if now == *block => Ok(Decision::Write(vec![Op::Delete(place.clone())])),
            Some(now) => Err(taken_block(block.cidr, &block.network, Some(&now))),
        };
        self.change(question, decide).await.map(drop)
    }

    async fn lends_in(&self, network: &NetworkName, cidr: IpNetwork) -> Result<Vec<Lend>, ClusterError> {
        let prefix = self.sessions.prefix();
        let read = |mut client: Client| async move {
            client.get(format!("{prefix}lend/{network}/"), Some(GetOptions::new().with_prefix())).await
        };
        let answer =
            call(&self.sessions, Again::Yes, read).await.map_err(|fault| self.sessions.error(fault))?;
        let lend = |kv: &KeyValue| {
            let path = std::str::from_utf8(kv.key()).ok()?.strip_prefix(prefix)?;
            match keys::read(path, kv.value()) {
                Read::Entry(Entry::Lend(lend)) if cidr.contains(lend.address) => Some(lend),
                _ => None,
            }
        };
        Ok(answer.kvs().iter().filter_map(lend).collect())
    }

    pub(super) async fn ask_for(&self, lend: &Lend, around: IpNetwork) -> Result<LendState, ClusterError> {
        let Lend { network, address, borrower, .. } = lend;
        let place = EntryKey::Lend(network.clone(), *address).path();
        let (block_place, held_place) = (path_of(network, around), keys::address(network, *address));
        let network_place = EntryKey::Network(network.clone()).path();
        let keys = vec![place.clone(), block_place.clone(), held_place.clone(), network_place.clone()];
        let what = || format!("address {address} of network `{network}`");
        let state_of = |seen: &Seen| -> Result<LendState, ClusterError> {
            let block = block_in(seen, &block_place)?;
            Ok(if block.is_some_and(|block| block.owner != *borrower) {
                LendState::Asked
            } else {
                LendState::Granted
            })
        };
        let decide = |seen: &Seen| {
            let record = seen.slot(&network_place).ok_or_else(|| self.no_network(network))?;
            let record: OverlayNetwork = keys::record(&record.value).map_err(|_| self.no_network(network))?;
            if !may_be_block(&record, around) || !around.contains(*address) {
                return Err(Self::taken(what(), format!("another layout of network `{network}`")));
            }
            if let Some(now) = lend_in(seen, &place)? {
                let own = now.borrower == *borrower && now.of == lend.of;
                return if own {
                    Ok(Decision::Done)
                } else {
                    Err(Self::taken(what(), format!("node {}", now.borrower)))
                };
            }
            if seen.slot(&held_place).is_some() {
                return Err(Self::taken(what(), "an attachment"));
            }
            let state = state_of(seen)?;
            let owner = block_in(seen, &block_place)?;
            if let (LendState::Asked, false, Some(owner)) = (state, record.borrowing, &owner) {
                let holder = format!("node {} (the network lends nothing)", owner.owner);
                return Err(Self::taken(what(), holder));
            }
            let sequence = owner.map_or(0, |block| block.sequence);
            let value = Entry::Lend(Lend { state, sequence, ..lend.clone() }).value();
            Ok(Decision::Write(vec![Op::Put(place.clone(), value)]))
        };
        let (seen, written) = self.change(Question { keys, ..Question::default() }, decide).await?;
        match lend_in(&seen, &place)? {
            Some(now) if written.is_none() => Ok(now.state),
            _ => state_of(&seen),
        }
    }

    pub(super) async fn answer_lend(&self, lend: &Lend) -> Result<(), ClusterError> {
        let place = EntryKey::Lend(lend.network.clone(), lend.address).path();
        let question = Question { keys: vec![place.clone()], ..Question::default() };
        let decide = |seen: &Seen| match lend_in(seen, &place)? {
            Some(now)
                if now.state == LendState::Asked && now.borrower == lend.borrower && now.of == lend.of =>
            {
                Ok(Decision::Write(vec![Op::Put(place.clone(), Entry::Lend(lend.clone()).value())]))
            }
            _ => Ok(Decision::Done),
        };
        self.change(question, decide).await.map(drop)
    }

    pub(super) async fn give_lend_back(&self, lend: &Lend) -> Result<(), ClusterError> {
        let place = EntryKey::Lend(lend.network.clone(), lend.address).path();
        let question = Question { keys: vec![place.clone()], ..Question::default() };
        let decide = |seen: &Seen| match lend_in(seen, &place)? {
            Some(now) if now.borrower == lend.borrower && now.of == lend.of => {
                Ok(Decision::Write(vec![Op::Delete(place.clone())]))
            }
            _ => Ok(Decision::Done),
        };
        self.change(question, decide).await.map(drop)
    }
}

fn path_of(network: &NetworkName, cidr: IpNetwork) -> String {
    EntryKey::Block(network.clone(), cidr).path()
}

/// Whether `cidr` is a block of `network`: of its block size and in one of its subnets. Blocks of one size never overlap without
/// being equal, so that their keys tell them apart.
pub(crate) fn may_be_block(network: &OverlayNetwork, cidr: IpNetwork) -> bool {
    let length = if cidr.is_ipv4() { network.block4 } else { network.block6 };
    let within = |subnet: IpNetwork| {
        // A subnet smaller than a block is one block.
        let prefix = length.max(subnet.prefix());
        subnet.contains(cidr.network()) && cidr.prefix() == prefix
    };
    cidr.ip() == cidr.network() && network.subnets.iter().any(|subnet| within(subnet.subnet))
}

/// The block under `place`. One that cannot be read is somebody's all the same.
fn block_in(seen: &Seen, place: &str) -> Result<Option<Block>, ClusterError> {
    let Some(slot) = seen.slot(place) else { return Ok(None) };
    match keys::read(place, &slot.value) {
        Read::Entry(Entry::Block(block)) => Ok(Some(block)),
        _ => Err(EtcdCluster::taken(format!("`{place}`"), "a record that cannot be read")),
    }
}

fn lend_in(seen: &Seen, place: &str) -> Result<Option<Lend>, ClusterError> {
    let Some(slot) = seen.slot(place) else { return Ok(None) };
    match keys::read(place, &slot.value) {
        Read::Entry(Entry::Lend(lend)) => Ok(Some(lend)),
        _ => Err(EtcdCluster::taken(format!("`{place}`"), "a record that cannot be read")),
    }
}

fn taken_block(cidr: IpNetwork, network: &NetworkName, now: Option<&Block>) -> ClusterError {
    let holder = now.map_or_else(|| "nobody".to_owned(), |block| format!("node {}", block.owner));
    EtcdCluster::taken(format!("block {cidr} of network `{network}`"), holder)
}
