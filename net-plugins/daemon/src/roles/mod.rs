//! The roles. Each is a module with one function that runs until the daemon stops.

mod dns;
mod docker;
mod keeper;
mod overlay;
mod volumes;

use std::fmt;

use anyhow::Result;
use clap::ValueEnum;

use crate::context::Context;

/// A part of the daemon that can run by itself, with privileges of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Networks and addresses for Docker: rbridge.sock, roverlay.sock, rnone.sock, rhost.sock, ripam.sock
    Docker,
    /// Names: answers the networks' containers at their gateways, and forwards what is not berth's
    Dns,
    /// Watch the host and put right at once what other programs destroy of berth's
    Keeper,
    /// Networks across hosts: keeps this node in its cluster, and the kernel's entries for what is on others; overlay.sock
    Overlay,
    /// Volumes for Docker and podman: rvolume.sock
    Volumes,
}

impl Role {
    /// Runs until the context says stop. Says ready when it does its work.
    pub(crate) async fn run(self, context: Context) -> Result<()> {
        match self {
            Self::Dns => dns::run(context).await,
            Self::Docker => docker::run(context).await,
            Self::Keeper => keeper::run(context).await,
            Self::Overlay => overlay::run(context).await,
            Self::Volumes => volumes::run(context).await,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("?", |value| value.get_name()))
    }
}
