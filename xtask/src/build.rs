//! `cargo xtask build`: the programs as they are installed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::packages;
use crate::run::{cargo, command, output, say, stage};

/// Builds with optimisation, and says where the programs are.
pub(crate) fn build() -> Result<()> {
    packages::provide()?;
    for program in [plugins()?, daemon()?] {
        say(&program.display().to_string());
    }
    Ok(())
}

/// `berth`: without a shared library. It is started for every container, and loading libraries was a third of the time it
/// takes to start; and like other CNI plugins it then runs on any host, whatever its C library.
pub(crate) fn plugins() -> Result<PathBuf> {
    let triple = host_triple()?;
    let target = target_dir()?;
    // With its target named, even where that is the host: the flag is not for what runs while it is built.
    let mut build = cargo(&["build", "--release", "--package", "berth", "--target", &triple]);
    build.env("RUSTFLAGS", "-C target-feature=+crt-static");
    stage("build `berth`", build)?;
    distribute(&target, &format!("{target}/{triple}/release/berth"))
}

/// `berthd`.
pub(crate) fn daemon() -> Result<PathBuf> {
    let target = target_dir()?;
    stage("build `berthd`", cargo(&["build", "--release", "--package", "berthd"]))?;
    distribute(&target, &format!("{target}/release/berthd"))
}

/// Puts a program beside the others that are installed together.
fn distribute(target: &str, program: &str) -> Result<PathBuf> {
    let dir = Path::new(target).join("dist");
    fs::create_dir_all(&dir).with_context(|| format!("failed to make {}", dir.display()))?;
    let copy = dir.join(Path::new(program).file_name().context("a program has a name")?);
    // Not over one that may be running.
    let new = copy.with_extension("new");
    fs::copy(program, &new).with_context(|| format!("failed to copy {program}"))?;
    fs::rename(&new, &copy).with_context(|| format!("failed to write {}", copy.display()))?;
    Ok(copy)
}

/// What this machine is, in rustc's words.
fn host_triple() -> Result<String> {
    let said = output(command(&["rustc", "--version", "--verbose"]))?;
    let line = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.context("rustc does not say what its host is")?.to_owned())
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> Result<String> {
    let text = output(cargo(&["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata: serde_json::Value =
        serde_json::from_str(&text).context("cargo metadata printed no JSON")?;
    Ok(metadata.get("target_directory").and_then(serde_json::Value::as_str).unwrap_or("target").to_owned())
}
