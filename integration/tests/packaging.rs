//! The files that packages install are what their readers expect.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests; a skipped one must be seen")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

fn units() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/systemd");
    let mut units: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    units.sort();
    units
}

fn text(name: &str) -> String {
    let path = units().into_iter().find(|path| path.ends_with(name));
    fs::read_to_string(path.unwrap_or_else(|| panic_for(name))).unwrap()
}

#[track_caller]
fn panic_for(name: &str) -> PathBuf {
    unreachable!("there is no {name} in packaging/systemd")
}

/// `systemd-analyze verify` in a root of its own, where the program is installed and nothing else is.
#[test]
fn systemd_accepts_the_units() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "systemd-analyze is missing, which this test needs");
        eprintln!("SKIPPED: systemd-analyze is missing");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let (bin, dir) = (root.path().join("usr/bin"), root.path().join("etc/systemd/system"));
    fs::create_dir_all(&bin).unwrap();
    fs::create_dir_all(&dir).unwrap();
    fs::write(bin.join("berthd"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(bin.join("berthd"), fs::Permissions::from_mode(0o755)).unwrap();
    // What every unit needs of the system's own.
    for target in ["sysinit", "basic", "shutdown", "sockets", "multi-user", "network-pre", "local-fs"] {
        fs::write(dir.join(format!("{target}.target")), "[Unit]\nDescription=there\n").unwrap();
    }
    let mut verify = Command::new("systemd-analyze");
    verify.arg("--root").arg(root.path()).args(["--man=no", "verify"]);
    for unit in units() {
        let installed = dir.join(unit.file_name().unwrap());
        fs::copy(&unit, &installed).unwrap();
        verify.arg(installed);
    }
    let ran = verify.output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && said.trim().is_empty(), "{said}");
}

#[test]
fn every_socket_of_the_daemon_is_systemds_and_before_docker() {
    let socket = text("berth-network.socket");
    for name in ["rbridge", "roverlay", "ripam", "rnone", "rhost"] {
        assert!(socket.contains(&format!("\nListenStream=/run/docker/plugins/{name}.sock\n")), "{name}");
    }
    assert!(socket.contains("\nSocketMode=0600\n"));
    for unit in [socket, text("berth-network.service")] {
        assert!(unit.contains("\nBefore=docker.service\n"));
    }
}

#[test]
fn the_dns_servers_sockets_are_kept_over_a_restart() {
    assert!(text("berth-dns.socket").contains("\nListenStream=/run/berth/dns.sock\n"));
    let service = text("berth-dns.service");
    for line in ["Restart=always", "NotifyAccess=main", "RuntimeDirectoryPreserve=yes"] {
        assert!(service.contains(&format!("\n{line}\n")), "{line}");
    }
    assert!(service.contains("\nFileDescriptorStoreMax="));
}

/// A mount that the daemon makes in a namespace of its own is one that Docker does not see.
#[test]
fn the_volumes_unit_has_no_mount_namespace_of_its_own() {
    assert!(text("berth-volume.socket").contains("\nListenStream=/run/docker/plugins/rvolume.sock\n"));
    let service = text("berth-volume.service");
    let set = |line: &str, key: &str| line.starts_with(key) && line.contains('=');
    for key in [
        "Private",
        "Protect",
        "ReadOnly",
        "ReadWrite",
        "Inaccessible",
        "Bind",
        "Temporary",
        "Root",
        "MountFlags",
        "NoExec",
        "Exec Paths",
        "DynamicUser",
    ] {
        assert!(!service.lines().any(|line| set(line, key)), "{key}");
    }
    assert!(service.contains("\nBefore=docker.service\n"));
}

fn network(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/network").join(name);
    fs::read_to_string(&path).unwrap()
}

/// The patterns of a `[Match]` line.
fn patterns(file: &str, key: &str) -> Vec<String> {
    let text = network(file);
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    line.unwrap().split_whitespace().map(str::to_owned).collect()
}

