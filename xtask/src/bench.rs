//! `cargo xtask bench`: berth beside what people would otherwise run, written into `docs/benchmarks.md`.

use std::fs;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use crate::packages;
use crate::run::{cargo, command, output, say, stage};

/// Options of `bench`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What is measured.
    #[arg(value_enum, default_value_t = Subject::Cni)]
    subject: Subject,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Subject {
    /// The CNI plugins.
    Cni,
}

/// Builds with optimisation, measures, and writes the table.
pub(crate) fn bench(options: &Options) -> Result<()> {
    let Options { subject: Subject::Cni } = options;
    packages::provide()?;
    stage("build", cargo(&["build", "--release", "--package", "berth"]))?;
    stage(
        "build the bench",
        cargo(&["build", "--release", "--package", "berth-integration", "--bin", "berth-bench"]),
    )?;
    stage(
        "build the filler",
        cargo(&["build", "--release", "--package", "berth-ipam", "--example", "fill_pool"]),
    )?;
    let target = target_dir()?;
    let mut run = command(&[&format!("{target}/release/berth-bench"), "cni"]);
    run.env("BERTH_FILL_POOL", format!("{target}/release/examples/fill_pool"));
    let table = output(run)?;
    say(&table);
    let kernel = output(command(&["uname", "-r"]))?;
    let page = format!(
        "# Benchmarks\n\n\
         Written by `cargo xtask bench cni`; every figure is a median of one run, whole processes side by side on the \
         same machine.\nReference chain: Debian's containernetworking-plugins, `bridge` with `host-local`, then \
         `portmap`. Kernel {}, {} CPUs.\n\nA ratio below 1 is faster than what it is compared with; for rates, above 1 \
         is faster than wanted.\n\n{}\n",
        kernel.trim(),
        std::thread::available_parallelism()?,
        table.trim()
    );
    fs::write("docs/benchmarks.md", page).context("failed to write docs/benchmarks.md")
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> Result<String> {
    let text = output(cargo(&["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata: serde_json::Value =
        serde_json::from_str(&text).context("cargo metadata printed no JSON")?;
    Ok(metadata.get("target_directory").and_then(serde_json::Value::as_str).unwrap_or("target").to_owned())
}
