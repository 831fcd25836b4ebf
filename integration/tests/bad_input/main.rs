//! Bad input: always the right code and words a person can act on, at once, with nothing half made.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests and their helpers: whatever goes wrong fails the test"
)]
#![forbid(unsafe_code)]

#[path = "../common/mod.rs"]
mod common;

mod addresses;
mod config;
mod environment;
mod json;
mod names;
mod refusal;
