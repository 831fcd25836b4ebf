//! The test kit: private hosts, containers in them, and what tests do to them.
//!
//! A [`Host`] is a network and a mount namespace of its own, with its own `/run`, `/etc`, `/var/lib` and state
//! directories, so any number of them run side by side and nothing of them is left when they are dropped, be it by a
//! panic or by a kill of the test. [`host_test`] is the frame of every test: it compares the host before and after, and
//! the machine too.
//!
//! The kit needs root. It panics where a test should fail; that is its way of saying so. It knows berth only as a
//! program: it depends on no crate of berth that makes networks.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test kit: whatever goes wrong here fails the test that asked for it"
)]

pub mod bench;
mod cmd;
mod cni;
mod conflist;
mod container;
mod debian;
pub mod engine;
pub mod frame;
mod host;
mod host_test;
mod lan;
mod other_kernel;
mod place;
mod probe;
mod raw;
mod server;
mod servers;
mod snapshot;
mod sweep;
mod tools;
mod underlay;

pub use cmd::{Cmd, Proc, Ran};
pub use cni::{Call, Cni, CniError, CniRan};
pub use conflist::{ConfList, ListError};
pub use container::Container;
pub use debian::Debian;
pub use host::Host;
pub use host_test::{host_test, host_test_on, lan_test};
pub use lan::{Lan, Seat};
pub use other_kernel::{Guest, is_other_kernel, on_other_kernel};
pub use place::Place;
pub use probe::{Probe, Reply, Tally};
pub use raw::RawSocket;
pub use server::{Heard, Server};
pub use servers::Servers;
pub use snapshot::{Machine, NetView, Snapshot};
pub use sweep::{Fault, Injection, sweep};
pub use tools::{berth_binary, berthd_binary, eventually, patience};
pub use underlay::{Underlay, underlay_test, underlay_test_on};
