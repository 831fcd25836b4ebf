//! Pools and leases: which addresses a network has and who holds which.
//!
//! - [`PoolConfig`]: host-local's configuration, parsed into ranges that cannot be wrong;
//! - [`allocate`] and [`release`]: one address per range set, in the caller's transaction, so that an attachment, its
//!   addresses and its ports are recorded together or not at all;
//! - [`choose`]: a subnet nobody on this host uses;
//! - [`blocks`]: which parts of a cluster's subnet a node claims, and the pool it then gives from;
//! - [`Span`]: the arithmetic of addresses.
//!
//! No kernel, no network: what is dead, what is in use on the host and what time it is, the caller says.

#![forbid(unsafe_code)]

mod allocator;
pub mod blocks;
pub mod choose;
mod config;
mod error;
mod json;
mod range;
mod release;
mod resolv;
mod span;

pub use allocator::{Allocation, FRESH_LIMIT, RECLAIM_AT_ONCE, Request, allocate};
pub use config::{DEFAULT_QUARANTINE, PoolConfig, parse_requested};
pub use error::{AllocateError, ConfigError, Exhausted, RangeError, Refusal};
pub use range::{Range, RangeSet};
pub use release::{has_room, leases, release, release_in};
pub use resolv::{ResolvConfError, parse_resolv_conf, read_resolv_conf};
pub use span::{Span, SpanParseError};
