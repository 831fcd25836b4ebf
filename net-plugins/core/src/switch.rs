//! Names of the kernel switches berth sets.

use berth_netlink::sysctl::SysctlKey;
use berth_types::{Family, IfName};

/// A switch of one link.
pub fn of_link(family: Family, link: &IfName, name: &'static str) -> SysctlKey {
    SysctlKey::of_link(family, link, name).expect("a link's name and a word are plain file names")
}

/// `net.ipv4.ip_forward`.
pub fn forward_v4() -> SysctlKey {
    SysctlKey::new(["net", "ipv4", "ip_forward"]).expect("words are plain file names")
}

/// `net.ipv6.conf.all.forwarding`.
pub fn forward_v6() -> SysctlKey {
    SysctlKey::new(["net", "ipv6", "conf", "all", "forwarding"]).expect("words are plain file names")
}

/// A key the records kept.
pub(crate) fn of_record(key: &str) -> Option<SysctlKey> {
    SysctlKey::new(key.split('/')).ok()
}
