//! Names of containers that have just been connected to a network: whoever looks wants them at once, and so do other hosts.
//!
//! What Docker tells when: `network connect` is an event before the container's program is started, and from then on an
//! inspection of the network has the container's name, without a wait. Its aliases only an inspection of the container has, which
//! waits until the start is over. So the name is learned at the event, and aliases follow. Of several containers at once the first
//! is asked for at once and the others together.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::models::{EventMessage, EventMessageTypeEnum};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Semaphore;

use super::{COMPARISON, Watcher, is_ours};
use crate::reconcile::learn;
use crate::refusal::{Failure, plain};
use crate::view::{DockerEndpoint, DockerNetwork};

/// From one question for a network to the next.
const APART: Duration = Duration::from_millis(50);

/// Containers that are asked about at once: each holds a connection to dockerd until its start is over.
const AT_ONCE: usize = 8;

/// Somebody who was connected.
#[derive(Debug, PartialEq, Eq)]
struct Connected<'e> {
    /// Docker's number of the network.
    network: &'e str,
    /// Docker's number of the container.
    container: &'e str,
}

impl<'e> Connected<'e> {
    /// Reads it from an event, if it tells of that and of a network of berth's.
    fn read(event: &'e EventMessage) -> Option<Self> {
        let is_connect =
            event.typ == Some(EventMessageTypeEnum::NETWORK) && event.action.as_deref() == Some("connect");
        let actor = event.actor.as_ref().filter(|_| is_connect)?;
        let about = actor.attributes.as_ref()?;
        let is_ours = is_ours(about.get("type")?);
        let (network, container) = (actor.id.as_deref()?, about.get("container")?);
        is_ours.then_some(Self { network, container })
    }
}

/// What has come to its end.
enum Done {
    /// The question for a network: who was found on it.
    Network(String, Vec<Endpoint>),
    /// The time in which a network is not asked for again.
    Rest(String),
    /// The question for a container.
    Container,
}

/// An endpoint, with Docker's number of it.
type Endpoint = (String, DockerEndpoint);

/// Learns names while others are learned.
pub(super) struct Learning<'w> {
    watcher: &'w Watcher,
    docker: &'w Docker,
    /// Networks that are not to be asked for now, with the containers that were connected meanwhile.
    resting: BTreeMap<String, BTreeSet<String>>,
    asking: FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send + 'w>>>,
    places: Arc<Semaphore>,
}

impl<'w> Learning<'w> {
    pub(super) fn new(watcher: &'w Watcher, docker: &'w Docker) -> Self {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        Self { watcher, docker, resting: BTreeMap::new(), asking: FuturesUnordered::new(), places }
    }

    /// An event has come.
    pub(super) fn heard(&mut self, event: &EventMessage) {
        let Some(Connected { network, container }) = Connected::read(event) else { return };
        match self.resting.get_mut(network) {
            Some(waiting) => drop(waiting.insert(container.to_owned())),
            None => self.ask(network.to_owned(), [container.to_owned()].into()),
        }
    }

    /// Goes on with what is asked. Does not end while nothing is.
    pub(super) async fn next(&mut self) {
        match self.asking.next().await {
            None => std::future::pending().await,
            Some(Done::Container) => (),
            Some(Done::Network(network, found)) => {
                for endpoint in found {
                    let (watcher, docker) = (self.watcher, self.docker);
                    let (network, places) = (network.clone(), Arc::clone(&self.places));
                    self.asking.push(Box::pin(async move {
                        // It is closed never.
                        let _place = places.acquire_owned().await;
                        watcher.learn_aliases(docker, network, endpoint).await;
                        Done::Container
                    }));
                }
                self.asking.push(Box::pin(async move {
                    tokio::time::sleep(APART).await;
                    Done::Rest(network)
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
        self.asking.push(Box::pin(async move {
            let found = watcher.learn_names(docker, &network, &containers).await;
            Done::Network(network, found)
        }));
    }
}

/// What goes wrong here, the next comparison makes up for.
impl Watcher {
    /// Learns what some containers on a network are called, and returns those that it found there.
    async fn learn_names(&self, docker: &Docker, id: &str, containers: &BTreeSet<String>) -> Vec<Endpoint> {
        let inspected = docker.inspect_network(id, None).await.ok();
        let Some(network) = inspected.and_then(DockerNetwork::read) else { return Vec::new() };
        let endpoints = network.endpoints.into_iter();
        let found: Vec<Endpoint> =
            endpoints.filter(|(_, endpoint)| containers.contains(&endpoint.container)).collect();
        self.learn(id, found.clone()).await;
        found
    }

    /// Learns what a container is also called. The question waits for the container's lock: until its start is over.
    async fn learn_aliases(&self, docker: &Docker, network: String, (number, endpoint): Endpoint) {
        let Some(aliases) = self.ask_aliases(docker, &network, &number, &endpoint).await else { return };
        self.learn(&network, vec![(number, DockerEndpoint { aliases, ..endpoint })]).await;
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
    fn only_a_connection_to_a_network_of_berths_is_one() {
        let event = |typ: &str, action: &str, driver: &str| -> EventMessage {
            let about = json!({"container": "c1", "name": "app", "type": driver});
            let event = json!({"Type": typ, "Action": action, "Actor": {"ID": "n1", "Attributes": about}});
            serde_json::from_value(event).unwrap()
        };
        let expected = Connected { network: "n1", container: "c1" };
        for (typ, action, driver, is_one) in [
            ("network", "connect", "roverlay", true),
            ("network", "connect", "roverlay:latest", true),
            ("network", "connect", "rbridge", true),
            ("network", "connect", "bridge", false),
            ("network", "disconnect", "roverlay", false),
            ("container", "start", "roverlay", false),
        ] {
            let event = event(typ, action, driver);
            assert_eq!(Connected::read(&event).as_ref(), is_one.then_some(&expected), "{event:?}");
        }
    }
}
