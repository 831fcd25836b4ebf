//! Volumes on private hosts, by berth's own command and no daemon: every kind, data that must survive, data that must not be
//! touched, and what a crash at any moment leaves.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "tests and their helpers: whatever goes wrong fails the test"
)]
#![forbid(unsafe_code)]

mod archives;
mod changes;
mod kinds;
mod many;
mod safety;
mod storage;
mod sweeps;
mod users;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_integration::{Cmd, Host, Snapshot, host_test};
use serde_json::Value;

/// Runs `test` on a host of its own; no volume is left afterwards.
pub(crate) fn volume_test(test: impl FnOnce(&Host)) {
    host_test(|host| {
        test(host);
        let left = json(host, "ls --json");
        for volume in left.as_array().unwrap() {
            run(host, &format!("rm --yes {}", volume["name"].as_str().unwrap()));
        }
        // What `mount` and `umount`, which tests call, keep for themselves.
        host.run("rm -rf /run/mount");
    });
}

/// A call of `berth volume` with the words of `line`.
pub(crate) fn volume(host: &Host, line: &str) -> Cmd {
    host.berth(std::iter::once("volume").chain(line.split_whitespace())).deadline(Duration::from_secs(60))
}

/// Calls it; it must succeed. Returns what it printed.
#[track_caller]
pub(crate) fn run(host: &Host, line: &str) -> String {
    volume(host, line).run()
}

/// Calls it; it must fail. Returns what it complained about.
#[track_caller]
pub(crate) fn refused(host: &Host, line: &str) -> String {
    let ran = volume(host, line).output();
    assert!(!ran.status.success(), "`{line}` should have failed: {ran}");
    ran.stderr
}

#[track_caller]
pub(crate) fn json(host: &Host, line: &str) -> Value {
    serde_json::from_str(&run(host, line)).unwrap()
}

/// What `inspect` says of a volume.
#[track_caller]
pub(crate) fn inspect(host: &Host, name: &str) -> Value {
    json(host, &format!("inspect --json {name}"))[0].clone()
}

/// Whether there is a volume of this name.
pub(crate) fn exists(host: &Host, name: &str) -> bool {
    json(host, "ls --json").as_array().unwrap().iter().any(|volume| volume["name"] == name)
}

/// A directory on the host, which is made.
pub(crate) fn dir(host: &Host, name: &str) -> PathBuf {
    let path = host.dir().join(name);
    fs::create_dir_all(&path).unwrap();
    path
}

/// Where the host's volumes are.
pub(crate) fn volumes_dir(host: &Host) -> PathBuf {
    host.state_dir().join("volumes")
}

/// A tree that nothing may change: files, links, permission bits, in the same directory as berth's own.
pub(crate) struct Canary(PathBuf);

impl Canary {
    pub(crate) fn new(host: &Host) -> Self {
        let top = dir(host, "canary");
        fs::write(top.join("file"), "precious").unwrap();
        fs::create_dir(top.join("dir")).unwrap();
        fs::write(top.join("dir/inner"), vec![7; 100_000]).unwrap();
        std::os::unix::fs::symlink("file", top.join("link")).unwrap();
        Self(top)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Everything about it.
    pub(crate) fn text(&self, host: &Host) -> String {
        let path = self.0.display();
        host.run(&format!(
            "cd {path} && find . -printf '%p %m %U %G %s %T@ %l\\n' | sort && find . -type f -exec sha256sum {{}} + | sort"
        ))
    }
}

/// Requires that the host is as before.
#[track_caller]
pub(crate) fn converged(host: &Host, before: &Snapshot, what: &str) {
    host.run("rm -rf /run/mount");
    berth_integration::eventually(Duration::from_secs(5), || match before.difference(&Snapshot::of(host)) {
        same if same.is_empty() => Ok(()),
        left => Err(format!("{what}: the host is not as before (- gone, + left):\n{left}")),
    });
}

/// The bytes that are free on the file system of a path.
pub(crate) fn free(path: &Path) -> u64 {
    let stat = rustix::fs::statvfs(path).unwrap();
    stat.f_bavail * stat.f_frsize
}
