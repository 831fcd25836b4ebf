//! Why a call of the core failed. Adapters map these to their protocol's codes in one place each.

use berth_netlink::NetlinkError;
use berth_types::{AttachmentKey, PublishedPort};

use crate::plan::PlanError;

/// Why an attach, a publish or a check failed.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// The records cannot be used.
    #[error(transparent)]
    Store(#[from] berth_store::StoreError),
    /// No address could be leased.
    #[error(transparent)]
    Ipam(#[from] berth_ipam::AllocateError),
    /// The plan is refused.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The network cannot be declared.
    #[error(transparent)]
    Declare(#[from] crate::declare::DeclareError),
    /// A pool cannot be opened, or has no such address.
    #[error(transparent)]
    Pool(#[from] crate::pool::PoolError),
    /// A step failed.
    #[error(transparent)]
    Execute(#[from] crate::execute::ExecuteError<crate::kernel::KernelError>),
    /// The kernel could not be read.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The ruleset could not be read or written.
    #[error(transparent)]
    Lay(#[from] berth_nft::LayError),
    /// An nf_tables transaction was refused.
    #[error(transparent)]
    Commit(#[from] berth_nft::CommitError),
    /// The ruleset could not be read.
    #[error(transparent)]
    ReadRules(#[from] berth_nft::ReadError),
    /// The kernel's netfilter could not be talked to.
    #[error(transparent)]
    NftSocket(#[from] berth_nft::SocketError),
    /// A step outside a plan failed.
    #[error(transparent)]
    Kernel(#[from] crate::kernel::KernelError),
    /// The attachment stands already.
    #[error("{key} is attached already, as {host_ifname}")]
    Exists {
        /// Who it is.
        key: AttachmentKey,
        /// Its host link.
        host_ifname: String,
    },
    /// A published port belongs to somebody else.
    #[error(transparent)]
    PortTaken(berth_store::PortTaken),
    /// The attachment's record cannot be begun.
    #[error(transparent)]
    Begin(#[from] berth_store::BeginError),
    /// A lock was held too long.
    #[error(transparent)]
    Lock(#[from] berth_store::lock::LockError),
    /// The DNS server was not told of a name that was asked for.
    #[error(transparent)]
    Names(#[from] crate::names::CallError),
    /// The sandbox cannot be used.
    #[error(transparent)]
    Sandbox(#[from] berth_netlink::SandboxError),
    /// A process of the host listens on the port.
    #[error("host port {port} is in use by {holder}")]
    PortInUse {
        /// The port asked for.
        port: PublishedPort,
        /// The process, as far as it can be told.
        holder: String,
    },
    /// A record cannot be read.
    #[error("the record of {what} cannot be read")]
    Record {
        /// Whose record.
        what: String,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// Something that must be there is not.
    #[error("{what}")]
    Missing {
        /// What is missing, in a sentence.
        what: String,
    },
    /// This host has no addresses of the network to give.
    #[error("network `{network}` has no address left on this host: {why}")]
    NoRoom {
        /// The network.
        network: berth_types::NetworkName,
        /// What is missing.
        why: String,
    },
    /// Several things went wrong; everything that could be done was done.
    #[error("{}", .0.join("; "))]
    Several(Vec<String>),
}

/// An error and its causes, as one line.
pub struct Chain<'a>(pub &'a (dyn std::error::Error + 'a));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}
