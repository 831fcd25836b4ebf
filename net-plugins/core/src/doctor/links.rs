//! Links and addresses of the host against the records. Pure.

use std::collections::{BTreeMap, BTreeSet};

use berth_netlink::{Addr, Link, LinkKind};
use berth_types::{AttachmentKey, IfName, NetworkName};

use super::read::Seen;
use super::records::{Recorded, Row};
use super::{Finding, GC, Words};
use crate::attachment::{AttachmentRecord, attachment_alias, bridge_alias, key_of_alias};
use crate::network::NetworkRecord;
use crate::overlay::{OverlayFault, faults, network_of_vxlan};
use crate::published::Held;

/// Compares.
pub(super) fn compare(recorded: &Recorded, seen: &Seen) -> Vec<Finding> {
    let Some(links) = &seen.links else { return Vec::new() };
    let by_name: BTreeMap<&IfName, &Link> = links.iter().map(|link| (&link.name, link)).collect();
    let mut findings = Vec::new();
    let mut done = BTreeSet::new();
    for network in &recorded.networks {
        // Several networks may share one bridge.
        let first = done.insert(&network.bridge);
        findings.extend(bridge(network, by_name.get(&network.bridge).copied(), recorded, first));
        if let Some(link) = by_name.get(&network.bridge) {
            findings.extend(gateways(network, link, &seen.addrs));
            findings.extend(overlay(network, links));
        }
    }
    for row in recorded.rows.iter().filter(|row| row.stands()) {
        let Ok(Held::Bridge(record)) = &row.held else { continue };
        findings.extend(port(record, &by_name));
    }
    findings.extend(unrecorded(recorded, links));
    findings
}

fn bridge(network: &NetworkRecord, link: Option<&Link>, recorded: &Recorded, first: bool) -> Option<Finding> {
    let NetworkRecord { name, bridge, .. } = network;
    let object = format!("bridge {bridge}");
    if !first {
        return None;
    }
    let Some(link) = link else {
        let attached = recorded.rows.iter().filter(|row| row.stands() && row.key.network == *name).count();
        let words = |fix: &str| Words {
            object: &object,
            what: format!("of network {name} is gone; {attached} attachments are cut off"),
            cause: "somebody deleted it",
            fix: fix.to_owned(),
        };
        return Some(match attached {
            0 => {
                Words { what: format!("of network {name} is gone"), ..words(GC) }.repairable("bridge-missing")
            }
            _ => words("restart the network's containers: the next attach makes the bridge again")
                .person("bridge-missing"),
        });
    };
    if link.kind != LinkKind::Bridge {
        let words = Words {
            object: &object,
            what: format!("of network {name} is a {} now", link.kind),
            cause: "somebody deleted it and made another link of the same name",
            fix: format!("rename or delete the link `{bridge}`, then restart the network's containers"),
        };
        return Some(words.person("bridge-replaced"));
    }
    if !link.up {
        let words = Words {
            object: &object,
            what: format!("of network {name} is down"),
            cause: "somebody took it down",
            fix: format!("ip link set {bridge} up"),
        };
        return Some(words.repairable("bridge-down"));
    }
    let tagged = link.alias.as_deref().is_some_and(|alias| alias.starts_with("berth "));
    (network.bridge_is_ours && !tagged).then(|| {
        let words = Words {
            object: &object,
            what: format!("does not carry the tag of network {name}"),
            cause: "somebody made the bridge again, or changed its alias",
            fix: format!("ip link set {bridge} alias '{}'", bridge_alias(name)),
        };
        words.note("bridge-tag-missing")
    })
}

/// The way to other hosts.
fn overlay(network: &NetworkRecord, links: &[Link]) -> Vec<Finding> {
    let finding = |OverlayFault { link, what }: OverlayFault| {
        Words {
            object: &format_args!("link {link}"),
            what: format!("of overlay network {} {what}", network.name),
            cause: "somebody changed or deleted it; network managers do that to links they think are theirs",
            fix: GC.to_owned(),
        }
        .repairable("overlay-link")
    };
    faults(network, links).into_iter().map(finding).collect()
}

fn gateways(network: &NetworkRecord, link: &Link, addrs: &[Addr]) -> Vec<Finding> {
    let NetworkRecord { name, bridge, gateways, .. } = network;
    let wanted = network.bridge_addresses();
    let object = format!("bridge {bridge}");
    let mut findings = Vec::new();
    let carries = network.gateway || network.overlay.is_some();
    for wanted in wanted.iter().filter(|_| carries && link.kind == LinkKind::Bridge) {
        let sort = if gateways.contains(wanted) { "gateway address" } else { "this host's address" };
        let have = addrs.iter().find(|addr| addr.index == link.index && addr.address.ip() == wanted.ip());
        match have {
            None => findings.push(
                Words {
                    object: &object,
                    what: format!("lacks {sort} {wanted} of network {name}"),
                    cause: "somebody removed it; network managers do that to bridges they think are theirs",
                    fix: format!("ip address add {wanted} dev {bridge}"),
                }
                .repairable("gateway-address-missing"),
            ),
            Some(addr) if addr.dad_failed => findings.push(
                Words {
                    object: &object,
                    what: format!("may not use {sort} {wanted}: another machine on it has the same"),
                    cause: "duplicate address detection heard an answer",
                    fix: "take the address from the other machine, or give the network another subnet"
                        .to_owned(),
                }
                .person("gateway-address-duplicate"),
            ),
            Some(_) => (),
        }
    }
    findings
}

