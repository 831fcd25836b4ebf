//! The kernel's part of a reboot, for hosts whose engines were cut off.

use std::fs;

use crate::Host;

/// Where the kernel says which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The kernel has forgotten everything, and the boot has another number. Records of the boot before are gone with `/run`. What
/// runs on the host must have been killed before.
pub fn reboot(host: &Host) {
    let number = host.dir().join("boot-id");
    let first = !number.exists();
    let boot = if first { "beef" } else { "cafe" };
    fs::write(&number, format!("00000000-0000-4000-8000-00000000{boot}\n")).unwrap();
    if first {
        host.run(&format!("mount -n --bind {} {BOOT_ID}", number.display()));
    }
    host.run("nft flush ruleset");
    for kind in ["vxlan", "bridge"] {
        let links = host.json(&format!("ip -j link show type {kind}"));
        for link in links.as_array().into_iter().flatten().filter_map(|link| link["ifname"].as_str()) {
            host.run(&format!("ip link delete {link}"));
        }
    }
    host.set_sysctl("net.ipv4.ip_forward", "0");
    host.line("conntrack -F").output();
    host.run("rm -rf /run/berth /run/docker");
}

/// The host has the machine's own number of the boot again.
pub fn reboots_are_over(host: &Host) {
    host.run(&format!("umount -n {BOOT_ID}"));
}
