//! The constant ruleset and its elements.
//!
//! `inet berth` and `bridge berth` are the same on every host. [`lay`] lays them once; from then on networks and
//! attachments are [`Element`]s, put in and taken out in a [`Batch`] over a netlink socket, with no process started.
//! An element is a fact ("this port may send this address"), never a policy: what a container wants is decided above.
//!
//! The crate owns the two tables and nothing else. It keeps no record and never reads rules to decide anything: what it
//! reads back ([`Dump`], [`RulesetState`], [`Blocker`]) is for people, checks and garbage collection.
//!
//! When the tables are gone or are another version's, every commit fails with [`CommitError::NoRuleset`]; the caller
//! lays them and adds all elements again from its records.

#![forbid(unsafe_code)]

mod batch;
mod blockers;
mod conntrack;
pub mod docker_user;
mod element;
mod fingerprint;
mod kernel;
mod lay;
mod lower;
mod nft;
mod own_rules;
mod read;
mod ruleset;
mod schema;
mod socket;
mod span;
mod watch;
mod wire;

pub use batch::{Batch, CommitError};
pub use blockers::{AcceptRule, Blocker, BlockerKind, Foreign, docker_user_accept, foreign_blockers};
pub use conntrack::{FlowMatch, flush_flows};
pub use element::Element;
pub use fingerprint::{RulesetState, ruleset_state};
pub use lay::{LayError, lay, remove_tables};
pub use nft::NftError;
pub use read::{Dump, ReadError};
pub use ruleset::{MARK_MASK, MARK_VALUE, script};
pub use schema::TABLE;
pub use socket::{NftSocket, SocketError};
pub use watch::{Author, RulesetEvents, RulesetNews};
