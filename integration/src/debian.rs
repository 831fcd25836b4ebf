//! Which Debian a private host is: the machine's own, or a newer one's programs in its place.
//!
//! Debian 13 is its `/usr` alone, unpacked once from Debian's packages into a cache of the machine and then mounted over a
//! host's own `/usr`. Both releases keep all programs and libraries there, so a host has the newer engines, `nft` and
//! `iptables` under their usual paths, with no second root to share directories with.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use berth_types::fnv64;
use rustix::fs::{FlockOperation, flock};

/// Where unpacked releases are kept, unless `BERTH_TEST_CACHE` says otherwise.
const CACHE: &str = "/var/cache/berth-tests";

/// What a Debian 13 host has beside the packages that every Debian has.
const PACKAGES: [&str; 23] = [
    "aardvark-dns",
    "btrfs-progs",
    "busybox-static",
    "conmon",
    "conntrack",
    "crun",
    "docker-cli",
    "docker-compose",
    "docker.io",
    "e2fsprogs",
    "etcd-client",
    "etcd-server",
    "iproute2",
    "iptables",
    "iputils-ping",
    "netavark",
    "nftables",
    "podman",
    "procps",
    "python3-minimal",
    "runc",
    "strace",
    "xfsprogs",
];

/// Programs that a package's own script links, which is not run here, and what they are links to.
const ALTERNATIVES: [(&str, &str); 7] = [
    ("bin/awk", "mawk"),
    ("sbin/ip6tables", "xtables-nft-multi"),
    ("sbin/ip6tables-restore", "xtables-nft-multi"),
    ("sbin/ip6tables-save", "xtables-nft-multi"),
    ("sbin/iptables", "xtables-nft-multi"),
    ("sbin/iptables-restore", "xtables-nft-multi"),
    ("sbin/iptables-save", "xtables-nft-multi"),
];

/// Parts that no test reads: half the size.
const UNREAD: [&str; 5] = ["share/doc", "share/info", "share/locale", "share/man", "share/i18n"];

/// A release of Debian, and so of everything in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Debian {
    /// The machine's own programs: Docker 20.10, `docker-compose` 1.29, Podman 4.3, nft 1.0.6.
    V12,
    /// Docker 26.1 with Compose 2.26, Podman 5.4 with netavark 1.14, etcd 3.5, nft 1.1.3.
    V13,
}

impl Debian {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V12, Self::V13];

    /// The folder that is `/usr` on a host of this release; `None` is the machine's own. The first call for Debian 13 on a
    /// machine unpacks it, which takes a minute or two; others wait for that.
    pub(crate) fn usr(self) -> Option<PathBuf> {
        match self {
            Self::V12 => None,
            Self::V13 => Some(unpacked("trixie")),
        }
    }
}

/// The `/usr` of `release` in the cache.
fn unpacked(release: &str) -> PathBuf {
    cached(release, PACKAGES, |work| unpack(release, work))
}

/// A folder in the cache, made by `make` in a folder for its work where it is not there yet; it is another for other `parts`. It
/// appears there whole or not at all.
pub(crate) fn cached<'p>(
    name: &str,
    parts: impl IntoIterator<Item = &'p str>,
    make: impl FnOnce(&Path) -> PathBuf,
) -> PathBuf {
    let cache = std::env::var_os("BERTH_TEST_CACHE").map_or_else(|| CACHE.into(), PathBuf::from);
    let name = format!("{name}-{:016x}", fnv64(parts));
    let (done, lock) = (cache.join(&name), cache.join(format!("{name}.lock")));
    if !done.is_dir() {
        fs::create_dir_all(&cache).unwrap();
        let lock = fs::File::create(&lock).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        if !done.is_dir() {
            // Under the lock, so what is there is of somebody who was killed.
            let work = cache.join(format!("{name}.part"));
            remove_if_there(&work);
            fs::rename(make(&work), &done).unwrap();
            remove_if_there(&work);
        }
    }
    done
}

fn remove_if_there(dir: &Path) {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("cannot remove {dir:?}: {error}"),
        _ => (),
    }
}

/// Downloads and unpacks everything below `work`; no script of a package is run. Returns the folder `usr`.
fn unpack(release: &str, work: &Path) -> PathBuf {
    let (packages, root) = (work.join("packages"), work.join("root"));
    fs::create_dir_all(&root).unwrap();
    let mut fetch = Command::new("debootstrap");
    fetch.args(["--variant=minbase", "--download-only"]).arg(format!("--include={}", PACKAGES.join(",")));
    run(fetch.arg(release).arg(&packages).arg(mirror()));
    let archives = fs::read_dir(packages.join("var/cache/apt/archives")).unwrap();
    let archives = archives.map(|entry| entry.unwrap().path());
    for archive in archives.filter(|path| path.extension().is_some_and(|ext| ext == "deb")) {
        run(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(&root));
    }
    let usr = root.join("usr");
    UNREAD.iter().for_each(|part| remove_if_there(&usr.join(part)));
    for (name, target) in ALTERNATIVES {
        symlink(target, usr.join(name)).unwrap();
    }
    usr
}

/// The mirror that this machine's own packages are from.
fn mirror() -> String {
    let mut list = Command::new("apt-get");
    list.args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian"]);
    let listed = run(&mut list);
    let first = listed.lines().next().map(str::to_owned);
    first.unwrap_or_else(|| panic!("apt-get knows no mirror of Debian's: run `apt-get update` first"))
}

pub(crate) fn run(command: &mut Command) -> String {
    try_run(command).unwrap_or_else(|why| panic!("{why}"))
}

/// What `command` printed, or why it failed.
pub(crate) fn try_run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("cannot run {command:?}: {error}"))?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() {
        Ok(stdout.into_owned())
    } else {
        Err(format!("{command:?} failed: {stdout}{stderr}"))
    }
}
