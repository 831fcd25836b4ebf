//! `cargo xtask demo`: what berth does, in half a minute.

use anyhow::Result;

use crate::packages;
use crate::run::{cargo, command, stage};

/// Builds what the demonstration needs and runs it.
pub(crate) fn demo() -> Result<()> {
    packages::provide()?;
    stage("build", cargo(&["build", "--quiet", "--package", "berth"]))?;
    stage(
        "build the demo",
        cargo(&["build", "--quiet", "--package", "berth-integration", "--bin", "berth-demo"]),
    )?;
    let target = crate::bench::target_dir()?;
    stage("demo", command(&[&format!("{target}/debug/berth-demo")]))
}
