//! Makes berth's records and Docker's agree again, in the background.
//!
//! Docker forgets without a word: errors of `Leave`, `DeleteEndpoint` and `DeleteNetwork` are only logged, after a crash none
//! of the three is sent, and a network that was removed while berth was away is gone for Docker at its next start. The other
//! way round, berth may have lost its records, and Docker has not. So whenever the API can be asked, what each has is
//! compared: what Docker has and berth lacks is made again; what berth has and Docker lacks goes, once it was missing for a
//! while, so that nothing is taken from a call that is under way.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::time::{Duration, Instant};

use berth_core::shown::{Shown, key_of_network};
use berth_core::{Berth, Chain, CoreError, Held};
use berth_overlay::attach::publish_names;
use berth_store::unix_ms;
use berth_types::{AttachmentKey, NetworkName};

use crate::network::{ENGINE, declaration, forget_names};
use crate::overlay::Known;
use crate::refusal::{Failure, plain};
use crate::view::{DockerEndpoint, DockerNetwork};
use crate::{endpoint, ipam, network, overlay};

/// How long something must be missing from Docker's answers before it goes.
pub(crate) const MISSING_FOR: Duration = Duration::from_secs(3);

/// How old something must be before it can be missing, milliseconds: Docker lists what it creates only once berth has
/// answered.
const OLD_ENOUGH_MS: i64 = 5_000;

/// The same for an address: between its request and its endpoint's creation Docker does other work.
const ADDRESS_OLD_ENOUGH_MS: i64 = 60_000;

/// What was missing when last looked, and since when.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    networks: BTreeMap<NetworkName, Instant>,
    endpoints: BTreeMap<AttachmentKey, Instant>,
}

impl Missing {
    /// Whether something is waiting to be looked at again.
    pub(crate) fn is_empty(&self) -> bool {
        self.networks.is_empty() && self.endpoints.is_empty()
    }
}

/// How much is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Also whether what both know is whole in the kernel.
    All,
    /// What one has and the other has not.
    News,
}

/// Compares and repairs. Errors are logged: the next comparison tries again.
pub(crate) fn reconcile(
    berth: &mut Berth,
    docker: &[DockerNetwork],
    depth: Depth,
    missing: &mut Missing,
    now: Instant,
) -> Result<(), CoreError> {
    for network in docker {
        let made = know(berth, network, depth);
        log(&network.name, made);
    }
    let places = places(berth, docker)?;
    let gone = places.iter().filter(|place| place.docker.is_none() && is_old(place.created_ms));
    for name in overdue(&mut missing.networks, gone.map(|place| place.network.clone()).collect(), now) {
        tracing::info!(network = %name, "Docker has no such network any more; it is removed");
        let Some(place) = places.iter().find(|place| place.network == name) else { continue };
        if let Err(failure) = place.remove(berth) {
            let why = plain(failure);
            tracing::warn!(network = %name, %why, "not removed; tried again soon");
            missing.networks.insert(name, now);
        }
    }
    endpoints(berth, &places, missing, now)?;
    remember_names(berth, &places)?;
    for place in &places {
        if let (Some(known), Some(network)) = (&place.cluster, place.docker) {
            overlay::keep_holds(berth, known, network, ADDRESS_OLD_ENOUGH_MS)?;
        }
    }
    addresses(berth, docker)
}

/// Writes down what containers on a network are called, and has other nodes hear of it where it is one of the cluster. `id` is
/// Docker's number of the network; endpoints are named by theirs.
pub(crate) fn learn(
    berth: &mut Berth,
    id: &str,
    endpoints: &[(String, DockerEndpoint)],
) -> Result<(), CoreError> {
    let of_cluster = overlay::find(berth, id)?.map(|known| known.network);
    let network = match &of_cluster {
        Some(network) => network.clone(),
        None => network::network_name(id).map_err(missing)?,
    };
    let mut learned = Vec::new();
    for (number, endpoint) in endpoints {
        let Ok(key) = endpoint::key(network.clone(), number) else { continue };
        let shown = shown(endpoint);
        // It may be gone already.
        if berth.held_of(&key)?.is_some() && berth.name_of(&key)?.as_ref() != Some(&shown) {
            learned.push((key, shown));
        }
    }
    berth.names_write(&learned, &[])?;
    if of_cluster.is_some() {
        publish_names(berth, &learned.into_iter().map(|(key, _)| key).collect::<Vec<_>>());
    }
    Ok(())
}

