//! Networks that an engine has given up: this node leaves them, unless it needs them otherwise. The network itself stays the
//! cluster's, and the other nodes'.
//!
//! Leaving is this node's alone: its records and its kernel. What the cluster has of it there is what it no more wants to be
//! published, and blocks and loans that are written down nowhere; both go when the cluster is to be asked, however much later.

use berth_core::Chain;
use berth_types::NetworkName;

use super::AgentError;
use super::command::Reply;
use super::networks::is_of;
use super::state::{Agent, answer};
use super::tend::Need;
use crate::blocks::unused_of;
use crate::membership::ClusterPlace;
use crate::wire::{Refusal, RefusalCode};

impl Agent {
    /// Takes a network off this node, unless somebody is attached to it here, asks for it, or engines are to have it.
    pub(super) async fn let_go(&mut self, name: NetworkName, reply: Reply<()>) -> Result<(), AgentError> {
        if !self.joined.contains_key(&name) {
            answer(reply, Ok(()));
            return Ok(());
        }
        if self.tending.contains(&name) {
            // It may be claiming a block for it just now.
            self.leaving.push((name, reply));
            return Ok(());
        }
        let left = self.try_leaving(&name).await?;
        answer(reply, left);
        Ok(())
    }

    /// Leaves what was to be left when the last task had come to its end.
    pub(super) async fn leave_those_waiting(&mut self) -> Result<(), AgentError> {
        for (name, reply) in std::mem::take(&mut self.leaving) {
            self.let_go(name, reply).await?;
        }
        Ok(())
    }

    async fn try_leaving(&mut self, name: &NetworkName) -> Result<Result<(), Refusal>, AgentError> {
        let in_use =
            |why: &str| Refusal::new(RefusalCode::InUse, format!("network `{name}` stays here: {why}"));
        let record = self.view.network(name).and_then(|network| network.record().cloned());
        if record.is_some_and(|record| record.shared) {
            return Ok(Err(in_use("it is shared with the engines of all nodes")));
        }
        if self.claiming.contains_key(name) {
            return Ok(Err(in_use("somebody asks for addresses of it")));
        }
        let leaving = name.clone();
        Ok(match self.with(move |hands| hands.let_go(&leaving)).await? {
            Ok(true) => {
                tracing::info!(network = %name, "no engine of this node has it any more; this node has left it");
                self.forget(name).await?;
                self.publish(None);
                self.tend_soon();
                Ok(())
            }
            Ok(false) => Err(in_use("containers of this node have addresses of it")),
            Err(err) => {
                tracing::error!(network = %name, error = %Chain(&err), "not taken off this node");
                Err(Refusal::new(RefusalCode::Failed, Chain(&err).to_string()))
            }
        })
    }

    /// A network is no more on this node.
    pub(super) async fn forget(&mut self, name: &NetworkName) -> Result<(), AgentError> {
        let was_encrypted = self.joined.remove(name).is_some_and(|joined| joined.overlay.encrypted);
        self.troubles.remove(name);
        self.narrow.remove(name);
        self.tended.remove(name);
        self.elsewhere.forget_network(name);
        self.wanted.retain(|key, _| !is_of(key, name));
        self.nameless.retain(|key, _| !is_of(key, name));
        if was_encrypted {
            self.encrypt(false).await?;
        }
        Ok(())
    }

    /// Has given back what this node still has in the cluster of networks that it is not on.
    pub(super) fn clear(&mut self) {
        let Some(link) = &self.link else { return };
        // What peers have of a subnet, the file deals out; nobody gives it back.
        if matches!(link.membership.cluster, ClusterPlace::Peers(_)) {
            return;
        }
        let me = &link.membership.name;
        let left = self.view.networks().filter(|(name, network)| {
            let has = unused_of(network, me).next().is_some() || network.lends_of(me).next().is_some();
            has && !self.joined.contains_key(*name) && !self.claiming.contains_key(*name)
        });
        for name in left.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.tend_network(&name, Need::Nothing);
        }
    }

    pub(super) fn was_cleared(&mut self, name: &NetworkName, cleared: Result<(), Refusal>) {
        self.tending.remove(name);
        if let Err(refusal) = cleared {
            tracing::debug!(network = %name, %refusal, "not all given back yet");
        }
        // Who has asked for the network meanwhile has waited for this.
        if let Some((need, _)) = self.claiming.get(name).and_then(|asked| asked.first()) {
            let need = *need;
            self.tend_network(name, need);
        }
    }
}
