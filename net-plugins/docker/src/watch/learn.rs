//! Names of containers that have just been connected to a network: whoever looks wants them at once, and so do other hosts.
//!
//! What Docker tells when: `network connect` is an event before the container's program is started, and from then on an
//! inspection of the network has the container's name, without a wait. Its aliases only an inspection of the container has, which
//! waits while it is started. So that is asked before its start ([`super::stopped`]), and the name is learned at `network connect`,
//! with the aliases if they are known by then. Once the start is over they are asked for again: they follow, if they are others. A
//! container that runs already waits for nobody when it is connected to one more network: its aliases are asked for with its name.
//! Of several containers at once the first is asked for at once and the others together.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bollard::Docker;
use bollard::models::{ContainerSummary, ContainerSummaryStateEnum, EventMessage, EventMessageTypeEnum};
use bollard::query_parameters::ListContainersOptionsBuilder;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::stopped::{Aliases, ByNetwork, Stopped};
use super::{COMPARISON, Watcher, is_ours};
use crate::reconcile::learn;
use crate::refusal::{Failure, plain};
use crate::view::{DockerEndpoint, DockerNetwork};

/// From one question for a network to the next.
const APART: Duration = Duration::from_millis(50);

/// Containers that are asked about at once: each holds a connection to dockerd until its start is over.
const AT_ONCE: usize = 8;

/// Questions for containers that do not run that may be under way at once: some wait until a start is over.
const AGAIN: usize = 64;

/// How long a container that runs may be locked: it is connected to one more network, or somebody else asks.
const UNLOCKED: Duration = Duration::from_millis(200);

/// Docker's own networks, on which nobody has another name.
const PREDEFINED: [&str; 3] = ["bridge", "host", "none"];

