//! What stands in berth's way on the host: switches, other firewalls, other routes. Pure.

use std::collections::BTreeMap;

use berth_netlink::{Link, LinkKind};
use berth_nft::{Blocker, BlockerKind, Foreign, RulesetState, docker_user_accept};
use berth_types::IfName;
use ipnetwork::IpNetwork;

use super::read::Seen;
use super::records::Recorded;
use super::{Finding, Severity, Words};
use crate::network::NetworkRecord;
use crate::plan::overlap;

/// Compares.
pub(super) fn compare(recorded: &Recorded, seen: &Seen) -> Vec<Finding> {
    if !recorded.is_in_use() {
        return Vec::new();
    }
    let mut findings: Vec<Finding> = firewalls(&seen.foreign);
    findings.extend(forwarding(recorded, seen));
    findings.extend(localhost(recorded, seen));
    for network in &recorded.networks {
        findings.extend(router_advertisements(network, seen));
        findings.extend(routes(network, seen));
    }
    findings
}

/// Chains of others that drop what berth accepts. Rules with conditions may or may not concern containers, and a
/// chain at `input` concerns the host's own services: both are worth knowing, and no fault.
fn firewalls(foreign: &Foreign) -> Vec<Finding> {
    let mut findings = Vec::new();
    for blocker in foreign.blockers.iter().filter(|blocker| !blocker.accepts_mark) {
        let Blocker { family, table, chain, hook, kind, .. } = blocker;
        let certain = !matches!(kind, BlockerKind::Sometimes { .. });
        let words = |what: String, fix: String| {
            Words {
                object: &format!("chain {chain} of table {family} {table}"),
                what,
                cause: "an accept in berth's table does not overrule a drop in another",
                fix,
            }
            .finding(
                if certain && hook != "input" { Severity::Person } else { Severity::Note },
                "foreign-firewall",
            )
        };
        let how = match kind {
            BlockerKind::Policy => "by its policy".to_owned(),
            BlockerKind::Always { chain, handle } => format!("by rule {handle} of chain {chain}"),
            BlockerKind::Sometimes { rules } => format!("by {rules} rules with conditions"),
        };
        match (hook.as_str(), certain) {
            ("forward", true) => {
                let what = format!("drops what containers send and receive, {how}");
                findings.push(words(what, accept(blocker, foreign)));
            }
            ("forward", false) => {
                let what = format!("may drop what containers send and receive, {how}");
                findings.push(words(
                    what,
                    format!("should something not get through, {}", accept(blocker, foreign)),
                ));
            }
            ("prerouting", true) => {
                let what = format!("drops what arrives, {how}, before berth's mark is there to tell it by");
                findings.push(words(
                    what,
                    "accept the networks' bridges in that firewall's own configuration".to_owned(),
                ));
            }
            ("input", true) => {
                let what = format!("keeps containers from services of the host itself, {how}");
                findings.push(words(
                    what,
                    "where a container needs one, accept it in that firewall's own configuration".to_owned(),
                ));
            }
            _ => (),
        }
    }
    let legacy = foreign.legacy_tables.iter().any(|table| table == "filter");
    findings.extend(legacy.then(|| {
        Words {
            object: &"iptables-legacy",
            what: "has a filter table, whose rules nft does not show".to_owned(),
            cause: "a program uses the old iptables",
            fix: "look for drops: iptables-legacy -S FORWARD; ip6tables-legacy -S FORWARD".to_owned(),
        }
        .note("legacy-iptables")
    }));
    findings
}

/// The one rule that lets berth's traffic through: in Docker's own chain for it, or at the start of the chain.
fn accept(blocker: &Blocker, foreign: &Foreign) -> String {
    let Blocker { family, table, chain, .. } = blocker;
    let rule = docker_user_accept();
    if table == "filter" && foreign.docker_user.contains(family) {
        let command = if family == "ip6" { "ip6tables" } else { "iptables" };
        return format!("{command} {}", rule.iptables);
    }
    format!(
        "nft insert rule {family} {table} {chain} '{}', and the same in that firewall's own configuration",
        rule.nft
    )
}

