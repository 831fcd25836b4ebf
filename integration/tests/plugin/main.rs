//! berthd as a plugin, without a Docker: the calls that dockerd makes, the calls it should not make, and everything that may
//! happen in between.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests and their helpers: whatever goes wrong fails the test"
)]
#![forbid(unsafe_code)]

mod addresses;
mod bad_calls;
mod caller;
mod crowd;
mod faults;
mod firewall;
mod life;
mod networks;
mod overlay;
mod ports;
