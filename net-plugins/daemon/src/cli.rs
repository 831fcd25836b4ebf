//! What can be said on the command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use berth_overlay::agent::{KEY_PERIOD, LOST_AFTER, Settings};
use berth_store::Dirs;
use clap::{Parser, ValueEnum as _};

use crate::roles::Role;

/// No node is taken to be lost earlier, seconds: a lease, and a little more.
const MIN_LOST_AFTER: u64 = 20;

/// berth's daemon: answers Docker on its plugin sockets, serves names, and looks after the host's networks.
///
/// It can be stopped, killed and started at any time: traffic never passes through it, and what it knows is in the
/// records.
#[derive(Debug, Parser)]
#[command(name = "berthd", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// What to do; all of it unless said otherwise
    #[arg(long, value_enum, value_delimiter = ',', value_name = "ROLE")]
    roles: Vec<Role>,
    /// Where durable records are kept
    #[arg(long, env = "BERTH_STATE_DIR", value_name = "DIR", default_value = "/var/lib/berth")]
    state_dir: PathBuf,
    /// Where records of this boot are kept
    #[arg(long, env = "BERTH_RUN_DIR", value_name = "DIR", default_value = "/run/berth")]
    run_dir: PathBuf,
    /// Where Docker looks for plugin sockets
    #[arg(long, env = "BERTH_PLUGIN_DIR", value_name = "DIR", default_value = "/run/docker/plugins")]
    plugin_dir: PathBuf,
    /// Where dockerd is asked for names, and what it still has
    #[arg(long, env = "BERTH_DOCKER_SOCKET", value_name = "PATH", default_value = "/run/docker.sock")]
    docker_socket: PathBuf,
    /// How long another node of the cluster may be silent before it is taken to be lost and its addresses are given to others,
    /// seconds. One that is cut off with its containers running loses them then: be generous, and the same on every node
    #[arg(long, env = "BERTH_LOST_NODE_AFTER", value_name = "SECONDS", default_value_t = LOST_AFTER.as_secs(),
        value_parser = clap::value_parser!(u64).range(MIN_LOST_AFTER..))]
    lost_node_after: u64,
    /// How long a generation of keys of encrypted networks lasts, seconds; the same on every node. For tests
    #[arg(long, env = "BERTH_KEY_PERIOD", value_name = "SECONDS", default_value_t = KEY_PERIOD.as_secs(), hide = true,
        value_parser = clap::value_parser!(u64).range(1..))]
    key_period: u64,
    /// End when no container has a name any more, and run in a session of one's own; berth starts it so where a name is
    /// asked for and no server runs
    #[arg(long)]
    pub(crate) on_demand: bool,
}

impl Cli {
    /// The roles, each once.
    pub(crate) fn roles(&self) -> Vec<Role> {
        let asked = |role: &Role| self.roles.is_empty() || self.roles.contains(role);
        Role::value_variants().iter().copied().filter(asked).collect()
    }

    /// Where the records are.
    pub(crate) fn dirs(&self) -> Result<Dirs> {
        Ok(Dirs { state: std::path::absolute(&self.state_dir)?, run: std::path::absolute(&self.run_dir)? })
    }

    /// What was chosen of the overlay.
    pub(crate) fn overlay(&self) -> Settings {
        let [lost_after, key_period] = [self.lost_node_after, self.key_period].map(Duration::from_secs);
        Settings { lost_after, key_period }
    }

    /// Where dockerd is asked.
    pub(crate) fn docker_socket(&self) -> Result<PathBuf> {
        Ok(std::path::absolute(&self.docker_socket)?)
    }

    /// Where the sockets go.
    pub(crate) fn plugin_dir(&self) -> Result<PathBuf> {
        Ok(std::path::absolute(&self.plugin_dir)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn roles_are_all_or_those_that_are_named() {
        assert_eq!(parse("berthd").unwrap().roles(), Role::value_variants());
        assert_eq!(parse("berthd --roles docker,docker").unwrap().roles(), [Role::Docker]);
        assert!(parse("berthd --roles cooking").is_err());
    }

    #[test]
    fn no_node_is_lost_before_its_lease_is_over() {
        assert_eq!(parse("berthd").unwrap().overlay().lost_after, LOST_AFTER);
        assert_eq!(parse("berthd --lost-node-after 60").unwrap().overlay().lost_after.as_secs(), 60);
        assert!(parse("berthd --lost-node-after 19").is_err());
    }
}
