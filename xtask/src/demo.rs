//! `cargo xtask demo`: what berth does, in half a minute.

use anyhow::Result;

use crate::packages;
use crate::run::{cargo, command, on_path, stage};

/// Builds what the demonstration needs and runs it.
pub(crate) fn demo() -> Result<()> {
    packages::provide()?;
    stage("build", cargo(&["build", "--quiet", "--package", "berth", "--package", "berthd"]))?;
    let demos = ["--bin", "berth-demo", "--bin", "berth-demo-docker"];
    let build = ["build", "--quiet", "--package", "berth-integration"];
    stage("build the demo", cargo(&[&build[..], &demos[..]].concat()))?;
    let target = crate::build::target_dir()?;
    stage("demo", command(&[&format!("{target}/debug/berth-demo")]))?;
    if on_path("dockerd") {
        stage("demo, with Docker", command(&[&format!("{target}/debug/berth-demo-docker")]))?;
    }
    Ok(())
}
