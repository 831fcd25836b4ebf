//! `doctor`: compares records, kernel, ruleset and switches, and says what differs, why, and what to do.
//!
//! It changes nothing: it reads lists over netlink and files under `/proc`, lets `nft` list, and opens records only where
//! they exist and look whole, as every call does (SQLite's own files beside them may come and go). What can be read is
//! compared even where something else cannot, which is a finding itself; so it works with damaged records and a full
//! disk.
//!
//! Everything is looked at twice, and only what is found both times is reported: an attach or a detach that is under way
//! looks like damage for a moment.
//!
//! The comparisons are pure functions over what was read: `records`, `links`, `rules`, `host`, `names`.

mod host;
mod links;
mod names;
mod read;
mod records;
mod rules;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;

use berth_netlink::Sandbox;
use berth_store::{AttachmentState, Dirs};
use berth_types::{AttachmentKey, NetworkName};
use serde::Serialize;

pub use read::{NamesOverview, Overview, RulesetView, overview};

use crate::attachment::AttachmentRecord;
use crate::berth::Berth;
use crate::elements;
use crate::error::CoreError;
use crate::keeper::FightView;
use crate::names::NamesState;
use crate::published::{Held, Published};

/// How bad a finding is. The order is that of need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing is wrong with what berth made.
    Note,
    /// The fix that is named puts it right and loses nothing.
    Repairable,
    /// Somebody has to decide: it is not berth's to change, or the fix costs something.
    Person,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Note => "note",
            Self::Repairable => "repairable",
            Self::Person => "needs a person",
        })
    }
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What sort of difference, for programs; never renamed.
    pub code: &'static str,
    /// What it is about: an attachment, a link, a table, a file.
    pub object: String,
    /// What is different, in a sentence without a full stop.
    pub what: String,
    /// What usually brings it about.
    pub cause: String,
    /// What puts it right, as a command where there is one.
    pub fix: String,
}

/// All that was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// Worst first; of one severity, by code and object.
    pub findings: Vec<Finding>,
}

impl Diagnosis {
    fn of(mut findings: Vec<Finding>) -> Self {
        findings.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.cmp(b)));
        findings.dedup();
        Self { findings }
    }

    /// The same with what was found elsewhere, of what this crate knows nothing of.
    #[must_use]
    pub fn with(mut self, more: Vec<Finding>) -> Self {
        self.findings.extend(more);
        Self::of(self.findings)
    }

    /// The worst severity found.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    /// Whether nothing has to be done.
    pub fn is_clean(&self) -> bool {
        self.worst().is_none_or(|worst| worst == Severity::Note)
    }
}

/// Examines the host in the calling thread's network namespace.
pub fn examine(dirs: &Dirs) -> Diagnosis {
    let first = look(dirs);
    if first.is_empty() {
        return Diagnosis::default();
    }
    let again = look(dirs);
    Diagnosis::of(first.into_iter().filter(|finding| again.contains(finding)).collect())
}

fn look(dirs: &Dirs) -> Vec<Finding> {
    let mut findings = Vec::new();
    // The kernel first: a record is there before its links are, and goes after them.
    let seen = read::kernel(&mut findings);
    let recorded = read::records(dirs, &seen, &mut findings);
    findings.extend(recorded.into_iter().flat_map(|recorded| compared(&recorded, &seen)));
    // Without usable records there is nothing to compare it with, which was said above.
    findings.extend(NamesState::read(dirs).ok().iter().flat_map(names::compare));
    findings.extend(crate::keeper::view(dirs).and_then(|keeper| keeper.fight).map(fought));
    findings
}

fn compared(recorded: &records::Recorded, seen: &read::Seen) -> Vec<Finding> {
    let mut findings = records::compare(recorded);
    findings.extend(links::compare(recorded, seen));
    findings.extend(rules::compare(recorded, seen));
    findings.extend(host::compare(recorded, seen));
    findings
}

