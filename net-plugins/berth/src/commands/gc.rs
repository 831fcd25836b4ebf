//! `gc` and `network rm`: what takes things away, and with `--dry-run` what would.

use berth_core::{Berth, GcReport, GcRequest};
use berth_types::NetworkName;
use serde::Serialize;

use super::lists::unknown;
use crate::exit::Exit;
use crate::failure::{Doing as _, Failure};
use crate::output::{Colour, Out};

#[derive(Serialize)]
struct Collected<'a> {
    dry_run: bool,
    #[serde(flatten)]
    report: &'a GcReport,
    /// What was left of volumes, in words.
    volumes: &'a [String],
}

/// `gc`
pub(super) fn gc(
    berth: &mut Berth,
    network: Option<NetworkName>,
    dry_run: bool,
    out: &mut Out<'_>,
) -> Result<Exit, Failure> {
    let of_all = network.is_none();
    let request = GcRequest { network, idle_networks: true, dry_run, ..GcRequest::default() };
    let report = berth.gc(&request).doing("collect what nobody owns")?;
    if !dry_run {
        berth_overlay::attach::collected(berth, &report.attachments);
    }
    let volumes = if of_all && !dry_run { super::volume::tidy(berth.dirs())? } else { Vec::new() };
    show(&report, &volumes, dry_run, out)
}

fn show(report: &GcReport, volumes: &[String], dry_run: bool, out: &mut Out<'_>) -> Result<Exit, Failure> {
    if out.is_json() {
        out.json(&Collected { dry_run, report, volumes })?;
        return Ok(Exit::Fine);
    }
    let mut lines = lines(report, dry_run);
    lines.extend(volumes.iter().map(|what| format!("took away {what}")));
    if lines.is_empty() {
        let nothing = out.coloured(Colour::Quiet, "nothing to do");
        out.line(nothing)?;
    }
    lines.iter().try_for_each(|line| out.line(line))?;
    Ok(Exit::Fine)
}

fn lines(report: &GcReport, dry_run: bool) -> Vec<String> {
    let GcReport { attachments, links, elements, leases, networks, mended, ruleset_restored, host_restored } =
        report;
    let (removed, released) =
        if dry_run { ("would remove", "would release") } else { ("removed", "released") };
    let mut lines: Vec<String> =
        attachments.iter().map(|key| format!("{removed} attachment {key}")).collect();
    lines.extend(links.iter().map(|link| format!("{removed} link {link}, which no record knows")));
    lines.extend(
        elements.iter().map(|element| format!("{removed} {element} from the ruleset, which no record knows")),
    );
    if *leases > 0 {
        lines.push(format!("{released} {leases} leases without an owner"));
    }
    lines
        .extend(networks.iter().map(|name| format!("{removed} network {name}, which nobody is attached to")));
    let mend = if dry_run { "would put" } else { "put" };
    lines.extend(
        mended.iter().map(|name| format!("{mend} the containers of network {name} back on its bridge")),
    );
    if *ruleset_restored {
        lines.push(if dry_run { "would lay the ruleset again" } else { "laid the ruleset again" }.to_owned());
    }
    if *host_restored {
        let words = if dry_run { "would take" } else { "took" };
        lines.push(format!("{words} berth's tables and switches off the host: no network is left"));
    }
    lines
}

#[derive(Serialize)]
struct Removed<'a> {
    dry_run: bool,
    network: &'a NetworkName,
    bridge: Option<&'a str>,
}

/// `network rm`
pub(super) fn remove(
    berth: &mut Berth,
    name: &NetworkName,
    dry_run: bool,
    out: &mut Out<'_>,
) -> Result<Exit, Failure> {
    let doing = format!("remove network {name}");
    let name = &berth.names().doing(&doing)?.find_network(name);
    let declared = berth.declared(name).doing(&doing)?;
    let is_clusters = declared.as_ref().map_or_else(
        || berth_overlay::node::last_seen(berth).is_ok_and(|view| view.network(name).is_some()),
        |declaration| declaration.engine == berth_overlay::joined::ENGINE,
    );
    if is_clusters && !dry_run {
        return super::overlay::remove(berth.dirs(), name, out);
    }
    if let Some(declaration) = declared {
        let engine = &declaration.engine;
        return Err(Failure::plain(doing, format!("it is {engine}'s, which would go on using it"))
            .with_hint(format!("remove it there: `{engine} network rm`")));
    }
    let record = berth.network(name).doing(&doing)?.ok_or_else(|| unknown(&doing))?;
    let held = berth.held().doing(&doing)?;
    let attached: Vec<String> =
        held.iter().filter(|(row, _)| row.key.network == *name).map(|(row, _)| row.key.to_string()).collect();
    if let Some(first) = attached.first() {
        let why = format!("{} are attached to it, {first} among them", attached.len());
        return Err(Failure::plain(doing, why)
            .with_hint("remove the containers first; `berth gc` removes what is left of dead ones"));
    }
    let shared = berth
        .networks()
        .doing(&doing)?
        .iter()
        .any(|other| other.name != *name && other.bridge == record.bridge);
    let bridge = (record.bridge_is_ours && !shared).then_some(record.bridge.as_str());
    if !dry_run {
        berth.remove_network(name).doing(&doing)?;
    }
    if out.is_json() {
        out.json(&Removed { dry_run, network: name, bridge })?;
        return Ok(Exit::Fine);
    }
    let removed = if dry_run { "would remove" } else { "removed" };
    out.line(match bridge {
        Some(bridge) => format!("{removed} network {name} and its bridge {bridge}"),
        None => format!("{removed} network {name}; bridge {} stays, it is not berth's alone", record.bridge),
    })?;
    Ok(Exit::Fine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::samples;

    fn report() -> GcReport {
        GcReport {
            attachments: vec![samples::attachment().0.key],
            links: vec!["veth0".to_owned()],
            elements: vec!["guarded port veth0".to_owned()],
            leases: 2,
            networks: vec!["front".parse().unwrap()],
            mended: vec!["back".parse().unwrap()],
            ruleset_restored: true,
            host_restored: true,
        }
    }

    #[test]
    fn what_was_done_and_what_would_be_done_read_alike() {
        insta::assert_snapshot!("gc_done", lines(&report(), false).join("\n"));
        insta::assert_snapshot!("gc_dry", lines(&report(), true).join("\n"));
        assert_eq!(lines(&GcReport::default(), false), Vec::<String>::new());
    }
}
