//! The kernel's network switches, `/proc/sys/net`.
//!
//! A switch is named by parts that are joined with `/`, never by dotted text, so that an interface called `eth0.5`
//! cannot be taken for two parts and no part can lead out of `net/`. Reading and writing happen in the calling
//! thread's namespace: to switch something in a sandbox, do it inside [`crate::Sandbox::run`].
//!
//! A container can mount something else over its `/proc` (CVE-2025-52881): the directory is checked to be of procfs,
//! and from there no link and no other mount is followed.

use std::fmt;
use std::os::fd::OwnedFd;

use berth_types::{Family, IfName};
use rustix::fs::{Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags};
use rustix::io::Errno;

const ROOT: &str = "/proc/sys";

/// Longest value that is read or written, bytes; the longest there is, a list of ports, has under 200 in practice.
const VALUE_MAX: usize = 4096;

/// A switch that was not read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SysctlError {
    /// The parts name no network switch.
    #[error("invalid kernel switch `{key}`: {why}")]
    BadKey {
        /// The parts, joined.
        key: String,
        /// What is wrong with them.
        why: &'static str,
    },
    /// The value cannot be one.
    #[error("invalid value for kernel switch `{key}`: {why}")]
    BadValue {
        /// The switch.
        key: SysctlKey,
        /// What is wrong with the value.
        why: &'static str,
    },
    /// This kernel has no such switch, or there is no such interface.
    #[error("kernel switch `{key}` does not exist")]
    Unsupported {
        /// The switch.
        key: SysctlKey,
    },
    /// `/proc/sys` is not the kernel's.
    #[error("{ROOT} is not a proc file system")]
    NotProc,
    /// The system refused.
    #[error("{operation} kernel switch `{key}`")]
    Io {
        /// `open`, `read` or `write`.
        operation: &'static str,
        /// The switch.
        key: SysctlKey,
        /// The system's error.
        #[source]
        source: Errno,
    },
}

impl SysctlError {
    /// Whether there is no such switch, or no such interface.
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::Unsupported { .. })
    }

    /// Whether it cannot be changed from here: `/proc/sys` is read-only, as it is in most containers.
    pub fn is_read_only(&self) -> bool {
        matches!(self, Self::Io { source: Errno::ROFS | Errno::ACCESS | Errno::PERM, .. })
    }
}

/// The name of a network switch: a path under `/proc/sys` that starts with `net`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SysctlKey(String);

impl SysctlKey {
    /// The switch named by `parts`, for instance `["net", "ipv4", "ip_forward"]`.
    ///
    /// # Errors
    ///
    /// [`SysctlError::BadKey`] unless the first part is `net`, more follow, and each is a plain file name.
    pub fn new<'a>(parts: impl IntoIterator<Item = &'a str>) -> Result<Self, SysctlError> {
        let parts: Vec<&str> = parts.into_iter().collect();
        let fail = |why| SysctlError::BadKey { key: parts.join("/").escape_debug().take(100).collect(), why };
        if parts.first() != Some(&"net") || parts.len() < 2 {
            return Err(fail("only switches under net/ are known here"));
        }
        for part in &parts {
            if part.is_empty() || *part == "." || *part == ".." {
                return Err(fail("a part is empty, `.` or `..`"));
            }
            if part.len() > 255 || part.contains(|c: char| c == '/' || c.is_control() || c.is_whitespace()) {
                return Err(fail("a part is not a plain file name"));
            }
        }
        Ok(Self(parts.join("/")))
    }

    /// Whether it is one of IPv6's, which a kernel may be without.
    pub fn is_of_ipv6(&self) -> bool {
        self.0.starts_with("net/ipv6/")
    }

    /// A switch of one interface: `net/ipv4/conf/<link>/<name>`.
    ///
    /// # Errors
    ///
    /// [`SysctlError::BadKey`] if `name` is not a plain file name.
    pub fn of_link(family: Family, link: &IfName, name: &str) -> Result<Self, SysctlError> {
        let family = match family {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        };
        Self::new(["net", family, "conf", link.as_str(), name])
    }

    /// The path under `/proc/sys`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SysctlKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The value of a switch, without the white space around it. Several numbers are separated by one tab, as the kernel
/// prints them.
///
/// # Errors
///
/// [`SysctlError::Unsupported`] if there is no such switch; [`SysctlError::NotProc`]; [`SysctlError::Io`].
pub fn read(key: &SysctlKey) -> Result<String, SysctlError> {
    let file = open(key, OFlags::RDONLY)?;
    let mut bytes = [0; VALUE_MAX];
    let length = rustix::io::read(&file, &mut bytes).map_err(|source| io("read", key, source))?;
    let text = String::from_utf8_lossy(bytes.get(..length).unwrap_or_default());
    Ok(text.trim().to_owned())
}

