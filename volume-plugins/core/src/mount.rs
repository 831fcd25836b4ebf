//! Making and taking away mounts in the calling thread's mount namespace.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use rustix::fs::StatVfsMountFlags;
use sys_mount::{FilesystemType, Mount, MountBuilder, MountFlags, PropagationType, UnmountFlags};

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

/// Remounting sets all flags anew, so those the source's mount has are asked for again: a bind mount of a `nosuid` file
/// system stays `nosuid`.
fn remount_read_only(target: &Path, what: String) -> Result<(), MountError> {
    let stat = rustix::fs::statvfs(target).map_err(|source| MountError::Mount {
        what: what.clone(),
        target: target.to_owned(),
        source: source.into(),
    })?;
    let kept = [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ];
    let mut flags = MountFlags::BIND | MountFlags::REMOUNT | MountFlags::RDONLY;
    for (_, flag) in kept.iter().filter(|(seen, _)| stat.f_flag.contains(*seen)) {
        flags |= *flag;
    }
    mount(plain(flags), "none", format!("{what} read-only"), target).map(Mounted::keep)
}
