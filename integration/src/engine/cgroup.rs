//! A control group for the containers of one engine.

use std::fs;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::eventually;

/// Where control groups are, in either layout.
const ROOT: &str = "/sys/fs/cgroup";

/// The name of a control group that no other test uses. The engine makes the group; when this is dropped, what still runs in
/// it is killed and it is removed, in every hierarchy. Containers have mount namespaces of their own, so this is also how
/// those of a failed test are found.
#[derive(Debug)]
pub struct Cgroup {
    name: String,
}

impl Default for Cgroup {
    fn default() -> Self {
        Self::new()
    }
}

impl Cgroup {
    /// Picks a name.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { name: format!("berth-test-{}-{number}", std::process::id()) }
    }

    /// Removes the groups of a process that is gone, with what still runs in them. Returns those that stay.
    pub(crate) fn remove_all_of(pid: u32) -> Vec<PathBuf> {
        let prefix = format!("berth-test-{pid}-");
        let names = hierarchies().into_iter().flat_map(|dir| subfolders(&dir)).filter_map(|dir| {
            let name = dir.file_name()?.to_str()?.to_owned();
            name.starts_with(&prefix).then_some(name)
        });
        let names: std::collections::BTreeSet<String> = names.collect();
        let mut stayed = Vec::new();
        for name in names {
            let group = ManuallyDrop::new(Self { name });
            let started = Instant::now();
            loop {
                group.kill_all();
                let left: Vec<_> =
                    group.folders().into_iter().filter(|dir| fs::remove_dir(dir).is_err()).collect();
                if left.is_empty() || started.elapsed() > Duration::from_secs(5) {
                    stayed.extend(left);
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        stayed
    }

    /// The name, without a slash.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The processes in it.
    pub fn processes(&self) -> Vec<i32> {
        let lists =
            self.folders().into_iter().filter_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok());
        let mut processes: Vec<i32> = lists
            .flat_map(|list| list.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
            .collect();
        processes.sort_unstable();
        processes.dedup();
        processes
    }

    /// All its folders, the inner ones first.
    fn folders(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for top in hierarchies().iter().map(|dir| dir.join(&self.name)).filter(|dir| dir.is_dir()) {
            collect(top, &mut found);
        }
        found
    }

    /// Kills the processes in it.
    pub(super) fn kill_all(&self) {
        for pid in self.processes() {
            // Numbers of processes that have ended since are no longer in the list when the handle is open.
            let Some(handle) = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
            else {
                continue;
            };
            if self.processes().contains(&pid) {
                let _ = pidfd_send_signal(&handle, Signal::KILL);
            }
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let remove = || {
            self.kill_all();
            let left = self.folders().into_iter().filter(|dir| fs::remove_dir(dir).is_err()).count();
            if left == 0 {
                Ok(())
            } else {
                Err(format!("{left} folders of control group {} are left", self.name))
            }
        };
        if std::thread::panicking() {
            let _ = std::panic::catch_unwind(|| eventually(Duration::from_secs(2), remove));
        } else {
            eventually(Duration::from_secs(5), remove);
        }
    }
}

fn hierarchies() -> Vec<PathBuf> {
    let unified = Path::new(ROOT).join("cgroup.controllers").exists();
    if unified { vec![PathBuf::from(ROOT)] } else { subfolders(Path::new(ROOT)) }
}

fn collect(dir: PathBuf, found: &mut Vec<PathBuf>) {
    for inner in subfolders(&dir) {
        collect(inner, found);
    }
    found.push(dir);
}

/// The folders in `dir`, without symbolic links such as `cpu,cpuacct`.
fn subfolders(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}
