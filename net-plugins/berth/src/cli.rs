//! What can be said on the command line.

use std::net::IpAddr;
use std::path::PathBuf;

use berth_store::{Dirs, DirsError};
use berth_types::{NetworkName, NodeName, Vni};
use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnetwork::IpNetwork;

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
    /// Create, list, inspect, share and remove networks
    #[command(subcommand)]
    Network(NetworkCommand),
    /// This host's place in a cluster, and the other nodes
    #[command(subcommand)]
    Node(NodeCommand),
    /// Networks across hosts: how they are, and how well they are reached
    #[command(subcommand)]
    Overlay(OverlayCommand),
    /// Draw networks, containers and nodes
    Topology {
        /// How
        #[arg(long, value_enum, default_value = "tree")]
        format: TopologyFormat,
    },
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
    /// Create a network of the cluster that this host is in
    Create(CreateArgs),
    /// Have Docker on every node of the cluster have a network under its name: created there, and removed again with it
    Share {
        /// The network
        #[arg(value_name = "NAME")]
        name: NetworkName,
        /// Not any more: each node's Docker loses it, once nothing there uses it
        #[arg(long)]
        off: bool,
    },
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

/// A network to create.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The network
    #[arg(value_name = "NAME")]
    pub(crate) name: NetworkName,
    /// What kind; other kinds are made by the first attach, or by their engine
    #[arg(short, long, value_enum, default_value = "overlay")]
    pub(crate) driver: NetworkDriver,
    /// A subnet, at most one of each family; chosen where absent
    #[arg(long, value_name = "PREFIX")]
    pub(crate) subnet: Vec<IpNetwork>,
    /// A gateway in one of the subnets; the first address where absent
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) gateway: Vec<IpAddr>,
    /// The network's number on the wire; chosen where absent
    #[arg(long, value_name = "NUMBER")]
    pub(crate) vni: Option<Vni>,
    /// The largest packet, bytes; what all nodes' links let through where absent
    #[arg(long, value_name = "BYTES")]
    pub(crate) mtu: Option<u32>,
    /// Encrypt between nodes; refused where the kernel cannot
    #[arg(long)]
    pub(crate) encrypted: bool,
    /// Nothing leaves and nothing enters
    #[arg(long)]
    pub(crate) internal: bool,
    /// Broadcasts and multicasts reach every node
    #[arg(long)]
    pub(crate) flood: bool,
    /// Keep its containers from each other
    #[arg(long)]
    pub(crate) apart: bool,
}

/// What kind of network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum NetworkDriver {
    /// Across hosts
    Overlay,
}

/// How a topology is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TopologyFormat {
    /// As text, for people
    Tree,
    /// For Graphviz
    Dot,
    /// For Mermaid
    Mermaid,
}

/// What to do about nodes.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Join a cluster; again, to change how
    Join(Box<JoinArgs>),
    /// Leave the cluster
    Leave {
        /// Also while the cluster does not answer: another node then has to remove this one
        #[arg(long)]
        force: bool,
    },
    /// List the cluster's nodes, as last seen
    Ls,
    /// Remove a node that is lost for ever, with its attachments and addresses
    Rm {
        /// The node
        #[arg(value_name = "NAME")]
        name: NodeName,
    },
}

/// How this host joins a cluster.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("place").required(true).args(["etcd", "peers"])))]
pub(crate) struct JoinArgs {
    /// An etcd's members, as https://HOST:PORT
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub(crate) etcd: Vec<String>,
    /// The authority of etcd's certificate, PEM
    #[arg(long, value_name = "FILE", requires = "etcd")]
    pub(crate) ca: Option<PathBuf>,
    /// This node's certificate for etcd, PEM
    #[arg(long, value_name = "FILE", requires_all = ["ca", "key"])]
    pub(crate) cert: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// The name in etcd's certificate, if it is not the URL's
    #[arg(long, value_name = "NAME", requires = "ca")]
    pub(crate) server_name: Option<String>,
    /// etcd's user
    #[arg(long, value_name = "NAME", requires_all = ["etcd", "password_file"])]
    pub(crate) user: Option<String>,
    /// A file with the user's password on its first line
    #[arg(long, value_name = "FILE", requires = "user")]
    pub(crate) password_file: Option<PathBuf>,
    /// A file that lists peers and networks, the same on every node: no server is needed
    #[arg(long, value_name = "FILE")]
    pub(crate) peers: Option<PathBuf>,
    /// The node's name; the host's where absent
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<NodeName>,
    /// The address that VXLAN leaves from; that of the way to the cluster where absent
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) address: Option<IpAddr>,
    /// The largest packet that other nodes are reached with, bytes; the link's where absent
    #[arg(long, value_name = "BYTES")]
    pub(crate) mtu: Option<u32>,
}

/// What to find out about networks across hosts.
#[derive(Debug, Subcommand)]
pub(crate) enum OverlayCommand {
    /// Show the cluster, its nodes, and this host's networks in it
    Status,
    /// Send packets to each node's address in each network: path, largest packet, loss; exit 1 if something is lost
    Ping {
        /// Only this network
        #[arg(value_name = "NETWORK")]
        network: Option<NetworkName>,
        /// Only this node
        #[arg(value_name = "NODE")]
        node: Option<NodeName>,
        /// How many packets of each size
        #[arg(short, long, value_name = "NUMBER", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
        count: u16,
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