/// What people call the container of an endpoint.
fn shown(DockerEndpoint { container, name, aliases }: &DockerEndpoint) -> Shown {
    Shown { name: name.clone(), container: container.clone(), aliases: aliases.clone() }
}

/// A network that is Docker's by berth's records.
struct Place<'a> {
    network: NetworkName,
    /// The cluster's, where it is one of those.
    cluster: Option<Known>,
    created_ms: i64,
    /// As Docker has it, if it has.
    docker: Option<&'a DockerNetwork>,
}

impl Place<'_> {
    /// Docker has it no more.
    fn remove(&self, berth: &mut Berth) -> Result<(), Failure> {
        match &self.cluster {
            Some(known) => overlay::forget(berth, known),
            None => {
                berth.delete_network(&self.network)?;
                Ok(forget_names(berth, &self.network)?)
            }
        }
    }
}

fn places<'a>(berth: &mut Berth, docker: &'a [DockerNetwork]) -> Result<Vec<Place<'a>>, CoreError> {
    let docker_of = |id: &str| docker.iter().find(|network| network.id == id);
    let declared = berth.declarations()?.into_iter().filter(|(one, _)| one.engine == ENGINE);
    let mut places: Vec<Place<'_>> = declared
        .map(|(declaration, created_ms)| Place {
            docker: docker_of(declaration.name.as_str()),
            network: declaration.name,
            cluster: None,
            created_ms,
        })
        .collect();
    places.extend(overlay::all(berth)?.into_iter().map(|known| Place {
        network: known.network.clone(),
        docker: docker_of(&known.id),
        created_ms: known.created_ms,
        cluster: Some(known),
    }));
    Ok(places)
}

/// Sees to it that berth knows a network that Docker has.
fn know(berth: &mut Berth, network: &DockerNetwork, depth: Depth) -> Result<(), CoreError> {
    if network.driver == overlay::DRIVER {
        let is_known = overlay::all(berth)?.iter().any(|known| known.id == network.id);
        // What the kernel has of it, the cluster's agent looks after.
        return if is_known { Ok(()) } else { overlay::know_again(berth, network) };
    }
    let declared = berth.declared(&network::network_name(&network.id).map_err(missing)?)?;
    match declared.filter(|one| one.engine == ENGINE) {
        Some(declaration) if depth == Depth::All => berth.make_declared(&declaration),
        Some(_) => Ok(()),
        None => declare_again(berth, network),
    }
}

fn missing(refusal: berth_plugin_http::Refusal) -> CoreError {
    CoreError::Missing { what: refusal.to_string() }
}

fn is_old(created_ms: i64) -> bool {
    unix_ms().saturating_sub(created_ms) > OLD_ENOUGH_MS
}

fn log(what: &impl std::fmt::Display, done: Result<(), CoreError>) {
    if let Err(err) = done {
        tracing::warn!(network = %what, error = %Chain(&err), "not reconciled; tried again later");
    }
}

/// Those of `gone` that have been missing for long enough. `missing` is what is not there now.
fn overdue<K: Ord + Clone + Hash>(missing: &mut BTreeMap<K, Instant>, gone: Vec<K>, now: Instant) -> Vec<K> {
    let before = std::mem::take(missing);
    for key in gone {
        let since = before.get(&key).copied().unwrap_or(now);
        missing.insert(key, since);
    }
    let overdue: Vec<K> = missing
        .iter()
        .filter(|(_, since)| now.saturating_duration_since(**since) >= MISSING_FOR)
        .map(|(key, _)| key.clone())
        .collect();
    missing.retain(|key, _| !overdue.contains(key));
    overdue
}

/// A network that Docker has and the records lost.
fn declare_again(berth: &mut Berth, network: &DockerNetwork) -> Result<(), CoreError> {
    match declaration(&network.created_by()) {
        Ok(declaration) => {
            tracing::info!(network = network.name, "known to Docker and not to berth; it is declared again");
            berth.create_network(&declaration)
        }
        Err(refusal) => Err(CoreError::Missing { what: refusal.to_string() }),
    }
}

