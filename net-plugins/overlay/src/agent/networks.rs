//! Networks as this node has them: joined and left, and room for more containers in them. Creating one is [`super::creating`]'s.
//!
//! What waits for the cluster is done in a task ([`Claimed`] is what it brings); then the records and the kernel follow. To
//! join is to have a block of each subnet ([`super::tend`]), and then an address of one's own and a declaration.

use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_core::{Chain, CoreError};
use berth_types::NetworkName;

use super::AgentError;
use super::command::Reply;
use super::hands::Hands;
use super::publishing::not_linked;
use super::state::{Agent, Link, answer};
use super::tend::Need;
use crate::blocks::Tended;
use crate::cluster::{Change, ClusterError, Entry};
use crate::create;
use crate::joined::{Joined, Seat, open_blocks};
use crate::model::OverlayNetwork;
use crate::view::Deltas;
use crate::wire::{AskNetwork, Refusal, RefusalCode};

/// How long the watch may be behind the cluster: somebody has just created the network on another node.
const BEHIND: Duration = Duration::from_secs(1);

/// What a task brings back.
pub(super) enum Claimed {
    /// A network's blocks were looked after.
    Tended(NetworkName, Result<Tended, Refusal>),
    /// What this node still had of a network in the cluster, though it is not on it, was given back, or not.
    Cleared(NetworkName, Result<(), Refusal>),
    /// A network was created, or not.
    Created(Box<OverlayNetwork>, Result<(), Refusal>, After),
    /// A network was removed, or not.
    Removed(NetworkName, Result<(), Refusal>, Reply<()>),
    /// Engines are to have a network, or not any more.
    Shared(Result<Box<OverlayNetwork>, Refusal>, Reply<()>),
    /// Something that nobody waits for.
    Done,
}

/// What comes after a network was created.
pub(super) enum After {
    /// Nothing.
    Answer(Reply<()>),
    /// This node is put on it.
    Join(Reply<()>),
}

impl Agent {
    /// Puts this node on a network.
    pub(super) async fn network(&mut self, ask: AskNetwork, reply: Reply<()>) -> Result<(), AgentError> {
        let AskNetwork { name, create, address: _ } = ask;
        if self.joined.contains_key(&name) {
            answer(reply, Ok(()));
            return Ok(());
        }
        if let Some(refusal) = self.unusable() {
            answer(reply, Err(refusal));
            return Ok(());
        }
        match (self.view.network(&name).and_then(|network| network.record().cloned()), create) {
            // Whoever created it may know how; in clear it is never joined.
            (Some(record), _) => match self.cannot_take(&record).await? {
                Some(refusal) => answer(reply, Err(refusal)),
                None => self.get_room(&record, Need::Room, reply),
            },
            (None, Some(new)) => self.begin_creating(new, After::Join(reply)).await?,
            (None, None) => self.awaited.push((name, Instant::now() + BEHIND, reply)),
        }
        Ok(())
    }

    /// Gets more addresses of a network: any, or a certain one.
    pub(super) fn room(&mut self, ask: &AskNetwork, reply: Reply<()>) {
        let name = &ask.name;
        if let Some(refusal) = self.unusable() {
            return answer(reply, Err(refusal));
        }
        let record = self.view.network(name).and_then(|network| network.record().cloned());
        let Some(record) = record.filter(|_| self.joined.contains_key(name)) else {
            let text = format!("network `{name}` is not on this node");
            return answer(reply, Err(Refusal::new(RefusalCode::NoNetwork, text)));
        };
        self.get_room(&record, ask.address.map_or(Need::Room, Need::Address), reply);
    }

    /// Why the cluster cannot be asked for anything now, if so.
    pub(super) fn unusable(&self) -> Option<Refusal> {
        if self.link.is_none() {
            return Some(self.unlinked.as_deref().map_or_else(Refusal::not_joined, not_linked));
        }
        self.cannot_write().map(|why| Refusal::new(RefusalCode::Away, why))
    }

    /// Has blocks or addresses got; who asks while some are got has a share of them.
    fn get_room(&mut self, record: &OverlayNetwork, need: Need, reply: Reply<()>) {
        if let Some(refusal) = self.too_large(record) {
            return answer(reply, Err(refusal));
        }
        let asked = self.claiming.entry(record.name.clone()).or_default();
        asked.push((need, reply));
        if asked.len() == 1 {
            self.tend_network(&record.name, need);
        }
    }

