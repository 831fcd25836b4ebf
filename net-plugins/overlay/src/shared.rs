//! Networks of the cluster that the engines of every node are to have under their names: what is asked of who sees to it on
//! this node, by the agent when the cluster's records change, and by people who want to know.
//!
//! HTTP with JSON bodies on `shared.sock` in the run directory. `POST /v1/look` asks for a look and waits for nothing;
//! `/v1/settle` takes [`Settle`] and answers [`Outcome`] after a look that began later; `GET /v1/shared` answers a list of them.

use std::path::Path;
use std::time::Duration;

use berth_core::exchange::{self, ExchangeError, Service};
use berth_types::NetworkName;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The socket, in the run directory.
pub const SOCKET: &str = "shared.sock";

/// How long an engine may take to have a network.
const SETTLES: Duration = Duration::from_secs(60);

/// How long somebody who looks waits.
const LOOK: Duration = Duration::from_secs(3);

/// Which network is to be seen to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settle {
    /// Its name.
    pub network: NetworkName,
}

/// What became of a shared network in this node's engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The network.
    pub network: NetworkName,
    /// In one word.
    pub state: State,
    /// In a sentence, where the word says too little.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// What became of it, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The engine has it.
    Present,
    /// The engine does not have it, and is not to.
    Absent,
    /// There is no engine here.
    NoEngine,
    /// It stays as it is: another network has the name, or it is in use.
    Kept,
    /// It was tried and failed; it is tried again.
    Failed,
}

/// Who sees to it.
const SHARER: Service =
    Service { name: "Docker role of berthd", socket: SOCKET, missed: "\nstart berthd, or its role `docker`" };

/// Nobody sees to it, or it was not understood.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    /// There is no answer.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// It refused.
    #[error("shared networks: {why}")]
    Refused {
        /// Its words.
        why: String,
    },
    /// What came back is no answer.
    #[error("the answer about shared networks cannot be read")]
    Answer(#[source] serde_json::Error),
}

impl SharedError {
    /// Whether nobody sees to it.
    pub fn is_nobody(&self) -> bool {
        matches!(self, Self::Exchange(err) if err.is_nobody())
    }
}

/// Asks for a look.
pub fn tell(run_dir: &Path) -> Result<(), SharedError> {
    ask(run_dir, ("POST", "/v1/look"), b"", LOOK)
}

/// Has the engine of this node have `network`, or not, as the cluster's records say.
pub fn settle(run_dir: &Path, network: &NetworkName) -> Result<Outcome, SharedError> {
    let body = serde_json::to_vec(&Settle { network: network.clone() }).unwrap_or_default();
    ask(run_dir, ("POST", "/v1/settle"), &body, SETTLES)
}

/// What became of all of them.
pub fn all(run_dir: &Path) -> Result<Vec<Outcome>, SharedError> {
    ask(run_dir, ("GET", "/v1/shared"), b"", LOOK)
}

fn ask<T: DeserializeOwned>(
    run_dir: &Path,
    request: (&str, &str),
    body: &[u8],
    deadline: Duration,
) -> Result<T, SharedError> {
    let answer = exchange::exchange(SHARER, run_dir, request, body, deadline)?;
    match answer.is_success {
        true => serde_json::from_slice(&answer.body).map_err(SharedError::Answer),
        false => Err(SharedError::Refused { why: String::from_utf8_lossy(&answer.body).trim().to_owned() }),
    }
}
