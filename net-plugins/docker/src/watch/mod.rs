//! Asks Docker's API, in the background and never from a handler: dockerd answers it only once it has started, and
//! waits for its plugins while it starts.

mod learn;
mod stopped;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use berth_plugin_http::Workers;
use bollard::Docker;
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::Notify;

use crate::cores::Cores;
use crate::forward::Forward;
use crate::reconcile::{Depth, MISSING_FOR, Missing, reconcile};
use crate::refusal::{Failure, plain};
use crate::view::{DockerEndpoint, DockerNetwork, plain_driver};
use crate::{api, network, overlay};

use learn::Learning;

/// How long one request may take. Docker's own waits for a container are longer, and are not waited for here.
const REQUEST: Duration = Duration::from_secs(10);
/// How long a comparison may take.
const COMPARISON: Duration = Duration::from_secs(120);
/// From one event to the comparison: several come together.
const SETTLE: Duration = Duration::from_millis(200);
/// Between two comparisons, whatever happens: they are not to be felt by whoever starts containers in a row.
const APART: Duration = Duration::from_secs(1);
/// Without any event.
const EVERY: Duration = Duration::from_secs(60);
/// Between two tries to reach dockerd, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// Whether networks of this driver are berth's to look after.
fn is_ours(driver: &str) -> bool {
    [network::DRIVER, overlay::DRIVER].contains(&plain_driver(driver))
}

/// Whether dockerd tells what happens: names of what is connected are learned a moment later then.
#[derive(Debug, Clone, Default)]
pub struct Hearing(Arc<AtomicBool>);

impl Hearing {
    /// Whether it does now.
    pub(crate) fn hears(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, hears: bool) {
        self.0.store(hears, Ordering::Relaxed);
    }
}

/// Watches one dockerd.
#[derive(Clone)]
pub struct Watcher {
    cores: Cores,
    forward: Arc<Forward>,
    socket: PathBuf,
    workers: Workers,
    poked: Arc<Notify>,
    hearing: Hearing,
    missing: Arc<Mutex<Missing>>,
    /// Aliases by endpoint: asked for once, because the question takes the container's lock.
    aliases: Arc<Mutex<BTreeMap<String, Vec<String>>>>,
}

impl Watcher {
    /// Of the dockerd behind `socket`.
    pub fn new(cores: Cores, forward: Arc<Forward>, socket: PathBuf, workers: Workers) -> Self {
        Self {
            cores,
            forward,
            socket,
            workers,
            poked: Arc::default(),
            hearing: Hearing::default(),
            missing: Arc::default(),
            aliases: Arc::default(),
        }
    }

    /// Looks soon: dockerd started, or something happened that is no event.
    pub fn poke(&self) {
        self.poked.notify_one();
    }

    /// Whether it hears of what happens.
    pub fn hearing(&self) -> Hearing {
        self.hearing.clone()
    }

