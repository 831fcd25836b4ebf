//! `network create`, the part of `network rm` that is the cluster's, and `overlay status`.

use berth_core::Berth;
use berth_core::doctor::{Finding, Severity};
use berth_overlay::call;
use berth_overlay::membership::Membership;
use berth_overlay::shared::Outcome;
use berth_overlay::wire::{AskNetwork, NetworkStatus, NewNetwork, NodeStatusView, Status};
use berth_store::Dirs;
use berth_types::NetworkName;
use serde::Serialize;

use super::share;
use crate::cli::CreateArgs;
use crate::exit::Exit;
use crate::failure::{Doing as _, Failure};
use crate::output::{Colour, Out};

/// `network create`
pub(super) fn create(dirs: &Dirs, args: &CreateArgs, out: &mut Out<'_>) -> Result<Exit, Failure> {
    let CreateArgs { name, driver: _, subnet, gateway, vni, mtu, encrypted, internal, flood, apart } = args;
    let new = NewNetwork {
        name: name.clone(),
        subnets: subnet.clone(),
        gateways: gateway.clone(),
        vni: *vni,
        mtu: *mtu,
        encrypted: *encrypted,
        internal: *internal,
        flood: *flood,
        apart: *apart,
    };
    call::create(&dirs.run, &new).doing(&format!("create network {name}"))?;
    out.line(format!("created network {name}"))?;
    Ok(Exit::Fine)
}

/// Removes a network of the cluster.
pub(super) fn remove(dirs: &Dirs, name: &NetworkName, out: &mut Out<'_>) -> Result<Exit, Failure> {
    call::remove(&dirs.run, &AskNetwork::named(name.clone())).doing(&format!("remove network {name}"))?;
    out.line(format!("removed network {name} from the cluster"))?;
    Ok(Exit::Fine)
}

/// `overlay status`
pub(super) fn status(berth: &mut Berth, out: &mut Out<'_>) -> Result<Exit, Failure> {
    const DOING: &str = "look at the overlay";
    let status = match call::status(&berth.dirs().run) {
        Ok(status) => status,
        Err(err) if err.is_nobody() && Membership::read(berth).doing(DOING)?.is_none() => Status::default(),
        Err(err) => return Err(Failure::new(DOING, &err)),
    };
    let shared = share::all(berth.dirs());
    if out.is_json() {
        out.json(&StatusView { status: &status, shared: &shared })?;
    } else {
        show(&status, &shared, out)?;
    }
    let is_well = |network: &NetworkStatus| network.trouble.is_none() && network.narrow.is_empty();
    let is_well = status.connected && status.networks.iter().all(is_well);
    Ok(if is_well || status.node.is_none() { Exit::Fine } else { Exit::Differs })
}

/// The agent's answer, with what this host's engine has.
#[derive(Serialize)]
struct StatusView<'a> {
    #[serde(flatten)]
    status: &'a Status,
    #[serde(skip_serializing_if = "<[Outcome]>::is_empty")]
    shared: &'a [Outcome],
}

fn show(status: &Status, shared: &[Outcome], out: &mut Out<'_>) -> Result<(), Failure> {
    let Some(node) = &status.node else {
        return match &status.trouble {
            Some(trouble) => out.line(out.coloured(Colour::Bad, trouble)),
            None => out.line("this host has joined no cluster: berth node join"),
        };
    };
    let state = match status.connected {
        true => out.coloured(Colour::Good, "connected"),
        false => out.coloured(Colour::Bad, "not connected"),
    };
    let mut facts = vec![
        ("node", node.to_string()),
        ("cluster", format!("{} ({state})", status.cluster.as_deref().unwrap_or("-"))),
        ("revision", format!("{}, last change {}", status.revision, ago(status.last_change_ms))),
        ("repaired", format!("{} entries", status.counters.repaired)),
        ("written", format!("{} records, {} refused", status.counters.writes, status.counters.refused)),
        ("listed", format!("{} times", status.counters.listings)),
    ];
    if let Some(trouble) = &status.trouble {
        facts.push(("trouble", trouble.replace('\n', "; ")));
    }
    if status.unpublished > 0 {
        facts.push(("waiting", format!("{} attachments the cluster does not have yet", status.unpublished)));
    }
    facts.extend(keys(status));
    for (key, why) in &status.foreign {
        facts.push(("foreign", format!("{key}: {why}")));
    }
    facts.extend(share::facts(shared));
    for (label, value) in facts {
        let label = out.coloured(Colour::Quiet, &format!("{label:<9}"));
        out.line(format!("{label} {value}"))?;
    }
    out.line("")?;
    out.table(NODES, status.nodes.iter().map(node_row).collect(), "no nodes")?;
    out.line("")?;
    out.table(
        NETWORKS,
        status.networks.iter().map(network_row).collect(),
        "this host is on no network of the cluster",
    )
}