/// Sets a switch to `value` and returns what it was. It is not written where it has that value already, so that what
/// is right may be read-only.
///
/// # Errors
///
/// [`SysctlError::BadValue`] if `value` has more than one line or none; [`SysctlError::Unsupported`] if there is no
/// such switch; [`SysctlError::NotProc`]; [`SysctlError::Io`], with `EINVAL` where the kernel does not take the value.
pub fn write(key: &SysctlKey, value: &str) -> Result<String, SysctlError> {
    let fail = |why| SysctlError::BadValue { key: key.clone(), why };
    if value.is_empty() || value.len() > VALUE_MAX {
        return Err(fail("it is empty or too long"));
    }
    if value.contains(|c: char| c.is_control() && c != '\t') {
        return Err(fail("it has a control character"));
    }
    let previous = read(key)?;
    if previous.split_whitespace().eq(value.split_whitespace()) {
        return Ok(previous);
    }
    let file = open(key, OFlags::WRONLY)?;
    // One call: the kernel takes what one write holds as the whole value.
    rustix::io::write(&file, value.as_bytes()).map_err(|source| io("write", key, source))?;
    Ok(previous)
}

fn open(key: &SysctlKey, access: OFlags) -> Result<OwnedFd, SysctlError> {
    let fail = |source| io("open", key, source);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = rustix::fs::open(ROOT, flags, Mode::empty()).map_err(fail)?;
    if rustix::fs::fstatfs(&root).map_err(fail)?.f_type != PROC_SUPER_MAGIC {
        return Err(SysctlError::NotProc);
    }
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    match rustix::fs::openat2(&root, key.as_str(), access | OFlags::CLOEXEC, Mode::empty(), resolve) {
        Ok(file) => Ok(file),
        Err(Errno::NOENT | Errno::NOTDIR) => Err(SysctlError::Unsupported { key: key.clone() }),
        Err(source) => Err(fail(source)),
    }
}

fn io(operation: &'static str, key: &SysctlKey, source: Errno) -> SysctlError {
    SysctlError::Io { operation, key: key.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sandbox;

    fn key(text: &str) -> Result<SysctlKey, SysctlError> {
        SysctlKey::new(text.split(' '))
    }

    #[test]
    fn only_plain_names_under_net_are_keys() {
        assert_eq!(key("net ipv4 ip_forward").unwrap().as_str(), "net/ipv4/ip_forward");
        for bad in [
            "",
            "net",
            "kernel core_pattern",
            "net ..",
            "net . core",
            "net ipv4/../../kernel/core_pattern",
            "net  x",
            "net a\nb",
            "net a\0b",
            "/net core",
            "Net core",
            "net a\tb",
        ] {
            assert!(matches!(key(bad), Err(SysctlError::BadKey { .. })), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_dot_in_an_interface_name_stays_one_part() {
        let link = IfName::new("eth0.5").unwrap();
        let key = SysctlKey::of_link(Family::V4, &link, "route_localnet").unwrap();
        assert_eq!(key.as_str(), "net/ipv4/conf/eth0.5/route_localnet");
        assert!(SysctlKey::of_link(Family::V6, &link, "../all/forwarding").is_err());
    }

    #[test]
    fn a_value_with_a_second_line_is_refused() {
        let key = key("net ipv4 ip_forward").unwrap();
        for bad in ["", "1\n", "1\nkernel.core_pattern=|/x", "1\0", "\x1b[2J"] {
            assert!(matches!(write(&key, bad), Err(SysctlError::BadValue { .. })), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_switch_is_set_in_the_sandbox_alone() {
        let key = key("net ipv4 ip_forward").unwrap();
        let sandbox = Sandbox::anonymous().unwrap();
        let outside = read(&key).unwrap();
        sandbox
            .run(|| {
                let before = read(&key).unwrap();
                let other = if before == "0" { "1" } else { "0" };
                assert_eq!(write(&key, other).unwrap(), before);
                assert_eq!(read(&key).unwrap(), other);
                assert_eq!(write(&key, other).unwrap(), other);
            })
            .unwrap();
        assert_eq!(read(&key).unwrap(), outside);
    }

    #[test]
    fn several_numbers_are_one_value() {
        let key = key("net ipv4 ip_local_port_range").unwrap();
        let sandbox = Sandbox::anonymous().unwrap();
        let after = sandbox.run(|| write(&key, "20000 30000").and_then(|_| read(&key))).unwrap();
        assert_eq!(after.unwrap(), "20000\t30000");
    }

    #[test]
    fn a_missing_switch_or_interface_is_unsupported() {
        let missing = key("net ipv4 no_such_switch").unwrap();
        assert!(read(&missing).unwrap_err().is_unsupported());
        let link = IfName::new("nosuch0").unwrap();
        let of_link = SysctlKey::of_link(Family::V4, &link, "forwarding").unwrap();
        assert!(write(&of_link, "1").unwrap_err().is_unsupported());
    }

    #[test]
    fn a_value_the_kernel_does_not_take_is_an_error() {
        let key = key("net ipv4 ip_forward").unwrap();
        let err = Sandbox::anonymous().unwrap().run(|| write(&key, "perhaps")).unwrap().unwrap_err();
        assert!(matches!(err, SysctlError::Io { operation: "write", source: Errno::INVAL, .. }), "{err}");
    }
}
