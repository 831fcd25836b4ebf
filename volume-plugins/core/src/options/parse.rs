//! From options to what a volume is to be. Pure.

use std::path::{Component, Path, PathBuf};

use super::error::shown;
use super::words::Words;
use super::{BindSpec, DeviceSpec, Filesystem, OptionError, Options, SizedSpec, Spec, TmpfsSpec, Top};
use crate::size::parse_size;

/// The least that mkfs.ext4 makes a file system with a journal of.
const LEAST_EXT4: u64 = 8 << 20;

/// The least that mkfs.xfs makes a file system of, since xfsprogs 6.
const LEAST_XFS: u64 = 300 << 20;

/// Permission bits a volume's top directory may have: no set-user-id bit, which means nothing there.
const MODE_MAX: u32 = 0o3777;

/// Reads options. Every front end calls this, so all refuse alike.
///
/// # Errors
///
/// The first option that cannot be, with what would be accepted.
pub fn parse_options(options: &Options) -> Result<Spec, OptionError> {
    match options.get("type").map(String::as_str) {
        None if options.contains_key("size") => sized(options),
        None => directory(options),
        Some("none") => bind(options),
        Some("tmpfs") => tmpfs(options),
        Some(name) => match Filesystem::named(name) {
            Some(fs) => device(fs, options),
            None => Err(OptionError::Type { given: shown(name) }),
        },
    }
}

fn only(kind: &'static str, options: &Options, allowed: &[&str]) -> Result<(), OptionError> {
    match options.keys().find(|key| !allowed.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(OptionError::Key { kind, key: shown(key), allowed: allowed.join(", ") }),
    }
}

fn directory(options: &Options) -> Result<Spec, OptionError> {
    for (key, needs) in [
        ("o", "type"),
        ("device", "type"),
        ("fs", "size"),
        ("sparse", "size"),
        ("create", "type=none, o=bind"),
    ] {
        if options.contains_key(key) {
            return Err(OptionError::Needs { key, needs });
        }
    }
    only("directory", options, &["uid", "gid", "mode", "size", "type"])?;
    Ok(Spec::Directory(top(options)?))
}

fn sized(options: &Options) -> Result<Spec, OptionError> {
    for key in ["o", "device"] {
        if options.contains_key(key) {
            return Err(OptionError::Needs { key, needs: "type" });
        }
    }
    only("sized", options, &["size", "fs", "sparse", "uid", "gid", "mode"])?;
    let fs = match options.get("fs").map_or("ext4", String::as_str) {
        "ext4" => Filesystem::Ext4,
        "xfs" => Filesystem::Xfs,
        given => return Err(OptionError::Value { key: "fs", given: shown(given), wanted: "ext4 or xfs" }),
    };
    let size = size_of("size", options.get("size").map_or("", String::as_str))?;
    let (least, words) =
        if fs == Filesystem::Xfs { (LEAST_XFS, "300M for xfs") } else { (LEAST_EXT4, "8M for ext4") };
    if size < least {
        let given = shown(options.get("size").map_or("", String::as_str));
        return Err(OptionError::TooSmall { key: "size", given, least: words });
    }
    // Whole blocks: a file system does not use what is left over.
    let size = size.next_multiple_of(4096);
    Ok(Spec::Sized(SizedSpec { size, fs, sparse: flag(options, "sparse")?, top: top(options)? }))
}

fn bind(options: &Options) -> Result<Spec, OptionError> {
    let Some(text) = options.get("o") else { return Err(OptionError::NoBind) };
    let mut words = Words::bind(text)?;
    let (plain, recursive) = (words.take_word("bind"), words.take_word("rbind"));
    if !plain && !recursive {
        return Err(OptionError::NoBind);
    }
    only("bind", options, &["type", "o", "device", "create", "uid", "gid", "mode"])?;
    let Some(given) = options.get("device") else {
        return Err(OptionError::NoDevice { kind: "bind", example: "/srv/data" });
    };
    let top = top(options)?;
    let create = flag(options, "create")?;
    for key in ["uid", "gid", "mode"] {
        if !create && options.contains_key(key) {
            return Err(OptionError::Needs { key, needs: "create=true" });
        }
    }
    Ok(Spec::Bind(BindSpec {
        device: device_path(given)?,
        recursive,
        slave: words.has("slave") || words.has("rslave"),
        flags: words.flags(),
        create: create.then_some(top),
    }))
}

