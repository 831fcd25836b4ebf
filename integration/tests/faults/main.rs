//! Faults around berth: what it made is deleted or replaced, its records are lost, full or damaged, the machine restarts,
//! calls overtake each other. Nothing is lost, nothing is leaked, and the next call or `berth gc` repairs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "tests and their helpers: whatever goes wrong fails the test"
)]
#![forbid(unsafe_code)]

#[path = "../common/mod.rs"]
mod common;

mod bridges;
mod flushes;
mod keeper;
mod overtaking;
mod reboots;
mod records;
mod storage;
mod sweep_kill;
