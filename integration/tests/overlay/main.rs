//! One network across hosts, with packets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests and their helpers: whatever goes wrong fails the test"
)]
#![forbid(unsafe_code)]

mod data;
