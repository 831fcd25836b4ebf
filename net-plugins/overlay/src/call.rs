//! Calls of the agent's socket, by short-lived programs: blocking, with a deadline, without a runtime.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_core::exchange::{ExchangeError, exchange_at};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::model::OverlayNetwork;
use crate::wire::{AskNetwork, Changed, NewNetwork, Published, Refusal, SOCKET, ShareNetwork, Status};

/// How long the agent may take for what it asks the cluster: a few times a call's own deadline there.
const CLUSTER: Duration = Duration::from_secs(15);

/// How long a change is waited for. The agent itself answers before, while the cluster is away.
const CHANGED: Duration = Duration::from_secs(5);

/// How long somebody who looks waits.
const LOOK: Duration = Duration::from_secs(3);

/// The agent was not asked, or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens.
    #[error("no overlay agent listens on `{path}`\nstart berthd, or its role `overlay`")]
    Nobody {
        /// The socket.
        path: PathBuf,
    },
    /// The connection broke off.
    #[error("the overlay agent on `{path}` hung up")]
    HungUp {
        /// The socket.
        path: PathBuf,
    },
    /// There was no answer in time.
    #[error("the overlay agent on `{path}` has not answered for {} s", .after.as_secs())]
    TimedOut {
        /// The socket.
        path: PathBuf,
        /// How long was waited.
        after: Duration,
    },
    /// It refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What came back is no answer, or what was asked no question.
    #[error("the answer of the overlay agent cannot be read")]
    Answer(#[source] serde_json::Error),
    /// The socket cannot be used.
    #[error("failed to use `{path}`")]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl CallError {
    /// Whether no agent runs, now or any more.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Nobody { .. } | Self::HungUp { .. })
    }
}

/// Puts this node on a network of the cluster; returns when it is.
pub fn network(run_dir: &Path, ask: &AskNetwork) -> Result<(), CallError> {
    post(run_dir, "/v1/network", ask, CLUSTER)
}

/// Creates a network in the cluster.
pub fn create(run_dir: &Path, new: &NewNetwork) -> Result<(), CallError> {
    post(run_dir, "/v1/create", new, CLUSTER)
}

/// Removes a network that nobody is attached to from the cluster.
pub fn remove(run_dir: &Path, ask: &AskNetwork) -> Result<(), CallError> {
    post(run_dir, "/v1/remove", ask, CLUSTER)
}

/// What a network of the cluster is, or, with `create`, what it would be created as.
pub fn describe(run_dir: &Path, ask: &AskNetwork) -> Result<OverlayNetwork, CallError> {
    post(run_dir, "/v1/describe", ask, CLUSTER)
}

/// Has the engines of all nodes have a network, or not any more; returns when the cluster says so.
pub fn share(run_dir: &Path, share: &ShareNetwork) -> Result<(), CallError> {
    post(run_dir, "/v1/share", share, CLUSTER)
}

/// Gets this node more addresses of a network.
pub fn room(run_dir: &Path, ask: &AskNetwork) -> Result<(), CallError> {
    post(run_dir, "/v1/room", ask, CLUSTER)
}

/// Says that records of attachments were written or removed; returns when the cluster has them, or will have them later.
pub fn changed(run_dir: &Path, changed: &Changed) -> Result<Published, CallError> {
    post(run_dir, "/v1/changed", changed, CHANGED)
}

/// Says that this node has joined a cluster, or left it.
pub fn joined(run_dir: &Path) -> Result<(), CallError> {
    post(run_dir, "/v1/joined", &(), CHANGED)
}

/// How the agent is.
pub fn status(run_dir: &Path) -> Result<Status, CallError> {
    answered(&exchange(run_dir, ("GET", "/v1/status"), &[], LOOK)?)
}

/// Whether it is there.
pub fn ping(run_dir: &Path) -> Result<(), CallError> {
    answered(&exchange(run_dir, ("GET", "/v1/ping"), &[], LOOK)?)
}

fn post<A: Serialize, R: DeserializeOwned>(
    run_dir: &Path,
    path: &str,
    body: &A,
    deadline: Duration,
) -> Result<R, CallError> {
    let body = serde_json::to_vec(body).map_err(CallError::Answer)?;
    answered(&exchange(run_dir, ("POST", path), &body, deadline)?)
}

fn answered<R: DeserializeOwned>(answer: &[u8]) -> Result<R, CallError> {
    serde_json::from_slice(answer).map_err(CallError::Answer)
}

fn exchange(
    run_dir: &Path,
    request: (&str, &str),
    body: &[u8],
    deadline: Duration,
) -> Result<Vec<u8>, CallError> {
    let path = run_dir.join(SOCKET);
    exchange_at(&path, request, body, deadline).map_err(|failed| match failed {
        ExchangeError::Nobody => CallError::Nobody { path },
        ExchangeError::HungUp => CallError::HungUp { path },
        ExchangeError::TimedOut => CallError::TimedOut { path, after: deadline },
        ExchangeError::Refused { body, .. } => match serde_json::from_slice::<Refusal>(&body) {
            Ok(refusal) => refusal.into(),
            Err(err) => CallError::Answer(err),
        },
        ExchangeError::Io(source) => CallError::Io { path, source },
    })
}
