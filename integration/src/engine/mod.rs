//! Real engines on private hosts: podman and containerd, from the system's packages, with an image made of busybox.
//!
//! An engine gets its own directories, socket and control group, and nothing is fetched from a registry. Every container is
//! a web server on port 80 that answers with its name.
//!
//! Engines start plugins in environments of their own making (conmon drops what it does not know), so berth keeps its
//! records here where it does by default, in the host's own `/var/lib/berth` and `/run/berth`.

mod across;
mod berthd;
mod cgroup;
mod containerd;
mod docker;
mod image;
mod podman;
mod reboot;
mod stage;
mod suite;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

pub use across::across_test;
pub use berthd::Berthd;
pub use cgroup::Cgroup;
pub use containerd::Containerd;
pub use docker::{Dockerd, PROGRAMS as DOCKER, docker_test, docker_test_with};
pub use image::{APPLETS, IMAGE, archive, layer};
pub use podman::Podman;
pub use reboot::{reboot, reboots_are_over};
pub use stage::{Stage, stage_test};
pub use suite::Suite;

use berth_volume_core::{tmpfs, unmount};

use crate::{Cmd, Debian, Host, Place, Probe, eventually, host_test_on};

/// How long the last processes of an engine may take to end by themselves.
const WIND_DOWN: Duration = Duration::from_secs(10);

/// How long it may take until what no engine waits for any more is detached.
const DETACHED: Duration = Duration::from_secs(20);

/// Directories that engines, the runtime's side of CNI and berth use by default: each is empty and private for the test.
const OWN_DIRS: [&str; 6] = [
    "/etc/cni",
    "/etc/docker",
    "/var/lib/berth",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/containers",
];

/// What they make in the private `/run`, theirs to keep. That berth's records are empty is asked of berth itself.
const RUN_FILES: [&str; 9] = [
    "/run/berth",
    "/run/cni",
    "/run/containerd",
    "/run/containers",
    "/run/docker",
    "/run/libpod",
    "/run/lock",
    "/run/runc",
    "/run/xtables.lock",
];

/// Runs `test` on a host of its own if the machine has `programs`; the host must afterwards be as before, once what is the
/// engine's own is gone. A missing program is said aloud, and is a failure where `CI` is set.
pub fn engine_test(programs: &[&str], test: impl FnOnce(&Host)) {
    engine_test_on(Debian::V12, programs, test);
}

/// Like [`engine_test`], on a host with the programs of `debian`; `programs` are asked for on the machine.
pub fn engine_test_on(debian: Debian, programs: &[&str], test: impl FnOnce(&Host)) {
    if are_installed(programs) {
        host_test_on(debian, |host| {
            let own = OwnDirs::new(host);
            test(host);
            tidy(host);
            own.remove();
        });
    }
}

/// Whether the machine has `programs`. A missing one is said aloud, and is a failure where `CI` is set.
fn are_installed(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().filter(|program| !installed(program)).collect();
    if missing.is_empty() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "programs are missing that this test needs: {missing:?}");
    skipped(&format!("programs are missing: {missing:?}"));
    false
}

#[expect(clippy::print_stderr, reason = "a test that did not run must be seen")]
fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
}

fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let also = ["/usr/sbin", "/sbin"].map(Into::into);
    std::env::split_paths(&path).chain(also).any(|dir| dir.join(program).is_file())
}

/// berth's command line on an engine's host, with the records where the engine's plugins keep them.
pub fn berth<'a>(host: &Host, args: impl IntoIterator<Item = &'a str>) -> Cmd {
    default_records(host.berth(args))
}

/// Without the kit's directories for records.
fn default_records(cmd: Cmd) -> Cmd {
    cmd.env_remove("BERTH_STATE_DIR").env_remove("BERTH_RUN_DIR")
}

/// The name of the container that answers on `addr`, once one does.
#[track_caller]
pub fn answer(place: &Place, addr: impl ToString) -> String {
    place.reach(&Probe::http(addr)).label
}

/// Requires that nobody answers on `addr`.
#[track_caller]
pub fn no_answer(place: &Place, addr: impl ToString) {
    let addr: SocketAddr = addr.to_string().parse().unwrap();
    place.probe(&Probe::http(addr).timeout(Duration::from_millis(300))).none();
}

/// Waits until nothing is attached on `host`. A deleted endpoint's link and record go while Docker has its answer.
#[track_caller]
pub fn nothing_attached(host: &Host) {
    eventually(DETACHED, || match berth(host, ["ps", "--json"]).run().trim() {
        "[]" => Ok(()),
        left => Err(format!("still attached: {left}")),
    });
}

/// Requires that nothing of berth is left but its empty records, and takes away what engines and reference plugins keep.
fn tidy(host: &Host) {
    eventually(WIND_DOWN, || {
        let left = host.processes();
        if left.is_empty() { Ok(()) } else { Err(format!("still running: {}", describe(&left))) }
    });
    match Suite::chosen() {
        Suite::Berth => {
            berth(host, ["gc"]).run();
            let left = berth(host, ["ps", "--json"]).run();
            let left: serde_json::Value = serde_json::from_str(&left).unwrap();
            assert_eq!(left.as_array().map(Vec::len), Some(0), "attachments are left: {left}");
        }
        Suite::Reference => suite::forget_reference(host),
    }
    suite::forget_firewall(host);
    host.inside(|| {
        // Engines make it a mount that they share with their children; it is empty when no namespace is left.
        let _ = unmount(Path::new("/run/netns"));
        for path in RUN_FILES.map(Path::new) {
            // A file, a folder, or not there; what stays is seen by the comparison of the host.
            let _ = fs::remove_dir_all(path).or_else(|_| fs::remove_file(path));
        }
    });
}

/// The [`OWN_DIRS`], as tmpfs.
struct OwnDirs<'h> {
    host: &'h Host,
    made: Vec<&'static Path>,
}

impl<'h> OwnDirs<'h> {
    fn new(host: &'h Host) -> Self {
        let made = host.inside(|| {
            let dirs = OWN_DIRS.map(Path::new);
            let made = dirs.into_iter().filter(|dir| fs::create_dir(dir).is_ok()).collect();
            for dir in dirs {
                tmpfs(dir, 16 << 20, 0o755).unwrap().keep();
            }
            made
        });
        Self { host, made }
    }

    fn remove(self) {
        self.host.inside(|| {
            for dir in OWN_DIRS.map(Path::new) {
                unmount(dir).unwrap_or_else(|err| panic!("cannot unmount {dir:?}: {err}"));
            }
            for dir in &self.made {
                fs::remove_dir(dir).unwrap();
            }
        });
    }
}

fn describe(processes: &std::collections::BTreeSet<i32>) -> String {
    let line =
        |pid: &i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
    processes.iter().map(line).collect::<Vec<_>>().join("; ")
}