    /// A task has come back.
    pub(super) async fn claimed(&mut self, claimed: Claimed) -> Result<(), AgentError> {
        match claimed {
            Claimed::Done => (),
            Claimed::Created(record, Ok(()), after) => {
                self.known_now((*record).clone()).await?;
                match after {
                    After::Answer(reply) => answer(reply, Ok(())),
                    After::Join(reply) => self.get_room(&record, Need::Room, reply),
                }
            }
            Claimed::Created(record, Err(refusal), after) => {
                // Somebody else created one of the name at the same time: that one, then.
                match after {
                    After::Join(reply) if refusal.code == RefusalCode::Taken => {
                        self.awaited.push((record.name.clone(), Instant::now() + BEHIND, reply));
                    }
                    After::Join(reply) | After::Answer(reply) => answer(reply, Err(refusal)),
                }
            }
            Claimed::Shared(Ok(record), reply) => {
                self.known_now(*record).await?;
                answer(reply, Ok(()));
            }
            Claimed::Shared(Err(refusal), reply) => answer(reply, Err(refusal)),
            Claimed::Removed(name, Ok(()), reply) => {
                self.leave(&name).await?;
                answer(reply, Ok(()));
            }
            Claimed::Removed(_, Err(refusal), reply) => answer(reply, Err(refusal)),
            Claimed::Tended(name, tended) => {
                self.was_tended(name, tended).await?;
                self.leave_those_waiting().await?;
            }
            Claimed::Cleared(name, cleared) => self.was_cleared(&name, cleared),
        }
        Ok(())
    }

    /// The watch tells what was written to all nodes, to this one too; whoever asks here meanwhile is not to wait for that.
    async fn known_now(&mut self, record: OverlayNetwork) -> Result<(), AgentError> {
        let at = self.view.revision();
        let deltas = self.view.apply(at, vec![Change::Put(Entry::Network(record))]);
        self.follow(deltas).await
    }

    async fn was_tended(
        &mut self,
        name: NetworkName,
        tended: Result<Tended, Refusal>,
    ) -> Result<(), AgentError> {
        self.tending.remove(&name);
        let mut outcome = match tended {
            Ok(tended) => {
                for lost in &tended.lost {
                    tracing::error!(network = %name, block = %lost, "a block of this node is another's by now");
                }
                self.tended.insert(name.clone(), tended);
                Ok(())
            }
            Err(refusal) => {
                tracing::debug!(network = %name, %refusal, "its blocks are not as they should be yet");
                Err(refusal)
            }
        };
        let asked = self.claiming.remove(&name).unwrap_or_default();
        if asked.is_empty() {
            return Ok(());
        }
        if outcome.is_ok() && !self.joined.contains_key(&name) {
            outcome = self.join(&name).await?;
        }
        let mut asked = asked.into_iter();
        if let Some((_, first)) = asked.next() {
            answer(first, outcome.clone());
        }
        // What the others need may be something else.
        for (need, reply) in asked {
            let record = self.view.network(&name).and_then(|network| network.record().cloned());
            match (record, need) {
                (Some(record), Need::Address(_)) => self.get_room(&record, need, reply),
                _ => answer(reply, outcome.clone()),
            }
        }
        Ok(())
    }

    /// This node has blocks of the network: it is put on it.
    async fn join(&mut self, name: &NetworkName) -> Result<Result<(), Refusal>, AgentError> {
        let record = self.view.network(name).and_then(|network| network.record().cloned());
        let (Some(link), Some(record)) = (&self.link, record) else { return Ok(Err(Refusal::not_joined())) };
        let membership = link.membership.clone();
        let Some(local) = link.local() else {
            let text = "this node has no tunnel end\nchoose its address: berth node join --address ADDRESS";
            return Ok(Err(Refusal::new(RefusalCode::Unsupported, text)));
        };
        let asked = name.clone();
        let blocks = match self.with(move |hands| open_blocks(hands.berth(), &asked)).await? {
            Ok(blocks) => blocks,
            Err(err) => return Ok(Err(cannot_join(&err))),
        };
        let seat = Seat { node: &membership.name, local };
        let Some(joined) = Joined::new(&record, seat, &blocks) else { return Ok(Err(exhausted(name))) };
        let entries = self.entries(&membership, &joined, local);
        let declared = self.with({
            let joined = joined.clone();
            let peers = entries.desired().peers();
            move |hands| hands.berth().create_overlay(&joined.declaration, Some(&peers))
        });
        if let Err(err) = declared.await? {
            return Ok(Err(cannot_join(&err)));
        }
        // Declared: from here on it is this node's, and what is missing in the kernel is put right in each round.
        self.joined.insert(name.clone(), joined.clone());
        if joined.overlay.encrypted {
            self.encrypt(false).await?;
        }
        self.lay(joined, entries).await?;
        self.read_wanted().await?;
        self.publish(None);
        self.names_anew(Instant::now()).await?;
        Ok(Ok(()))
    }

