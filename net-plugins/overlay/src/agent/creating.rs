//! Networks as the cluster has them: created, described, shared with engines, and removed.

use std::sync::Arc;

use berth_core::Chain;

use super::AgentError;
use super::command::Reply;
use super::networks::{After, Claimed, attached_here};
use super::state::{Agent, answer};
use crate::create::{self, Surroundings};
use crate::model::OverlayNetwork;
use crate::shared;
use crate::wire::{AskNetwork, NewNetwork, Refusal, RefusalCode, ShareNetwork};

impl Agent {
    /// Creates a network.
    pub(super) async fn create(&mut self, new: NewNetwork, reply: Reply<()>) -> Result<(), AgentError> {
        match self.unusable() {
            Some(refusal) => answer(reply, Err(refusal)),
            None => self.begin_creating(new, After::Answer(reply)).await?,
        }
        Ok(())
    }

    /// Removes a network.
    pub(super) async fn remove(&mut self, ask: AskNetwork, reply: Reply<()>) -> Result<(), AgentError> {
        if let Some(refusal) = self.unusable() {
            answer(reply, Err(refusal));
            return Ok(());
        }
        let name = ask.name;
        let looked_for = name.clone();
        let here = self.with(move |hands| attached_here(hands, &looked_for)).await?;
        if let Ok(Some(text)) = here {
            answer(reply, Err(Refusal::new(RefusalCode::InUse, text)));
            return Ok(());
        }
        let Some(link) = &self.link else { return Ok(()) };
        let cluster = Arc::clone(&link.cluster);
        self.claims.spawn(async move {
            let removed = cluster.remove_network(&name).await.map_err(|err| Refusal::from(&err));
            Claimed::Removed(name, removed, reply)
        });
        Ok(())
    }

    /// Says what a network is, or what it would be created as; changes nothing.
    pub(super) async fn describe(
        &mut self,
        ask: AskNetwork,
        reply: Reply<OverlayNetwork>,
    ) -> Result<(), AgentError> {
        let AskNetwork { name, create, address: _ } = ask;
        let record = self.view.network(&name).and_then(|network| network.record().cloned());
        let described = match (record, self.unusable(), create) {
            (Some(record), _, _) => Ok(record.as_ref().clone()),
            (None, Some(refusal), _) => Err(refusal),
            (None, None, None) => Err(self.no_network(&name)),
            (None, None, Some(new)) => self.proposal(&new).await?,
        };
        answer(reply, described);
        Ok(())
    }

    /// Has the engines of all nodes have a network, or not any more.
    pub(super) fn share(&mut self, ask: ShareNetwork, reply: Reply<()>) {
        let Some(link) = self.link.as_ref().filter(|link| link.is_usable()) else {
            let refusal = self.unusable().unwrap_or_else(Refusal::not_joined);
            return answer(reply, Err(refusal));
        };
        let cluster = Arc::clone(&link.cluster);
        self.claims.spawn(async move {
            let shared = cluster.share_network(&ask.name, ask.shared).await;
            Claimed::Shared(shared.map(Box::new).map_err(|err| Refusal::from(&err)), reply)
        });
    }

    /// Tells whoever sees to it that engines have the shared networks; nobody is no harm, for it looks when it starts.
    pub(super) fn tell_sharer(&mut self) {
        let run_dir = self.dirs.run.clone();
        self.claims.spawn(async move {
            let told = tokio::task::spawn_blocking(move || shared::tell(&run_dir)).await;
            if let Ok(Err(err)) = told {
                tracing::debug!(error = %Chain(&err), "nobody was told of shared networks");
            }
            Claimed::Done
        });
    }

    /// The record that a network would be created with.
    async fn proposal(&mut self, new: &NewNetwork) -> Result<Result<OverlayNetwork, Refusal>, AgentError> {
        if new.encrypted
            && let Some(refusal) = self.cannot_encrypt(&new.name).await?
        {
            return Ok(Err(refusal));
        }
        let used = self.with(|hands| hands.berth().prefixes_in_use()).await?;
        let Some(link) = &self.link else { return Ok(Err(Refusal::not_joined())) };
        let node = link.node.borrow().clone();
        let around = Surroundings { view: &self.view, node: &node, used: &used.unwrap_or_default() };
        Ok(create::record(new, &around))
    }

    pub(super) async fn begin_creating(&mut self, new: NewNetwork, after: After) -> Result<(), AgentError> {
        let record = match self.proposal(&new).await? {
            Ok(record) => record,
            Err(refusal) => {
                let (After::Answer(reply) | After::Join(reply)) = after;
                answer(reply, Err(refusal));
                return Ok(());
            }
        };
        let Some(link) = &self.link else { return Ok(()) };
        let cluster = Arc::clone(&link.cluster);
        self.claims.spawn(async move {
            let created = cluster.create_network(&record).await.map_err(|err| Refusal::from(&err));
            Claimed::Created(Box::new(record), created, after)
        });
        Ok(())
    }
}
