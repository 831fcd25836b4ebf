//! What can be said on the command line.

use std::path::PathBuf;

use berth_store::{Dirs, DirsError};
use berth_types::NetworkName;
use clap::{Args, Parser, Subcommand};

use crate::commands::{QueryArgs, VolumeCommand};

/// Container networking and storage: networks, attachments, published ports, names and volumes of this host.
///
/// Engines call berth's CNI plugins by their names (`berth install DIR` puts them where an engine looks) and its sockets;
/// this command shows what they made, compares it with the kernel and cleans up.
#[derive(Debug, Parser)]
#[command(name = "berth", version, arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Where durable records are kept [env: BERTH_STATE_DIR] [default: /var/lib/berth]
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Where records of this boot are kept [env: BERTH_RUN_DIR] [default: /run/berth]
    #[arg(long, global = true, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl Common {
    /// The directories: as given, or by the environment, or the defaults.
    pub(crate) fn dirs(&self) -> Result<Dirs, DirsError> {
        // Whoever types a relative path means the directory they are in.
        let given = |path: &Option<PathBuf>| {
            path.as_ref().map(|path| std::path::absolute(path).unwrap_or(path.clone()))
        };
        let env = Dirs::from_env()?;
        Ok(Dirs {
            state: given(&self.state_dir).unwrap_or(env.state),
            run: given(&self.run_dir).unwrap_or(env.run),
        })
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List, inspect and remove networks
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Make, mount, copy and remove volumes
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// List attachments: which container is on which network, with which address
    Ps {
        /// Only this network
        #[arg(long, value_name = "NAME")]
        network: Option<NetworkName>,
    },
    /// List published ports
    Ports {
        /// Only this network
        #[arg(long, value_name = "NAME")]
        network: Option<NetworkName>,
    },
    /// Names: what is answered to containers, and how
    #[command(subcommand)]
    Dns(DnsCommand),
    /// Show versions, directories and counts
    Status,
    /// Check attachments against the kernel; exit 1 if something differs
    Check {
        /// Only this network
        #[arg(value_name = "NETWORK")]
        network: Option<NetworkName>,
    },
    /// Remove what nobody owns any more, and networks nobody is attached to; restore rules that are missing
    Gc {
        /// Only this network
        #[arg(long, value_name = "NAME")]
        network: Option<NetworkName>,
        /// Say what would be removed and remove nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Find out what is wrong, why, and what to do; changes nothing
    ///
    /// Exit status: 0 all is well, 1 what is wrong can be repaired as it says, 2 somebody has to decide.
    Doctor,
    /// Put the plugins' names into a directory, as links to this program
    Install(InstallArgs),
    /// Take the plugins' names out of a directory, and put back what they replaced; and the files that keep network managers
    /// off berth's links
    Uninstall {
        /// The directory
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Say what would be done and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Print completions for a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man {
        /// Write one page for each command into this directory instead
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
    },
}

/// What to find out about names.
#[derive(Debug, Subcommand)]
pub(crate) enum DnsCommand {
    /// List names: what each leads to, on which network, and why
    Ls {
        /// Only this network
        #[arg(long, value_name = "NAME")]
        network: Option<NetworkName>,
    },
    /// Tell how a question of a container is answered, step by step; exit 1 if it is not
    Query(QueryArgs),
}

/// What to do with networks.
#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// List networks
    Ls,
    /// Show one network and who is on it
    Inspect {
        /// The network
        #[arg(value_name = "NAME")]
        name: NetworkName,
    },
    /// Remove a network nobody is attached to
    Rm {
        /// The network
        #[arg(value_name = "NAME")]
        name: NetworkName,
        /// Say what would be removed and remove nothing
        #[arg(long)]
        dry_run: bool,
    },
}

/// How plugins are installed.
#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    /// The directory, for instance /opt/cni/bin; made where it is missing
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Also under the reference plugins' names: bridge, host-local, portmap, loopback, dnsname
    #[arg(long)]
    pub(crate) reference_names: bool,
    /// Hard links, for a directory that is mounted elsewhere without this program
    #[arg(long)]
    pub(crate) hard_links: bool,
    /// Also files that keep NetworkManager, systemd-networkd and systemd-udevd off berth's links, in /etc
    #[arg(long)]
    pub(crate) network_managers: bool,
    /// Replace files that are not berth's; they are kept as NAME.before-berth
    #[arg(long)]
    pub(crate) force: bool,
    /// Say what would be done and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_of_every_command_stand_before_or_after_it() {
        for line in
            ["berth --json --run-dir /r --state-dir /s ps", "berth ps --json --run-dir /r --state-dir /s"]
        {
            let cli = parse(line).unwrap();
            assert!(cli.common.json);
            assert_eq!(cli.common.dirs().unwrap(), Dirs { state: "/s".into(), run: "/r".into() });
        }
    }

    #[test]
    fn a_relative_directory_is_below_where_the_user_is() {
        let dirs = parse("berth --run-dir here ps").unwrap().common.dirs().unwrap();
        assert_eq!(dirs.run, std::env::current_dir().unwrap().join("here"));
    }

    #[test]
    fn names_are_checked_before_anything_is_done() {
        for line in
            ["berth network rm ../x", "berth check a/b", "berth gc --network -", "berth network inspect"]
        {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
        assert!(matches!(
            parse("berth network rm n0 --dry-run").unwrap().command,
            Command::Network(NetworkCommand::Rm { dry_run: true, .. })
        ));
    }

    #[test]
    fn help_and_version_are_no_errors() {
        for line in ["berth --help", "berth --version", "berth gc --help"] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 0, "{line}");
        }
        assert_eq!(parse("berth").unwrap_err().exit_code(), 2);
    }
}
