//! What people type about volumes, on real engines with berth as the driver: scenarios 11 to 18.
//!
//! Docker 20.10 and 26.1 with their Compose, podman 4.3 and 5.4. Data survives containers, kills of both daemons and a reboot,
//! byte for byte.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests and their helpers: whatever goes wrong fails the test"
)]
#![forbid(unsafe_code)]

mod common;
mod engine_compose;
mod engine_crashes;
mod engine_docker;
mod engine_podman;
mod protocol;
