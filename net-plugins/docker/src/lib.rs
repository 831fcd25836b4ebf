//! Docker's network and address plugin protocols, in front of the core.
//!
//! Docker's words stay in this crate. What dockerd makes of an answer is in the module of the driver.

#![forbid(unsafe_code)]

mod api;
pub mod capabilities;
mod cores;
mod driver;
mod endpoint;
mod forward;
pub mod host;
pub mod ipam;
mod names;
pub mod network;
pub mod none;
mod option;
mod options;
pub mod overlay;
mod ports;
mod reconcile;
mod refusal;
mod resolvers;
mod session;
pub mod share;
mod view;
mod watch;
mod wire;

pub use cores::Cores;
pub use forward::Forward;
pub use watch::Watcher;
