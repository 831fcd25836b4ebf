//! The overlay on private hosts: the cluster in real etcd, and what the kernel makes of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests and their helpers: whatever goes wrong fails the test"
)]
#![forbid(unsafe_code)]

mod agent;
mod cni;
mod control;
mod data;
mod docker;
mod encrypted;
mod engines;
mod fault;
mod fault_long;
mod five;
mod peers;
mod plugin;
mod shown;
mod stage;
mod sweep;
