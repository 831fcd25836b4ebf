//! What these tests share: both releases, and the agreement of the three views.

use std::collections::BTreeSet;
use std::time::Duration;

use berth_integration::engine::{Stage, berth};
use berth_integration::{Host, eventually};
use serde_json::Value;

/// Makes a test of `fn NAME(debian: Debian)` for each release.
macro_rules! on_both_dockers {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            use berth_integration::Debian;

            #[test]
            fn docker_20_10() {
                super::$name(Debian::V12);
            }

            #[test]
            fn docker_26_1() {
                super::$name(Debian::V13);
            }
        }
    )+};
}
pub(crate) use on_both_dockers;

/// Requires that Docker's view, the records and the kernel say the same of every container on berth's networks.
#[track_caller]
pub(crate) fn agree(stage: &Stage<'_>) {
    if !stage.is_berth() {
        return;
    }
    // Docker disconnects in the background what it forgot at a restart.
    eventually(Duration::from_secs(10), || {
        let (docker, records, links) = (of_docker(stage), of_records(stage.host), of_kernel(stage.host));
        if docker != records {
            return Err(format!("Docker knows the addresses {docker:?}, berth {records:?}"));
        }
        let networks = berth(stage.host, ["network", "ls", "--json"]).run();
        let networks: Value = serde_json::from_str(&networks).unwrap();
        let of_docker = stage.types("docker network ls --quiet --filter driver=rbridge");
        if networks.as_array().map(Vec::len) != Some(of_docker.lines().count()) {
            return Err(format!("Docker knows the networks {of_docker}, berth {networks}"));
        }
        let attachments = attachments(stage.host).len();
        if links.len() != attachments {
            return Err(format!("{attachments} attachments, but these links: {links:?}"));
        }
        let doctor = berth(stage.host, ["doctor"]).output();
        if doctor.code() == Some(0) { Ok(()) } else { Err(doctor.to_string()) }
    });
}

/// The addresses of the containers on networks of the driver, as Docker knows them.
fn of_docker(stage: &Stage<'_>) -> BTreeSet<String> {
    let format = format!("network ls --quiet --filter driver={}", stage.driver);
    let ids = stage.docker.run(&format);
    let mut addresses = BTreeSet::new();
    for id in ids.lines() {
        let network = stage.docker.json(&format!("network inspect {id}"));
        for container in network[0]["Containers"].as_object().into_iter().flatten().map(|(_, value)| value) {
            let given = ["IPv4Address", "IPv6Address"].map(|key| container[key].as_str().unwrap_or_default());
            addresses.extend(given.iter().filter(|text| !text.is_empty()).map(|text| (*text).to_owned()));
        }
    }
    addresses
}

/// What `berth ps --json` shows.
pub(crate) fn attachments(host: &Host) -> Vec<Value> {
    let shown: Value = serde_json::from_str(&berth(host, ["ps", "--json"]).run()).unwrap();
    shown.as_array().expect("a list").clone()
}

fn of_records(host: &Host) -> BTreeSet<String> {
    let attachments = attachments(host);
    let addresses = attachments.iter().flat_map(|one| one["addresses"].as_array().into_iter().flatten());
    addresses.map(|address| address.as_str().unwrap().to_owned()).collect()
}

fn of_kernel(host: &Host) -> BTreeSet<String> {
    let links = host.json("ip -j -d link show type veth");
    let ours = links
        .as_array()
        .into_iter()
        .flatten()
        .filter(|link| link["ifalias"].as_str().is_some_and(|alias| alias.starts_with("berth ")));
    ours.map(|link| link["ifname"].as_str().unwrap().to_owned()).collect()
}

/// The host port that `container` is published on, for a port of its own that was published without saying where.
#[track_caller]
pub(crate) fn published(stage: &Stage<'_>, container: &str, port: u16) -> u16 {
    if !stage.is_berth() {
        let shown = stage.docker.run(&format!("port {container} {port}"));
        return shown.lines().next().unwrap().rsplit(':').next().unwrap().parse().unwrap();
    }
    let address = stage.docker.run(&format!(
        "inspect --format {{{{range.NetworkSettings.Networks}}}}{{{{.IPAddress}}}}{{{{end}}}} {container}"
    ));
    let shown: Value = serde_json::from_str(&berth(stage.host, ["ports", "--json"]).run()).unwrap();
    let list = shown.as_array().expect("a list");
    let leads_there = |one: &&Value| one["target"] == address.as_str() && one["target_port"] == port;
    let found = list.iter().find(leads_there);
    let found = found.unwrap_or_else(|| panic!("{container} ({address}) is not in {shown}"));
    u16::try_from(found["host_port"].as_u64().unwrap()).unwrap()
}
