//! The agent: what the daemon's role `overlay` runs. It stands between this host's records, the cluster and the kernel.
//!
//! Everything it knows is in records: what this node has is in `run.db` and `state.db`, written by whoever attached it; what
//! others have is in the cluster, and as last seen in `state.db`. So it may be killed at any point. A short-lived program
//! writes records first and tells the agent then ([`crate::call`]); the agent reads them itself and answers once the cluster
//! has them, or after a while that it will have them later. What it was never told, it finds: it compares everything at the
//! start, after each listing, and once a minute.
//!
//! The cluster going away changes nothing here: networks that this node is on go on, with room in its blocks, and the
//! kernel's entries stay. Nor does a node going silent: only its names go, after a while (`silence`).
//!
//! One task decides (`state`); what blocks is done one at a time on another thread (`hands`), and what waits for the
//! cluster in tasks of its own: the connection (`session`), each write (`publishing`) and each claim (`networks`).

mod command;
mod creating;
pub mod elsewhere;
mod encrypt;
mod hands;
mod leaving;
pub mod local;
mod nameless;
mod networks;
mod news;
mod publish;
mod publishing;
#[cfg(test)]
pub(crate) mod samples;
mod session;
mod silence;
mod socket;
mod state;
mod status;
mod tend;
mod watcher;
mod width;

use std::time::Duration;

use berth_core::CoreError;
use berth_plugin_http::{Socket, serve_router};
use berth_store::Dirs;
use tokio::sync::{mpsc, oneshot};

pub use berth_ipam::blocks::LOST_AFTER;
pub use encrypt::KEY_PERIOD;
pub use publish::{Acknowledged, Write, due};
pub use session::LEASE;
pub use silence::{GRACE, Silence};

use self::state::Agent;

/// Requests that wait for the agent. More are made to wait in their own tasks: each is a process or a worker already.
const QUEUE: usize = 256;

/// How long what was begun may take once the agent is told to stop.
const ENDS: Duration = Duration::from_secs(5);

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The records cannot be used.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// The kernel cannot be watched.
    #[error(transparent)]
    Netlink(#[from] berth_netlink::NetlinkError),
    /// The socket cannot be served.
    #[error("failed to serve the overlay agent's socket")]
    Serve(#[source] std::io::Error),
    /// A thread could not be started, or ended before its time.
    #[error("a thread of the overlay agent is gone: {0}")]
    Thread(String),
}

/// What can be chosen.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How long another node may be silent until it is taken to be lost for ever ([`LOST_AFTER`]).
    pub lost_after: Duration,
    /// How long a generation of keys lasts ([`KEY_PERIOD`]); the same on every node.
    pub key_period: Duration,
}

/// Runs until `stop`. `ready` is called when it answers.
///
/// # Errors
///
/// The records, the kernel or the socket cannot be used at all. What fails later is said and tried again.
pub async fn run(
    dirs: &Dirs,
    settings: Settings,
    socket: Socket,
    ready: impl FnOnce(),
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), AgentError> {
    let (commands, queue) = mpsc::channel(QUEUE);
    let (close, closed) = oneshot::channel::<()>();
    let closing = async move {
        // The sender gone is a reason to close, too.
        let _ = closed.await;
    };
    // The socket first: what is written before is read at the start, what is written later is told.
    let served = tokio::spawn(serve_router(socket, socket::router(commands), closing));
    let mut agent = Agent::start(dirs, settings, queue).await?;
    ready();
    let outcome = agent.run(stop).await;
    let hands = agent.hands.take();
    drop(agent);
    // Netlink has a runtime of its own, which is not dropped inside another.
    let _ = tokio::task::spawn_blocking(move || drop(hands)).await;
    drop(close);
    match tokio::time::timeout(ENDS, served).await {
        Ok(Ok(Err(err))) => outcome.and(Err(AgentError::Serve(err))),
        _ => outcome,
    }
}