    /// Watches until `stop` is done. A dockerd that is not there, or hangs, costs a try now and then.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let mut pause = RETRY.0;
        loop {
            tokio::select! {
                () = &mut stop => return,
                ended = self.connected() => {
                    self.hearing.set(false);
                    match ended {
                        Ok(()) => pause = RETRY.0,
                        Err(why) => {
                            tracing::debug!(%why, "Docker's API is not to be had");
                            pause = (pause * 2).min(RETRY.1);
                        }
                    }
                }
            }
            tokio::select! {
                () = &mut stop => return,
                () = self.poked.notified() => pause = RETRY.0,
                () = tokio::time::sleep(pause) => (),
            }
        }
    }

    /// One connection, from its first answer to its end.
    async fn connected(&self) -> Result<(), String> {
        let docker = api::connect(&self.socket, REQUEST).await?;
        tracing::info!(socket = %self.socket.display(), "Docker answers");
        let kinds = HashMap::from([("type", vec!["network", "container"])]);
        // The events before the first look: nothing is missed in between.
        let events = docker.events(Some(EventsOptionsBuilder::new().filters(&kinds).build()));
        let (mut events, heard) = (pin!(events), Notify::new());
        let mut learning = Learning::new(self, &docker);
        let mut looks = pin!(self.looks(&docker, &heard));
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => {
                        learning.heard(&event);
                        heard.notify_one();
                    }
                    Some(Err(err)) => return Err(err.to_string()),
                    None => return Ok(()),
                },
                () = learning.next() => (),
                why = &mut looks => return Err(why),
            }
        }
    }

    /// Compares at first, when something is `heard`, and now and then; until Docker does not answer, and why.
    async fn looks(&self, docker: &Docker, heard: &Notify) -> String {
        let mut thorough: Option<Instant> = None;
        loop {
            let looked = Instant::now();
            let all = thorough.is_none_or(|last| looked.duration_since(last) >= EVERY);
            thorough = if all { Some(looked) } else { thorough };
            if let Err(why) = self.look(docker, if all { Depth::All } else { Depth::News }).await {
                return why;
            }
            // The events were asked for before.
            self.hearing.set(true);
            let again = if self.missing().is_empty() { EVERY } else { MISSING_FOR };
            tokio::select! {
                () = heard.notified() => (),
                () = self.poked.notified() => (),
                () = tokio::time::sleep(again) => (),
            }
            // What comes at once is looked at once.
            tokio::time::sleep(SETTLE.max(APART.saturating_sub(looked.elapsed()))).await;
            let _ = heard.notified().now_or_never();
        }
    }

    fn missing(&self) -> std::sync::MutexGuard<'_, Missing> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for everything, and compares.
    async fn look(&self, docker: &Docker, depth: Depth) -> Result<(), String> {
        let networks = self.networks(docker).await?;
        let this = self.clone();
        let done = self.workers.run(COMPARISON, move || {
            match depth {
                Depth::All => this.forward.look(),
                Depth::News => this.forward.ensure(),
            }
            let compared = this.cores.with(|berth| {
                let mut missing = this.missing();
                reconcile(berth, &networks, depth, &mut missing, Instant::now()).map_err(Failure::from)
            });
            compared.map_err(plain)
        });
        match done.await {
            Ok(Ok(())) => (),
            Ok(Err(why)) => tracing::warn!(%why, "not compared with Docker; tried again later"),
            Err(why) => tracing::warn!(?why, "comparing with Docker takes long"),
        }
        Ok(())
    }

    /// Docker's networks of berth's drivers. All or an error: a network left out would look removed.
    async fn networks(&self, docker: &Docker) -> Result<Vec<DockerNetwork>, String> {
        let listed = docker.list_networks(None).await.map_err(|err| err.to_string())?;
        let mut found = Vec::new();
        for network in listed {
            let driver = network.driver.unwrap_or_default();
            let (Some(id), true) = (network.id, is_ours(&driver)) else { continue };
            let inspected = match docker.inspect_network(&id, None).await {
                Ok(inspected) => inspected,
                Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => continue,
                Err(err) => return Err(err.to_string()),
            };
            let mut read =
                DockerNetwork::read(inspected).ok_or_else(|| format!("no sense in network {id}"))?;
            self.add_aliases(docker, &mut read).await;
            found.push(read);
        }
        let of = |endpoint: &String| found.iter().any(|network| network.endpoints.contains_key(endpoint));
        self.aliases().retain(|endpoint, _| of(endpoint));
        Ok(found)
    }

    fn aliases(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<String>>> {
        self.aliases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Other names of containers. They only embellish: what is not answered is left out.
    async fn add_aliases(&self, docker: &Docker, network: &mut DockerNetwork) {
        let id = network.id.clone();
        for (number, endpoint) in network.endpoints.iter_mut().filter(|(_, endpoint)| !endpoint.is_joining())
        {
            let known = self.aliases().get(number).cloned();
            let aliases = match known {
                Some(aliases) => Some(aliases),
                None => self.ask_aliases(docker, &id, number, endpoint).await,
            };
            endpoint.aliases = aliases.unwrap_or_else(|| std::mem::take(&mut endpoint.aliases));
        }
    }

    /// What the container of an endpoint is also called on its network, if Docker answers.
    async fn ask_aliases(
        &self,
        docker: &Docker,
        network: &str,
        number: &str,
        endpoint: &DockerEndpoint,
    ) -> Option<Vec<String>> {
        let container = docker.inspect_container(&endpoint.container, None).await.ok()?;
        let networks = container.network_settings.and_then(|settings| settings.networks);
        let of_network = networks.unwrap_or_default().into_values();
        let own = of_network.filter(|one| one.network_id.as_deref() == Some(network));
        let aliases = endpoint.also_called(own.filter_map(|one| one.aliases).flatten());
        self.aliases().insert(number.to_owned(), aliases.clone());
        Some(aliases)
    }
}
