//! `berth`: every CNI plugin by the name it is called under, and the command line for people.
//!
//! Which of the two is decided by `argv[0]` before anything else happens: a plugin's start is part of every container's
//! start. The command line parses, calls the core and prints; it decides nothing about the network.

#![forbid(unsafe_code)]

mod cli;
mod commands;
mod exit;
mod failure;
mod install;
mod log;
mod managers;
mod output;
mod text;
mod views;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use berth_cni::protocol::{CniError, CniVersion, Code, Plugin, io, run};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().take(2).collect();
    if let Some(plugin) = plugin(&args) {
        log::init_if_asked();
        return io::with_process_io(|io| run(plugin, io)).into();
    }
    if std::env::var_os("CNI_COMMAND").is_some_and(|command| !command.is_empty()) && args.len() < 2 {
        return refuse(&args);
    }
    commands::main()
}

/// The plugin that is called: by the name of the program, or as `berth <plugin>`.
fn plugin(args: &[OsString]) -> Option<&'static dyn Plugin> {
    let called = args.first().map(Path::new).and_then(Path::file_name);
    called.and_then(named).or_else(|| named(args.get(1)?))
}

fn named(name: &OsStr) -> Option<&'static dyn Plugin> {
    berth_cni::plugins::by_name(name.to_str()?)
}

/// Tells a runtime that it called a program that is no plugin, in the words it understands.
fn refuse(args: &[OsString]) -> ExitCode {
    let called = args.first().map(|name| name.to_string_lossy()).unwrap_or_default();
    let error = CniError::new(Code::InvalidConfig, format!("`{called}` is not the name of a plugin"))
        .with_details("call it under a plugin's name: `berth install DIR` makes them, and `type` in the configuration names one");
    // A runtime that does not read has its answer in the exit status.
    let _ = output::to_stdout(&error.to_json(CniVersion::LATEST));
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(args: &[&str]) -> Option<&'static str> {
        plugin(&args.iter().map(OsString::from).collect::<Vec<_>>()).map(Plugin::name)
    }

    #[test]
    fn the_programs_name_decides_which_plugin_it_is() {
        assert_eq!(called(&["/opt/cni/bin/rbridge"]), Some("rbridge"));
        assert_eq!(called(&["host-local"]), Some("ripam"));
        assert_eq!(called(&["./loopback", "ps"]), Some("rnone"));
        assert_eq!(called(&["/usr/bin/berth", "rportmap"]), Some("rportmap"));
        for person in [&["berth"][..], &["berth", "ps"], &["/opt/rbridge/berth", "status"], &[]] {
            assert_eq!(called(person), None, "{person:?}");
        }
    }

    #[test]
    fn no_command_has_a_plugins_name() {
        for command in <cli::Cli as clap::CommandFactory>::command().get_subcommands() {
            assert!(berth_cni::plugins::by_name(command.get_name()).is_none(), "{}", command.get_name());
        }
    }
}
