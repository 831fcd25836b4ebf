//! Reading an archive into an empty directory that nobody else knows of yet.
//!
//! An archive is whatever somebody sent: names in it lead nowhere but into the directory, and nothing that it contains is
//! followed while it is read.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, BufRead};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use tar::EntryType;

use super::stream::{Item, Stream, broken};
use super::{CHUNK, FIRST, LAST, Origin, XATTR, pax};
use crate::attributes::{Attributes, Xattrs, apply};
use crate::copy::Report;
use crate::error::VolumeError;
use crate::place::{CONFINED, open_dir};

/// What tells a zstd stream.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// Whether the archive had a checksum, which was right. One that is berth's always has.
    pub(crate) checked: bool,
    /// Bytes of contents.
    pub(crate) bytes: u64,
}

/// An archive that is being read: first what the volume was, then its files.
pub(crate) struct Unpacker<'a> {
    stream: Stream<'a>,
}

impl<'a> Unpacker<'a> {
    /// Begins to read, compressed by zstd or not.
    pub(crate) fn new(mut from: impl BufRead + 'a) -> Result<Self, VolumeError> {
        let head = from.fill_buf().map_err(|err| broken(&err))?;
        if head.is_empty() {
            return Err(VolumeError::Archive { why: "it is empty".to_owned() });
        }
        if !head.starts_with(&ZSTD) {
            return Ok(Self { stream: Stream::new(Box::new(from)) });
        }
        let plain = zstd::stream::read::Decoder::with_buffer(from).map_err(|err| broken(&err))?;
        Ok(Self { stream: Stream::new(Box::new(io::BufReader::with_capacity(CHUNK, plain))) })
    }

    /// Reads everything. `begin` is told what the volume was, if the archive tells, and opens the directory that it goes to.
    pub(crate) fn unpack(
        mut self,
        begin: impl FnOnce(Option<Origin>) -> Result<OwnedFd, VolumeError>,
        report: Report<'_>,
    ) -> Result<Unpacked, VolumeError> {
        let stream = &mut self.stream;
        let mut next = stream.next()?;
        if next.is_none() {
            return Err(VolumeError::Archive { why: "it has nothing in it".to_owned() });
        }
        let mut origin = None;
        if let Some(item) = next.as_ref().filter(|item| item.kind == EntryType::XGlobalHeader) {
            if let Some(json) =
                comment(stream, item)?.as_deref().and_then(|comment| comment.strip_prefix(FIRST))
            {
                let read = serde_json::from_str(json);
                origin = Some(
                    read.map_err(|err| VolumeError::Archive { why: format!("its first header: {err}") })?,
                );
            }
            next = stream.next()?;
        }
        let is_ours = origin.is_some();
        let mut target = Target::new(begin(origin)?, report);
        let mut checked = false;
        while let Some(item) = next {
            if item.kind == EntryType::XGlobalHeader {
                let comment = comment(stream, &item)?;
                if let Some(expected) = comment.as_deref().and_then(|comment| comment.strip_prefix(LAST)) {
                    let hash = item.hash_before.unwrap_or_default();
                    if hash != expected {
                        let why = format!(
                            "its contents were changed: BLAKE3 is {hash}, and {expected} was written"
                        );
                        return Err(VolumeError::Archive { why });
                    }
                    checked = true;
                    break;
                }
            } else {
                target.put(stream, &item)?;
            }
            next = stream.next()?;
        }
        if is_ours && !checked {
            return Err(VolumeError::Archive {
                why: "it ends before its checksum: it was cut off".to_owned(),
            });
        }
        target.finish()?;
        Ok(Unpacked { checked, bytes: target.bytes })
    }
}

/// The comment of a global header.
fn comment(stream: &mut Stream<'_>, item: &Item) -> Result<Option<String>, VolumeError> {
    let records = pax::parse(&stream.extra(item.stored)?)?;
    let found = records.into_iter().find(|(key, _)| key == b"comment");
    Ok(found.map(|(_, value)| String::from_utf8_lossy(&value).into_owned()))
}

/// Where an archive goes.
struct Target<'t> {
    top: OwnedFd,
    /// The directory that was written to last, by its path: most files are beside the one before.
    last: Option<(PathBuf, OwnedFd)>,
    /// Directories get their attributes when they are full.
    dirs: Vec<(PathBuf, Attributes, Xattrs)>,
    buffer: Vec<u8>,
    bytes: u64,
    report: Report<'t>,
}

