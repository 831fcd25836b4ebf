//! What people type, on a real Docker with berth as its network driver: scenarios 1 to 9, as container courses teach them.
//!
//! Every test runs on dockerd 20.10 and on 26.1. `BERTH_TEST_PLUGINS=reference` runs the same lines with Docker's own
//! `bridge` driver, but for what only berth does: so the tests themselves are proved.

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
mod engine_life;
mod engine_names;
mod engine_networks;
mod engine_ports;
