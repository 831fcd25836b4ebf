//! What containers on berth's networks can do, and how their coming and going behaves, with real packets.

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

mod calls;
mod chained;
mod checks;
mod concurrency;
mod delegation;
mod gc;
mod neighbours;
mod published;
mod simple;
mod traffic;
