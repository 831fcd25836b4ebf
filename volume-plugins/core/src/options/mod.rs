//! What a volume is to be: options, as every front end gives them, parsed into types that cannot be wrong.
//!
//! The keys are those of Docker's `local` driver (`type`, `o`, `device`, `size`) and a few more. Each kind has a list of keys
//! and, where it is mounted, a list of words that may stand in `o`: what is not on the list is refused before any system
//! call, for a word that is passed on may mean something to the kernel or to a helper that nobody thought of.

mod error;
mod parse;
mod words;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use error::OptionError;
pub use parse::parse_options;

/// Options by key, as given.
pub type Options = BTreeMap<String, String>;

/// What a volume is, by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spec {
    /// A directory of berth's.
    Directory(Top),
    /// An image file of fixed size with a file system of its own.
    Sized(SizedSpec),
    /// A path of the host.
    Bind(BindSpec),
    /// Memory.
    Tmpfs(TmpfsSpec),
    /// A block device or an image file that has a file system already.
    Device(DeviceSpec),
}

/// The top directory's owner and permission bits; what is not given stays as the kernel makes it: root, 0755.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Top {
    /// User id.
    pub uid: Option<u32>,
    /// Group id.
    pub gid: Option<u32>,
    /// Permission bits.
    pub mode: Option<u32>,
}

/// A sized volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SizedSpec {
    /// The image's size in bytes.
    pub size: u64,
    /// Its file system: ext4 or xfs.
    pub fs: Filesystem,
    /// Do not reserve the space: the host may run out of it while the volume is not full.
    pub sparse: bool,
    /// Of the data directory.
    pub top: Top,
}

/// A bind volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindSpec {
    /// The path of the host.
    pub device: PathBuf,
    /// Mounts below it are seen too.
    pub recursive: bool,
    /// Later mounts of the host below it appear in the volume.
    pub slave: bool,
    /// Flags of the mount.
    pub flags: Flags,
    /// Make the directory where it is missing, like this.
    pub create: Option<Top>,
}

/// A tmpfs volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TmpfsSpec {
    /// The most it holds, in bytes; a tenth of the memory unless given.
    pub size: Option<u64>,
    /// The most files it holds; one for each page unless given.
    pub inodes: Option<u64>,
    /// Of its top directory.
    pub top: Top,
    /// Flags of the mount.
    pub flags: Flags,
}

/// A volume on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSpec {
    /// The block device or image file.
    pub device: PathBuf,
    /// The file system that has to be on it.
    pub fs: Filesystem,
    /// Flags of the mount.
    pub flags: Flags,
    /// Options for the file system, all from the list.
    pub data: Vec<String>,
}

/// Flags of a mount that a user may choose. Set-user-id bits and device nodes never have an effect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags {
    /// Not to be written.
    pub read_only: bool,
    /// No program in it is executed.
    pub no_exec: bool,
    /// Access times are not kept.
    pub no_atime: bool,
    /// Nor those of directories.
    pub no_dir_atime: bool,
}

/// A file system that berth mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filesystem {
    /// ext2
    Ext2,
    /// ext3
    Ext3,
    /// ext4
    Ext4,
    /// XFS
    Xfs,
    /// btrfs
    Btrfs,
}

impl Filesystem {
    /// The name that mount(2) knows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext2 => "ext2",
            Self::Ext3 => "ext3",
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::Ext2, Self::Ext3, Self::Ext4, Self::Xfs, Self::Btrfs].into_iter().find(|fs| fs.name() == name)
    }
}

impl Spec {
    /// The kind, in one word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Directory(_) => "directory",
            Self::Sized(_) => "sized",
            Self::Bind(_) => "bind",
            Self::Tmpfs(_) => "tmpfs",
            Self::Device(_) => "device",
        }
    }
}
