//! The records: what berth has promised and to whom.
//!
//! Two SQLite databases, opened by path and by nothing else (no network, no kernel):
//!
//! - `run.db` in the run directory (tmpfs): attachments, leases, published ports, live networks, saved sysctls, users of
//!   volumes. All of it belongs to one boot; what cannot outlive a boot is dropped by the first [`Store::open`] of the next.
//! - `state.db` in the state directory: networks, static leases, volumes, what is known of the cluster, and which network an
//!   engine calls how. Opened when first needed, never before.
//!
//! Uniqueness is the schema's job. Two processes cannot be given one address, one port or one interface name, because
//! every change runs in a [`Store::write`] transaction (`BEGIN IMMEDIATE`, one writer at a time) and the tables' keys
//! refuse the second.
//!
//! Failure behaviour: a damaged file is set aside, never deleted, and a fresh one is made ([`Store::recovered`]); a file
//! of a newer berth is refused untouched ([`StoreError::Newer`]); everything else is a [`StoreError`] that names the
//! file and what to do.

#![forbid(unsafe_code)]

mod attachment;
mod cluster;
mod codec;
mod db;
mod dirs;
mod elsewhere;
mod engine;
mod error;
mod lease;
pub mod lock;
mod network;
mod owner;
mod pool;
mod port;
mod schema;
mod shown;
mod statics;
mod store;
mod sysctl;
mod time;
mod volume;

pub use attachment::{AttachmentRow, AttachmentState, BeginError, NewAttachment};
pub use cluster::{BlockRow, BlockStage, ClusterNode, LendDirection, LendRow};
pub use dirs::{Dirs, DirsError};
pub use engine::EngineNetworkRow;
pub use error::StoreError;
pub use lease::{Cursor, Freed, LeaseRow, LeaseScope};
pub use network::{LiveNetworkRow, NetworkRow};
pub use owner::Owner;
pub use port::{ClaimError, PortTaken};
pub use statics::StaticLease;
pub use store::{ReadTx, Recovered, Store, Tx};
pub use sysctl::SavedSysctl;
pub use time::{BootTime, unix_ms};
pub use volume::{VolumeRow, VolumeState, VolumeUse};
