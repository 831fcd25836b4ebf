//! Names with the limits their owners set: the kernel for interfaces, the CNI specification for the others.
//!
//! A copy of a name shares its text: tens of thousands of records name the same few networks and nodes.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a text is not a name of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("{kind} is empty")]
    Empty {
        /// What was being named.
        kind: &'static str,
    },
    /// More than the kernel's 15 bytes for an interface.
    #[error("interface name `{name}` is longer than 15 bytes")]
    TooLong {
        /// The text given.
        name: String,
    },
    /// `.` or `..`, which the kernel refuses because interface names are file names in sysfs.
    #[error("interface name is `.` or `..`")]
    Dots,
    /// A character that this kind of name must not have.
    #[error("invalid characters in {kind} `{name}`")]
    BadCharacter {
        /// What was being named.
        kind: &'static str,
        /// The text given, shortened.
        name: String,
    },
}

/// The name of a network interface: 1 to 15 bytes, no `/`, `:` or white space, not `.` or `..`
/// (`dev_valid_name` in the kernel's `net/core/dev.c`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IfName(Arc<str>);

impl IfName {
    /// Parses `text` as an interface name.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let name = text.into();
        if name.is_empty() {
            return Err(NameError::Empty { kind: "interface name" });
        }
        if name.len() > 15 {
            return Err(NameError::TooLong { name: shortened(&name) });
        }
        if name == "." || name == ".." {
            return Err(NameError::Dots);
        }
        // `%` is no part of the kernel's check, but a name with it is a template there (`dev_alloc_name`).
        let bad =
            |c: char| c == '/' || c == ':' || c == '%' || c == '\0' || c.is_whitespace() || c.is_control();
        if name.chars().any(bad) {
            return Err(NameError::BadCharacter { kind: "interface name", name });
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A container's identifier, by the CNI specification: a letter or digit, then letters, digits, `_`, `.` and `-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(Arc<str>);

impl ContainerId {
    /// Parses `text` as a container identifier.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        cni_name(text.into(), "container id").map(Self)
    }

    /// The identifier as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve characters, as people know containers.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

/// A network's name, by the same rule as [`ContainerId`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NetworkName(Arc<str>);

impl NetworkName {
    /// Parses `text` as a network name.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        cni_name(text.into(), "network name").map(Self)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A node's name in a cluster, by the same rule as [`ContainerId`]; usually the host's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// Parses `text` as a node's name.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        cni_name(text.into(), "node name").map(Self)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`: no length limit, so hash before putting one into a kernel name.
fn cni_name(name: String, kind: &'static str) -> Result<Arc<str>, NameError> {
    let mut bytes = name.bytes();
    let Some(first) = bytes.next() else { return Err(NameError::Empty { kind }) };
    let rest = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if !first.is_ascii_alphanumeric() || !bytes.all(rest) {
        return Err(NameError::BadCharacter { kind, name: shortened(&name) });
    }
    Ok(name.into())
}

/// At most sixty characters of `name`, so that a hostile megabyte is not echoed into logs.
fn shortened(name: &str) -> String {
    match name.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", name.get(..end).unwrap_or_default()),
        None => name.to_owned(),
    }
}

macro_rules! name_traits {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }
        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.as_str().to_owned()
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}
name_traits!(IfName);
name_traits!(ContainerId);
name_traits!(NetworkName);
name_traits!(NodeName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_follow_the_kernel() {
        for good in ["eth0", "a", "veth0123456789a", "br-x.1", "ü"] {
            assert_eq!(IfName::new(good).map(String::from), Ok(good.to_owned()));
        }
        for bad in
            ["", ".", "..", "a/b", "a:b", "a b", "a\tb", "sixteen-bytes-xx", "eth%d", "a\0b", "üüüüüüüü"]
        {
            assert!(IfName::new(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn container_ids_follow_the_cni_pattern() {
        for good in ["a", "0", "A_b.c-d", &"x".repeat(500)] {
            assert!(ContainerId::new(good).is_ok(), "{good:?} was refused");
        }
        for bad in ["", "-a", ".a", "_a", "a b", "a/b", "../x", "ü", "a\n", "a;b"] {
            assert!(ContainerId::new(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_hostile_name_is_shortened_in_its_error() {
        let err = NetworkName::new("/".repeat(1_000_000)).unwrap_err();
        assert!(err.to_string().len() < 200);
    }
}
