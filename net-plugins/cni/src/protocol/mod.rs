//! The CNI protocol, versions 0.1.0 to 1.1.0: what the reference's `skel` and `types` are to a Go plugin.
//!
//! A plugin implements [`Plugin`] and is run by [`run`], which owns the order of every check, the environment, standard
//! input, standard output and the exit status. Inside, there is one model, that of 1.1.0; older versions exist only
//! in [`wire`], at the edge.
//!
//! Invariants: standard output carries one JSON document or nothing; the plugin sees only requests whose required
//! values are present and valid; a refusal costs no system call but those that read the request.

pub mod args;
pub mod config;
pub mod dispatch;
pub mod env;
pub mod error;
pub mod io;
pub mod json;
pub mod keys;
pub mod near_miss;
pub mod result;
pub mod runtime_config;
pub mod version;
pub mod wire;

pub use args::CniArgs;
pub use config::{AttachmentRef, CniArgsConfig, NetConf, Reading};
pub use dispatch::{Plugin, Request, run};
pub use env::{Attachment, Command, Detachment, Env, Network, SearchPath, Target};
pub use error::{CniError, Code};
pub use io::{Io, Outcome};
pub use keys::{Kind, Shape};
pub use result::{CniResult, Interface, IpConfig};
pub use runtime_config::{Bandwidth, PortMapping, RequestedIp, RuntimeConfig, RuntimeDns};
pub use version::CniVersion;