/// Endpoints that Docker has forgotten.
fn endpoints(
    berth: &mut Berth,
    places: &[Place<'_>],
    missing: &mut Missing,
    now: Instant,
) -> Result<(), CoreError> {
    let mut gone = Vec::new();
    for (row, held) in berth.held()? {
        let Some(place) = places.iter().find(|place| place.network == row.key.network) else { continue };
        // Other engines may be on a network of the cluster too.
        let is_handed = matches!(&held, Held::Bridge(record) if record.peer.is_some());
        let is_dockers = place.cluster.is_none() || is_handed;
        let has = place.docker.is_some_and(|one| one.endpoints.contains_key(row.key.container.as_str()));
        if is_dockers && !has && is_old(row.created_ms) {
            gone.push(row.key);
        }
    }
    let mut published = Vec::new();
    for key in overdue(&mut missing.endpoints, gone, now) {
        tracing::info!(endpoint = %key, "Docker has no such endpoint any more; it is removed");
        if let Err(err) = berth.detach(&key) {
            tracing::warn!(endpoint = %key, error = %Chain(&err), "not reconciled; tried again later");
        }
        published.push(key);
    }
    publish(berth, places, published);
    Ok(())
}

/// Names that are new or have changed are written, and those of what is gone forgotten.
fn remember_names(berth: &mut Berth, places: &[Place<'_>]) -> Result<(), CoreError> {
    let known = berth.names()?;
    let declared: BTreeSet<NetworkName> =
        berth.declarations()?.into_iter().map(|(declaration, _)| declaration.name).collect();
    let mut wanted = BTreeMap::new();
    for Place { network, cluster, docker, .. } in places {
        let Some(docker) = docker else { continue };
        // A network of the cluster keeps its name; what Docker calls it is one more, if that is no other's.
        let is_others = cluster.is_some() && declared.iter().any(|name| name.as_str() == docker.name);
        if !is_others || network.as_str() == docker.name {
            wanted.insert(key_of_network(network), Shown { name: docker.name.clone(), ..Shown::default() });
        }
        for (id, endpoint) in docker.endpoints.iter().filter(|(_, endpoint)| !endpoint.is_joining()) {
            let Ok(key) = endpoint::key(network.clone(), id) else { continue };
            wanted.insert(key, shown(endpoint));
        }
    }
    let is_here = |key: &AttachmentKey| places.iter().any(|place| place.network == key.network);
    let mut gone = Vec::new();
    for key in known.keys().filter(|key| is_here(key) && !wanted.contains_key(*key)) {
        // One that is attached was connected, and its names learned, since Docker was asked.
        if berth.held_of(key)?.is_none() {
            gone.push(key.clone());
        }
    }
    let learned: Vec<_> =
        wanted.into_iter().filter(|(key, shown)| known.attachment(key) != Some(shown)).collect();
    berth.names_write(&learned, &gone)?;
    publish(berth, places, learned.into_iter().map(|(key, _)| key).chain(gone).collect());
    Ok(())
}

/// Other nodes hear of those that are on networks of the cluster.
fn publish(berth: &Berth, places: &[Place<'_>], mut keys: Vec<AttachmentKey>) {
    let of_cluster = |key: &AttachmentKey| {
        let mut clusters = places.iter().filter(|place| place.cluster.is_some());
        clusters.any(|place| place.network == key.network)
    };
    keys.retain(|key| of_cluster(key) && *key != key_of_network(&key.network));
    publish_names(berth, &keys);
}

/// Addresses that were given and never used: their request was answered to nobody.
fn addresses(berth: &mut Berth, docker: &[DockerNetwork]) -> Result<(), CoreError> {
    for driver in [network::DRIVER, ipam::DRIVER] {
        let ours: Vec<&DockerNetwork> = docker.iter().filter(|one| one.ipam == driver).collect();
        let subnets = ours.iter().flat_map(|one| one.subnets.iter().copied()).collect();
        let known = ours.iter().flat_map(|one| one.addresses.iter().copied()).collect();
        let released = berth.pools_keep(driver, &subnets, &known, ADDRESS_OLD_ENOUGH_MS)?;
        if released > 0 {
            tracing::info!(driver, released, "addresses that Docker does not hold are free again");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_twice_and_long_enough_is_overdue() {
        let mut missing = BTreeMap::new();
        let start = Instant::now();
        assert!(overdue(&mut missing, vec!["a", "b"], start).is_empty());
        let later = start + MISSING_FOR;
        // `b` was there again in between, so it begins anew.
        assert!(overdue(&mut missing, vec!["a"], start + MISSING_FOR / 2).is_empty());
        assert_eq!(overdue(&mut missing, vec!["a", "b"], later), ["a"]);
        assert_eq!(missing.keys().collect::<Vec<_>>(), [&"b"]);
    }
}
