//! A reboot, as far as a private host can have one: the boot's number is another, the kernel has forgotten everything, and
//! the directory of this boot's records is empty, or is not.

use std::fs;

use berth_integration::{Host, Snapshot};

use crate::common::{Net, assert_as_before, berth_test, tcp};

/// The kernel's part: links, rules, flows, switches and the boot's number.
fn reboot(host: &Host) {
    let number = host.dir().join("boot-id");
    fs::write(&number, "00000000-0000-4000-8000-00000000beef\n").unwrap();
    host.run(&format!("mount -n --bind {} /proc/sys/kernel/random/boot_id", number.display()));
    host.run("nft flush ruleset");
    for bridge in ["br1", "br2"] {
        host.line(&format!("ip link del {bridge}")).output();
    }
    host.set_sysctl("net.ipv4.ip_forward", "0");
    host.set_sysctl("net.ipv6.conf.all.forwarding", "0");
    for uplink in ["up0", "up1"] {
        host.line(&format!("sysctl -q -w net.ipv6.conf.{uplink}.accept_ra=1")).output();
    }
    host.line("conntrack -F").output();
}

/// The machine is the one it was before.
fn unmount(host: &Host) {
    host.run("umount -n /proc/sys/kernel/random/boot_id");
}

/// Runs `test` after a reboot with containers `a` (that published 8080, on network 1) and `b` (network 2), which are gone, with
/// the old records there and without.
fn after_a_reboot(test: impl Fn(&Host)) {
    for kept in [true, false] {
        berth_test(|host| {
            eprintln!("records kept: {kept}");
            let containers = [host.container("a"), host.container("b")];
            Net::new(host, 1).publishing(&containers[0], tcp(8080, 80)).add().ok();
            Net::new(host, 2).call_for(&containers[1]).add().ok();
            containers.into_iter().for_each(berth_integration::Container::remove);
            berth_integration::eventually(std::time::Duration::from_secs(5), || {
                let left = host.run("ip -o link");
                if left.contains("master br") { Err(left) } else { Ok(()) }
            });
            reboot(host);
            if !kept {
                fs::remove_dir_all(host.run_dir()).unwrap();
            }
            test(host);
            // Where the test needed no records, there need be no directory.
            fs::create_dir_all(host.run_dir()).unwrap();
            crate::common::collect(host);
            unmount(host);
        });
    }
}

#[test]
fn after_a_reboot_a_container_of_the_same_name_can_be_added() {
    after_a_reboot(|host| {
        let a = Net::new(host, 1).publish("a", tcp(8080, 80));
        let _a = a.serve_tcp(80, "a");
        host.probe(&berth_integration::Probe::tcp("192.0.2.2:8080")).all_from("a");
        a.checked().check().ok();
        assert_eq!(host.sysctl("net.ipv4.ip_forward"), "1");
    });
}

#[test]
fn after_a_reboot_addresses_and_ports_of_the_boot_before_are_free() {
    after_a_reboot(|host| {
        let net = Net::new(host, 1);
        let container = host.container("other");
        let call = net.publishing(&container, tcp(8080, 80)).args("IP=10.80.1.2,fd00:80:1::2");
        call.add().ok();
        call.del().ok();
    });
}

#[test]
fn after_a_reboot_a_late_del_succeeds() {
    after_a_reboot(|host| {
        let before = Snapshot::of(host);
        for (number, id) in [(1, "a"), (2, "b")] {
            Net::new(host, number).call().id(id).del().ok();
            Net::new(host, number).call().id(id).env("CNI_NETNS", "/run/netns/gone").del().ok();
        }
        assert_as_before(host, &before);
    });
}

#[test]
fn after_a_reboot_gc_finds_nothing_left_and_turns_nothing_back() {
    after_a_reboot(|host| {
        // What was saved in the boot before must not be written in this one.
        host.set_sysctl("net.ipv4.ip_forward", "1");
        host.berth(["gc"]).run();
        assert_eq!(host.sysctl("net.ipv4.ip_forward"), "1");
        let doctor = host.berth(["doctor"]).output();
        assert_eq!(doctor.code(), Some(0), "{doctor}");
        host.set_sysctl("net.ipv4.ip_forward", "0");
    });
}

#[test]
fn after_a_reboot_check_says_that_the_attachment_is_gone() {
    after_a_reboot(|host| {
        let container = host.container("a");
        let result = serde_json::json!({"cniVersion": "1.1.0", "ips": [{"address": "10.80.1.2/24"}]});
        let error = Net::new(host, 1).call_for(&container).key("prevResult", result).check().err();
        assert!([3, 109].contains(&error.code), "{error}");
    });
}
