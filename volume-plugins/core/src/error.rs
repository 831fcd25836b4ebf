//! Why something was not done to a volume. The second line of a text is the hint.

use std::io;
use std::path::{Path, PathBuf};

use berth_store::StoreError;
use berth_store::lock::LockError;
use berth_types::{VolumeName, VolumeNameError};

use crate::options::OptionError;
use crate::size::Size;
use crate::tool::ToolError;
use crate::{LoopError, MountError, MountTableError};

/// A refusal or a failure. Nothing is half done after it: what was begun was taken back, or is by the next call.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// Not a name.
    #[error(transparent)]
    Name(#[from] VolumeNameError),
    /// Not options.
    #[error(transparent)]
    Options(#[from] OptionError),
    /// There is no such volume.
    #[error("there is no volume `{name}`\n`berth volume ls` lists them")]
    NotFound {
        /// The name asked for.
        name: VolumeName,
    },
    /// There is one, and it is another.
    #[error("volume `{name}` exists{differs}\nremove it first, or choose another name")]
    Exists {
        /// The name asked for.
        name: VolumeName,
        /// How it differs from what was asked for, or nothing.
        differs: String,
    },
    /// Somebody is making it or taking it away.
    #[error("volume `{name}` is just being {doing} by process {pid}")]
    UnderWay {
        /// The volume.
        name: VolumeName,
        /// `made` or `removed`.
        doing: &'static str,
        /// Who does it.
        pid: i32,
    },
    /// Somebody uses it.
    #[error("volume `{name}` is in use by {}", users.join(", "))]
    InUse {
        /// The volume.
        name: VolumeName,
        /// Who, in words.
        users: Vec<String>,
    },
    /// It cannot be unmounted.
    #[error("volume `{name}` cannot be unmounted, it is held by {}", holders.join(", "))]
    Held {
        /// The volume.
        name: VolumeName,
        /// Processes and mounts, in words.
        holders: Vec<String>,
    },
    /// What was asked for does not go with this kind of volume.
    #[error("{what} is not possible for a {kind} volume: {why}")]
    Kind {
        /// What was asked for.
        what: &'static str,
        /// The kind.
        kind: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// The device cannot be used.
    #[error("device `{}` cannot be used: {why}", path.display())]
    Device {
        /// The device.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The image is not the one that berth made.
    #[error(
        "image `{}` is not as berth left it: expected {expected}, found {found}\n\
         nothing was mounted; put the image back, or remove the volume",
        path.display()
    )]
    Image {
        /// The image.
        path: PathBuf,
        /// What the record says.
        expected: String,
        /// What is there.
        found: String,
    },
    /// Something stands where berth's own is expected.
    #[error("`{}` is not berth's: {by}\nnothing was changed; take it away first", path.display())]
    Foreign {
        /// Where.
        path: PathBuf,
        /// What is there.
        by: String,
    },
    /// The volume's data is not where the record says.
    #[error("the data of volume `{name}` is missing: there is no `{}`\nput it back, or remove the volume", path.display())]
    DataMissing {
        /// The volume.
        name: VolumeName,
        /// What should be there.
        path: PathBuf,
    },
    /// More than there is.
    #[error("{} are needed on `{}` and {} are available", Size(*needed), path.display(), Size(*available))]
    Full {
        /// Bytes asked for.
        needed: u64,
        /// Bytes that may be used.
        available: u64,
        /// On which file system.
        path: PathBuf,
    },
    /// The kernel lacks something.
    #[error("this kernel has no {what}")]
    Unsupported {
        /// What it lacks.
        what: &'static str,
    },
    /// An archive that cannot be read, or not in whole.
    #[error("the archive cannot be imported: {why}")]
    Archive {
        /// Why.
        why: String,
    },
    /// A size that cannot be.
    #[error("volume `{name}` cannot be resized: {why}")]
    Resize {
        /// The volume.
        name: VolumeName,
        /// Why.
        why: String,
    },
    /// A file operation failed.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A record that this berth does not understand.
    #[error("the record of volume `{name}` is not understood: {why}")]
    Record {
        /// The volume.
        name: VolumeName,
        /// Why.
        why: String,
    },
    /// The records failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The volume's lock was not to be had.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A mount failed.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The mount table is not known.
    #[error(transparent)]
    MountTable(#[from] MountTableError),
    /// A loop device failed.
    #[error(transparent)]
    Loop(#[from] LoopError),
    /// A tool failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
}

impl VolumeError {
    /// A failed file operation.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }

    /// A short word for programs, the same in every version.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Name(_) => "name",
            Self::Options(_) => "options",
            Self::NotFound { .. } => "not-found",
            Self::Exists { .. } => "exists",
            Self::UnderWay { .. } => "under-way",
            Self::InUse { .. } => "in-use",
            Self::Held { .. } => "held",
            Self::Kind { .. } => "kind",
            Self::Device { .. } => "device",
            Self::Image { .. } => "image",
            Self::Foreign { .. } => "foreign",
            Self::DataMissing { .. } => "data-missing",
            Self::Full { .. } => "full",
            Self::Unsupported { .. } => "unsupported",
            Self::Archive { .. } => "archive",
            Self::Resize { .. } => "resize",
            Self::Record { .. } => "record",
            Self::Io { .. } => "io",
            Self::Store(_) => "store",
            Self::Lock(_) => "lock",
            Self::Mount(_) | Self::MountTable(_) => "mount",
            Self::Loop(_) => "loop",
            Self::Tool(_) => "tool",
        }
    }
}
