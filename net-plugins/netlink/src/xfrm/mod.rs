//! Encryption between hosts by the kernel: ESP in transport mode with AES-GCM.
//!
//! A *state* is one direction between two addresses: its number, its key, its counters. A *policy* says which packets must have
//! gone through one. berth's are told from other programs' by their request id ([`REQUEST_ID`]): a policy of ours takes no state
//! of theirs, nothing of theirs is listed here, and nothing of theirs is ever removed.

mod events;
mod policy;
mod probe;
mod socket;
mod state;

pub use events::XfrmEvents;
pub use policy::EspPolicy;
pub use probe::esp_gcm_supported;
pub use socket::Xfrm;
pub use state::{EspKey, EspState};

/// `NETLINK_XFRM` of linux/netlink.h.
const NETLINK_XFRM: isize = 6;

/// What berth's states and policies carry as their request id: `brth`. Key exchange daemons count theirs from 1.
pub const REQUEST_ID: u32 = u32::from_be_bytes(*b"brth");

/// The protocol of ESP (RFC 4303).
const ESP: u8 = 50;
