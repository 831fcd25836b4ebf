//! What the agent is asked for.

use tokio::sync::oneshot;

use crate::model::OverlayNetwork;
use crate::wire::{AskNetwork, Changed, NewNetwork, Published, Refusal, ShareNetwork, Status};

/// Whom the agent answers.
pub(super) type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// What the agent is asked for, by its socket.
pub(super) enum Command {
    /// Put this node on a network.
    Network(AskNetwork, Reply<()>),
    /// Create a network.
    Create(NewNetwork, Reply<()>),
    /// Remove a network.
    Remove(AskNetwork, Reply<()>),
    /// Take this node off a network that an engine has given up, unless it is used here otherwise.
    LetGo(AskNetwork, Reply<()>),
    /// What a network is, or would be created as.
    Describe(AskNetwork, Reply<OverlayNetwork>),
    /// Have the engines of all nodes have a network, or not any more.
    Share(ShareNetwork, Reply<()>),
    /// Get more addresses.
    Room(AskNetwork, Reply<()>),
    /// Records of attachments were changed.
    Changed(Changed, Reply<Published>),
    /// Records of attachments were made whose names come soon.
    Nameless(Changed, Reply<()>),
    /// This node joined a cluster, or left it.
    Joined(Reply<()>),
    /// How is it?
    Status(Reply<Status>),
}
