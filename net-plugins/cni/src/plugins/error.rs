//! The one place where the core's errors become CNI codes.

use berth_core::kernel::KernelError;
use berth_core::plan::PlanError;
use berth_core::{Chain, CoreError};
use berth_ipam::{AllocateError, Refusal};
use berth_netlink::{NetlinkError, Side};
use berth_store::lock::LockError;

use crate::protocol::{CniError, Code};

/// The CNI error of a core's error. The message is the outermost cause, `details` the rest of the chain.
pub(crate) fn of_core(err: &CoreError) -> CniError {
    let mut error = CniError::from_chain(code(err), err);
    // The second line of an error is the hint.
    if let Some((first, hint)) = error.msg.clone().split_once('\n') {
        error.details =
            if error.details.is_empty() { hint.to_owned() } else { format!("{}; {hint}", error.details) };
        error.msg = first.to_owned();
    }
    match err {
        CoreError::Ipam(err) => error.with_details(err.details()),
        _ => error,
    }
}

/// The CNI error of a failed DEL or GC: what is left is listed.
pub(crate) fn of_cleanup(err: &CoreError) -> CniError {
    match err {
        CoreError::Several(all) => {
            CniError::new(Code::CleanupIncomplete, "could not remove everything").with_details(all.join("; "))
        }
        other => CniError::new(code(other), Chain(other).to_string()),
    }
}

fn code(err: &CoreError) -> Code {
    match err {
        CoreError::Store(_) | CoreError::Record { .. } => Code::State,
        CoreError::Ipam(err) => of_ipam(err),
        CoreError::NoRoom { .. } => Code::PoolExhausted,
        CoreError::Pool(_) => Code::AddressTaken,
        CoreError::Plan(
            PlanError::NotABridge { .. }
            | PlanError::OtherAddress { .. }
            | PlanError::ForeignBridge { .. }
            | PlanError::NotItsDevice { .. }
            | PlanError::OtherVni { .. },
        ) => Code::DeviceConflict,
        CoreError::Declare(_) | CoreError::Plan(PlanError::Overlap { .. }) => Code::SubnetConflict,
        CoreError::Plan(PlanError::Unsupported { .. }) => Code::UnsupportedField,
        CoreError::Execute(err) => match &err.cause {
            KernelError::Netlink(err) => of_netlink(err),
            KernelError::Sandbox(_) => Code::InvalidNetns,
            KernelError::Commit(berth_nft::CommitError::Exists { .. }) => Code::PortTaken,
            KernelError::Commit(_)
            | KernelError::Lay(_)
            | KernelError::Sysctl(_)
            | KernelError::NftSocket(_)
            | KernelError::LinkGone(_)
            | KernelError::NoSandbox => Code::Kernel,
            KernelError::Refill(_) => Code::State,
        },
        CoreError::Netlink(err) => of_netlink(err),
        CoreError::Lay(_)
        | CoreError::Commit(_)
        | CoreError::ReadRules(_)
        | CoreError::NftSocket(_)
        | CoreError::Kernel(_) => Code::Kernel,
        CoreError::Exists { .. } | CoreError::Begin(_) => Code::InterfaceExists,
        CoreError::Lock(LockError::Held { .. }) => Code::TryAgainLater,
        CoreError::Lock(LockError::Io { .. }) => Code::State,
        CoreError::Names(_) => Code::Names,
        CoreError::Sandbox(_) => Code::InvalidNetns,
        CoreError::PortTaken(_) | CoreError::PortInUse { .. } => Code::PortTaken,
        CoreError::Missing { .. } => Code::CheckFailed,
        CoreError::Several(_) => Code::CleanupIncomplete,
    }
}

fn of_netlink(err: &NetlinkError) -> Code {
    match err {
        NetlinkError::NameTaken { side: Side::Sandbox, .. } => Code::InterfaceExists,
        NetlinkError::NameTaken { side: Side::Host, .. }
        | NetlinkError::VniTaken { .. }
        | NetlinkError::UdpPortTaken { .. }
        | NetlinkError::BridgeFull { .. } => Code::DeviceConflict,
        other if other.is_forbidden() => Code::Permission,
        _ => Code::Kernel,
    }
}

/// The code of a refused address request.
fn of_ipam(err: &AllocateError) -> Code {
    match err {
        AllocateError::Range { reason, .. } => match **reason {
            Refusal::Exhausted(_) => Code::PoolExhausted,
            _ => Code::AddressTaken,
        },
        AllocateError::Unused { .. } => Code::InvalidConfig,
        AllocateError::Store(_) => Code::State,
    }
}
