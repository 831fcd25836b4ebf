//! A volume's name, which is also the name of its directory.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest file name that every file system of berth's takes (`NAME_MAX`).
const MAX: usize = 255;

/// Why a text is not a volume's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VolumeNameError {
    /// Nothing was given.
    #[error(
        "the volume's name is empty\nit begins with a letter or digit; letters, digits, `_`, `.` and `-` follow"
    )]
    Empty,
    /// It cannot be a file name.
    #[error("the volume's name is {bytes} bytes long, and at most {MAX} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A character that it must not have.
    #[error(
        "volume name `{name}` has a character that is not allowed\n\
         it begins with a letter or digit; letters, digits, `_`, `.` and `-` follow"
    )]
    BadCharacter {
        /// The text given, shortened, without control characters.
        name: String,
    },
}

/// A volume's name: a letter or digit, then letters, digits, `_`, `.` and `-`, as Docker's own volumes have it. So it is
/// never `.` or `..`, never hidden, and never leads out of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeName(String);

impl VolumeName {
    /// Parses `text` as a volume's name.
    pub fn new(text: impl Into<String>) -> Result<Self, VolumeNameError> {
        let name = text.into();
        let mut bytes = name.bytes();
        let Some(first) = bytes.next() else { return Err(VolumeNameError::Empty) };
        let rest = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if !first.is_ascii_alphanumeric() || !bytes.all(rest) {
            let shown: String = name.chars().take(60).flat_map(char::escape_default).collect();
            return Err(VolumeNameError::BadCharacter { name: shown });
        }
        if name.len() > MAX {
            return Err(VolumeNameError::TooLong { bytes: name.len() });
        }
        Ok(Self(name))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for VolumeName {
    type Err = VolumeNameError;

    fn from_str(text: &str) -> Result<Self, VolumeNameError> {
        Self::new(text)
    }
}

impl TryFrom<String> for VolumeName {
    type Error = VolumeNameError;

    fn try_from(text: String) -> Result<Self, VolumeNameError> {
        Self::new(text)
    }
}

impl From<VolumeName> for String {
    fn from(name: VolumeName) -> Self {
        name.0
    }
}

impl AsRef<str> for VolumeName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_file_names_that_lead_nowhere() {
        for good in ["a", "0", "mysql_data", "a..b", "a.-_Z", &"x".repeat(255), &"0f".repeat(32)] {
            assert!(VolumeName::new(good).is_ok(), "{good:?} was refused");
        }
        let long = "x".repeat(300);
        for bad in [
            "",
            ".",
            "..",
            "/",
            "a/b",
            "../x",
            "/etc",
            "a/../../b",
            "-a",
            ".a",
            "_a",
            "a b",
            "a\0b",
            "a\n",
            "ü",
            "a\u{202e}b",
            "a;b",
            "~",
            "a*",
            &long,
        ] {
            assert!(VolumeName::new(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_hostile_name_is_shortened_and_escaped_in_its_error() {
        let err = VolumeName::new("\x1b[31m/".repeat(100_000)).unwrap_err().to_string();
        assert!(err.len() < 2000 && !err.contains('\x1b'), "{err}");
    }
}
