//! Running other programs, with a line before each that says what and a line after that says how long.

use std::io::Write;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

/// A program with its arguments.
pub(crate) fn command(words: &[&str]) -> Command {
    let (program, args) = words.split_first().expect("a command has a program");
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// `cargo` with its arguments: the one that runs this.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args);
    command
}

/// Runs a stage; its output is not touched. A failure is an error that names the stage.
pub(crate) fn stage(name: &str, mut command: Command) -> Result<()> {
    let started = Instant::now();
    say(&format!("== {name}"));
    let status = command.status().with_context(|| format!("{name}: cannot run {command:?}"))?;
    ensure!(status.success(), "{name} failed ({status})");
    say(&format!("== {name}: passed in {:.1} s", started.elapsed().as_secs_f64()));
    Ok(())
}

/// What a program prints, which must succeed.
pub(crate) fn output(mut command: Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// Whether `cargo NAME` exists.
pub(crate) fn has_subcommand(name: &str) -> bool {
    on_path(&format!("cargo-{name}"))
}

/// Whether a program of this name can be found. System folders count even where the user's path leaves them out.
pub(crate) fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path).chain(system).any(|dir| dir.join(name).is_file())
}

/// Tells the person who waits. On stderr: stdout belongs to the programs that are run.
pub(crate) fn say(line: &str) {
    // Whoever closed stderr does not want to hear it.
    let _ = writeln!(std::io::stderr(), "{line}");
}
