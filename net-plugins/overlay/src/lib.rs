//! One network across hosts: VXLAN below, and above it who is on the network, at which node.
//!
//! An overlay is a bridge network with one more port; the bridge, the port and everything local are `berth-core`'s. This
//! crate knows the cluster: its nodes, networks, attachments and blocks of addresses ([`model`]), where they are written
//! down ([`cluster`]) and how it was last seen ([`view`]).

#![forbid(unsafe_code)]

pub mod call;
pub mod cluster;
pub mod model;
pub mod view;
pub mod wire;