impl<'t> Target<'t> {
    fn new(top: OwnedFd, report: Report<'t>) -> Self {
        Self { top, last: None, dirs: Vec::new(), buffer: vec![0; CHUNK], bytes: 0, report }
    }

    fn put(&mut self, stream: &mut Stream<'_>, item: &Item) -> Result<(), VolumeError> {
        let path = plain(&item.name)?;
        let (attributes, xattrs) = attributes_of(item)?;
        let file_type = match item.kind {
            EntryType::Directory => {
                self.dir(&path)?;
                self.dirs.push((path, attributes, xattrs));
                return Ok(());
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => FileType::RegularFile,
            EntryType::Link => {
                return self.link(&path, &plain(&item.link)?);
            }
            EntryType::Symlink => FileType::Symlink,
            EntryType::Char => FileType::CharacterDevice,
            EntryType::Block => FileType::BlockDevice,
            EntryType::Fifo => FileType::Fifo,
            other => {
                let why = format!(
                    "`{}` is of type {:?}, which is not known",
                    path.display(),
                    char::from(other.as_byte())
                );
                return Err(VolumeError::Archive { why });
            }
        };
        let (parent, name) = self.place_for(&path)?;
        let failed = |err: Errno| VolumeError::io("make", &path, err.into());
        match file_type {
            FileType::RegularFile => {
                let flags =
                    OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made =
                    rustix::fs::openat(&parent, &name, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
                self.contents(stream, item, &made.into(), &path)?;
            }
            FileType::Symlink => {
                let target = CString::new(item.link.clone());
                let target =
                    target.map_err(|_| VolumeError::Archive { why: "a link leads to a NUL".to_owned() })?;
                rustix::fs::symlinkat(&target, &parent, &name).map_err(failed)?;
            }
            _ => {
                let number = |part: io::Result<Option<u32>>| part.ok().flatten().unwrap_or(0);
                let (major, minor) = (item.header.device_major(), item.header.device_minor());
                let device = rustix::fs::makedev(number(major), number(minor));
                let device = if file_type == FileType::Fifo { 0 } else { device };
                rustix::fs::mknodat(&parent, &name, file_type, Mode::empty(), device).map_err(failed)?;
            }
        }
        apply(parent.as_fd(), &name, file_type, &attributes, &xattrs)
    }

    /// The directory for `path`, and its name in it, which is free afterwards: the last of several in an archive counts.
    fn place_for(&mut self, path: &Path) -> Result<(OwnedFd, CString), VolumeError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(VolumeError::Archive { why: "a file in it has no name".to_owned() });
        };
        let name = CString::new(name.as_bytes())
            .map_err(|_| VolumeError::Archive { why: "a name has a NUL".to_owned() })?;
        let dir = self.dir(parent)?.try_clone_to_owned();
        let dir = dir.map_err(|err| VolumeError::io("open", parent, err))?;
        match rustix::fs::unlinkat(&dir, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok((dir, name)),
            Err(Errno::ISDIR) => Err(VolumeError::Archive {
                why: format!("`{}` is in it as a directory and not as one", path.display()),
            }),
            Err(err) => Err(VolumeError::io("replace", path, err.into())),
        }
    }

