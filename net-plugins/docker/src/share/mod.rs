//! Shared networks: Docker on this host is to have every network of the cluster that is shared, under its name.
//!
//! Which ones, the cluster's records say as this host saw them last. What is missing in Docker is created by its own API, with a
//! label; what has the label and is not shared any more is removed. A network without the label is a person's, and is left
//! alone. Docker that is not there, or a cluster that does not let this host on a network yet, is asked again.

mod docker;
mod socket;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use berth_overlay::model::OverlayNetwork;
use berth_overlay::shared::{Outcome, State};
use berth_plugin_http::Workers;
use berth_types::NetworkName;
use tokio::sync::{Notify, watch};

use crate::cores::Cores;
use crate::overlay::seen_networks;
use crate::refusal::{Failure, plain};

pub use socket::router;

/// Between two looks, where all is as it should be, and where it is not.
const EVERY: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_secs(3);

/// How long reading the records may take.
const READ: Duration = Duration::from_secs(20);

/// How long somebody waits for a look.
const SETTLES: Duration = Duration::from_secs(50);

/// Sees to it. Clones are the same one.
#[derive(Clone)]
pub struct Sharer {
    cores: Cores,
    socket: PathBuf,
    workers: Workers,
    poked: Arc<Notify>,
    rounds: watch::Sender<Round>,
}

/// How often was looked, and what came of it.
#[derive(Debug, Clone, Default)]
struct Round {
    begun: u64,
    done: u64,
    outcomes: BTreeMap<NetworkName, Outcome>,
}

impl Sharer {
    /// With the dockerd behind `socket`.
    pub fn new(cores: Cores, socket: PathBuf, workers: Workers) -> Self {
        Self { cores, socket, workers, poked: Arc::default(), rounds: watch::Sender::default() }
    }

    /// Looks soon.
    pub fn poke(&self) {
        self.poked.notify_one();
    }

    /// Looks again and again until `stop` is done.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        loop {
            let is_well = tokio::select! {
                () = &mut stop => return,
                is_well = self.round() => is_well,
            };
            tokio::select! {
                () = &mut stop => return,
                () = self.poked.notified() => (),
                () = tokio::time::sleep(if is_well { EVERY } else { AGAIN }) => (),
            }
        }
    }

    /// Looks, and says whether all is as it should be.
    async fn round(&self) -> bool {
        self.rounds.send_modify(|round| round.begun += 1);
        let outcomes = match self.wanted().await {
            Ok(wanted) => docker::settle(&self.socket, &wanted).await,
            Err(why) => {
                tracing::warn!(why, "which networks are shared cannot be read");
                return false;
            }
        };
        let is_well = outcomes.values().all(|one| matches!(one.state, State::Present | State::Absent));
        self.rounds.send_modify(|round| {
            for outcome in outcomes.values().filter(|one| round.outcomes.get(&one.network) != Some(one)) {
                tracing::info!(network = %outcome.network, state = ?outcome.state, why = outcome.why, "shared network");
            }
            round.done = round.begun;
            round.outcomes = outcomes;
        });
        is_well
    }

    /// The networks that are shared.
    async fn wanted(&self) -> Result<Vec<OverlayNetwork>, String> {
        let cores = self.cores.clone();
        let read = self.workers.run(READ, move || {
            let read = cores.with(|berth| seen_networks(berth).map_err(Failure::from));
            read.map_err(|failure| plain(failure).to_string())
        });
        let seen = read.await.map_err(|why| format!("reading takes long: {why:?}"))??;
        Ok(seen.into_iter().filter(|record| record.shared).collect())
    }

    /// What became of `network` in a look that begins after this call.
    async fn settled(&self, network: NetworkName) -> Result<Outcome, String> {
        let mut rounds = self.rounds.subscribe();
        let next = rounds.borrow().begun + 1;
        self.poke();
        let waited = tokio::time::timeout(SETTLES, rounds.wait_for(|round| round.done >= next)).await;
        match waited {
            Ok(Ok(round)) => Ok(round.outcomes.get(&network).cloned().unwrap_or_else(|| absent(network))),
            Ok(Err(_)) => Err("berthd is ending".to_owned()),
            Err(_) => Err(format!("Docker has not answered for {} s", SETTLES.as_secs())),
        }
    }

    fn outcomes(&self) -> Vec<Outcome> {
        self.rounds.borrow().outcomes.values().cloned().collect()
    }
}

fn absent(network: NetworkName) -> Outcome {
    Outcome { network, state: State::Absent, why: String::new() }
}
