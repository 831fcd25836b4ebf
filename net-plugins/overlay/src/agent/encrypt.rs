//! Encryption of this node's networks: the kernel's states and policies kept as they should be, this node's key published, and
//! what is not as it should be said.
//!
//! It is kept for all nodes of the cluster that have a key, whether they are on a network with this one or not, while at least
//! one encrypted network is here: a state that is laid once and needed again is no state to be made again (`ring`).

use std::net::IpAddr;
use std::time::{Duration, Instant};

use berth_core::Chain;
use berth_types::{NetworkName, NodeName};

use super::AgentError;
use super::state::{Agent, Link};
use crate::create::ENCRYPTED_PORT;
use crate::encryption::{self, Circle, Kept, Member, Peer};
use crate::entries::vtep_of;
use crate::joined::Joined;
use crate::membership::{ClusterPlace, Membership};
use crate::model::{Node, OverlayNetwork};
use crate::underlay::Underlay;
use crate::view::NetworkView;
use crate::wire::{EncryptionView, Refusal, RefusalCode};

/// How long the keys of a generation are sent by: long enough that clocks need not agree well, short enough that no key is used
/// for long.
pub const KEY_PERIOD: Duration = Duration::from_secs(24 * 60 * 60);

/// How it stands.
#[derive(Debug, Default)]
pub(super) struct Standing {
    kept: Option<Kept>,
    /// Why it is not.
    trouble: Option<String>,
    /// When the next generation begins.
    pub(super) turns_at: Option<Instant>,
}

impl Standing {
    /// This node's public key, where it encrypts.
    fn public(&self) -> Option<String> {
        self.kept.as_ref().map(|kept| kept.public.clone())
    }
}

/// Where frames of a network for `node` go to; nowhere in clear of one that is encrypted.
pub(super) fn reach(node: &Node, local: IpAddr, encrypted: bool) -> Option<IpAddr> {
    vtep_of(node, local).filter(|_| !encrypted || Member::of(node).is_ok())
}

impl Agent {
    /// What this node says of itself.
    pub(super) fn node_now(&self, membership: &Membership, underlay: &Underlay) -> Node {
        Node { public_key: self.standing.public(), ..membership.node(&self.boot, underlay) }
    }

    /// Keeps encryption, by the view and the networks as they are now. Whether it could. In a look at everything, what differed
    /// was damage.
    pub(super) async fn encrypt(&mut self, is_round: bool) -> Result<bool, AgentError> {
        let Some(link) = &self.link else { return Ok(true) };
        let (membership, local) = (link.membership.clone(), link.local());
        let could = self.encrypt_as(&membership, local, is_round).await?;
        let public = self.standing.public();
        if let Some(link) = &self.link {
            link.node.send_if_modified(|node| {
                let changed = node.public_key != public;
                node.public_key = public;
                changed
            });
        }
        Ok(could)
    }

    /// The same before there is a connection.
    pub(super) async fn encrypt_as(
        &mut self,
        membership: &Membership,
        local: Option<IpAddr>,
        is_round: bool,
    ) -> Result<bool, AgentError> {
        let Some(circle) = self.circle(membership, local) else {
            self.retire(local).await?;
            return Ok(true);
        };
        match self.with(move |hands| hands.esp().keep(&circle)).await? {
            Ok(kept) => {
                if kept.renewed {
                    tracing::warn!("encryption states were gone: this node has new keys");
                }
                if is_round && kept.steps > 0 && !kept.turned {
                    tracing::warn!(steps = kept.steps, "encryption was put right");
                    self.counters.repaired += u64::try_from(kept.steps).unwrap_or(u64::MAX);
                }
                let turns_at = Some(Instant::now() + kept.turns_in);
                self.standing = Standing { kept: Some(kept), trouble: None, turns_at };
                Ok(true)
            }
            Err(err) => {
                tracing::error!(error = %Chain(&err), "networks cannot be encrypted");
                self.standing.trouble = Some(Chain(&err).to_string());
                self.standing.turns_at = None;
                self.rounds.failed(self.began.elapsed());
                Ok(false)
            }
        }
    }

    /// Takes back what was kept; nothing of a network that needs it is left on this node.
    pub(super) async fn retire(&mut self, local: Option<IpAddr>) -> Result<(), AgentError> {
        self.standing = Standing::default();
        if let Err(err) = self.with(move |hands| hands.esp().retire(local)).await? {
            tracing::error!(error = %Chain(&err), "encryption was not taken back");
            self.rounds.failed(self.began.elapsed());
        }
        Ok(())
    }

    fn circle(&self, membership: &Membership, local: Option<IpAddr>) -> Option<Circle> {
        let own = local.filter(|_| self.joined.values().any(|joined| joined.overlay.encrypted))?;
        let others = self.view.nodes().filter(|(name, _)| **name != membership.name);
        let peer = |node: &Node| Some(Peer { member: Member::of(node).ok()?, vtep: vtep_of(node, own)? });
        let peers = others.filter_map(|(_, node)| peer(node.node()?)).collect();
        Some(Circle { name: membership.name.clone(), own, peers, period: self.settings.key_period })
    }

