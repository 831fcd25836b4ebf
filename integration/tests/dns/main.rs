//! Names, with real clients on private hosts: what containers find, from when and until when, and what becomes of it when
//! the server is killed, replaced or missing.

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

mod asking;
mod chained;
mod clients;
mod engine_names;
mod life;
mod looking;
mod members;
mod taken;