    /// The open directory `path`, made where it is missing.
    fn dir(&mut self, path: &Path) -> Result<BorrowedFd<'_>, VolumeError> {
        if self.last.as_ref().is_none_or(|(last, _)| last != path) {
            let opened = self.open(path)?;
            self.last = Some((path.to_owned(), opened));
        }
        Ok(self.last.as_ref().map_or(self.top.as_fd(), |(_, dir)| dir.as_fd()))
    }

    fn open(&self, path: &Path) -> Result<OwnedFd, VolumeError> {
        let failed = |err: Errno| VolumeError::io("make the directory", path, err.into());
        let whole = if path.as_os_str().is_empty() { OsStr::new(".") } else { path.as_os_str() };
        match open_dir(self.top.as_fd(), whole, CONFINED) {
            Err(Errno::NOENT) => (),
            other => return other.map_err(failed),
        }
        let mut dir = open_dir(self.top.as_fd(), OsStr::new("."), CONFINED).map_err(failed)?;
        for part in path.components() {
            let name = part.as_os_str();
            match rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => (),
                Err(err) => return Err(failed(err)),
            }
            dir = open_dir(dir.as_fd(), name, CONFINED).map_err(failed)?;
        }
        Ok(dir)
    }

    fn link(&mut self, path: &Path, target: &Path) -> Result<(), VolumeError> {
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(VolumeError::Archive { why: "a link in it leads to nothing".to_owned() });
        };
        let from = self.open(parent)?;
        let (dir, new) = self.place_for(path)?;
        rustix::fs::linkat(&from, name, &dir, &new, AtFlags::empty())
            .map_err(|err| VolumeError::io("link", path, err.into()))
    }

    fn contents(
        &mut self,
        stream: &mut Stream<'_>,
        item: &Item,
        file: &File,
        path: &Path,
    ) -> Result<(), VolumeError> {
        let failed = |err: io::Error| VolumeError::io("write", path, err);
        let whole = [(0, item.size)];
        for (start, end) in item.parts.as_deref().unwrap_or(&whole) {
            let mut offset = *start;
            while offset < *end {
                let wanted = usize::try_from(end - offset).unwrap_or(CHUNK).min(CHUNK);
                let Some(buffer) = self.buffer.get_mut(..wanted) else { break };
                stream.bytes(buffer)?;
                file.write_all_at(buffer, offset).map_err(failed)?;
                let count = u64::try_from(wanted).unwrap_or(0);
                offset += count;
                self.bytes += count;
                (self.report)(count).map_err(failed)?;
            }
        }
        stream.padding(item.stored)?;
        if item.parts.is_some() { file.set_len(item.size).map_err(failed) } else { Ok(()) }
    }

    /// Gives directories their attributes, the lowest first.
    fn finish(&mut self) -> Result<(), VolumeError> {
        self.last = None;
        for (path, attributes, xattrs) in std::mem::take(&mut self.dirs).into_iter().rev() {
            let dir = self.open(&path)?;
            apply(dir.as_fd(), c".", FileType::Directory, &attributes, &xattrs)?;
        }
        Ok(())
    }
}

/// A name in an archive as a path below the top. One that leads elsewhere is refused, not bent.
fn plain(name: &[u8]) -> Result<PathBuf, VolumeError> {
    let refuse = || VolumeError::Archive {
        why: format!(
            "the name `{}` in it leads out of the volume",
            String::from_utf8_lossy(name).escape_debug()
        ),
    };
    if name.contains(&0) {
        return Err(refuse());
    }
    let mut path = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(name)).components() {
        match part {
            Component::CurDir => (),
            Component::Normal(part) => path.push(part),
            Component::RootDir | Component::ParentDir | Component::Prefix(_) => return Err(refuse()),
        }
    }
    Ok(path)
}

fn attributes_of(item: &Item) -> Result<(Attributes, Xattrs), VolumeError> {
    let header = &item.header;
    let number = |value: io::Result<u64>| value.map_err(|err| broken(&err));
    let id = |value: io::Result<u64>| {
        let value = number(value)?;
        u32::try_from(value)
            .map_err(|_| VolumeError::Archive { why: format!("{value} is no user or group id") })
    };
    let modified = (i64::try_from(number(header.mtime())?).unwrap_or(0), 0);
    let mode = header.mode().map_err(|err| broken(&err))? & 0o7777;
    let mut found = Attributes { uid: id(header.uid())?, gid: id(header.gid())?, mode, times: [modified; 2] };
    let mut xattrs = Xattrs::new();
    for (key, value) in &item.records {
        let as_id = || pax::number(value).ok().and_then(|id| u32::try_from(id).ok());
        match key.as_slice() {
            b"mtime" => found.times = pax::time(value).map_or(found.times, |time| [time; 2]),
            b"uid" => found.uid = as_id().unwrap_or(found.uid),
            b"gid" => found.gid = as_id().unwrap_or(found.gid),
            key => {
                if let Some(name) = key.strip_prefix(XATTR.as_bytes())
                    && let Ok(name) = CString::new(name)
                {
                    xattrs.push((name, value.clone()));
                }
            }
        }
    }
    Ok((found, xattrs))
}