    /// Networks that were created, changed or removed in the cluster.
    pub(super) async fn records_changed(&mut self, deltas: &Deltas) -> Result<(), AgentError> {
        let is_shared = |record: &Option<Arc<OverlayNetwork>>| record.as_ref().is_some_and(|one| one.shared);
        let records = deltas.networks.values().filter_map(|delta| delta.record.as_ref());
        if records.into_iter().any(|turn| is_shared(&turn.before) != is_shared(&turn.after)) {
            self.tell_sharer();
        }
        for (name, delta) in &deltas.networks {
            let Some(turn) = delta.record.as_ref().filter(|_| self.joined.contains_key(name)) else {
                continue;
            };
            match (&turn.before, &turn.after) {
                (_, None) => self.leave(name).await?,
                (before, Some(after)) => {
                    if before.as_ref().is_none_or(|before| before.encrypted != after.encrypted) {
                        self.turned(name).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes a network off this node that is no more in the cluster, unless somebody is attached to it.
    pub(super) async fn leave(&mut self, name: &NetworkName) -> Result<(), AgentError> {
        if !self.leave_unless_used(name).await? {
            let text = "the cluster has it no more, and containers are attached to it here".to_owned();
            tracing::error!(network = %name, text);
            self.troubles.insert(name.clone(), text);
        }
        Ok(())
    }

    /// Takes a network off this node, unless somebody is attached to it: then it is `false`.
    pub(super) async fn leave_unless_used(&mut self, name: &NetworkName) -> Result<bool, AgentError> {
        let leaving = name.clone();
        match self.with(move |hands| hands.leave(&leaving)).await? {
            Ok(true) => self.forget(name).await?,
            Ok(false) => return Ok(false),
            Err(err) => {
                tracing::error!(network = %name, error = %Chain(&err), "not taken off this node");
                self.troubles.insert(name.clone(), Chain(&err).to_string());
            }
        }
        Ok(true)
    }

    /// Networks that somebody waits for may be there by now.
    pub(super) async fn look_for_awaited(&mut self) -> Result<(), AgentError> {
        for (name, until, reply) in std::mem::take(&mut self.awaited) {
            if self.view.network(&name).is_some() {
                self.network(AskNetwork { name, create: None, address: None }, reply).await?;
            } else {
                self.awaited.push((name, until, reply));
            }
        }
        Ok(())
    }

    pub(super) fn give_up_awaited(&mut self, now: Instant) {
        let (over, left) =
            std::mem::take(&mut self.awaited).into_iter().partition(|(_, until, _)| *until <= now);
        self.awaited = left;
        let over: Vec<_> = over;
        for (name, _, reply) in over {
            let refusal = self.no_network(&name);
            answer(reply, Err(refusal));
        }
    }

    pub(super) fn no_network(&self, name: &NetworkName) -> Refusal {
        let cluster = self.link.as_ref().map(|link| link.cluster.name()).unwrap_or_default();
        let text = format!(
            "{}\ncreate it: berth network create -d overlay {name}",
            ClusterError::NoNetwork { cluster, network: name.clone() }
        );
        Refusal::new(RefusalCode::NoNetwork, text)
    }

    /// Whether the network's packets are too large for this node's link.
    fn too_large(&self, record: &OverlayNetwork) -> Option<Refusal> {
        let link = self.link.as_ref()?;
        let node = link.node.borrow();
        create::too_large(record, &node)
    }
}

pub(super) fn attached_here(hands: &mut Hands, name: &NetworkName) -> Result<Option<String>, CoreError> {
    let rows = hands.berth().store_mut().read(|tx| tx.attachments_of(name).map_err(CoreError::from))?;
    let some: Vec<String> = rows.iter().take(3).map(|row| row.key.container.short().to_owned()).collect();
    let text =
        format!("network `{name}` is in use by {} attachments of this node: {}", rows.len(), some.join(", "));
    Ok((!rows.is_empty()).then_some(text))
}

pub(super) fn is_of(key: &crate::cluster::EntryKey, name: &NetworkName) -> bool {
    matches!(key, crate::cluster::EntryKey::Attachment(network, _, _) if network == name)
}

fn exhausted(name: &NetworkName) -> Refusal {
    let text = format!("network `{name}` has no addresses left for another node\ngive it a larger subnet");
    Refusal::new(RefusalCode::Exhausted, text)
}

fn cannot_join(err: &CoreError) -> Refusal {
    let code = match err {
        CoreError::Declare(_) | CoreError::Plan(_) => RefusalCode::Taken,
        _ => RefusalCode::Failed,
    };
    Refusal::new(code, Chain(err).to_string())
}

impl Link {
    /// Whether the node may write.
    pub(super) fn is_usable(&self) -> bool {
        self.connected && self.present && self.listed
    }
}
