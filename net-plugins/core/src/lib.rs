//! Networks and attachments: one engine-neutral core under every adapter.
//!
//! A change runs the same way everywhere: a request is parsed into types that cannot be wrong, the kernel and the
//! records are observed once, a pure planner lists the steps, the executor does them and knows how to take each back,
//! and the records say so. The records are the truth; the kernel is derived from them ([`elements`]), so a flush, a
//! crash or a reboot is repaired by the code that makes a change.
//!
//! This crate knows no protocol: neither CNI nor Docker appears in it. It speaks to the kernel only through
//! `berth-netlink` and `berth-nft`.

#![forbid(unsafe_code)]

pub mod addressing;
mod attach;
pub mod attachment;
mod berth;
mod check;
mod collect;
pub mod declare;
mod detach;
pub mod doctor;
pub mod elements;
mod engine;
mod error;
pub mod exchange;
pub mod execute;
mod flows;
pub mod hold;
pub mod keeper;
pub mod kernel;
mod lease;
mod listeners;
pub mod loopback;
pub mod names;
pub mod network;
mod observe;
pub mod overlay;
pub mod plan;
pub mod pool;
mod publish;
mod published;
mod rebuild;
pub mod request;
pub mod rules;
pub mod shown;
pub mod step;
pub mod switch;
mod uplinks;

pub use berth::Berth;
pub use collect::{GcReport, GcRequest};
pub use detach::Parting;
pub use error::{Chain, CoreError};
pub use published::{Held, PortsRecord, Published};