    /// Why this node has no part in a network that is to be encrypted; nothing where it may have.
    pub(super) async fn cannot_encrypt(&mut self, name: &NetworkName) -> Result<Option<Refusal>, AgentError> {
        let is_listed = |link: &Link| matches!(link.membership.cluster, ClusterPlace::Peers(_));
        if self.link.as_ref().is_some_and(is_listed) {
            let text =
                format!("network `{name}` cannot be encrypted: peers of a file have no keys of each other");
            return Ok(Some(Refusal::new(RefusalCode::Unsupported, text)));
        }
        let probed = name.clone();
        let refused = self.with(move |_| encryption::probe(&probed)).await?.err();
        Ok(refused.map(|err| Refusal::new(RefusalCode::Unsupported, Chain(&err).to_string())))
    }

    /// Why this node does not join the network of the record on account of its encryption.
    pub(super) async fn cannot_take(
        &mut self,
        record: &OverlayNetwork,
    ) -> Result<Option<Refusal>, AgentError> {
        if record.encrypted != (record.port == ENCRYPTED_PORT) {
            let text = format!(
                "network `{}` is {} by its record, and its UDP port {} is that of networks that are not\n\
                 remove it and create it anew",
                record.name,
                if record.encrypted { "encrypted" } else { "not encrypted" },
                record.port
            );
            return Ok(Some(Refusal::new(RefusalCode::Invalid, text)));
        }
        if record.encrypted { self.cannot_encrypt(&record.name).await } else { Ok(None) }
    }

    /// Whether the cluster's record says by now that a network which is here in clear is encrypted, or the opposite. Nothing is
    /// sent then to other nodes, or taken from them.
    pub(super) fn is_cut_off(&self, joined: &Joined) -> bool {
        let record = self.view.network(&joined.record.name).and_then(NetworkView::record);
        record.is_some_and(|record| record.encrypted != joined.overlay.encrypted)
    }

    /// What is wrong with a network's encryption.
    pub(super) fn encryption_trouble(&self, joined: &Joined) -> Option<String> {
        let (was, is) = match joined.overlay.encrypted {
            true => ("encrypted", "not encrypted"),
            false => ("not encrypted", "encrypted"),
        };
        if self.is_cut_off(joined) {
            return Some(format!(
                "it was {was} when this node joined it and its record says that it is {is}: it is cut off from the \
                 other nodes until its containers here are detached"
            ));
        }
        self.standing.trouble.clone().filter(|_| joined.overlay.encrypted)
    }

    /// A network's encryption, to be looked at; nothing of one in clear.
    pub(super) fn encryption_view(&self, name: &NetworkName, joined: &Joined) -> Option<EncryptionView> {
        if !joined.overlay.encrypted {
            return None;
        }
        let me = self.link.as_ref().map(|link| &link.membership.name);
        let on_it = self.view.everything_of(name).into_iter().flat_map(NetworkView::nodes);
        let others: Vec<&NodeName> = on_it.filter(|node| Some(*node) != me).collect();
        let record = |name: &NodeName| self.view.node(name)?.node();
        let has_key = |name: &NodeName| record(name).is_some_and(|node| Member::of(node).is_ok());
        let (with, without): (Vec<&NodeName>, Vec<&NodeName>) =
            others.into_iter().partition(|node| has_key(node));
        let kept = self.standing.kept.as_ref();
        let published = me.and_then(record).and_then(|node| node.public_key.clone());
        Some(EncryptionView {
            since_ms: kept.map_or(0, |kept| kept.since_ms),
            peers: with.len(),
            without: without.into_iter().cloned().collect(),
            published: published.is_some() && published == self.standing.public(),
        })
    }

    /// Cuts a network off whose record is another by now, or joins it to the others again.
    pub(super) async fn turned(&mut self, name: &NetworkName) -> Result<(), AgentError> {
        let Some(joined) = self.joined.get(name).cloned() else { return Ok(()) };
        if self.is_cut_off(&joined) {
            let text = self.encryption_trouble(&joined).unwrap_or_default();
            tracing::error!(network = %name, text);
            self.leave_unless_used(name).await?;
        }
        let (Some(joined), Some(link)) = (self.joined.get(name).cloned(), &self.link) else { return Ok(()) };
        let (membership, Some(local)) = (link.membership.clone(), link.local()) else { return Ok(()) };
        let entries = self.entries(&membership, &joined, local);
        self.lay(joined, entries).await.map(drop)
    }

    /// Leaves networks that are cut off and that nobody is attached to any more.
    pub(super) async fn leave_cut_off(&mut self) -> Result<(), AgentError> {
        let cut = self.joined.values().filter(|joined| self.is_cut_off(joined));
        let names: Vec<NetworkName> = cut.map(|joined| joined.record.name.clone()).collect();
        for name in names {
            self.leave_unless_used(&name).await?;
        }
        Ok(())
    }
}
