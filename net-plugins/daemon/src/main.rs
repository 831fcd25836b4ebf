//! `berthd`: the long-lived half of berth, in roles.
//!
//! It holds nothing that is not in the records: `kill -9` at any point loses nothing, and no traffic passes through it.
//! Each role is one task on one thread, what watches Docker has one of its own, and what blocks runs on a bounded number of others.

#![forbid(unsafe_code)]

mod cli;
mod context;
mod log;
mod notify;
mod roles;
mod threads;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::cli::Cli;
use crate::context::Shared;
use crate::roles::Role;

/// How long blocking calls may take to end once the daemon is told to stop.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.on_demand {
        detach();
    }
    log::init();
    // Before the first thread.
    berth_netlink::share_heaps();
    // Whatever is made is for root, unless it says otherwise.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    unlink_sockets_on_panic();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            tracing::error!("{err:#}");
            ExitCode::FAILURE
        }
    }
}

/// Leaves whoever started this: its session, and what descriptors it left open. A container engine that waits for the end
/// of a pipe would wait for this daemon.
fn detach() {
    // It fails where this leads a session already, as under systemd-run.
    let _ = rustix::process::setsid();
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers: Vec<i32> = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // Of those that were listed, the list's own is closed already.
        let _ = nix::unistd::close(number);
    }
}

/// A release build ends at a panic without unwinding; a socket that stayed would cost every volume command 15 s.
fn unlink_sockets_on_panic() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if cfg!(panic = "abort") {
            berth_plugin_http::unlink_all();
        }
        usual(info);
    }));
}

fn run(cli: &Cli) -> Result<()> {
    let runtime = threads::runtime(context::THREADS).context("failed to start the runtime")?;
    let outcome = runtime.block_on(supervise(cli));
    runtime.shutdown_timeout(GRACE);
    outcome
}

/// Runs the roles until a signal or the first that fails, then stops them all.
async fn supervise(cli: &Cli) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("failed to wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to wait for SIGINT")?;
    let mut shared = Shared::new(cli)?;
    let mut running = JoinSet::new();
    for role in cli.roles() {
        let context = shared.context(role);
        running.spawn(async move { (role, role.run(context).await) });
    }
    let all_ready = shared.all_ready(cli.roles().len());
    tokio::pin!(all_ready);
    let mut announced = false;
    let outcome = loop {
        tokio::select! {
            () = &mut all_ready, if !announced => {
                announced = true;
                // Threads that roles have begun by now stay as they are.
                threads::be_prompt();
                tracing::info!("ready");
                notify::ready();
            }
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            ended = running.join_next() => match ended {
                None => break Ok(()),
                Some(ended) => if let Err(err) = checked(ended) { break Err(err) },
            },
        }
    };
    notify::stopping();
    shared.stop();
    let mut outcome = outcome;
    while let Some(ended) = running.join_next().await {
        outcome = outcome.and(checked(ended));
    }
    outcome
}

fn checked(ended: Result<(Role, Result<()>), tokio::task::JoinError>) -> Result<()> {
    let (role, outcome) = ended.context("a role panicked")?;
    outcome.with_context(|| format!("role `{role}`"))
}
