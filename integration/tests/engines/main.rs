//! Real engines on private hosts, with berth as their plugins.
//!
//! `BERTH_TEST_PLUGINS=reference` runs the same tests on the reference plugins, but for what only berth can do: so the tests
//! themselves are proved.

#![forbid(unsafe_code)]

mod cri;
mod engine_cri;
mod engine_ctr;
mod engine_podman;