fn forwarding(recorded: &Recorded, seen: &Seen) -> Vec<Finding> {
    let routed = |v4: bool| {
        let leaves = |network: &&NetworkRecord| network.gateway && !network.reach.internal;
        let mut networks = recorded.networks.iter().filter(leaves);
        networks.find(|network| network.subnets.iter().any(|subnet| subnet.is_ipv4() == v4))
    };
    let families = [(true, "net/ipv4/ip_forward"), (false, "net/ipv6/conf/all/forwarding")];
    let mut findings = Vec::new();
    for (v4, key) in families {
        let (Some(network), Some("0")) = (routed(v4), seen.switches.get(key).map(String::as_str)) else {
            continue;
        };
        let name = dotted(key);
        findings.push(
            Words {
                object: &name,
                what: format!("is off: network {} and others reach nothing outside", network.name),
                cause: "somebody turned it off after berth had turned it on; `sysctl --system` does",
                fix: format!("sysctl -w {name}=1"),
            }
            .repairable("forwarding-off"),
        );
    }
    findings
}

/// `route_localnet` lets neighbours reach services on 127.0.0.1 (CVE-2020-8558), but for the ruleset's drop.
fn localhost(recorded: &Recorded, seen: &Seen) -> Vec<Finding> {
    let unguarded = seen.ruleset.as_ref().is_some_and(|ruleset| ruleset.state == RulesetState::Absent);
    let open = |link: &&Link| {
        let key = format!("net/ipv4/conf/{}/route_localnet", link.name);
        seen.switches.get(&key).is_some_and(|value| value == "1")
    };
    let mut findings = Vec::new();
    for link in seen.links.iter().flatten().filter(open).filter(|_| unguarded) {
        let known = recorded.networks.iter().any(|network| network.bridge == link.name);
        let words = Words {
            object: &format_args!("link {}", link.name),
            what: "leads to services on 127.0.0.1, and the ruleset that guards them is gone".to_owned(),
            cause: "`route_localnet` is on",
            fix: super::GC.to_owned(),
        };
        findings.push(if known {
            words.repairable("localhost-exposed")
        } else {
            words.note("localhost-exposed")
        });
    }
    findings
}

/// A container's router advertisement must not move the host's routes (CVE-2020-10749).
fn router_advertisements(network: &NetworkRecord, seen: &Seen) -> Option<Finding> {
    let key = format!("net/ipv6/conf/{}/accept_ra", network.bridge);
    let value = seen.switches.get(&key)?;
    (network.bridge_is_ours && value != "0").then(|| {
        let name = key.replace('/', ".");
        Words {
            object: &format_args!("bridge {}", network.bridge),
            what: format!("takes router advertisements from containers (accept_ra is {value})"),
            cause: "another program set it; network managers do that to every link",
            fix: format!("sysctl -w {}=0", sysctl_word(&key, &name)),
        }
        .repairable("router-advertisements-accepted")
    })
}

/// Routes of others that take a network's addresses away from its bridge.
fn routes(network: &NetworkRecord, seen: &Seen) -> Vec<Finding> {
    let links = seen.links.as_deref().unwrap_or_default();
    let names: BTreeMap<u32, &IfName> = links.iter().map(|link| (link.index, &link.name)).collect();
    let Some(bridge) = links.iter().find(|link| link.name == network.bridge && link.kind == LinkKind::Bridge)
    else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    for subnet in network.subnets.iter().filter(|_| network.gateway) {
        let takes = |dst: &IpNetwork| {
            dst.is_ipv4() == subnet.is_ipv4() && dst.prefix() >= subnet.prefix() && overlap(dst, subnet)
        };
        for (dst, oif) in seen.routes.iter().filter(|(dst, oif)| *oif != bridge.index && takes(dst)) {
            let through = names.get(oif).map_or_else(|| format!("link {oif}"), ToString::to_string);
            // The larger of the two counts (Documentation/networking/ip-sysctl.rst); 1 is strict.
            let filter = [network.bridge.as_str(), "all"].map(|link| {
                seen.switches
                    .get(&format!("net/ipv4/conf/{link}/rp_filter"))
                    .and_then(|value| value.parse::<u8>().ok())
            });
            let strict = filter.into_iter().flatten().max() == Some(1);
            let lost = if strict && subnet.is_ipv4() {
                ", and drops what comes from there (rp_filter is 1)"
            } else {
                ""
            };
            findings.push(
                Words {
                    object: &format_args!("route {dst} by {through}"),
                    what: format!(
                        "takes addresses of network {} ({subnet}) away from its bridge{lost}",
                        network.name
                    ),
                    cause: "a VPN or another network came up with the same addresses",
                    fix: format!("give network {} another subnet, or remove the route", network.name),
                }
                .person("route-overlaps"),
            );
        }
    }
    findings
}

fn dotted(key: &str) -> String {
    key.replace('/', ".")
}

/// A link's name may have dots, and then only the form with slashes is understood.
fn sysctl_word<'a>(slashed: &'a str, dotted: &'a str) -> &'a str {
    if slashed.contains('.') { slashed } else { dotted }
}