fn tmpfs(options: &Options) -> Result<Spec, OptionError> {
    only("tmpfs", options, &["type", "device", "o", "size", "uid", "gid", "mode"])?;
    // Docker requires a device and ignores what it is; its documentation writes `tmpfs`.
    if let Some(given) =
        options.get("device").filter(|given| !["tmpfs", "none", ""].contains(&given.as_str()))
    {
        return Err(OptionError::Value {
            key: "device",
            given: shown(given),
            wanted: "`tmpfs`, which is memory",
        });
    }
    let mut merged = options.clone();
    let (mut flags, mut inodes) = Default::default();
    if let Some(text) = options.get("o") {
        let mut words = Words::tmpfs(text)?;
        flags = words.flags();
        inodes = words.take_value("nr_inodes").map(|given| count("nr_inodes", &given)).transpose()?;
        for key in ["size", "uid", "gid", "mode"] {
            let Some(inner) = words.take_value(key) else { continue };
            if let Some(outer) = options.get(key).filter(|outer| **outer != inner) {
                return Err(OptionError::Contradiction {
                    one: format!("{key}={}", shown(outer)),
                    other: format!("o={key}={}", shown(&inner)),
                });
            }
            merged.insert(key.to_owned(), inner);
        }
    }
    let size = merged.get("size").map(|given| size_of("size", given)).transpose()?;
    if size.is_some_and(|size| size < 4096) {
        let given = shown(merged.get("size").map_or("", String::as_str));
        return Err(OptionError::TooSmall { key: "size", given, least: "4k for tmpfs" });
    }
    if inodes == Some(0) {
        return Err(OptionError::TooSmall { key: "nr_inodes", given: "0".to_owned(), least: "1" });
    }
    Ok(Spec::Tmpfs(TmpfsSpec { size, inodes, top: top(&merged)?, flags }))
}

fn device(fs: Filesystem, options: &Options) -> Result<Spec, OptionError> {
    only(fs.name(), options, &["type", "device", "o"])?;
    let Some(given) = options.get("device") else {
        return Err(OptionError::NoDevice { kind: fs.name(), example: "/dev/sdb1" });
    };
    let words = options.get("o").map(|text| Words::device(fs, text)).transpose()?;
    let flags = words.as_ref().map(Words::flags).unwrap_or_default();
    let data = words.map(Words::into_data).unwrap_or_default();
    Ok(Spec::Device(DeviceSpec { device: device_path(given)?, fs, flags, data }))
}

fn device_path(given: &str) -> Result<PathBuf, OptionError> {
    let refuse = |why| OptionError::Device { given: shown(given), why };
    let path = Path::new(given);
    if given.chars().any(char::is_control) {
        return Err(refuse("it has a control character"));
    }
    if !path.is_absolute() {
        return Err(refuse("it is not absolute"));
    }
    if given.split('/').any(|part| part == "." || part == "..") {
        return Err(refuse("it has `.` or `..` in it"));
    }
    if given.len() > 4095 {
        return Err(refuse("it is longer than a path can be"));
    }
    // Without doubled and trailing slashes.
    let path: PathBuf = path.components().collect();
    if path.components().all(|part| part == Component::RootDir) {
        return Err(refuse("the whole host is no volume"));
    }
    Ok(path)
}

fn top(options: &Options) -> Result<Top, OptionError> {
    let id = |key: &'static str| {
        let wanted = "a number from 0 to 4294967294";
        let parse = |given: &String| {
            let value = digits(given).and_then(|()| given.parse::<u32>().ok()).filter(|id| *id != u32::MAX);
            value.ok_or_else(|| OptionError::Value { key, given: shown(given), wanted })
        };
        options.get(key).map(parse).transpose()
    };
    let mode = |given: &String| {
        let value = digits(given).and_then(|()| u32::from_str_radix(given, 8).ok());
        value.filter(|mode| *mode <= MODE_MAX).ok_or_else(|| OptionError::Value {
            key: "mode",
            given: shown(given),
            wanted: "octal permission bits, for instance 0750",
        })
    };
    Ok(Top { uid: id("uid")?, gid: id("gid")?, mode: options.get("mode").map(mode).transpose()? })
}

/// Nothing but digits, and some: the standard parsers take a sign.
fn digits(text: &str) -> Option<()> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then_some(())
}

fn flag(options: &Options, key: &'static str) -> Result<bool, OptionError> {
    match options.get(key).map(String::as_str) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(given) => Err(OptionError::Value { key, given: shown(given), wanted: "true or false" }),
    }
}

fn size_of(key: &'static str, given: &str) -> Result<u64, OptionError> {
    parse_size(given).map_err(|source| OptionError::Size { key, source })
}

fn count(key: &'static str, given: &str) -> Result<u64, OptionError> {
    // tmpfs counts its files with the units of sizes too.
    parse_size(given).map_err(|_| OptionError::Value { key, given: shown(given), wanted: "a number" })
}
