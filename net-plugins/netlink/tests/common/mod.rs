//! A host and a container, each a namespace of its own that goes with the value.
#![allow(dead_code, unreachable_pub, reason = "every test file uses its own part of this")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot be set up fails")]

use berth_netlink::{BridgeSpec, Link, Netlink, Sandbox, VethSpec};
use berth_types::{IfName, MacAddr};

pub struct World {
    pub host: Sandbox,
    pub container: Sandbox,
    pub on_host: Netlink,
    pub in_container: Netlink,
}

impl World {
    pub fn new() -> Self {
        let (host, container) = (Sandbox::anonymous().unwrap(), Sandbox::anonymous().unwrap());
        let (on_host, in_container) =
            (Netlink::open_in(&host).unwrap(), Netlink::open_in(&container).unwrap());
        Self { host, container, on_host, in_container }
    }
}

pub fn name(text: &str) -> IfName {
    IfName::new(text).unwrap()
}

pub const HOST_MAC: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0x01]);
pub const PEER_MAC: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0x02]);
pub const BRIDGE_MAC: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0xff]);

pub fn bridge(text: &str) -> BridgeSpec {
    BridgeSpec {
        name: name(text),
        mtu: None,
        mac: Some(BRIDGE_MAC),
        alias: None,
        vlan_filtering: false,
        promisc: false,
    }
}

pub fn veth(host: &str, peer: &str) -> VethSpec {
    VethSpec {
        host_name: name(host),
        host_alias: None,
        host_mac: None,
        peer_name: name(peer),
        peer_mac: None,
        mtu: None,
        master: None,
        port: berth_netlink::PortChange::default(),
    }
}

pub fn link(netlink: &Netlink, text: &str) -> Link {
    netlink.link_by_name(&name(text)).unwrap().unwrap_or_else(|| panic!("no link {text}"))
}

/// What `program` prints, run inside `sandbox`. Only to compare with what the system's own tools say.
pub fn output(sandbox: &Sandbox, program: &str, args: &[&str]) -> String {
    let out = sandbox.run(|| std::process::Command::new(program).args(args).output()).unwrap().unwrap();
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}
