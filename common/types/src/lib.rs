//! Names, addresses and identities that cannot be wrong.
//!
//! Everything that enters berth from outside (an environment variable, a configuration, a Docker body) is parsed
//! here, once, into a type whose values are all usable. Inside berth nothing is validated again.
//!
//! This crate knows no protocol, no kernel and no file: it may depend on no other crate of berth.

#![forbid(unsafe_code)]

mod attachment;
mod hash;
mod identity;
mod mac;
mod name;
mod port;
mod route;
mod vni;
mod volume;

pub use attachment::{AddressLease, AttachmentKey};
pub use hash::{fnv64, host_ifname};
pub use identity::{BootId, SandboxId};
pub use mac::{MacAddr, MacParseError};
pub use name::{ContainerId, IfName, NameError, NetworkName, NodeName};
pub use port::{Family, PortParseError, Proto, PublishedPort};
pub use route::{Dns, Route};
pub use vni::{Vni, VniError};
pub use volume::{VolumeName, VolumeNameError};
