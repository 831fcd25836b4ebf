//! `doctor`: prints what the core found, and the overlay's agent.

use berth_core::doctor::{Diagnosis, Finding, Severity, examine};
use berth_store::Dirs;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Colour, Out};

/// How many findings of one code are told in full: one flush makes one for each element there was.
const FULLY_TOLD: usize = 10;

/// `doctor`
pub(super) fn doctor(dirs: &Dirs, out: &mut Out<'_>) -> Result<Exit, Failure> {
    show(&examine(dirs).with(super::overlay::findings(dirs)), out)
}

fn show(diagnosis: &Diagnosis, out: &mut Out<'_>) -> Result<Exit, Failure> {
    if out.is_json() {
        out.json(diagnosis)?;
    } else {
        for alike in diagnosis.findings.chunk_by(|a, b| (a.severity, a.code) == (b.severity, b.code)) {
            alike.iter().take(FULLY_TOLD).try_for_each(|finding| finding_lines(finding, out))?;
            if let (Some(first), more @ 1..) = (alike.first(), alike.len().saturating_sub(FULLY_TOLD)) {
                out.line(format!("and {more} more [{}]; `--json` has them all", first.code))?;
                out.line("")?;
            }
        }
        let count =
            |severity| diagnosis.findings.iter().filter(|finding| finding.severity == severity).count();
        let (repairable, person) = (count(Severity::Repairable), count(Severity::Person));
        let summary = match (repairable, person) {
            (0, 0) => out.coloured(Colour::Good, "all is well"),
            (some, 0) => format!("{some} to repair"),
            (0, some) => format!("{some} for a person to decide"),
            (some, more) => format!("{some} to repair, {more} for a person to decide"),
        };
        out.line(summary)?;
    }
    Ok(match diagnosis.worst() {
        None | Some(Severity::Note) => Exit::Fine,
        Some(Severity::Repairable) => Exit::Differs,
        Some(Severity::Person) => Exit::Person,
    })
}

fn finding_lines(finding: &Finding, out: &mut Out<'_>) -> Result<(), Failure> {
    let Finding { severity, code, object, what, cause, fix } = finding;
    let colour = match severity {
        Severity::Note => Colour::Quiet,
        Severity::Repairable => Colour::Warn,
        Severity::Person => Colour::Bad,
    };
    let head = out.coloured(colour, &format!("{severity} [{code}]"));
    out.line(format!("{head} {object} {what}"))?;
    for (label, text) in [("cause", cause), ("fix", fix)] {
        let label = out.coloured(Colour::Quiet, &format!("{label:<5}"));
        out.line(format!("  {label} {text}"))?;
    }
    out.line("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Reader;

    fn finding(severity: Severity, code: &'static str) -> Finding {
        Finding {
            severity,
            code,
            object: "bridge berth0".to_owned(),
            what: "of network front is down".to_owned(),
            cause: "somebody took it down".to_owned(),
            fix: "ip link set berth0 up".to_owned(),
        }
    }

    fn printed(findings: Vec<Finding>, reader: Reader) -> (Exit, String) {
        let mut bytes = Vec::new();
        let exit = show(&Diagnosis { findings }, &mut Out::new(&mut bytes, reader)).unwrap();
        (exit, String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn the_worst_finding_is_the_exit_status() {
        let exit = |severities: &[Severity]| {
            printed(severities.iter().map(|severity| finding(*severity, "x")).collect(), Reader::Json).0
        };
        assert_eq!(exit(&[]), Exit::Fine);
        assert_eq!(exit(&[Severity::Note]), Exit::Fine);
        assert_eq!(exit(&[Severity::Repairable, Severity::Note]), Exit::Differs);
        assert_eq!(exit(&[Severity::Repairable, Severity::Person]), Exit::Person);
    }

    #[test]
    fn a_finding_says_what_why_and_what_to_do() {
        let findings =
            vec![finding(Severity::Person, "route-overlaps"), finding(Severity::Repairable, "bridge-down")];
        insta::assert_snapshot!(printed(findings, Reader::Plain).1);
        assert_eq!(printed(Vec::new(), Reader::Plain).1, "all is well\n");
    }

    #[test]
    fn many_alike_are_told_short_to_people_and_whole_to_programs() {
        let many = || vec![finding(Severity::Repairable, "element-missing"); FULLY_TOLD + 3];
        let text = printed(many(), Reader::Plain).1;
        assert_eq!(text.matches("cause").count(), FULLY_TOLD);
        assert!(
            text.ends_with("and 3 more [element-missing]; `--json` has them all\n\n13 to repair\n"),
            "{text}"
        );
        assert_eq!(printed(many(), Reader::Json).1.matches("cause").count(), FULLY_TOLD + 3);
    }

    #[test]
    fn findings_in_json_have_stable_codes() {
        let text = printed(vec![finding(Severity::Repairable, "bridge-down")], Reader::Json).1;
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["findings"][0]["code"], "bridge-down");
        assert_eq!(json["findings"][0]["severity"], "repairable");
    }
}
