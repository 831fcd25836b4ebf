//! What the kernel refuses.

use berth_netlink::sysctl::SysctlError;
use berth_netlink::{NetlinkError, SandboxError};
use berth_nft::{CommitError, LayError, SocketError};
use berth_types::IfName;

use crate::error::CoreError;

/// Why a step failed in the kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A request for links, addresses, routes or switches was refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The sandbox cannot be entered.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A kernel switch could not be read or written.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// The ruleset could not be laid.
    #[error(transparent)]
    Lay(#[from] LayError),
    /// An nf_tables transaction was refused.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The kernel's netfilter could not be talked to.
    #[error(transparent)]
    NftSocket(#[from] SocketError),
    /// The records could not be read to fill a fresh ruleset.
    #[error("failed to fill the ruleset from the records")]
    Refill(#[source] Box<CoreError>),
    /// The plan names a link that is not there.
    #[error("link `{0}` is gone")]
    LinkGone(IfName),
    /// The plan needs a sandbox and was given none.
    #[error("no sandbox was given")]
    NoSandbox,
}