fn port(record: &AttachmentRecord, by_name: &BTreeMap<&IfName, &Link>) -> Option<Finding> {
    let AttachmentRecord { key, bridge, host_ifname, .. } = record;
    let words = |what: String, cause, fix: String| Words { object: key, what, cause, fix };
    let Some(link) = by_name.get(host_ifname) else {
        let what = format!("has no host link {host_ifname} any more");
        return Some(
            words(what, "the sandbox is gone without a DEL", GC.to_owned()).repairable("link-missing"),
        );
    };
    let alias = attachment_alias(key);
    match &link.alias {
        _ if link.kind != LinkKind::Veth => {
            let what = format!("lost its host link: {host_ifname} is a {} now", link.kind);
            let cause = "the sandbox is gone, and another program took the name";
            return Some(
                words(what, cause, format!("rename the link `{host_ifname}`, then {GC}"))
                    .person("link-taken"),
            );
        }
        Some(other) if *other != alias => {
            let what = format!("lost its host link: {host_ifname} carries the tag `{other}`");
            let cause = "the sandbox is gone, and another program took the name";
            return Some(
                words(what, cause, format!("rename the link `{host_ifname}`, then {GC}"))
                    .person("link-taken"),
            );
        }
        None => {
            let what = format!("host link {host_ifname} does not carry its tag");
            let fix = format!("ip link set {host_ifname} alias '{alias}'");
            return Some(words(what, "somebody changed the alias", fix).note("link-tag-missing"));
        }
        Some(_) => (),
    }
    // Without its bridge there is nothing to be put back on, and the bridge's own finding says so.
    let master = by_name.get(bridge)?;
    if link.master != Some(master.index) {
        let what = format!("host link {host_ifname} is not a port of bridge {bridge}");
        let fix = format!("ip link set {host_ifname} master {bridge}");
        let cause = "somebody moved it, or the bridge was deleted and made again";
        return Some(words(what, cause, fix).repairable("link-off-bridge"));
    }
    (!link.up).then(|| {
        let what = format!("host link {host_ifname} is down");
        words(what, "somebody took it down", format!("ip link set {host_ifname} up")).repairable("link-down")
    })
}

/// Links that carry berth's tag and no record knows.
fn unrecorded(recorded: &Recorded, links: &[Link]) -> Vec<Finding> {
    let rows: BTreeMap<&AttachmentKey, &Row> = recorded.rows.iter().map(|row| (&row.key, row)).collect();
    let networks: BTreeSet<&NetworkName> = recorded
        .networks
        .iter()
        .chain(&recorded.pending_networks)
        .map(|network| &network.name)
        .chain(&recorded.old_networks)
        .collect();
    let mut findings = Vec::new();
    for link in links {
        let Some(alias) = link.alias.as_deref().and_then(|alias| alias.strip_prefix("berth ")) else {
            continue;
        };
        let object = format!("link {}", link.name);
        let key = key_of_alias(&format!("berth {alias}"));
        match (&link.kind, key) {
            (LinkKind::Veth | LinkKind::Ifb, Some(key)) if !rows.contains_key(&key) => findings.push(
                Words {
                    object: &object,
                    what: format!("is tagged as {key}, which no record knows"),
                    cause: "a call was killed, or the records were lost",
                    fix: GC.to_owned(),
                }
                .repairable("link-without-record"),
            ),
            (LinkKind::Vxlan, None)
                if network_of_vxlan(&format!("berth {alias}"))
                    .is_some_and(|name| !networks.contains(&name)) =>
            {
                findings.push(
                    Words {
                        object: &object,
                        what: "is tagged as the VXLAN device of a network that no record knows".to_owned(),
                        cause: "a call was killed, or the records were lost",
                        fix: GC.to_owned(),
                    }
                    .repairable("link-without-record"),
                );
            }
            (LinkKind::Bridge, None)
                if alias.parse().is_ok_and(|name: NetworkName| !networks.contains(&name)) =>
            {
                findings.push(
                    Words {
                        object: &object,
                        what: format!("is tagged as the bridge of network {alias}, which no record knows"),
                        cause: "a call was killed, or the records were lost",
                        fix: format!("ip link delete {}, or attach to the network again", link.name),
                    }
                    .repairable("bridge-without-record"),
                );
            }
            _ => (),
        }
    }
    findings
}
