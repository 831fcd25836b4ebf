//! The one hash that names in the kernel are made with. It never changes: names outlive versions of berth.

use crate::{AttachmentKey, IfName};

/// FNV-1a, 64 bits, over `parts` with a zero byte after each, so that `("a","bc")` and `("ab","c")` differ.
pub fn fnv64<'a>(parts: impl IntoIterator<Item = &'a str>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.bytes().chain(std::iter::once(0)) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

/// The host end's name of an attachment's veth pair: `veth` and eight hexadecimal digits.
///
/// It is computed from the key, so that a call finds the link without any record. `attempt` 0 is the usual name; a
/// higher one is taken when another attachment holds the name before it (the interface alias tells whose it is).
pub fn host_ifname(key: &AttachmentKey, attempt: u8) -> IfName {
    let salt = attempt.to_string();
    let hash = fnv64([key.network.as_str(), key.container.as_str(), key.ifname.as_str(), &salt]);
    let folded = (hash >> 32) ^ (hash & 0xffff_ffff);
    IfName::new(format!("veth{folded:08x}")).expect("twelve ASCII letters and digits are an interface name")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ContainerId, NetworkName};

    #[test]
    fn names_do_not_change_between_versions() {
        assert_eq!(fnv64([""]), 0xaf63_bd4c_8601_b7df);
        let key = AttachmentKey {
            network: NetworkName::new("n0").unwrap(),
            container: ContainerId::new("c1").unwrap(),
            ifname: IfName::new("eth0").unwrap(),
        };
        assert_eq!(host_ifname(&key, 0).as_str(), host_ifname(&key, 0).as_str());
        assert_ne!(host_ifname(&key, 0), host_ifname(&key, 1));
        assert_ne!(fnv64(["a", "bc"]), fnv64(["ab", "c"]));
    }
}
