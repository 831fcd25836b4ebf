//! What the mount tables say of a volume: whether it is mounted, and who has it mounted elsewhere.
//!
//! Counts can be wrong after a crash of whoever counts. The kernel's tables cannot: a container that uses a volume has a
//! mount of it in its own mount namespace.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, StatxFlags};

use crate::mount_table::mount_table_of;
use crate::{MountEntry, MountTableError, mount_table};

/// A part of a file system, as mount tables name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The file system's device.
    pub(crate) device: (u32, u32),
    /// The directory in it; `/` for all of it.
    pub(crate) root: PathBuf,
}

/// A mount of a volume somewhere else than at its own mount point.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeenUse {
    /// Where it is mounted, as its namespace sees it.
    pub target: PathBuf,
    /// A process of that namespace; `None` for the caller's own.
    pub pid: Option<i32>,
}

/// The topmost mount on `target`.
pub(crate) fn top_at<'t>(table: &'t [MountEntry], target: &Path) -> Option<&'t MountEntry> {
    table.iter().rfind(|entry| entry.target == target)
}

/// Where in which file system an open directory or file is.
pub(crate) fn extent_of(fd: impl AsFd, table: &[MountEntry]) -> Option<Extent> {
    let path = fs::read_link(format!("/proc/thread-self/fd/{}", fd.as_fd().as_raw_fd())).ok()?;
    let stat = rustix::fs::statx(&fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
    let entry = table.iter().find(|entry| entry.id == stat.stx_mnt_id)?;
    let rest = path.strip_prefix(&entry.target).ok()?;
    Some(Extent { device: entry.device, root: entry.root.join(rest).components().collect() })
}

impl Extent {
    /// Whether a mount shows this, or something of it.
    pub(crate) fn is_shown_by(&self, entry: &MountEntry) -> bool {
        entry.device == self.device && entry.root.starts_with(&self.root)
    }
}

/// The mounts of `extent`, in every mount namespace that a process is in, other than at `own`: a copy of the host's own mounts,
/// which other namespaces begin with, is no use of a volume.
pub(crate) fn uses_of(extent: &Extent, own: &Path) -> Result<Vec<SeenUse>, MountTableError> {
    let tail: PathBuf = own.components().skip(1).collect();
    let elsewhere = |entry: &&MountEntry| extent.is_shown_by(entry) && !entry.target.ends_with(&tail);
    let mut seen: Vec<SeenUse> = mount_table()?
        .iter()
        .filter(elsewhere)
        .map(|entry| SeenUse { target: entry.target.clone(), pid: None })
        .collect();
    let mut namespaces: BTreeSet<PathBuf> = fs::read_link("/proc/thread-self/ns/mnt").into_iter().collect();
    for pid in processes() {
        // A process that is gone uses nothing.
        let Ok(namespace) = fs::read_link(format!("/proc/{pid}/ns/mnt")) else { continue };
        if !namespaces.insert(namespace) {
            continue;
        }
        let Some(table) = mount_table_of(pid) else { continue };
        // What is mounted on the same place here is a copy of it.
        let is_copy =
            |entry: &&MountEntry| seen.iter().any(|own| own.pid.is_none() && own.target == entry.target);
        let found: Vec<&MountEntry> =
            table.iter().filter(elsewhere).filter(|entry| !is_copy(entry)).collect();
        seen.extend(found.into_iter().map(|entry| SeenUse { target: entry.target.clone(), pid: Some(pid) }));
    }
    seen.sort();
    seen.dedup();
    Ok(seen)
}

/// The processes there are.
pub(crate) fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

impl std::fmt::Display for SeenUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.pid {
            None => write!(f, "a mount on `{}`", self.target.display()),
            Some(pid) => write!(f, "{}, which has it on `{}`", describe(pid), self.target.display()),
        }
    }
}

/// A process in words: what it is called, and its container's id if its control group tells one.
pub(crate) fn describe(pid: i32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let group = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    match container_of(&group) {
        Some(id) => format!("process {pid} ({}) of container {id}", name.trim()),
        None => format!("process {pid} ({})", name.trim()),
    }
}

/// Engines name a container's control group after its id: 64 hexadecimal digits, with or without words around them.
fn container_of(group: &str) -> Option<&str> {
    let parts = group.split(['/', '-', '.', ':', '\n']);
    let id =
        parts.into_iter().find(|part| part.len() == 64 && part.bytes().all(|b| b.is_ascii_hexdigit()))?;
    id.get(..12)
}

/// What keeps the mount on `target` from being taken away, in words.
pub(crate) fn holders_of(target: &Path) -> Vec<String> {
    let mut found: Vec<String> = mount_table()
        .unwrap_or_default()
        .iter()
        .filter(|entry| entry.is_under(target) && entry.target != target)
        .map(|entry| format!("a mount on `{}`", entry.target.display()))
        .collect();
    for pid in processes() {
        let inside = |link: &str| {
            fs::read_link(format!("/proc/{pid}/{link}")).is_ok_and(|path| path.starts_with(target))
        };
        let how = if inside("cwd") {
            "its working directory is"
        } else if inside("root") {
            "its root directory is"
        } else if inside("exe") {
            "its program is"
        } else if has_open(pid, target) {
            "it has files open"
        } else if maps(pid, target) {
            "it has files mapped"
        } else {
            continue;
        };
        found.push(format!("{}: {how} in it", describe(pid)));
    }
    if found.is_empty() {
        found.push("something that no process and no mount shows".to_owned());
    }
    found
}

fn has_open(pid: i32, target: &Path) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().filter_map(Result::ok);
    descriptors.into_iter().any(|fd| fs::read_link(fd.path()).is_ok_and(|path| path.starts_with(target)))
}

fn maps(pid: i32, target: &Path) -> bool {
    let Some(target) = target.to_str() else { return false };
    let text = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    text.lines().any(|line| {
        line.split_once('/').is_some_and(|(_, path)| {
            target.strip_prefix('/').is_some_and(|target| path.starts_with(&format!("{target}/")))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_mount_table;

    fn table(text: &str) -> Vec<MountEntry> {
        parse_mount_table(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_topmost_mount_is_the_last_one_of_a_target() {
        let table = table(
            "1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 7:0 / /v rw - ext4 /dev/loop0 rw\n3 2 0:9 / /v rw - tmpfs other rw\n",
        );
        assert_eq!(top_at(&table, Path::new("/v")).unwrap().id, 3);
        assert!(top_at(&table, Path::new("/w")).is_none());
    }

    #[test]
    fn an_extent_is_shown_by_mounts_of_it_and_of_parts_of_it_only() {
        let extent = Extent { device: (8, 1), root: "/var/v/_data".into() };
        let shown = |line: &str| extent.is_shown_by(&table(line)[0]);
        assert!(shown("1 0 8:1 /var/v/_data /x rw - ext4 a rw"));
        assert!(shown("1 0 8:1 /var/v/_data/sub /x rw - ext4 a rw"));
        assert!(!shown("1 0 8:1 /var/v /x rw - ext4 a rw"));
        assert!(!shown("1 0 8:1 /var/v/_database /x rw - ext4 a rw"));
        assert!(!shown("1 0 8:2 /var/v/_data /x rw - ext4 a rw"));
    }

    #[test]
    fn containers_are_known_by_their_control_groups() {
        let id = "0123456789abcdef".repeat(4);
        for group in [format!("0::/docker/{id}"), format!("1:name=x:/system.slice/docker-{id}.scope\n")] {
            assert_eq!(container_of(&group), Some("0123456789ab"), "{group}");
        }
        assert_eq!(container_of("0::/init.scope"), None);
    }
}