/// The keeper puts right what another program destroys, and neither gives way.
fn fought(FightView { what, by, pid, repairs, pause_s }: FightView) -> Finding {
    let who = match (by.filter(|name| !name.is_empty()), pid) {
        (Some(name), Some(pid)) => format!("`{name}` (process {pid})"),
        _ => "a program that the kernel does not name".to_owned(),
    };
    Words {
        object: &what,
        what: format!("is destroyed as often as berthd puts it right: {repairs} times so far, last by {who}"),
        cause: "two programs that each take this part of the host for theirs",
        fix: format!(
            "have the other program leave berth's tables and links alone (load its own table instead of flushing all); until then berthd tries again every {pause_s} s"
        ),
    }
    .person("fight")
}

/// What differs of one attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Whose it is.
    #[serde(flatten)]
    pub key: AttachmentKey,
    /// In sentences; none where all is well.
    pub differences: Vec<String>,
}

impl Berth {
    /// Compares every attachment, or those of one network, with the kernel: the host's side, the ruleset and, while the
    /// sandbox is where it was, the container's side. What a process is working on at this moment is left out.
    ///
    /// # Errors
    ///
    /// The kernel or the records cannot be read.
    pub fn check_all(&mut self, network: Option<&NetworkName>) -> Result<Vec<Checked>, CoreError> {
        let mut all = Vec::new();
        for (row, held) in self.held()? {
            let busy = row.state != AttachmentState::Ready && row.is_owner_alive(self.boot());
            if busy || network.is_some_and(|name| row.key.network != *name) {
                continue;
            }
            let differences = match (row.state, &held) {
                (AttachmentState::Ready, Held::Bridge(record)) => self.check_attachment(record)?,
                (AttachmentState::Ready, Held::Ports(record)) => check_ports(&row.key, &record.published)?,
                (state, _) => vec![format!("it is {state}, and the process that worked on it is gone")],
            };
            all.push(Checked { key: row.key, differences });
        }
        Ok(all)
    }

    fn check_attachment(&mut self, record: &AttachmentRecord) -> Result<Vec<String>, CoreError> {
        // Records built again from the kernel do not know the sandbox; and what an engine configures itself is its own.
        if record.sandbox_path.as_os_str().is_empty() || record.peer.is_some() {
            return self.check_outside(record);
        }
        let lost = match Sandbox::open(&record.sandbox_path) {
            Ok(sandbox) if record.sandbox.is_none_or(|id| id == sandbox.id()) => {
                return self.check(&record.key, &sandbox);
            }
            Ok(_) => "leads to another network namespace",
            Err(err) if err.is_gone() => "is gone",
            Err(err) => return Err(err.into()),
        };
        let mut wrong = vec![format!("sandbox {} {lost}", record.sandbox_path.display())];
        wrong.extend(self.check_outside(record)?);
        Ok(wrong)
    }

    fn check_outside(&mut self, record: &AttachmentRecord) -> Result<Vec<String>, CoreError> {
        let mut wrong = self.check_host(record)?;
        wrong.extend(self.check_rules(record)?);
        Ok(wrong)
    }
}

fn check_ports(key: &AttachmentKey, published: &Published) -> Result<Vec<String>, CoreError> {
    let missing = crate::rules::missing(&elements::of_published(key, published))?;
    Ok(missing.into_iter().map(|element| format!("the ruleset lacks {element}")).collect())
}

/// The parts of a finding that differ from case to case, named.
struct Words<'a> {
    object: &'a dyn fmt::Display,
    what: String,
    cause: &'a str,
    fix: String,
}

impl Words<'_> {
    fn finding(self, severity: Severity, code: &'static str) -> Finding {
        let Self { object, what, cause, fix } = self;
        Finding { severity, code, object: object.to_string(), what, cause: cause.to_owned(), fix }
    }

    fn note(self, code: &'static str) -> Finding {
        self.finding(Severity::Note, code)
    }

    fn repairable(self, code: &'static str) -> Finding {
        self.finding(Severity::Repairable, code)
    }

    fn person(self, code: &'static str) -> Finding {
        self.finding(Severity::Person, code)
    }
}

/// What takes back everything that nobody owns any more, and lays the ruleset again.
const GC: &str = "berth gc";

/// A lease, as far as it is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lease {
    owner: AttachmentKey,
    address: IpAddr,
    /// Whether the owner's sandbox is provably gone.
    is_dead: bool,
}
