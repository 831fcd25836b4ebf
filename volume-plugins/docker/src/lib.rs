//! Docker's volume plugin protocol, which is podman's too, in front of berth's volumes.
//!
//! Engines' words stay in this crate. It keeps nothing: every call opens the records, so it can be killed at any time.
//!
//! What the peers do, and what is therefore done here:
//!
//! - dockerd asks `Get` before every `Create` and takes what it is told as its own, whatever the options are; and at its
//!   start it forgets every volume that `Get` does not answer. So `Get` is fast, and while the records cannot be read
//!   it waits and asks again rather than fail.
//! - A mount id is neither unique nor always given back: it is counted by (volume, id), and counts are checked against the mount
//!   tables. An `Unmount` of an unknown id is a success.
//! - podman has one id for all its containers and counts by itself. It takes 200 for success whatever the body says, so
//!   errors are status 500; and by default it waits for 5 s.
//! - Names are not checked by anybody before they get here.

#![forbid(unsafe_code)]

mod driver;
mod wire;

pub use driver::{SOCKET, TIDY_EVERY, plugin, tidy};
