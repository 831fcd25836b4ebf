//! The commands: each reads its arguments, calls the core and prints the answer.

mod check;
mod dns;
mod doctor;
mod elsewhere;
mod gc;
mod install;
mod lists;
mod manual;
mod node;
mod overlay;
mod ping;
mod share;
mod status;
mod topology;
mod volume;

use std::io::{self, Write as _};
use std::process::ExitCode;

use berth_core::Berth;
use berth_store::Dirs;
use clap::Parser as _;

use crate::cli::{Cli, Command, DnsCommand, NetworkCommand, NodeCommand, OverlayCommand};
use crate::exit::Exit;
use crate::failure::{Doing as _, Failure};
use crate::log;
use crate::output::{Out, Reader};

pub(crate) use dns::QueryArgs;
pub(crate) use volume::VolumeCommand;

/// Runs the command line of this process.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(said) => {
            // Help goes to standard output, mistakes to standard error; nobody reading either is no error.
            let _ = said.print();
            return ExitCode::from(u8::try_from(said.exit_code()).unwrap_or(2));
        }
    };
    log::init_for_people();
    let mut stdout = io::BufWriter::new(io::stdout().lock());
    let outcome = run(&cli, &mut Out::new(&mut stdout, Reader::of_stdout(cli.common.json)));
    let outcome = outcome.and_then(|exit| stdout.flush().doing("write the answer").map(|()| exit));
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            // What was printed so far comes before the reason it ends.
            let _ = stdout.flush();
            let failure = failure.with_hint_for(rustix::process::geteuid().is_root());
            let _ = writeln!(io::stderr(), "berth: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli, out: &mut Out<'_>) -> Result<Exit, Failure> {
    let dirs = cli.common.dirs().doing("find the directories of the records")?;
    match &cli.command {
        Command::Network(NetworkCommand::Ls) => lists::networks(&mut open(&dirs)?, out),
        Command::Network(NetworkCommand::Inspect { name }) => lists::inspect(&mut open(&dirs)?, name, out),
        Command::Network(NetworkCommand::Rm { name, dry_run }) => {
            gc::remove(&mut open(&dirs)?, name, *dry_run, out)
        }
        Command::Network(NetworkCommand::Create(args)) => overlay::create(&dirs, args, out),
        Command::Network(NetworkCommand::Share { name, off }) => share::share(&dirs, name, *off, out),
        Command::Node(NodeCommand::Join(args)) => node::join(&mut open(&dirs)?, args, out),
        Command::Node(NodeCommand::Leave { force }) => node::leave(&mut open(&dirs)?, *force, out),
        Command::Node(NodeCommand::Ls) => node::list(&mut open(&dirs)?, out),
        Command::Node(NodeCommand::Rm { name }) => node::remove(&mut open(&dirs)?, name, out),
        Command::Overlay(OverlayCommand::Status) => overlay::status(&mut open(&dirs)?, out),
        Command::Overlay(OverlayCommand::Ping { network, node, count }) => {
            ping::ping(&mut open(&dirs)?, (network.as_ref(), node.as_ref()), *count, out)
        }
        Command::Topology { format } => topology::topology(&mut open(&dirs)?, *format, out),
        Command::Volume(command) => volume::run(command, &dirs, out),
        Command::Ps { network } => lists::attachments(&mut open(&dirs)?, network.as_ref(), out),
        Command::Ports { network } => lists::ports(&mut open(&dirs)?, network.as_ref(), out),
        Command::Dns(DnsCommand::Ls { network }) => dns::list(&dirs, network.as_ref(), out),
        Command::Dns(DnsCommand::Query(args)) => dns::query(&dirs, args, out),
        Command::Status => status::status(&dirs, out),
        Command::Check { network } => check::check(&mut open(&dirs)?, network.as_ref(), out),
        Command::Gc { network, dry_run } => gc::gc(&mut open(&dirs)?, network.clone(), *dry_run, out),
        Command::Doctor => doctor::doctor(&dirs, out),
        Command::Install(args) => install::install(args, out),
        Command::Uninstall { dir, dry_run } => install::uninstall(dir, *dry_run, out),
        Command::Completions { shell } => manual::completions(*shell, out),
        Command::Man { to } => manual::man(to.as_deref(), out),
    }
}

fn open(dirs: &Dirs) -> Result<Berth, Failure> {
    Berth::open(dirs).doing("open the records")
}
