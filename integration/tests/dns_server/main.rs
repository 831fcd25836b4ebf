//! The DNS server on private hosts: real clients in containers, real and lying servers upstream, and floods.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests and their helpers: whatever goes wrong fails the test"
)]
#![forbid(unsafe_code)]

mod client;
mod stage;
mod upstream;

mod answers;
mod floods;
mod forwarding;
mod hostile;
mod life;
