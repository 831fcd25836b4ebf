//! The embedded DNS server: members of a network find each other by name.

mod config;
mod error;
mod shown;
pub mod zone;

pub use config::{Limits, ServerConfig};
pub use error::DnsError;
pub use shown::{Entry, Explained, HandedSocket, Listening};
pub use zone::spec::{Change, MemberSpec, NetworkSpec, Service};
