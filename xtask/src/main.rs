//! Developer commands: `cargo xtask COMMAND`. Each lives in a file of its own.
//!
//! This crate depends on nothing that needs a system library, for it is what installs them.

#![forbid(unsafe_code)]

mod bench;
mod build;
mod demo;
mod layers;
mod packages;
mod page;
mod plot;
mod run;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Developer commands of berth", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Installs what is missing and runs every check and test, cheapest first.
    Test(test::Options),
    /// Two containers, a network and a published port, shown and taken away again.
    Demo,
    /// Builds the programs as they are installed; says where they are.
    Build,
    /// Measures berth beside what people would otherwise run; writes docs/benchmarks.md.
    Bench(bench::Options),
    /// What a submission must pass: the same as `test`.
    Ci,
    /// Checks that crates depend downwards only.
    Layers,
}

fn main() -> ExitCode {
    match run_command(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain, without a backtrace: what failed has said why above.
            run::say(&format!("xtask: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run_command(command: Command) -> Result<()> {
    match command {
        Command::Test(options) => test::test(&options),
        Command::Demo => demo::demo(),
        Command::Build => build::build(),
        Command::Bench(options) => bench::bench(&options),
        Command::Ci => test::test(&test::Options::default()),
        Command::Layers => layers::check_workspace(),
    }
}
