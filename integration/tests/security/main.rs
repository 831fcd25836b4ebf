//! The security promises, each with packets that must not arrive: exactly none. Rows S1 to S19, S35 and S36 name the known
//! bugs of this class that each test is about.

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

mod packet;

mod announcements;
mod exposure;
mod firewalls;
mod forwarding;
mod isolation;
mod loopback;
mod spoofing;
mod stale;
