//! Links, addresses, routes, neighbours, namespaces and kernel switches.
//!
//! This crate speaks to the kernel's network and knows nothing else: no policy, no records, no engine. Every call
//! does one thing to the kernel, says whether it had to, and names the object if it fails. Adding what exists and
//! deleting what does not are successes wherever the kernel can tell that it is the same thing.
//!
//! | module | speaks |
//! |---|---|
//! | [`Netlink`] | rtnetlink: links, addresses, routes, neighbours, traffic control |
//! | [`Sandbox`] | namespaces |
//! | [`LinkEvents`] | what changes, as it changes |
//! | [`sysctl`] | `/proc/sys/net` |
//! | [`announce`] | ARP and neighbour advertisements |
//! | [`port_list`] | which ports of the host have sockets at all |
//! | [`xfrm`] | encryption between hosts: states, policies, whether the kernel can |
//! | [`port_probe`] | whether a port of the host is free, and who holds it |
//!
//! Invariants: no thread's namespace changes under a caller; nothing sleeps or polls; lists are whole or an error;
//! `unsafe` is in one private module.

mod addr;
pub mod announce;
mod dump;
mod error;
mod link;
mod neigh;
mod netlink;
pub mod port_list;
pub mod port_probe;
mod route;
mod sandbox;
mod sys;
pub use sys::{give_memory_back, share_heaps};
pub mod sysctl;
mod tc;
mod watch;
pub mod xfrm;

pub use addr::{Addr, AddrFlags};
pub use error::{NetlinkError, Refusal, Side};
pub use link::{
    BridgePort, BridgeSpec, Holder, LOOPBACK_INDEX, Link, LinkChange, LinkKind, OperState, PortChange,
    VethPair, VethSpec, VlanFlags, VlanTarget, Vxlan, VxlanSpec, link_exists, vlan_filtering_supported,
};
pub use neigh::{EntryChange, EntryFault, FdbEntry, FdbSpec, FdbState, FdbTable, Neigh, NeighSpec};
pub use netlink::Netlink;
pub use route::{ROUTE_PROTOCOL, RouteEntry, RouteFilter, RouteLookup, RouteSpec};
pub use sandbox::{Sandbox, SandboxError};
pub use tc::{Tbf, traffic_shaping_supported};
pub use watch::{Concern, LinkEvents, LinkNews};
