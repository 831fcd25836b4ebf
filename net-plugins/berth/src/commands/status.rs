//! `status`: one screen about this host.

use berth_core::doctor::{NamesOverview, Overview, RulesetView, overview};
use berth_core::keeper::KeeperView;
use berth_core::names::ListeningView;
use berth_store::Dirs;
use serde::Serialize;

use crate::exit::Exit;
use crate::failure::{Doing as _, Failure};
use crate::output::{Colour, Out};

#[derive(Serialize)]
struct Status<'a> {
    version: &'a str,
    #[serde(flatten)]
    overview: &'a Overview,
}

/// `status`
pub(super) fn status(dirs: &Dirs, out: &mut Out<'_>) -> Result<Exit, Failure> {
    let overview = overview(dirs).doing("read the records")?;
    show(&overview, out)
}

fn show(overview: &Overview, out: &mut Out<'_>) -> Result<Exit, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    if out.is_json() {
        out.json(&Status { version, overview })?;
        return Ok(Exit::Fine);
    }
    let Overview { state_dir, run_dir, ruleset, networks, attachments, unfinished, ports, leases, .. } =
        overview;
    let attached = match unfinished {
        0 => attachments.to_string(),
        half => {
            out.coloured(Colour::Warn, &format!("{attachments}, and {half} unfinished: see `berth doctor`"))
        }
    };
    let facts = [
        ("version", version.to_owned()),
        ("state", state_dir.display().to_string()),
        ("run", run_dir.display().to_string()),
        ("ruleset", ruleset_words(*ruleset, *networks, out)),
        ("networks", networks.to_string()),
        ("attachments", attached),
        ("ports", ports.to_string()),
        ("leases", leases.to_string()),
        ("forwarding", forwarding(overview)),
        ("names", names(overview.names.as_ref(), out)),
        ("keeper", keeper(overview.keeper.as_ref(), out)),
    ];
    for (label, value) in facts {
        let label = out.coloured(Colour::Quiet, &format!("{label:<11}"));
        out.line(format!("{label} {value}"))?;
        if label.contains("names") {
            listeners(overview.names.as_ref(), out)?;
        }
    }
    Ok(Exit::Fine)
}

fn ruleset_words(ruleset: RulesetView, networks: usize, out: &Out<'_>) -> String {
    let (colour, words) = match ruleset {
        RulesetView::Current => (Colour::Good, "in place"),
        RulesetView::Absent if networks == 0 => (Colour::Quiet, "not laid; the first network lays it"),
        RulesetView::Absent => (Colour::Bad, "missing; `berth gc` lays it"),
        RulesetView::Outdated => (Colour::Warn, "of another version; `berth gc` lays it again"),
        RulesetView::Altered => (Colour::Bad, "changed by somebody; see `berth doctor`"),
        RulesetView::Unknown => (Colour::Warn, "cannot be read; that needs root"),
    };
    out.coloured(colour, words)
}

fn names(names: Option<&NamesOverview>, out: &Out<'_>) -> String {
    let (colour, words) = match names {
        None => (Colour::Quiet, "none; networks with `embeddedDNS` have some".to_owned()),
        Some(NamesOverview { networks, members, served: true, .. }) => {
            (Colour::Good, format!("of {members} containers on {networks} networks, answered"))
        }
        Some(NamesOverview { networks, members: 0, .. }) => (
            Colour::Quiet,
            format!("of 0 containers on {networks} networks; the server starts with the first"),
        ),
        Some(NamesOverview { networks, served: false, .. }) => {
            (Colour::Bad, format!("of {networks} networks, not answered: no DNS server; see `berth doctor`"))
        }
    };
    out.coloured(colour, &words)
}

/// Where the DNS server listens, a line each.
fn listeners(names: Option<&NamesOverview>, out: &mut Out<'_>) -> Result<(), Failure> {
    for ListeningView { network, addr, wanted } in names.iter().flat_map(|names| &names.listening) {
        let line = match addr.port() == *wanted {
            true => format!("{:<11} {network} at {}", "", addr.ip()),
            false => {
                let port = format!("port {} is another program's, led to {}", wanted, addr.port());
                format!("{:<11} {network} at {}, {}", "", addr.ip(), out.coloured(Colour::Warn, &port))
            }
        };
        out.line(line)?;
    }
    Ok(())
}

fn keeper(keeper: Option<&KeeperView>, out: &Out<'_>) -> String {
    let (colour, words) = match keeper {
        None => (Colour::Quiet, "none; berthd puts right at once what other programs destroy".to_owned()),
        Some(KeeperView { repairs, fight: None }) => (Colour::Good, format!("watching, {repairs} repairs")),
        Some(KeeperView { fight: Some(fight), .. }) => {
            let by = fight.by.as_deref().unwrap_or("another program");
            (Colour::Bad, format!("in a fight with {by} about {}; see `berth doctor`", fight.what))
        }
    };
    out.coloured(colour, &words)
}

fn forwarding(overview: &Overview) -> String {
    let word = |on: Option<bool>| match on {
        Some(true) => "on",
        Some(false) => "off",
        None => "unknown",
    };
    format!("IPv4 {}, IPv6 {}", word(overview.forwards_ipv4), word(overview.forwards_ipv6))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Reader;

    fn sample() -> Overview {
        Overview {
            state_dir: "/var/lib/berth".into(),
            run_dir: "/run/berth".into(),
            ruleset: RulesetView::Current,
            networks: 2,
            attachments: 3,
            unfinished: 1,
            ports: 4,
            leases: 5,
            forwards_ipv4: Some(true),
            forwards_ipv6: None,
            names: Some(NamesOverview {
                networks: 2,
                members: 3,
                served: true,
                listening: [("front", "10.80.0.1:53"), ("back", "[fd80::1]:49153")]
                    .map(|(network, addr)| ListeningView {
                        network: network.parse().unwrap(),
                        addr: addr.parse().unwrap(),
                        wanted: 53,
                    })
                    .into(),
            }),
            keeper: Some(KeeperView { repairs: 3, fight: None }),
        }
    }

    #[test]
    fn status_is_one_screen() {
        let mut bytes = Vec::new();
        show(&sample(), &mut Out::new(&mut bytes, Reader::Plain)).unwrap();
        let text = String::from_utf8(bytes).unwrap().replace(env!("CARGO_PKG_VERSION"), "VERSION");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn status_in_json_is_one_flat_object() {
        let mut bytes = Vec::new();
        show(&sample(), &mut Out::new(&mut bytes, Reader::Json)).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(json["ruleset"], "current");
        assert_eq!(json["networks"], 2);
        assert_eq!(json["forwards_ipv6"], serde_json::Value::Null);
        assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    }
}
