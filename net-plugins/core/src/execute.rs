//! Runs a plan, and undoes it. Knows no policy: it does steps in order and takes them back in reverse.

use std::fmt;

use crate::step::{Plan, Step};

/// What changes the kernel. The real one is [`crate::kernel::Kernel`]; tests have a model of one.
pub trait Apply {
    /// Why a step failed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Does `step`. `Undo` says how to take back exactly what was done; a step that found its work done already
    /// answers [`Undo::Nothing`].
    fn apply(&mut self, step: &Step) -> Result<Undo, Self::Error>;

    /// Takes back what [`Apply::apply`] did. Absent is success.
    fn undo(&mut self, undo: &Undo) -> Result<(), Self::Error>;
}

/// The inverse of a step that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undo {
    /// Nothing was changed.
    Nothing,
    /// Delete the host link; its peer, ports, addresses and routes go with it.
    LinkDel(berth_types::IfName),
    /// Write the value back.
    SysctlRestore {
        /// The switch.
        key: berth_netlink::sysctl::SysctlKey,
        /// The value it had.
        value: String,
    },
    /// Delete the address.
    AddrDel {
        /// The link.
        link: berth_types::IfName,
        /// Host address and prefix.
        address: ipnetwork::IpNetwork,
    },
    /// Give the address back.
    AddrAdd {
        /// The link.
        link: berth_types::IfName,
        /// Host address and prefix.
        address: ipnetwork::IpNetwork,
    },
    /// Remove the elements.
    ElementsRemove(std::collections::BTreeSet<berth_nft::Element>),
}

/// A step failed; what was done before it has been undone as far as that went.
#[derive(Debug)]
pub struct ExecuteError<E> {
    /// The step, as a plan prints it.
    pub step: String,
    /// Why it failed.
    pub cause: E,
    /// What could not be taken back, each with its reason.
    pub left: Vec<String>,
}

impl<E: std::error::Error> fmt::Display for ExecuteError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first_line = self.step.lines().next().unwrap_or_default();
        write!(f, "failed to {first_line}")?;
        for left in &self.left {
            write!(f, "; not taken back: {left}")?;
        }
        Ok(())
    }
}

impl<E: std::error::Error + 'static> std::error::Error for ExecuteError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

/// What a plan did, and so how to take it back.
#[derive(Debug, Default)]
#[must_use = "an applied plan is either kept or undone"]
pub struct Applied {
    undos: Vec<Undo>,
}

impl Applied {
    /// Takes everything back, newest first, gathering errors and going on.
    pub fn undo<K: Apply>(self, kernel: &mut K) -> Vec<String> {
        let failed = |undo: &Undo| kernel.undo(undo).err().map(|err| format!("{undo:?}: {err}"));
        self.undos.iter().rev().filter_map(failed).collect()
    }

    /// Both, in order.
    pub fn and(mut self, later: Applied) -> Applied {
        self.undos.extend(later.undos);
        self
    }

    /// Keeps what was done.
    pub fn keep(self) {}
}

/// Runs `plan`; on an error undoes what was done, newest first, and reports both causes.
pub fn execute<K: Apply>(kernel: &mut K, plan: &Plan) -> Result<Applied, ExecuteError<K::Error>> {
    let mut applied = Applied::default();
    for step in plan.steps() {
        tracing::debug!(%step, "applying");
        match kernel.apply(step) {
            Ok(Undo::Nothing) => (),
            Ok(undo) => applied.undos.push(undo),
            Err(cause) => {
                let left = applied.undo(kernel);
                return Err(ExecuteError { step: step.to_string(), cause, left });
            }
        }
    }
    Ok(applied)
}
