//! What berth's drivers tell dockerd about themselves.

use serde::Serialize;

/// The reply to `NetworkDriver.GetCapabilities`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Capabilities {
    scope: &'static str,
    connectivity_scope: &'static str,
    gw_alloc_checker: bool,
}

impl Capabilities {
    /// A driver whose networks are one host's. With scope `global`, a swarm would take the networks for its own, and
    /// refuses plugins of this kind.
    pub const LOCAL: Self = Self { scope: "local", connectivity_scope: "local", gw_alloc_checker: false };

    /// A driver whose networks are each host's to create, and reach other hosts.
    pub const CLUSTER: Self = Self { scope: "local", connectivity_scope: "global", gw_alloc_checker: false };
}