/// Whether the shell, which reads such patterns as systemd does, finds `name` to match one.
fn matches(patterns: &[String], name: &str) -> bool {
    let script = format!("case {name} in {}) exit 0;; *) exit 1;; esac", patterns.join("|"));
    Command::new("sh").args(["-c", &script]).status().unwrap().success()
}

#[test]
fn network_managers_are_kept_off_berths_links_and_off_no_others() {
    let ours =
        ["bvx4096", "bvx16777215", "bbr4096", "vethdeadbeef", "bifbdeadbeef", "cni0", "br-0123456789ab"];
    let others =
        ["eth0", "enp3s0", "wlan0", "vxlan0", "br0", "br-lan", "br-guests", "veth1", "docker0", "bond0"];
    for (file, key) in [("systemd/10-berth.network", "Name"), ("systemd/10-berth.link", "OriginalName")] {
        let patterns = patterns(file, key);
        for name in ours {
            assert!(matches(&patterns, name), "{file}: {name}");
        }
        for name in others {
            assert!(!matches(&patterns, name), "{file}: {name}");
        }
    }
    assert!(network("systemd/10-berth.network").ends_with("\n[Link]\nUnmanaged=yes\n"));
    assert!(network("systemd/10-berth.link").ends_with("\n[Link]\nMACAddressPolicy=none\n"));
    // NetworkManager.conf(5): names with `*` and `?`, and no ranges.
    let conf = network("NetworkManager/90-berth.conf");
    let list = conf.lines().find_map(|line| line.strip_prefix("unmanaged-devices+="));
    let patterns: Vec<String> = list
        .unwrap()
        .split(';')
        .map(|item| item.strip_prefix("interface-name:").unwrap().to_owned())
        .collect();
    assert!(ours.iter().all(|name| matches(&patterns, name)));
    assert!(!others.iter().any(|name| matches(&patterns, name)));
    assert!(conf.contains("\n[keyfile]\n"));
}

/// systemd's own reader finds nothing to complain about: what it does not know it says.
#[test]
fn systemd_reads_the_link_file() {
    if Command::new("udevadm").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "udevadm is missing, which this test needs");
        eprintln!("SKIPPED: udevadm is missing");
        return;
    }
    berth_integration::host_test(|host| {
        host.run("mkdir -p /run/systemd/network /run/udev");
        let file = host.dir().join("10-berth.link");
        fs::write(&file, network("systemd/10-berth.link")).unwrap();
        host.run(&format!("cp {} /run/systemd/network/10-berth.link", file.display()));
        host.run("ip link add bvx7 type vxlan id 7 dstport 4789");
        let said = host.line("udevadm test-builtin net_setup_link /sys/class/net/bvx7 2>&1").output().stdout;
        assert!(said.contains("ID_NET_LINK_FILE=/run/systemd/network/10-berth.link"), "{said}");
        // A complaint begins with the file and the line it is about.
        assert!(!said.contains("10-berth.link:"), "{said}");
        host.run("ip link delete bvx7; rm -r /run/systemd /run/udev");
    });
}

#[test]
fn the_files_of_network_managers_are_installed_and_removed_by_berth() {
    // Not compared before and after: a file written to a directory of the system's leaves that directory written to.
    let host = berth_integration::Host::new();
    let dir = host.dir().join("cni-bin");
    let dir = dir.to_str().unwrap();
    let files = [
        "NetworkManager/conf.d/90-berth.conf",
        "systemd/network/10-berth.link",
        "systemd/network/10-berth.network",
    ];
    let there = || {
        files
            .iter()
            .filter(|file| host.line(&format!("test -e /etc/{file}")).output().code() == Some(0))
            .count()
    };
    host.berth(["install", dir]).run();
    assert_eq!(there(), 0, "only where they are asked for");
    host.berth(["install", dir, "--network-managers"]).run();
    assert_eq!(there(), 3);
    let said = host.berth(["install", dir, "--network-managers"]).run();
    assert_eq!(said.matches("is there already").count(), 3, "{said}");
    host.berth(["uninstall", dir]).run();
    assert_eq!(there(), 0);
}
