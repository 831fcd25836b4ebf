//! The CNI protocol and berth's CNI plugins.
//!
//! [`protocol`] is what a runtime and a plugin say to each other: environment, configuration, results, errors and the
//! dispatch of verbs. [`delegate`] calls another plugin, usually for IPAM. Nothing here is async, and nothing but
//! [`delegate`] and the check of the sandbox's path in [`protocol::dispatch`] touches the system.

#![forbid(unsafe_code)]

pub mod delegate;
pub mod plugins;
pub mod protocol;
