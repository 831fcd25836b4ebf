//! One look at Docker: what is shared and missing is created, what is no longer shared is removed.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use berth_overlay::model::OverlayNetwork;
use berth_overlay::shared::{Outcome, State};
use berth_types::NetworkName;
use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{Ipam, IpamConfig, Network, NetworkCreateRequest};

use crate::api;
use crate::overlay::{CREATE, DRIVER, NETWORK};
use crate::view::plain_driver;

/// Marks a network that is there because it is shared.
const LABEL: &str = "berth.shared";

/// How long one request may take: to create a network is to put this host on it.
const REQUEST: Duration = Duration::from_secs(40);

type Outcomes = BTreeMap<NetworkName, Outcome>;

/// Makes Docker have `wanted` and no other shared network.
pub(super) async fn settle(socket: &Path, wanted: &[OverlayNetwork]) -> Outcomes {
    let mut outcomes = Outcomes::new();
    let mut note = |name: &NetworkName, (state, why): (State, String)| {
        outcomes.insert(name.clone(), Outcome { network: name.clone(), state, why });
    };
    let (docker, listed) = match listed(socket).await {
        Ok(found) => found,
        Err(why) => {
            wanted.iter().for_each(|network| note(&network.name, (State::NoEngine, why.clone())));
            return outcomes;
        }
    };
    for network in wanted {
        note(&network.name, present(&docker, &listed, network).await);
    }
    for stale in listed.iter().filter(|one| is_ours(one)) {
        let Some(name) = named(stale).and_then(|name| name.parse::<NetworkName>().ok()) else { continue };
        if !wanted.iter().any(|network| network.name == name) {
            note(&name, removed(&docker, stale).await);
        }
    }
    outcomes
}

/// Docker, and its networks.
async fn listed(socket: &Path) -> Result<(Docker, Vec<Network>), String> {
    let docker = api::connect(socket, REQUEST).await?;
    let listed = docker.list_networks(None).await.map_err(said)?;
    Ok((docker, listed))
}

/// The network of the cluster that one of Docker's is.
fn named(network: &Network) -> Option<&str> {
    let is_overlay = plain_driver(network.driver.as_deref().unwrap_or_default()) == DRIVER;
    let options = network.options.as_ref().filter(|_| is_overlay)?;
    options.get(NETWORK).map(String::as_str)
}

fn is_ours(network: &Network) -> bool {
    network.labels.as_ref().is_some_and(|labels| labels.contains_key(LABEL))
}

async fn present(docker: &Docker, listed: &[Network], network: &OverlayNetwork) -> (State, String) {
    let name = network.name.as_str();
    if let Some(one) = listed.iter().find(|one| named(one) == Some(name)) {
        let called = one.name.as_deref().unwrap_or_default();
        return if called == name {
            (State::Present, String::new())
        } else {
            (State::Kept, format!("Docker has it here as `{called}`"))
        };
    }
    if let Some(other) = listed.iter().find(|one| one.name.as_deref() == Some(name)) {
        let driver = other.driver.as_deref().unwrap_or("null");
        let why = format!(
            "Docker has a network `{name}` of its own here (driver {driver}), which is left alone: remove it, or leave it"
        );
        return (State::Kept, why);
    }
    match docker.create_network(request(network)).await {
        Ok(_) => (State::Present, String::new()),
        Err(err) => (State::Failed, said(err)),
    }
}

async fn removed(docker: &Docker, network: &Network) -> (State, String) {
    let id = network.id.as_deref().unwrap_or_default();
    match docker.remove_network(id).await {
        Ok(()) | Err(Error::DockerResponseServerError { status_code: 404, .. }) => {
            (State::Absent, String::new())
        }
        Err(Error::DockerResponseServerError { status_code: 403, message }) => {
            (State::Kept, format!("it is in use here, and goes when it is not: {message}"))
        }
        Err(err) => (State::Failed, said(err)),
    }
}

/// What a person would type, with what the cluster's record says. It creates nothing in the cluster.
fn request(network: &OverlayNetwork) -> NetworkCreateRequest {
    let table = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let name = network.name.as_str();
    let config = network.subnets.iter().map(|one| IpamConfig {
        subnet: Some(one.subnet.to_string()),
        gateway: Some(one.gateway.to_string()),
        ..IpamConfig::default()
    });
    let has = |v4: bool| network.subnets.iter().any(|one| one.subnet.is_ipv4() == v4);
    NetworkCreateRequest {
        name: name.to_owned(),
        driver: Some(DRIVER.to_owned()),
        internal: Some(network.internal),
        // Said only where it is not as usual: older ones do not know the word.
        enable_ipv4: (!has(true)).then_some(false),
        enable_ipv6: has(false).then_some(true),
        ipam: Some(Ipam {
            driver: Some(DRIVER.to_owned()),
            config: Some(config.collect()),
            options: Some(table(&[(NETWORK, name)])),
        }),
        options: Some(table(&[(NETWORK, name), (CREATE, "false")])),
        labels: Some(table(&[(LABEL, "true")])),
        ..NetworkCreateRequest::default()
    }
}

fn said(err: Error) -> String {
    match err {
        Error::DockerResponseServerError { message, .. } => message,
        err => err.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn network(value: serde_json::Value) -> Network {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_network_of_the_cluster_is_told_by_its_driver_and_its_option() {
        let of =
            |driver: &str| network(json!({"Name": "x", "Driver": driver, "Options": {"network": "app"}}));
        assert_eq!(named(&of("roverlay")), Some("app"));
        assert_eq!(named(&of("roverlay:latest")), Some("app"));
        assert_eq!(named(&of("bridge")), None);
        assert!(!is_ours(&of("roverlay")));
        assert!(is_ours(&network(json!({"Name": "x", "Labels": {"berth.shared": "true"}}))));
    }
}
