//! Identities of things whose names are reused: namespaces and boots.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A network namespace, by the device and inode of its file in nsfs.
///
/// A path such as `/proc/4711/ns/net` leads somewhere else once the process number is reused; the pair does not, for
/// as long as the namespace lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SandboxId {
    /// Device of nsfs.
    pub dev: u64,
    /// Inode of the namespace.
    pub ino: u64,
}

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "net:[{}]", self.ino)
    }
}

/// One boot of the machine: the text of `/proc/sys/kernel/random/boot_id`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BootId(String);

impl BootId {
    /// Takes the file's text; white space around it is dropped.
    pub fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// The identity as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
