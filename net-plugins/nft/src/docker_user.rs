//! The one rule of berth's in a chain of somebody else: `DOCKER-USER` accepts berth's mark.
//!
//! The chain is the administrator's by Docker's own promise. It is read and changed with `iptables`, as Docker does: a
//! rule that `nft` puts into a table of iptables may make that one unreadable to it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::nft;
use crate::ruleset::{MARK_MASK, MARK_VALUE};

const CHAIN: &str = "DOCKER-USER";
/// Where the programs may be. Never `PATH`: whoever calls a plugin chooses that.
const DIRECTORIES: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/bin"];
/// One for each family.
const PROGRAMS: [(&str, &str); 2] = [("ip", "iptables"), ("ip6", "ip6tables")];

/// What was found and done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Families that have the chain.
    pub chains: usize,
    /// Families in which the rule was put or removed.
    pub changed: usize,
}

/// `iptables` failed.
#[derive(Debug, thiserror::Error)]
pub enum DockerUserError {
    /// It could not be run.
    #[error("cannot run {}", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It reported an error.
    #[error("{} failed: {message}", program.display())]
    Failed {
        /// The program.
        program: PathBuf,
        /// What it said.
        message: String,
    },
}

/// Puts the rule into the chain of each family that has it, after the administrator's own rules.
pub fn accept() -> Result<Outcome, DockerUserError> {
    each_family(|tool, rules| {
        if rules.iter().any(|rule| is_ours(rule)) {
            return Ok(false);
        }
        // Docker's own last rule returns: behind it nothing is reached.
        let returns = rules.last().is_some_and(|rule| *rule == format!("-A {CHAIN} -j RETURN"));
        let place = rules.len() - usize::from(returns) + 1;
        tool.change(&["-I", CHAIN, &place.to_string()])?;
        Ok(true)
    })
}

/// Takes the rule out again.
pub fn withdraw() -> Result<Outcome, DockerUserError> {
    each_family(|tool, rules| {
        let ours = rules.iter().filter(|rule| is_ours(rule)).count();
        (0..ours).try_for_each(|_| tool.change(&["-D", CHAIN]))?;
        Ok(ours > 0)
    })
}

fn each_family(
    work: impl Fn(&Tool, &[String]) -> Result<bool, DockerUserError>,
) -> Result<Outcome, DockerUserError> {
    let mut outcome = Outcome::default();
    for (family, name) in PROGRAMS {
        let Some(tool) = Tool::find(name).filter(|_| may_have_chain(family)) else { continue };
        let Some(rules) = tool.rules()? else { continue };
        outcome.chains += 1;
        outcome.changed += usize::from(work(&tool, &rules)?);
    }
    Ok(outcome)
}

/// Whether the family has the chain, or tables of the old iptables that `nft` does not show. `iptables` itself is asked
/// only then: it makes the tables it is asked about.
fn may_have_chain(family: &str) -> bool {
    let names = std::fs::read_to_string(format!("/proc/thread-self/net/{family}_tables_names"));
    names.is_ok_and(|names| names.lines().any(|name| name == "filter"))
        || nft::run(&["-t", "list", "chain", family, "filter", CHAIN], "").is_ok()
}

/// The rule, as `iptables` prints it.
fn rule() -> String {
    format!("-m mark --mark {MARK_VALUE:#x}/{MARK_MASK:#x} -m comment --comment berth -j ACCEPT")
}

fn is_ours(line: &str) -> bool {
    line.strip_prefix(&format!("-A {CHAIN} ")).is_some_and(|found| found == rule())
}

struct Tool {
    program: PathBuf,
}

impl Tool {
    fn find(name: &str) -> Option<Self> {
        let paths = DIRECTORIES.iter().map(|directory| Path::new(directory).join(name));
        paths.into_iter().find(|path| path.exists()).map(|program| Self { program })
    }

    /// The rules of the chain, in their order; `None` where there is no such chain.
    fn rules(&self) -> Result<Option<Vec<String>>, DockerUserError> {
        match self.run(&["-S", CHAIN]) {
            Ok(text) => {
                let rules = text.lines().filter(|line| line.starts_with("-A "));
                Ok(Some(rules.map(str::to_owned).collect()))
            }
            // It says so in several ways; a table that cannot be read is no reason to fail either.
            Err(DockerUserError::Failed { .. }) => Ok(None),
            Err(err) => Err(err),
        }
    }

    fn change(&self, what: &[&str]) -> Result<(), DockerUserError> {
        let rule = rule();
        let args: Vec<&str> = what.iter().copied().chain(rule.split(' ')).collect();
        self.run(&args).map(drop)
    }

    fn run(&self, args: &[&str]) -> Result<String, DockerUserError> {
        let program = self.program.clone();
        // Another program may hold the lock of the old iptables; it is held for moments.
        let output = Command::new(&self.program)
            .args(["-w", "5"])
            .args(args)
            .env_clear()
            .current_dir("/")
            .output()
            .map_err(|source| DockerUserError::Run { program: program.clone(), source })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let message = String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned();
        Err(DockerUserError::Failed { program, message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_is_recognised_as_iptables_prints_it() {
        let printed = "-A DOCKER-USER -m mark --mark 0xb00000/0xf00000 -m comment --comment berth -j ACCEPT";
        assert!(is_ours(printed));
        assert!(!is_ours("-A DOCKER-USER -j RETURN"));
        assert!(!is_ours("-A FORWARD -m mark --mark 0xb00000/0xf00000 -m comment --comment berth -j ACCEPT"));
    }
}
