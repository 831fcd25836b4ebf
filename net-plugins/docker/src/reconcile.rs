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

use berth_core::declare::Declaration;
use berth_core::shown::{Shown, key_of_network};
use berth_core::{Berth, Chain, CoreError};
use berth_store::{AttachmentRow, unix_ms};
use berth_types::{AttachmentKey, NetworkName};

use crate::network::{ENGINE, declaration, forget_names, key};
use crate::view::DockerNetwork;
use crate::{ipam, network};

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
    let declared = berth.declarations()?;
    let of_docker: Vec<&(Declaration, i64)> =
        declared.iter().filter(|(one, _)| one.engine == ENGINE).collect();
    for network in docker {
        let known = of_docker.iter().find(|(one, _)| one.name.as_str() == network.id);
        let made = match known {
            Some((declaration, _)) if depth == Depth::All => berth.make_declared(declaration),
            Some(_) => Ok(()),
            None => declare_again(berth, network),
        };
        log(&network.name, made);
    }
    let gone =
        of_docker.iter().filter(|(one, _)| docker.iter().all(|network| network.id != one.name.as_str()));
    let gone: Vec<NetworkName> =
        gone.filter(|(_, created)| is_old(*created)).map(|(one, _)| one.name.clone()).collect();
    for name in overdue(&mut missing.networks, gone, now) {
        tracing::info!(network = %name, "Docker has no such network any more; it is removed");
        let deleted = berth.delete_network(&name);
        log(&name, deleted.and_then(|()| forget_names(berth, &name)));
    }
    let names: BTreeSet<NetworkName> = of_docker.iter().map(|(one, _)| one.name.clone()).collect();
    endpoints(berth, docker, &names, missing, now)?;
    remember_names(berth, docker, &names)?;
    addresses(berth, docker)
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
    docker: &[DockerNetwork],
    names: &BTreeSet<NetworkName>,
    missing: &mut Missing,
    now: Instant,
) -> Result<(), CoreError> {
    let rows: Vec<AttachmentRow> = berth
        .held()?
        .into_iter()
        .map(|(row, _)| row)
        .filter(|row| names.contains(&row.key.network))
        .collect();
    let mut gone = Vec::new();
    for row in rows {
        let AttachmentKey { network, container, .. } = &row.key;
        let has = docker.iter().find(|one| one.id == network.as_str());
        if has.is_some_and(|one| one.endpoints.contains_key(container.as_str())) || !is_old(row.created_ms) {
            continue;
        }
        gone.push(row.key);
    }
    for key in overdue(&mut missing.endpoints, gone, now) {
        tracing::info!(endpoint = %key, "Docker has no such endpoint any more; it is removed");
        if let Err(err) = berth.detach(&key) {
            tracing::warn!(endpoint = %key, error = %Chain(&err), "not reconciled; tried again later");
        }
    }
    Ok(())
}

/// Names that are new or have changed are written, and those of what is gone forgotten.
fn remember_names(
    berth: &mut Berth,
    docker: &[DockerNetwork],
    names: &BTreeSet<NetworkName>,
) -> Result<(), CoreError> {
    let known = berth.names()?;
    let mut wanted = BTreeMap::new();
    for network in docker {
        let Ok(name) = network::network_name(&network.id) else { continue };
        let shown = Shown { name: network.name.clone(), ..Shown::default() };
        wanted.insert(key_of_network(&name), shown);
        for (id, endpoint) in network.endpoints.iter().filter(|(_, endpoint)| !endpoint.is_joining()) {
            let Ok(key) = key(&network.id, id) else { continue };
            let (name, container) = (endpoint.name.clone(), endpoint.container.clone());
            wanted.insert(key, Shown { name, container, aliases: endpoint.aliases.clone() });
        }
    }
    let gone: Vec<AttachmentKey> = known
        .keys()
        .filter(|key| names.contains(&key.network) && !wanted.contains_key(*key))
        .cloned()
        .collect();
    let learned: Vec<_> =
        wanted.into_iter().filter(|(key, shown)| known.attachment(key) != Some(shown)).collect();
    berth.names_write(&learned, &gone)
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
