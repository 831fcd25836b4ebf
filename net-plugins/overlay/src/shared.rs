//! Networks of the cluster that the engines of every node are to have under their names: what is asked of who sees to it on
//! this node, by the agent when the cluster's records change, and by people who want to know.
//!
//! HTTP with JSON bodies on `shared.sock` in the run directory. `POST /v1/look` asks for a look and waits for nothing;
//! `/v1/settle` takes [`Settle`] and answers [`Outcome`] after a look that began later; `GET /v1/shared` answers a list of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_core::exchange::{ExchangeError, exchange_at};
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

/// Nobody sees to it, or it was not understood.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    /// Nobody listens.
    #[error(
        "nobody on this host sees to it that engines have shared networks (`{path}`)\nstart berthd, or its role `docker`"
    )]
    Nobody {
        /// The socket.
        path: PathBuf,
    },
    /// It did not answer as it should.
    #[error("`{path}`: {why}")]
    Failed {
        /// The socket.
        path: PathBuf,
        /// What came instead.
        why: String,
    },
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
    let path = run_dir.join(SOCKET);
    let failed = |why: String| SharedError::Failed { path: path.clone(), why };
    match exchange_at(&path, request, body, deadline) {
        Ok(answer) => serde_json::from_slice(&answer).map_err(|err| failed(err.to_string())),
        Err(ExchangeError::Nobody) => Err(SharedError::Nobody { path }),
        Err(ExchangeError::HungUp) => Err(failed("it hung up".to_owned())),
        Err(ExchangeError::TimedOut) => Err(failed(format!("no answer for {} s", deadline.as_secs()))),
        Err(ExchangeError::Refused { body, .. }) => Err(failed(String::from_utf8_lossy(&body).into_owned())),
        Err(ExchangeError::Io(err)) => Err(failed(err.to_string())),
    }
}
