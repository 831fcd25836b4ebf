//! Making and taking away mounts in the calling thread's mount namespace.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use rustix::fs::StatVfsMountFlags;
use sys_mount::{FilesystemType, Mount, MountBuilder, MountFlags, PropagationType, UnmountFlags};

use crate::options::Flags;
use crate::{MountTableError, mount_table};

/// `UMOUNT_NOFOLLOW` of the kernel's `include/linux/fs.h`. The crate's own constant of that name is `O_NOFOLLOW`, which
/// `umount2` answers with `EINVAL`.
const UMOUNT_NOFOLLOW: UnmountFlags = UnmountFlags::from_bits_retain(8);

/// Whether a mount may be written through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading and writing.
    ReadWrite,
    /// Reading only.
    ReadOnly,
}

/// Why a mount was not made or not taken away.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The kernel refused a mount.
    #[error("cannot mount {what} on `{}`", target.display())]
    Mount {
        /// What was to be mounted.
        what: String,
        /// Where.
        target: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel refused to take a mount away; `EBUSY` means that something still uses it.
    #[error("cannot unmount `{}`", target.display())]
    Unmount {
        /// The mount point.
        target: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A path that an overlay cannot be told, because `,` and `:` separate its options.
    #[error("path `{}` has a character that separates overlay options", path.display())]
    OverlayPath {
        /// The path.
        path: PathBuf,
    },
}

/// A mount that is taken away when this is dropped. Taken away means: unless something still uses it; a caller that has
/// to know calls [`Mounted::unmount`].
#[derive(Debug)]
#[must_use = "the mount is taken away when this is dropped"]
pub struct Mounted {
    target: Option<PathBuf>,
}

impl Mounted {
    fn new(target: &Path) -> Self {
        Self { target: Some(target.to_owned()) }
    }

    /// Leaves the mount in place.
    pub fn keep(mut self) {
        self.target = None;
    }

    /// Takes the mount away and says whether that worked.
    pub fn unmount(mut self) -> Result<(), MountError> {
        match self.target.take() {
            Some(target) => unmount(&target),
            None => Ok(()),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(target) = self.target.take() {
            // Nobody is left to tell; `unmount` is for callers that have to know.
            let _ = unmount(&target);
        }
    }
}

/// Mounts an empty tmpfs on `target`: at most `size` bytes, its top directory with the permission bits `mode`. Set-user-id
/// bits and device nodes in it have no effect.
pub fn tmpfs(target: &Path, size: u64, mode: u32) -> Result<Mounted, MountError> {
    let data = format!("size={size},mode={mode:o}");
    let builder = Mount::builder().fstype("tmpfs").flags(MountFlags::NOSUID | MountFlags::NODEV).data(&data);
    mount(builder, "tmpfs", "tmpfs", target)
}

/// Mounts `source` (a directory or file) on `target` as well; mounts below `source` are not seen there.
pub fn bind(source: &Path, target: &Path, access: Access) -> Result<Mounted, MountError> {
    let what = format!("`{}`", source.display());
    let mounted = mount(plain(MountFlags::BIND), source, what.clone(), target)?;
    match access {
        Access::ReadWrite => Ok(mounted),
        // The kernel ignores MS_RDONLY on the first call. On error `mounted` is dropped: never a writable mount where a
        // read-only one was asked for.
        Access::ReadOnly => remount_read_only(target, what).map(|()| mounted),
    }
}

/// Mounts `source` and everything mounted below it on `target` as well.
pub fn bind_tree(source: &Path, target: &Path) -> Result<Mounted, MountError> {
    mount(
        plain(MountFlags::BIND | MountFlags::REC),
        source,
        format!("the tree `{}`", source.display()),
        target,
    )
}

/// Mounts a view of `lower` on `target` that can be written: what is written goes to `upper`. `work` is an empty directory
/// on the file system of `upper`.
pub fn overlay(lower: &Path, upper: &Path, work: &Path, target: &Path) -> Result<Mounted, MountError> {
    let mut data = String::new();
    for (key, path) in [("lowerdir", lower), ("upperdir", upper), ("workdir", work)] {
        let text = path.to_str().filter(|text| !text.contains([',', ':', '\\']));
        let text = text.ok_or_else(|| MountError::OverlayPath { path: path.to_owned() })?;
        data.push_str(if data.is_empty() { "" } else { "," });
        data.push_str(&format!("{key}={text}"));
    }
    let what = format!("an overlay of `{}`", lower.display());
    mount(Mount::builder().fstype("overlay").data(&data), "overlay", what, target)
}

/// Mounts a file system on `target` with these `flags` and, always, without effect of set-user-id bits and device nodes.
pub(crate) fn filesystem(
    source: &Path,
    fstype: &'static str,
    target: &Path,
    flags: Flags,
    data: &str,
) -> Result<Mounted, MountError> {
    let builder = Mount::builder().fstype(fstype).flags(always(flags)).data(data);
    let mounted = mount(builder, source, format!("{fstype} of `{}`", source.display()), target)?;
    make_private(target)?;
    Ok(mounted)
}

/// Mounts the directory `source` on `target` as well, with these `flags` and, always, without effect of set-user-id bits
/// and device nodes. What is mounted below one is later not seen below the other.
pub(crate) fn bind_with(
    source: &Path,
    shown: &Path,
    target: &Path,
    flags: Flags,
) -> Result<Mounted, MountError> {
    let what = format!("`{}`", shown.display());
    let mounted = mount(plain(MountFlags::BIND), source, what.clone(), target)?;
    make_private(target)?;
    restrict(target, flags, &what)?;
    Ok(mounted)
}

/// As [`bind_with`], with what is mounted below `source`; the flags hold for all of it.
pub(crate) fn bind_tree_with(
    source: &Path,
    shown: &Path,
    target: &Path,
    flags: Flags,
) -> Result<(), TreeError> {
    let what = format!("the tree `{}`", shown.display());
    let tree = mount(plain(MountFlags::BIND | MountFlags::REC), source, what.clone(), target)?;
    tree.keep();
    let restricted = make_private(target).map_err(TreeError::from).and_then(|()| {
        let table = mount_table()?;
        table
            .iter()
            .filter(|entry| entry.is_under(target))
            .try_for_each(|entry| restrict(&entry.target, flags, &what).map_err(TreeError::from))
    });
    restricted.inspect_err(|_| {
        // The first error is what counts; nobody has seen the tree yet.
        let _ = unmount_tree(target);
    })
}

/// Why a tree of mounts was not made or not taken away.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TreeError {
    /// A mount of it.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// Which mounts there are.
    #[error(transparent)]
    Table(#[from] MountTableError),
}

/// Takes away the topmost mount on `target` and what is mounted below it, the lowest first.
pub(crate) fn unmount_tree(target: &Path) -> Result<(), TreeError> {
    let table = mount_table()?;
    for entry in table.iter().rev().filter(|entry| entry.is_under(target) && entry.target != target) {
        unmount(&entry.target)?;
    }
    Ok(unmount(target)?)
}

/// Mount events of the host reach `target`, with all below it, and none go back.
pub(crate) fn make_slave(target: &Path) -> Result<(), MountError> {
    let flags = MountFlags::from_bits_retain(PropagationType::SLAVE.bits()) | MountFlags::REC;
    mount(plain(flags), "none", "slave propagation", target).map(Mounted::keep)
}

/// Sets the flags of a file system that is mounted, and its options.
pub(crate) fn remount(target: &Path, flags: Flags, data: &str) -> Result<(), MountError> {
    let builder = plain(always(flags) | MountFlags::REMOUNT).data(data);
    mount(builder, "none", format!("new options {data}"), target).map(Mounted::keep)
}

fn always(flags: Flags) -> MountFlags {
    let Flags { read_only, no_exec, no_atime, no_dir_atime } = flags;
    let chosen = [
        (read_only, MountFlags::RDONLY),
        (no_exec, MountFlags::NOEXEC),
        (no_atime, MountFlags::NOATIME),
        (no_dir_atime, MountFlags::NODIRATIME),
    ];
    let chosen = chosen.into_iter().filter(|(given, _)| *given);
    chosen.fold(MountFlags::NOSUID | MountFlags::NODEV, |all, (_, flag)| all | flag)
}

/// Mounts sysfs on `target`: `class/net` there shows the network namespace of the calling thread.
pub fn sysfs(target: &Path) -> Result<Mounted, MountError> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount(Mount::builder().fstype("sysfs").flags(flags), "sysfs", "sysfs", target)
}

/// Ends the propagation of mount events between `target`, with all below it, and other mount namespaces.
pub fn make_private(target: &Path) -> Result<(), MountError> {
    let flags = MountFlags::from_bits_retain(PropagationType::PRIVATE.bits()) | MountFlags::REC;
    // Changes a mount and makes none, so there is nothing to take away.
    mount(plain(flags), "none", "private propagation", target).map(Mounted::keep)
}

/// Takes away the topmost mount on `target`. A symbolic link as last component is refused.
pub fn unmount(target: &Path) -> Result<(), MountError> {
    sys_mount::unmount(target, UMOUNT_NOFOLLOW)
        .map_err(|source| MountError::Unmount { target: target.to_owned(), source })
}

fn mount(
    builder: MountBuilder<'_>,
    source: impl AsRef<Path>,
    what: impl fmt::Display,
    target: &Path,
) -> Result<Mounted, MountError> {
    builder.mount(source, target).map(|_| Mounted::new(target)).map_err(|source| MountError::Mount {
        what: what.to_string(),
        target: target.to_owned(),
        source,
    })
}

/// A request that has no file system type: it acts on mounts that exist.
fn plain<'a>(flags: MountFlags) -> MountBuilder<'a> {
    Mount::builder().fstype(FilesystemType::Manual("none")).flags(flags)
}

fn remount_read_only(target: &Path, what: String) -> Result<(), MountError> {
    remount_bind(target, MountFlags::RDONLY, what)
}

fn restrict(target: &Path, flags: Flags, what: &str) -> Result<(), MountError> {
    remount_bind(target, always(flags), what.to_owned())
}

/// Adds `more` to the flags of a bind mount. Remounting sets all flags anew, so those that the source's mount has are asked
/// for again: a bind mount of a `noexec` file system stays `noexec`.
fn remount_bind(target: &Path, more: MountFlags, what: String) -> Result<(), MountError> {
    let stat = rustix::fs::statvfs(target).map_err(|source| MountError::Mount {
        what: what.clone(),
        target: target.to_owned(),
        source: source.into(),
    })?;
    let kept = [
        (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ];
    let mut flags = MountFlags::BIND | MountFlags::REMOUNT | more;
    for (_, flag) in kept.iter().filter(|(seen, _)| stat.f_flag.contains(*seen)) {
        flags |= *flag;
    }
    if flags.contains(MountFlags::NOATIME) {
        flags -= MountFlags::RELATIME;
    }
    mount(plain(flags), "none", format!("{what} with its flags"), target).map(Mounted::keep)
}
