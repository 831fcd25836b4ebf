//! Real engines on private hosts, with berth as their plugins.
//!
//! `BERTH_TEST_PLUGINS=reference` runs the same tests on the reference plugins, but for what only berth can do: so the tests
//! themselves are proved.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests and their helpers: whatever goes wrong fails the test"
)]
#![forbid(unsafe_code)]

mod cri;
mod engine_cri;
mod engine_ctr;
mod engine_docker;
mod engine_podman;
