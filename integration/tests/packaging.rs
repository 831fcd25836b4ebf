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
    for name in ["rbridge", "ripam", "rnone", "rhost"] {
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
