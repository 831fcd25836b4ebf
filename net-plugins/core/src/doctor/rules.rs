//! The ruleset and its elements against the records. Pure.

use std::collections::BTreeSet;

use berth_nft::{Element, RulesetState};

use super::read::{Ruleset, Seen};
use super::records::Recorded;
use super::{Finding, GC, Words};
use crate::elements;

/// Lays everything afresh; elements that should not be there go with the tables.
const LAY_AFRESH: &str = "nft delete table inet berth; nft delete table bridge berth; berth gc";

/// Compares.
pub(super) fn compare(recorded: &Recorded, seen: &Seen) -> Vec<Finding> {
    let Some(ruleset) = &seen.ruleset else { return Vec::new() };
    if let Some(finding) = state(ruleset.state, recorded.is_in_use()) {
        let laid = ruleset.state == RulesetState::Altered;
        return std::iter::once(finding)
            .chain(laid.then(|| content(recorded, ruleset)).into_iter().flatten())
            .collect();
    }
    if ruleset.state == RulesetState::Absent { Vec::new() } else { content(recorded, ruleset) }
}

fn state(state: RulesetState, in_use: bool) -> Option<Finding> {
    let object = "tables inet berth and bridge berth";
    let words =
        |what: &str, cause| Words { object: &object, what: what.to_owned(), cause, fix: GC.to_owned() };
    match state {
        RulesetState::Current => None,
        RulesetState::Absent if !in_use => None,
        RulesetState::Absent => {
            let cause = "somebody flushed the host's ruleset; firewall services do so when they are reloaded";
            let what = "are gone: published ports do not answer and networks are not kept apart";
            Some(words(what, cause).repairable("ruleset-missing"))
        }
        RulesetState::Outdated => {
            let what = "are another version's";
            Some(
                words(what, "berth was exchanged and nothing was attached since")
                    .repairable("ruleset-outdated"),
            )
        }
        RulesetState::Altered => {
            let words = words("are not as berth laid them", "somebody changed a chain, a rule or a set");
            Some(Words { fix: LAY_AFRESH.to_owned(), ..words }.repairable("ruleset-altered"))
        }
    }
}

fn content(recorded: &Recorded, ruleset: &Ruleset) -> Vec<Finding> {
    let wanted = wanted(recorded);
    let mut findings: Vec<Finding> = wanted.difference(&ruleset.elements).map(missing).collect();
    let explained = explained(recorded, &wanted);
    findings.extend(ruleset.elements.difference(&explained).map(unknown));
    findings.extend(ruleset.strays.iter().map(|stray| {
        Words {
            object: &format_args!("element {stray}"),
            what: "belongs to nothing berth lays".to_owned(),
            cause: "somebody changed the maps by hand, or half of an entry was removed",
            fix: LAY_AFRESH.to_owned(),
        }
        .repairable("element-stray")
    }));
    findings
}

fn missing(element: &Element) -> Finding {
    let words = Words {
        object: &format_args!("element {element}"),
        what: "is not in the ruleset".to_owned(),
        cause: "somebody removed it, or flushed a set",
        fix: GC.to_owned(),
    };
    words.repairable("element-missing")
}

fn unknown(element: &Element) -> Finding {
    let words = Words {
        object: &format_args!("element {element}"),
        what: "is in the ruleset, and no record asks for it".to_owned(),
        cause: "a call was killed, or somebody added it by hand",
        fix: LAY_AFRESH.to_owned(),
    };
    // Laid a moment before it is recorded.
    if matches!(element, Element::ClosedRouter { .. }) {
        words.note("uplink-closed")
    } else {
        words.repairable("element-unknown")
    }
}

/// What must be there. What a process is working on at this moment may be there or not.
fn wanted(recorded: &Recorded) -> BTreeSet<Element> {
    let standing = recorded.rows.iter().filter(|row| row.stands());
    let mut wanted: BTreeSet<Element> = recorded.networks.iter().flat_map(elements::of_network).collect();
    wanted.extend(standing.filter_map(|row| row.held.as_ref().ok()).flat_map(elements::of_held));
    wanted.extend(recorded.closed.iter().cloned());
    wanted
}

fn explained(recorded: &Recorded, wanted: &BTreeSet<Element>) -> BTreeSet<Element> {
    let held = recorded.rows.iter().filter_map(|row| row.held.as_ref().ok());
    let pending = recorded.pending_networks.iter().flat_map(elements::of_network);
    wanted.iter().cloned().chain(held.flat_map(elements::of_held)).chain(pending).collect()
}
