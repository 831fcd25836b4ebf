//! One network across hosts: VXLAN below, and above it who is on the network, at which node.
//!
//! An overlay is a bridge network with one more port; the bridge, the port and everything local are `berth-core`'s. This
//! crate knows the cluster: its nodes, networks, attachments and blocks of addresses ([`model`]), where they are written
//! down ([`cluster`]), how it was last seen ([`view`]) and kept for when it is away ([`memory`]), and from which blocks of
//! addresses this node gives ([`blocks`]); and what follows from it in this node's kernel: forwarding entries ([`entries`],
//! [`reconcile`]), the largest packet ([`mtu`]) and encryption ([`encryption`]).
//!
//! This node's part is [`membership`] and [`joined`]; the [`agent`] keeps all of it together, short-lived programs [`call`] it,
//! and [`attach`] is what they do.

#![forbid(unsafe_code)]

pub mod agent;
pub mod attach;
pub mod blocks;
pub mod call;
pub mod cluster;
mod create;
pub mod encryption;
pub mod entries;
pub mod joined;
pub mod membership;
pub mod memory;
pub mod model;
pub mod mtu;
pub mod node;
pub mod probe;
pub mod reconcile;
pub mod shared;
pub mod underlay;
pub mod view;
pub mod wire;