/// What an event tells, if it is of use here.
#[derive(Debug, PartialEq, Eq)]
enum Told<'e> {
    /// A container is there, and will be started.
    Created(&'e str),
    /// Its program runs.
    Started(&'e str),
    /// Its program has ended.
    Died(&'e str),
    /// It is gone.
    Destroyed(&'e str),
    /// A container was connected to a network of berth's.
    Connected { network: &'e str, container: &'e str },
    /// It was disconnected from any network.
    Disconnected(&'e str),
}

impl<'e> Told<'e> {
    fn read(event: &'e EventMessage) -> Option<Self> {
        let actor = event.actor.as_ref()?;
        let id = actor.id.as_deref()?;
        let about = |key: &str| actor.attributes.as_ref()?.get(key).map(String::as_str);
        match (event.typ?, event.action.as_deref()?) {
            (EventMessageTypeEnum::CONTAINER, "create") => Some(Self::Created(id)),
            (EventMessageTypeEnum::CONTAINER, "start") => Some(Self::Started(id)),
            (EventMessageTypeEnum::CONTAINER, "die") => Some(Self::Died(id)),
            (EventMessageTypeEnum::CONTAINER, "destroy") => Some(Self::Destroyed(id)),
            (EventMessageTypeEnum::NETWORK, "connect") if is_ours(about("type")?) => {
                Some(Self::Connected { network: id, container: about("container")? })
            }
            (EventMessageTypeEnum::NETWORK, "disconnect") => Some(Self::Disconnected(about("container")?)),
            _ => None,
        }
    }
}

/// What has come to its end.
enum Done {
    /// The question for a network, by its number and its name: who was found on it and is to be asked about.
    Network { id: String, name: String, found: Vec<Endpoint> },
    /// The time in which a network is not asked for again.
    Rest(String),
    /// The question for a container that is being started.
    Aliases,
    /// The question for a container that does not run.
    Stopped { container: String, at: Instant, aliases: Option<ByNetwork> },
    /// The question for all containers that are there.
    All(Vec<ContainerSummary>),
}

/// An endpoint, with Docker's number of it.
type Endpoint = (String, DockerEndpoint);

/// What is known of containers, shared by questions.
type Known = Arc<Mutex<Aliases>>;

fn lock(known: &Known) -> MutexGuard<'_, Aliases> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Learns names while others are learned.
pub(super) struct Learning<'w> {
    watcher: &'w Watcher,
    docker: &'w Docker,
    known: Known,
    /// Containers whose program runs.
    running: BTreeSet<String>,
    /// Those whose does not.
    stopped: Stopped,
    /// Networks that are not to be asked for now, with the containers that were connected meanwhile.
    resting: BTreeMap<String, BTreeSet<String>>,
    asking: FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send + 'w>>>,
    /// Places to ask about containers that are being started.
    starting: Arc<Semaphore>,
    /// Places to ask about those that were created: they do not wait for the others.
    created: Arc<Semaphore>,
    /// Places to ask about those that were asked about before.
    again: Arc<Semaphore>,
}

impl<'w> Learning<'w> {
    pub(super) fn new(watcher: &'w Watcher, docker: &'w Docker) -> Self {
        let this = Self {
            watcher,
            docker,
            known: Arc::default(),
            running: BTreeSet::new(),
            stopped: Stopped::default(),
            resting: BTreeMap::new(),
            asking: FuturesUnordered::new(),
            starting: Arc::new(Semaphore::new(AT_ONCE)),
            created: Arc::new(Semaphore::new(AT_ONCE)),
            again: Arc::new(Semaphore::new(AGAIN)),
        };
        this.asking.push(Box::pin(async move {
            let all = ListContainersOptionsBuilder::new().all(true).build();
            Done::All(docker.list_containers(Some(all)).await.unwrap_or_default())
        }));
        this
    }

    /// An event has come.
    pub(super) fn heard(&mut self, event: &EventMessage) {
        match Told::read(event) {
            Some(Told::Connected { network, container }) => {
                self.stopped.forget(container);
                match self.resting.get_mut(network) {
                    Some(waiting) => drop(waiting.insert(container.to_owned())),
                    None => self.ask(network.to_owned(), [container.to_owned()].into()),
                }
            }
            Some(Told::Disconnected(container)) if self.running.contains(container) => (),
            Some(Told::Disconnected(container)) => self.stopped.disconnected(container, Instant::now()),
            Some(Told::Created(container)) => self.created(container, Instant::now()),
            Some(Told::Started(container)) => {
                self.stopped.forget(container);
                self.running.insert(container.to_owned());
            }
            Some(Told::Died(container)) => {
                self.running.remove(container);
                self.stopped.ended(container, Instant::now());
            }
            Some(Told::Destroyed(container)) => {
                lock(&self.known).forget(container);
                self.stopped.forget(container);
                self.running.remove(container);
            }
            None => (),
        }
    }

    /// A container was created, and will be started.
    fn created(&mut self, container: &str, since: Instant) {
        self.stopped.created(container, since, Instant::now());
        self.ask_before_start(container.to_owned(), &self.created);
    }

    /// Learns what a container that will be started is to be called.
    fn ask_before_start(&self, container: String, places: &Arc<Semaphore>) {
        let (docker, places) = (self.docker, Arc::clone(places));
        self.asking.push(Box::pin(async move {
            // It is closed never.
            let _place = places.acquire_owned().await;
            let at = Instant::now();
            // One that is being started answers when that is over. dockerd calls it an error to be asked and not listened to.
            let aliases = aliases_by_network(docker, &container).await;
            Done::Stopped { container, at, aliases }
        }));
    }

    /// What was there before anything was heard: who runs, and who may be started.
    fn found(&mut self, all: Vec<ContainerSummary>) {
        for one in all {
            let Some(container) = one.id else { continue };
            let networks = one.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
            match one.state {
                Some(ContainerSummaryStateEnum::RUNNING | ContainerSummaryStateEnum::PAUSED) => {
                    self.running.insert(container);
                }
                _ if networks.keys().any(|name| !PREDEFINED.contains(&name.as_str())) => {
                    self.created(&container, since(one.created.unwrap_or_default()));
                }
                _ => (),
            }
        }
    }

    /// Goes on with what is asked. Does not end while nothing is.
    pub(super) async fn next(&mut self) {
        let due = async {
            match self.stopped.next() {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        let done = tokio::select! {
            done = self.asking.next(), if !self.asking.is_empty() => done,
            () = due => {
                for container in self.stopped.take_due(Instant::now()) {
                    self.ask_before_start(container, &self.again);
                }
                None
            }
        };
        match done {
            None | Some(Done::Aliases) => (),
            Some(Done::Stopped { container, at, aliases }) => {
                self.stopped.answered(&container);
                if aliases.is_some_and(|aliases| lock(&self.known).learn(&container, at, aliases)) {
                    self.stopped.changed(&container, Instant::now());
                }
            }
            Some(Done::All(all)) => self.found(all),
            Some(Done::Network { id, name, found }) => {
                for endpoint in found {
                    let (watcher, docker) = (self.watcher, self.docker);
                    let (id, name, places) = (id.clone(), name.clone(), Arc::clone(&self.starting));
                    let known = Arc::clone(&self.known);
                    self.asking.push(Box::pin(async move {
                        // It is closed never.
                        let _place = places.acquire_owned().await;
                        let container = endpoint.1.container.clone();
                        let at = Instant::now();
                        if let Some(aliases) = watcher.learn_aliases(docker, &id, endpoint).await {
                            lock(&known).learn(&container, at, [(name, aliases)].into());
                        }
                        Done::Aliases
                    }));
                }
                self.asking.push(Box::pin(async move {
                    tokio::time::sleep(APART).await;
                    Done::Rest(id)
                }));
            }
            Some(Done::Rest(network)) => {
                let waiting = self.resting.remove(&network).unwrap_or_default();
                if !waiting.is_empty() {
                    self.ask(network, waiting);
                }
            }
        }
    }

    fn ask(&mut self, network: String, containers: BTreeSet<String>) {
        self.resting.insert(network.clone(), BTreeSet::new());
        let (watcher, docker) = (self.watcher, self.docker);
        let known = Arc::clone(&self.known);
        let running = self.running.intersection(&containers).cloned().collect();
        let connected = Asked { containers, running };
        self.asking.push(Box::pin(async move {
            let (name, found) = watcher.learn_names(docker, &known, &network, &connected).await;
            Done::Network { id: network, name, found }
        }));
    }
}

/// Who was connected to a network, and is asked about.
struct Asked {
    containers: BTreeSet<String>,
    /// Those whose program runs already.
    running: BTreeSet<String>,
}

/// The instant of a time in seconds since 1970, if it is past.
fn since(unix: i64) -> Instant {
    let now = Instant::now();
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(unix.unsigned_abs());
    let age = SystemTime::now().duration_since(at).unwrap_or_default();
    now.checked_sub(age).unwrap_or(now)
}

/// What a container is to be called beside its name.
async fn aliases_by_network(docker: &Docker, container: &str) -> Option<ByNetwork> {
    let inspected = docker.inspect_container(container, None).await.ok()?;
    let networks = inspected.network_settings?.networks?.into_iter();
    Some(networks.map(|(name, one)| (name, one.aliases.unwrap_or_default())).collect())
}

/// What goes wrong here, the next comparison makes up for.
impl Watcher {
    /// Learns what some containers on a network are called, and returns its name and those whose aliases are to be asked for.
    async fn learn_names(
        &self,
        docker: &Docker,
        known: &Known,
        id: &str,
        asked: &Asked,
    ) -> (String, Vec<Endpoint>) {
        let inspected = docker.inspect_network(id, None).await.ok();
        let Some(network) = inspected.and_then(DockerNetwork::read) else { return Default::default() };
        let endpoints = network.endpoints.into_iter();
        let mut found: Vec<Endpoint> =
            endpoints.filter(|(_, endpoint)| asked.containers.contains(&endpoint.container)).collect();
        let running = found.iter().filter(|(_, endpoint)| asked.running.contains(&endpoint.container));
        let at = Instant::now();
        let mut now = self.aliases_of_running(docker, id, running).await;
        for (number, endpoint) in &mut found {
            endpoint.aliases = match now.get_mut(number) {
                Some(aliases) => {
                    lock(known).learn(
                        &endpoint.container,
                        at,
                        [(network.name.clone(), aliases.clone())].into(),
                    );
                    std::mem::take(aliases)
                }
                None => endpoint.also_called(lock(known).of(&endpoint.container, &network.name, id)),
            };
        }
        self.learn(id, found.clone()).await;
        found.retain(|(number, _)| !now.contains_key(number));
        (network.name, found)
    }

    /// What containers that run are also called on a network, by their endpoints, as far as Docker answers soon.
    async fn aliases_of_running(
        &self,
        docker: &Docker,
        network: &str,
        running: impl Iterator<Item = &Endpoint>,
    ) -> BTreeMap<String, Vec<String>> {
        let questions = running.map(async |(number, endpoint)| {
            let question = self.ask_aliases(docker, network, number, endpoint);
            Some((number.clone(), timeout(UNLOCKED, question).await.ok().flatten()?))
        });
        join_all(questions).await.into_iter().flatten().collect()
    }

    /// Learns what a container is also called, and returns it. The question waits for the container's lock: until its start is over.
    async fn learn_aliases(
        &self,
        docker: &Docker,
        network: &str,
        (number, endpoint): Endpoint,
    ) -> Option<Vec<String>> {
        let aliases = self.ask_aliases(docker, network, &number, &endpoint).await?;
        let known = DockerEndpoint { aliases: aliases.clone(), ..endpoint };
        self.learn(network, vec![(number, known)]).await;
        Some(aliases)
    }

    async fn learn(&self, network: &str, endpoints: Vec<Endpoint>) {
        let (cores, network) = (self.cores.clone(), network.to_owned());
        let learned = self.workers.run(COMPARISON, move || {
            cores.with(|berth| learn(berth, &network, &endpoints).map_err(Failure::from)).map_err(plain)
        });
        if let Ok(Err(why)) = learned.await {
            tracing::warn!(%why, "names not learned; tried again later");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_events_only_containers_and_connections_to_networks_of_berths_are_of_use() {
        let event = |typ: &str, action: &str, driver: &str| -> EventMessage {
            let about = json!({"container": "c1", "name": "app", "type": driver});
            let event = json!({"Type": typ, "Action": action, "Actor": {"ID": "n1", "Attributes": about}});
            serde_json::from_value(event).unwrap()
        };
        let connected = || Told::Connected { network: "n1", container: "c1" };
        for (typ, action, driver, told) in [
            ("network", "connect", "roverlay", Some(connected())),
            ("network", "connect", "roverlay:latest", Some(connected())),
            ("network", "connect", "rbridge", Some(connected())),
            ("network", "connect", "bridge", None),
            ("network", "disconnect", "roverlay", Some(Told::Disconnected("c1"))),
            ("network", "disconnect", "bridge", Some(Told::Disconnected("c1"))),
            ("container", "start", "", Some(Told::Started("n1"))),
            ("container", "die", "", Some(Told::Died("n1"))),
            ("container", "pause", "", None),
            ("container", "create", "", Some(Told::Created("n1"))),
            ("container", "destroy", "", Some(Told::Destroyed("n1"))),
            ("network", "create", "roverlay", None),
        ] {
            let event = event(typ, action, driver);
            assert_eq!(Told::read(&event), told, "{event:?}");
        }
    }
}
