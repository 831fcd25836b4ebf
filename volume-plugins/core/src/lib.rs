//! Volumes: made, mounted, counted and removed; and the mounts and loop devices that they and the tests need.
//!
//! [`Volumes`] is what front ends call; [`parse_options`] is how all of them read options. Each kind of volume is a module of
//! its own behind one trait (`kind`). Data is deleted in one place (`volumes::remove`), by a walk that enters no mount and
//! follows no link (`tree`).
//!
//! The crate owns: the directory `volumes` in the state directory, mounts in it, loop devices of images in it. It acts in the
//! mount namespace of the calling thread. It knows no engine's protocol and no network.

#![forbid(unsafe_code)]

mod archive;
mod attributes;
mod copy;
mod error;
mod kind;
mod loop_device;
mod mount;
mod mount_table;
mod options;
mod place;
mod record;
mod seen;
mod size;
mod superblock;
mod time;
mod tool;
mod tree;
mod volumes;
mod walk;

pub use archive::Origin;
pub use copy::Report;
pub use error::VolumeError;
pub use kind::Space;
pub use loop_device::{AttachedLoop, LoopError, LoopInfo, attached_loops, loop_attach, loop_detach};
pub use mount::{Access, MountError, Mounted, bind, bind_tree, make_private, overlay, sysfs, tmpfs, unmount};
pub use mount_table::{MountEntry, MountTableError, mount_table, parse_mount_table};
pub use options::{
    BindSpec, DeviceSpec, Filesystem, Flags, OptionError, Options, SizedSpec, Spec, TmpfsSpec, Top,
    parse_options,
};
pub use seen::SeenUse;
pub use size::{Size, SizeError, parse_size};
pub use time::rfc3339;
pub use tool::ToolError;
pub use volumes::{
    Created, Exported, ImportSource, Imported, Pruned, Source, Usage, User, VolumeInfo, VolumeUser, Volumes,
};
