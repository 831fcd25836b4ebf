//! Every check and test, cheapest first, ended by the test runner's summary.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::run::{cargo, has_subcommand, say, stage};
use crate::{layers, packages};

/// What `cargo xtask test` is asked for.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Formatting, lints, layers, unit tests and a few tests with the kernel.
    #[arg(long)]
    fast: bool,
}

/// The tests of `--fast`: everything without a kernel, the test kit, and the recorded reference behaviour.
const FAST: &str = "kind(lib) + kind(bin) + binary(kit) + binary(vectors)";

pub(crate) fn test(options: &Options) -> Result<()> {
    // First: some crates do not even build without.
    packages::provide()?;
    ensure!(packages::is_root()?, "the tests make network and mount namespaces: run as root");
    stage("format", cargo(&["fmt", "--all", "--check"]))?;
    layers::check_workspace()?;
    stage("lints", cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    if !options.fast {
        let mut doc = cargo(&["doc", "--quiet", "--workspace", "--no-deps"]);
        doc.env("RUSTDOCFLAGS", "-D warnings");
        stage("documentation", doc)?;
        if has_subcommand("deny") {
            stage("dependencies", cargo(&["deny", "--log-level", "error", "check"]))?;
        } else {
            say("== dependencies: not checked, cargo-deny is not installed");
        }
        stage("documentation tests", cargo(&["test", "--quiet", "--workspace", "--doc"]))?;
    }
    // The integration tests run the programs, which no test target builds.
    stage("programs", cargo(&["build", "--quiet", "--workspace", "--bins"]))?;
    if has_nextest() { nextest(options) } else { plain(options) }
}

fn has_nextest() -> bool {
    if has_subcommand("nextest") {
        return true;
    }
    match stage("cargo-nextest", cargo(&["install", "--quiet", "--locked", "cargo-nextest"])) {
        Ok(()) => true,
        Err(error) => {
            say(&format!("== {error}: using cargo test"));
            false
        }
    }
}

fn nextest(options: &Options) -> Result<()> {
    let mut run = cargo(&["nextest", "run", "--workspace", "--no-fail-fast", "--status-level", "fail"]);
    run.args(["--final-status-level", "slow"]);
    if options.fast {
        run.args(["--filterset", FAST]);
    }
    golden(&mut run);
    // Its last line is the summary, and stays the last: nothing is said after it.
    let status = run.status().context("cannot run cargo nextest")?;
    ensure!(status.success(), "tests failed ({status})");
    Ok(())
}

/// Without nextest: cargo's own runner, one line for all its summaries.
fn plain(options: &Options) -> Result<()> {
    let mut run = cargo(&["test", "--workspace", "--no-fail-fast"]);
    let targets: &[&str] = if options.fast {
        &["--lib", "--bins", "--test", "kit", "--test", "vectors"]
    } else {
        &["--lib", "--bins", "--tests"]
    };
    run.args(targets).stdout(Stdio::piped());
    golden(&mut run);
    let mut child = run.spawn().context("cannot run cargo test")?;
    let stdout = child.stdout.take().context("stdout is piped")?;
    let mut total = Counts::default();
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        total.add(&line);
        say(&line);
    }
    let status = child.wait()?;
    say(&format!("{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped));
    ensure!(status.success(), "tests failed ({status})");
    Ok(())
}

/// Snapshots are compared and never written.
fn golden(run: &mut Command) {
    run.env("INSTA_UPDATE", "no");
}

/// Tests by outcome.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Counts {
    /// Adds a line `test result: ok. 3 passed; 0 failed; 1 ignored; …`; other lines say nothing.
    fn add(&mut self, line: &str) {
        let Some(summary) = line.trim().strip_prefix("test result: ") else { return };
        let words: Vec<_> = summary.split([' ', ';']).filter(|word| !word.is_empty()).collect();
        for pair in words.windows(2) {
            let [count, what] = pair else { continue };
            let Ok(count) = count.parse::<u32>() else { continue };
            match *what {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.skipped += count,
                _ => (),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_cargo_test_are_added_up() {
        let mut total = Counts::default();
        total.add("running 4 tests");
        total.add(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 16 filtered out; finished in 0.13s",
        );
        total.add("test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s");
        assert_eq!(total, Counts { passed: 5, failed: 1, skipped: 1 });
    }
}
