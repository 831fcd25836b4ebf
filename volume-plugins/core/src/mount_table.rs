//! The mount table of the calling thread's mount namespace, as `/proc/thread-self/mountinfo` tells it.
//!
//! The format is in `Documentation/filesystems/proc.rst` of the kernel, section 3.5.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The table of the thread, not of the process: a thread may have a mount namespace of its own.
const MOUNTINFO: &str = "/proc/thread-self/mountinfo";

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// The mount's identifier, unique while it exists.
    pub id: u64,
    /// The mount that this one is on; its own identifier at the top of the tree.
    pub parent: u64,
    /// Major and minor number of the file system's device.
    pub device: (u32, u32),
    /// The directory of the file system that is mounted here; `/` unless it is a bind mount of a part.
    pub root: PathBuf,
    /// Where it is mounted, as seen from the thread's root directory.
    pub target: PathBuf,
    /// Options of this mount, for instance `rw` or `nosuid`.
    pub options: Vec<String>,
    /// The file system's type, with its subtype if any (`fuse.sshfs`).
    pub fstype: String,
    /// What was mounted: a device, or a word that means nothing for file systems without one.
    pub source: OsString,
    /// Options of the file system, shared by all its mounts.
    pub super_options: Vec<String>,
}

/// Why the mount table is not known.
#[derive(Debug, thiserror::Error)]
pub enum MountTableError {
    /// The kernel's file cannot be read.
    #[error("cannot read the mount table `{MOUNTINFO}`")]
    Read(#[source] io::Error),
    /// A line that is not of the documented form.
    #[error("mount table line {line} is not understood: `{text}`")]
    Malformed {
        /// The line's number, from 1.
        line: usize,
        /// The line.
        text: String,
    },
}

/// Reads the mount table of the calling thread's mount namespace, in the kernel's order: later mounts cover earlier ones.
pub fn mount_table() -> Result<Vec<MountEntry>, MountTableError> {
    parse_mount_table(&fs::read(MOUNTINFO).map_err(MountTableError::Read)?)
}

/// Reads the mount table of another process's namespace; `None` where the process is gone or may not be looked at.
pub(crate) fn mount_table_of(pid: i32) -> Option<Vec<MountEntry>> {
    parse_mount_table(&fs::read(format!("/proc/{pid}/mountinfo")).ok()?).ok()
}

/// Parses the text of a `mountinfo` file. Bytes, because a mount point is a path and a path need not be UTF-8.
pub fn parse_mount_table(text: &[u8]) -> Result<Vec<MountEntry>, MountTableError> {
    let lines = text.split(|&b| b == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    lines
        .map(|(index, line)| {
            parse_line(line).ok_or_else(|| MountTableError::Malformed {
                line: index + 1,
                text: String::from_utf8_lossy(line).into_owned(),
            })
        })
        .collect()
}

impl MountEntry {
    /// Whether this mount is `dir` or below it.
    pub fn is_under(&self, dir: &Path) -> bool {
        self.target.starts_with(dir)
    }

    /// Whether the mount has the option `name`, for instance `ro`.
    pub fn has_option(&self, name: &str) -> bool {
        self.options.iter().any(|option| option == name)
    }
}

/// `36 35 98:0 /root /target rw,noatime master:1 - ext3 /dev/sda1 rw,errors=continue`; the optional fields before the
/// lone `-` vary in number.
fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|&b| b == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let (major, minor) = std::str::from_utf8(fields.next()?).ok()?.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    let root = unescape(fields.next()?).into();
    let target = unescape(fields.next()?).into();
    let options = options_of(fields.next()?);
    fields.find(|field| *field == b"-")?;
    let fstype = unescape(fields.next()?).into_string().ok()?;
    let source = unescape(fields.next()?);
    // A file system without options of its own leaves the last field out.
    let super_options = fields.next().map(options_of).unwrap_or_default();
    Some(MountEntry { id, parent, device, root, target, options, fstype, source, super_options })
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn options_of(field: &[u8]) -> Vec<String> {
    let text = unescape(field).to_string_lossy().into_owned();
    text.split(',').filter(|option| !option.is_empty()).map(str::to_owned).collect()
}

/// Undoes `mangle_path` of the kernel's `fs/seq_file.c`: space, tab, newline, `\` and `#` are three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        match (first, octal(tail)) {
            (b'\\', Some((byte, after))) => {
                bytes.push(byte);
                rest = after;
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes)
}

/// The byte that three octal digits at the start of `text` stand for, and what follows them.
fn octal(text: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, rest) = text.split_at_checked(3)?;
    let value = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()?;
    Some((value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(line: &str) -> MountEntry {
        let mut table = parse_mount_table(line.as_bytes()).unwrap();
        assert_eq!(table.len(), 1);
        table.remove(0)
    }

    #[test]
    fn every_field_is_read() {
        let entry =
            only("36 35 98:7 /mnt1 /mnt2 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue\n");
        assert_eq!((entry.id, entry.parent, entry.device), (36, 35, (98, 7)));
        assert_eq!((entry.root.as_path(), entry.target.as_path()), (Path::new("/mnt1"), Path::new("/mnt2")));
        assert_eq!(entry.options, ["rw", "noatime"]);
        assert_eq!((entry.fstype.as_str(), entry.source.to_str()), ("ext3", Some("/dev/root")));
        assert_eq!(entry.super_options, ["rw", "errors=continue"]);
    }

    #[test]
    fn optional_fields_may_be_absent() {
        assert!(only("1 1 0:2 / / rw - tmpfs none rw").has_option("rw"));
    }

    #[test]
    fn escaped_and_non_utf8_paths_are_exact() {
        let table = parse_mount_table(b"1 1 0:2 / /a\\040b\\134c\xff rw - tmpfs none rw").unwrap();
        assert_eq!(table[0].target.as_os_str().as_encoded_bytes(), b"/a b\\c\xff");
    }

    #[test]
    fn a_line_without_separator_is_refused_with_its_number() {
        let err =
            parse_mount_table(b"1 1 0:2 / / rw - tmpfs none rw\n2 1 0:2 / /x rw tmpfs none\n").unwrap_err();
        assert!(err.to_string().starts_with("mount table line 2 "), "{err}");
    }

    #[test]
    fn the_real_table_has_a_root_and_proc() {
        let table = mount_table().unwrap();
        assert!(table.iter().any(|entry| entry.target == Path::new("/")));
        assert!(table.iter().any(|entry| entry.fstype == "proc"));
    }
}
