//! Owner and permission bits of a volume's top directory.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Gid, Mode, Uid};

use crate::error::VolumeError;
use crate::options::Top;

/// The permission bits of a top directory nobody said anything about.
const DEFAULT_MODE: u32 = 0o755;

/// Gives an open directory the owner and permission bits asked for.
pub(crate) fn apply_top(dir: impl AsFd, path: &Path, top: &Top) -> Result<(), VolumeError> {
    let Top { uid, gid, mode } = *top;
    if uid.is_some() || gid.is_some() {
        rustix::fs::fchown(&dir, uid.map(Uid::from_raw), gid.map(Gid::from_raw))
            .map_err(|err| VolumeError::io("set the owner of", path, err.into()))?;
    }
    // After the owner: changing that may clear bits. Also where nothing was said, for the umask is whoever's.
    rustix::fs::fchmod(&dir, Mode::from_raw_mode(mode.unwrap_or(DEFAULT_MODE)))
        .map_err(|err| VolumeError::io("set the permissions of", path, err.into()))
}
