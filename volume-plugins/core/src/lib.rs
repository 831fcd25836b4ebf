//! Mounts and loop devices, seen and made.
//!
//! Owns the mounts and loop devices that it makes: each is held by a guard that takes it away when dropped, unless the
//! guard is told to `keep` it. Everything acts in the mount namespace of the calling thread. Nothing here knows what a
//! volume is, and nothing reads or writes the data below a mount.

#![forbid(unsafe_code)]

mod loop_device;
mod mount;
mod mount_table;

pub use loop_device::{AttachedLoop, LoopError, LoopInfo, attached_loops, loop_attach, loop_detach};
pub use mount::{Access, MountError, Mounted, bind, bind_tree, make_private, overlay, sysfs, tmpfs, unmount};
pub use mount_table::{MountEntry, MountTableError, mount_table, parse_mount_table};