/// Since when the keys of encrypted networks are those they are.
fn keys(status: &Status) -> Option<(&'static str, String)> {
    let encrypted = status.networks.iter().find_map(|network| network.encrypted.as_ref())?;
    let published = if encrypted.published {
        ""
    } else {
        ", not known to the cluster yet: nothing is taken from this node"
    };
    Some(("keys", format!("of {}{published}", ago(encrypted.since_ms))))
}

/// Nodes of the network that nothing is sent to.
fn without_key(network: &NetworkStatus) -> Vec<String> {
    let without = network.encrypted.iter().flat_map(|encrypted| &encrypted.without);
    without.map(|node| format!("node `{node}` has no key: nothing is sent to it")).collect()
}

/// What the agent has found wrong, for `doctor`; nothing where none runs.
pub(super) fn findings(dirs: &Dirs) -> Vec<Finding> {
    let status = call::status(&dirs.run).unwrap_or_default();
    let mut findings = Vec::new();
    for network in &status.networks {
        let finding = |code, what: &String, cause: &str, fix: &str| Finding {
            severity: Severity::Person,
            code,
            object: format!("network {}", network.name),
            what: what.clone(),
            cause: cause.to_owned(),
            fix: fix.to_owned(),
        };
        findings.extend(network.narrow.iter().map(|what| {
            let cause = "a link or a route was given a smaller MTU after the network was created";
            let fix =
                "give the link or the route its MTU back, or create the network anew with a smaller one";
            finding("overlay-mtu", what, cause, fix)
        }));
        findings.extend(network.conflicts.iter().map(|what| {
            let cause = "records of the cluster were changed by hand, or restored from a copy";
            finding("overlay-conflict", what, cause, "attach one of the two anew")
        }));
        findings.extend(without_key(network).iter().map(|what| {
            let cause = "its kernel has no ESP with AES-GCM, or its berth is of an earlier version";
            finding("overlay-key", what, cause, "update what it lacks, and attach its containers anew")
        }));
        findings.extend(network.trouble.iter().map(|what| {
            let cause = "another program holds what the network needs, or the cluster has it no more";
            finding("overlay-trouble", what, cause, "see what holds it; it is tried again once a minute")
        }));
    }
    findings
}

const NODES: &[&str] = &["NODE", "STATUS", "VTEP", "LINK MTU", "ATTACHMENTS"];
const NETWORKS: &[&str] =
    &["NETWORK", "VNI", "MTU", "SUBNETS", "BLOCKS HERE", "HERE", "ELSEWHERE", "PEERS", "TROUBLE"];

fn node_row(node: &NodeStatusView) -> Vec<String> {
    vec![
        node.name.to_string(),
        if node.alive { "alive" } else { "silent" }.to_owned(),
        lines(&node.vteps),
        node.underlay_mtu.to_string(),
        node.attachments.to_string(),
    ]
}

fn network_row(network: &NetworkStatus) -> Vec<String> {
    let without = without_key(network);
    let trouble = network.trouble.iter().chain(&network.conflicts).chain(&network.narrow).chain(&without);
    let name = match &network.encrypted {
        None => network.name.to_string(),
        Some(encrypted) => format!("{}\nencrypted, {} peers", network.name, encrypted.peers),
    };
    vec![
        name,
        network.vni.to_string(),
        network.mtu.to_string(),
        lines(&network.subnets),
        lines(&network.blocks),
        network.here.to_string(),
        network.elsewhere.to_string(),
        lines(&network.vteps),
        lines(&trouble.collect::<Vec<_>>()),
    ]
}

fn lines(items: &[impl ToString]) -> String {
    let texts: Vec<String> = items.iter().map(ToString::to_string).collect();
    if texts.is_empty() { "-".to_owned() } else { texts.join("\n") }
}

fn ago(millis: u64) -> String {
    let now = u64::try_from(berth_store::unix_ms()).unwrap_or(0);
    match millis {
        0 => "never".to_owned(),
        _ => format!("{} s ago", now.saturating_sub(millis) / 1000),
    }
}
