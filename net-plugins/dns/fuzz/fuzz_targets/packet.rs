//! Any bytes as a message to the server, and as an answer of another server.
//!
//! `cargo +nightly fuzz run packet` in `net-plugins/dns`. What it finds is added to `corpus/packet`, which an ordinary test
//! of the crate replays.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| berth_dns::fuzzing::packet(data));
