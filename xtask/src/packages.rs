//! What the build and the tests need of the system: installed on Debian as root, listed elsewhere.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Result, bail};

use crate::run::{command, on_path, say, stage};

/// Something needed: how to see that it is there, and Debian's package of it.
struct Need {
    sign: Sign,
    package: &'static str,
}

enum Sign {
    Program(&'static str),
    /// A file, the last component of which begins so.
    File(&'static str),
}

const NEEDS: &[Need] = &[
    need("cc", "gcc"),
    Need { sign: Sign::File("/usr/include/stdio.h"), package: "libc6-dev" },
    // bindgen of loopdev-3.
    Need { sign: Sign::File("/usr/lib/llvm-*/lib/libclang.so"), package: "libclang-dev" },
    // The messages of etcd-client.
    need("protoc", "protobuf-compiler"),
    Need { sign: Sign::File("/usr/include/google/protobuf/descriptor.proto"), package: "libprotobuf-dev" },
    need("ip", "iproute2"),
    need("nft", "nftables"),
    need("iptables", "iptables"),
    need("conntrack", "conntrack"),
    need("ping", "iputils-ping"),
    need("busybox", "busybox-static"),
    need("strace", "strace"),
    // A `time` of its own; shells have one built in.
    Need { sign: Sign::File("/usr/bin/time"), package: "time" },
    need("podman", "podman"),
    need("mkfs.ext4", "e2fsprogs"),
    need("mkfs.xfs", "xfsprogs"),
    need("mkfs.btrfs", "btrfs-progs"),
    need("setfattr", "attr"),
    need("setfacl", "acl"),
    need("zstd", "zstd"),
    need("python3", "python3"),
    // Clients and upstreams of the DNS server, and what it is measured beside.
    need("dig", "bind9-dnsutils"),
    need("dnsmasq", "dnsmasq-base"),
    need("knotd", "knot"),
    need("dnsperf", "dnsperf"),
    Need { sign: Sign::File("/usr/lib/podman/aardvark-dns"), package: "aardvark-dns" },
    need("containerd", "containerd"),
    need("runc", "runc"),
    need("dockerd", "docker.io"),
    // A `docker` elsewhere on the path may be a newer one.
    Need { sign: Sign::File("/usr/bin/docker"), package: "docker.io" },
    need("docker-compose", "docker-compose"),
    // Clusters of the overlay's tests, with certificates.
    need("etcd", "etcd-server"),
    need("etcdctl", "etcd-client"),
    need("openssl", "openssl"),
    // Checks the unit files.
    need("systemd-analyze", "systemd"),
    need("udevadm", "udev"),
    // A C library that asks in its own way, and what reads the daemon's counters.
    need("musl-gcc", "musl-tools"),
    need("curl", "curl"),
    // The programs of Debian 13, for hosts of the tests.
    need("debootstrap", "debootstrap"),
    Need { sign: Sign::File("/usr/lib/cni/bridge"), package: "containernetworking-plugins" },
];

const fn need(program: &'static str, package: &'static str) -> Need {
    Need { sign: Sign::Program(program), package }
}

/// Makes sure that everything is there, or says what is not.
pub(crate) fn provide() -> Result<()> {
    let mut missing: Vec<_> = NEEDS.iter().filter(|need| !need.is_there()).map(|need| need.package).collect();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !(on_path("apt-get") && is_root()?) {
        bail!("missing on this system, by the names of Debian's packages: {list}");
    }
    say(&format!("== installing {list}"));
    stage("apt-get update", command(&["apt-get", "update", "-qq"]))?;
    let mut install = command(&["apt-get", "install", "-qq", "-y", "--no-install-recommends"]);
    install.args(&missing).env("DEBIAN_FRONTEND", "noninteractive");
    stage("apt-get install", install)
}

/// Whether the tests may make namespaces.
pub(crate) fn is_root() -> Result<bool> {
    Ok(fs::metadata("/proc/self")?.uid() == 0)
}

impl Need {
    fn is_there(&self) -> bool {
        match self.sign {
            Sign::Program(name) => on_path(name),
            Sign::File(path) => matches(path),
        }
    }
}

/// Whether there is a file `path`, in which one component may end in `*`.
fn matches(path: &str) -> bool {
    let Some((start, end)) = path.split_once('*') else { return Path::new(path).exists() };
    let (dir, prefix) = start.rsplit_once('/').unwrap_or(("", start));
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let mut found = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    found.any(|entry| entry.path().join(end.trim_start_matches('/')).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_the_rest_of_a_component() {
        assert!(matches("/proc/self/stat"));
        assert!(matches("/proc/sel*/stat"));
        assert!(!matches("/proc/sel*/no-such-file"));
        assert!(!matches("/no-such-folder/x*/y"));
    }

    #[test]
    fn the_linker_that_built_this_is_found() {
        assert!(need("cc", "gcc").is_there());
        assert!(!need("no-such-program", "none").is_there());
    }
}
