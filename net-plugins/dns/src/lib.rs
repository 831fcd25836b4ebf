//! The embedded DNS server: members of a network find each other by name.
//!
//! | module | does |
//! |---|---|
//! | [`zone`] | decides, purely: what is answered to whom, and what is asked elsewhere |
//! | [`wire`] | reads questions and writes answers |
//! | `respond` | from a message to what is to be done with it: the path that UDP and TCP share |
//! | `serve` | sockets on gateway addresses, and the threads that answer there |
//! | `forward` | the thread that asks other servers |
//! | `cache` | what these have answered |
//! | [`Server`] | starts and stops all of it, and takes changes |
//!
//! Invariants: who answers never waits, neither for a change nor for another server; when [`Server::apply`] returns, its
//! changes are in every answer to what is asked from then on; only members of a network and the host get any answer at all;
//! a question of an internal network never causes a packet; memory, descriptors and time are bounded whatever is sent here;
//! `unsafe` is in one private module.
//!
//! The server has threads of its own and needs no runtime. It knows no record and no engine.

mod cache;
mod config;
mod error;
mod explain;
mod forward;
#[doc(hidden)]
pub mod fuzzing;
mod metrics;
mod respond;
mod serve;
mod server;
mod shown;
mod sys;
pub mod wire;
pub mod zone;

pub use config::{Limits, ServerConfig};
pub use error::DnsError;
pub use forward::resolv::servers_in;
pub use server::Server;
pub use shown::{Entry, Explained, HandedSocket, Listening};
pub use zone::spec::{Change, MemberSpec, NetworkSpec, Service};
