//! A volume as a stream: a tar archive that every tar reads, with a beginning and an end of its own.
//!
//! - It begins with a PAX global header whose comment says what the volume was: `berth-volume 1 {"name":…,"options":…}`.
//! - Files follow, in order: owners as numbers, times to the nanosecond, extended attributes and access control lists
//!   (`SCHILY.xattr.*`), several names of one file as links, holes as GNU's sparse files, devices, fifos.
//! - It ends with another such header: `berth-blake3 HEX`, the BLAKE3 hash of every byte before that header. An archive
//!   without it was cut off; one with another was changed on the way.
//!
//! Other programs skip both headers. An archive of another program has neither, and is imported unchecked.

mod pax;
mod read;
mod stream;
mod write;

use serde::{Deserialize, Serialize};

use crate::options::Options;

pub(crate) use read::{Unpacked, Unpacker};
pub(crate) use write::pack;

/// How the comment of the first header begins.
const FIRST: &str = "berth-volume 1 ";

/// How the comment of the last header begins.
const LAST: &str = "berth-blake3 ";

/// What a tar counts in.
const BLOCK: usize = 512;

/// How extended attributes are called in an archive.
const XATTR: &str = "SCHILY.xattr.";

/// How much is read at once.
const CHUNK: usize = 1 << 20;

/// What the volume was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Its name.
    pub name: String,
    /// Its options.
    pub options: Options,
}
