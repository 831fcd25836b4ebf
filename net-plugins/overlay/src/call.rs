//! Calls of the agent's socket, by short-lived programs: blocking, with a deadline, without a runtime.

use std::path::Path;
use std::time::Duration;

use berth_core::exchange::{self, ExchangeError, Service};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::model::OverlayNetwork;
use crate::wire::{AskNetwork, Changed, NewNetwork, Published, Refusal, SOCKET, ShareNetwork, Status};

/// The agent.
const AGENT: Service =
    Service { name: "overlay agent", socket: SOCKET, missed: "\nstart berthd, or its role `overlay`" };

/// How long the agent may take for what it asks the cluster: a few times a call's own deadline there.
const CLUSTER: Duration = Duration::from_secs(15);

/// How long a change is waited for. The agent itself answers before, while the cluster is away.
const CHANGED: Duration = Duration::from_secs(5);

/// How long somebody who looks waits.
const LOOK: Duration = Duration::from_secs(3);

/// The agent was not asked, or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no answer.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// It refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What came back is no answer, or what was asked no question.
    #[error("the answer of the overlay agent cannot be read")]
    Answer(#[source] serde_json::Error),
}

impl CallError {
    /// Whether no agent listened in the first place.
    pub fn is_nobody(&self) -> bool {
        matches!(self, Self::Exchange(err) if err.is_nobody())
    }

    /// Whether no agent runs, now or any more.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Exchange(err) if err.is_absent())
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

/// Takes this node off a network that an engine has given up; refused as in use while something else here needs it.
pub fn let_go(run_dir: &Path, ask: &AskNetwork) -> Result<(), CallError> {
    post(run_dir, "/v1/let-go", ask, CLUSTER)
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

/// Says that attachments were made whose names come soon: they are published once these are on record and [`changed`] says so,
/// or a second later. Refused if the cluster has an address of them as another's.
pub fn nameless(run_dir: &Path, changed: &Changed) -> Result<(), CallError> {
    post(run_dir, "/v1/nameless", changed, CHANGED)
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
    let answer = exchange::exchange(AGENT, run_dir, request, body, deadline)?;
    if answer.is_success {
        return Ok(answer.body);
    }
    Err(match serde_json::from_slice::<Refusal>(&answer.body) {
        Ok(refusal) => refusal.into(),
        Err(err) => CallError::Answer(err),
    })
}
