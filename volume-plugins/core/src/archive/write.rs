//! Writing an archive.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use tar::{EntryType, GnuExtSparseHeader, Header};

use super::pax::{Records, time_text};
use super::{BLOCK, CHUNK, FIRST, LAST, Origin, XATTR};
use crate::attributes::{Attributes, Xattrs, xattrs_of};
use crate::copy::{Report, next_data, open_source};
use crate::error::VolumeError;
use crate::walk::{Entry, Visitor, walk};

/// Parts with data that fit into a header itself, and into each block after it.
const SPARSE_IN_HEADER: usize = 4;

/// Writes what is in `top` to `to`, with `top` itself as the first. `shown` is its path, which is only told; `report` is told
/// how many bytes more of contents there are. Returns how many files changed while they were read.
pub(crate) fn pack(
    top: OwnedFd,
    shown: &Path,
    origin: &Origin,
    to: &mut dyn Write,
    report: Report<'_>,
) -> Result<u64, VolumeError> {
    let stat = rustix::fs::fstat(&top).map_err(|err| VolumeError::io("look at", shown, err.into()))?;
    let own = PathBuf::from(format!("/proc/thread-self/fd/{}/.", std::os::fd::AsRawFd::as_raw_fd(&top)));
    let xattrs = xattrs_of(&own)?;
    let out = Out { to, hash: blake3::Hasher::new() };
    let mut packer = Packer { out, shown, links: HashMap::new(), changed: 0, buffer: vec![0; CHUNK], report };
    let json = serde_json::to_string(origin).unwrap_or_default();
    packer.comment(&format!("{FIRST}{json}"))?;
    packer.header(b"./", EntryType::Directory, &stat, &xattrs, &Body::default())?;
    walk(top, shown, &mut packer)?;
    let hash = packer.out.hash.finalize().to_hex();
    packer.comment(&format!("{LAST}{hash}"))?;
    packer.put(&[0; 2 * BLOCK])?;
    packer.out.to.flush().map_err(written)?;
    Ok(packer.changed)
}

/// Where the archive goes, hashed on the way.
struct Out<'o> {
    to: &'o mut dyn Write,
    hash: blake3::Hasher,
}

struct Packer<'p> {
    out: Out<'p>,
    shown: &'p Path,
    links: HashMap<(u64, u64), Vec<u8>>,
    changed: u64,
    buffer: Vec<u8>,
    report: Report<'p>,
}

/// What follows a header, and what a link leads to.
#[derive(Default)]
struct Body {
    /// Bytes that follow.
    size: u64,
    link: Vec<u8>,
    /// The parts with data of a file of this size.
    sparse: Option<(u64, Vec<(u64, u64)>)>,
}

impl Visitor for Packer<'_> {
    fn enter(&mut self, dir: &Entry<'_>) -> Result<(), VolumeError> {
        let xattrs = xattrs_of(&dir.handle())?;
        let mut name = archived(dir.path);
        name.push(b'/');
        self.header(&name, EntryType::Directory, &dir.stat, &xattrs, &Body::default())
    }

    fn leaf(&mut self, entry: &Entry<'_>) -> Result<(), VolumeError> {
        let name = archived(entry.path);
        let key = (entry.stat.st_dev, entry.stat.st_ino);
        if entry.stat.st_nlink > 1
            && let Some(first) = self.links.get(&key)
        {
            let body = Body { link: first.clone(), ..Body::default() };
            return self.header(&name, EntryType::Link, &entry.stat, &Vec::new(), &body);
        }
        let xattrs = match xattrs_of(&entry.handle()) {
            Ok(xattrs) => xattrs,
            Err(VolumeError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(err) => return Err(err),
        };
        let failed = |action, err: Errno| VolumeError::io(action, &self.shown.join(entry.path), err.into());
        let kind = match entry.file_type() {
            FileType::RegularFile => {
                let opened = open_source(entry.parent, entry.name).map_err(|err| failed("open", err))?;
                let Some(file) = opened else { return Ok(()) };
                self.file(&name, entry, &file, &xattrs)?;
                if entry.stat.st_nlink > 1 {
                    self.links.insert(key, name);
                }
                return Ok(());
            }
            FileType::Symlink => match rustix::fs::readlinkat(entry.parent, entry.name, Vec::new()) {
                Ok(target) => {
                    let body = Body { link: target.into_bytes(), ..Body::default() };
                    return self.header(&name, EntryType::Symlink, &entry.stat, &xattrs, &body);
                }
                Err(Errno::NOENT | Errno::INVAL) => return Ok(()),
                Err(err) => return Err(failed("read", err)),
            },
            FileType::CharacterDevice => EntryType::Char,
            FileType::BlockDevice => EntryType::Block,
            FileType::Fifo => EntryType::Fifo,
            // A socket means something only to the process that made it.
            _ => return Ok(()),
        };
        self.header(&name, kind, &entry.stat, &xattrs, &Body::default())
    }

    fn leave(&mut self, _dir: &Entry<'_>) -> Result<(), VolumeError> {
        Ok(())
    }
}

impl Packer<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), VolumeError> {
        self.out.put(bytes)
    }

    /// A global header with a comment, which programs skip that do not know it.
    fn comment(&mut self, text: &str) -> Result<(), VolumeError> {
        let mut records = Records::default();
        records.push(b"comment", text.as_bytes());
        self.records(EntryType::XGlobalHeader, "pax_global_header", &records)
    }

    fn records(&mut self, kind: EntryType, name: &str, records: &Records) -> Result<(), VolumeError> {
        let mut header = Header::new_ustar();
        header.set_path(name).map_err(written)?;
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(len(records.as_bytes()));
        header.set_cksum();
        self.put(header.as_bytes())?;
        self.put(records.as_bytes())?;
        self.pad(len(records.as_bytes()))
    }

    fn pad(&mut self, size: u64) -> Result<(), VolumeError> {
        let over = usize::try_from(size % len(&[0; BLOCK])).unwrap_or(0);
        if over == 0 { Ok(()) } else { self.put([0; BLOCK].get(over..).unwrap_or_default()) }
    }

    fn header(
        &mut self,
        name: &[u8],
        kind: EntryType,
        stat: &Stat,
        xattrs: &Xattrs,
        body: &Body,
    ) -> Result<(), VolumeError> {
        let Attributes { uid, gid, mode, times: [_, modified] } = Attributes::of(stat);
        let mut header = Header::new_gnu();
        let mut records = Records::default();
        let Some(gnu) = header.as_gnu_mut() else { return Ok(()) };
        if !fill(&mut gnu.name, name) {
            records.push(b"path", name);
        }
        if !fill(&mut gnu.linkname, &body.link) {
            records.push(b"linkpath", &body.link);
        }
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(uid.into());
        header.set_gid(gid.into());
        header.set_size(body.size);
        header.set_mtime(u64::try_from(modified.0).unwrap_or(0));
        if matches!(kind, EntryType::Char | EntryType::Block) {
            header.set_device_major(rustix::fs::major(stat.st_rdev)).map_err(written)?;
            header.set_device_minor(rustix::fs::minor(stat.st_rdev)).map_err(written)?;
        }
        if modified.1 != 0 || modified.0 < 0 {
            records.push(b"mtime", time_text(modified).as_bytes());
        }
        for (key, value) in xattrs {
            records.push(&[XATTR.as_bytes(), key.to_bytes()].concat(), value);
        }
        let more =
            body.sparse.as_ref().map(|(size, parts)| sparse(&mut header, *size, parts)).unwrap_or_default();
        if !records.is_empty() {
            self.records(EntryType::XHeader, "././@PaxHeader", &records)?;
        }
        header.set_cksum();
        self.put(header.as_bytes())?;
        more.iter().try_for_each(|block| self.put(block.as_bytes()))
    }

    fn file(
        &mut self,
        name: &[u8],
        entry: &Entry<'_>,
        file: &File,
        xattrs: &Xattrs,
    ) -> Result<(), VolumeError> {
        let path = self.shown.join(entry.path);
        let failed = |err: Errno| VolumeError::io("read", &path, err.into());
        // What is open is what is read; the name may lead elsewhere by now.
        let stat = rustix::fs::fstat(file).map_err(failed)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let allocated = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
        let mut parts = vec![(0, size)];
        if allocated < size {
            parts.clear();
            let mut offset = 0;
            while let Some((start, end)) = next_data(file, offset, size).map_err(failed)? {
                parts.push((start, end));
                offset = end;
            }
        }
        let whole = parts == [(0, size)] || size == 0;
        let stored = parts.iter().map(|(start, end)| end - start).sum();
        let body = Body { size: stored, link: Vec::new(), sparse: (!whole).then(|| (size, parts.clone())) };
        let kind = if whole { EntryType::Regular } else { EntryType::GNUSparse };
        self.header(name, kind, &stat, xattrs, &body)?;
        let mut is_whole = true;
        for (start, end) in parts {
            is_whole &= self.contents(file, start, end).map_err(|err| match err {
                Failure::Read(err) => VolumeError::io("read", &path, err),
                Failure::Write(err) => err,
            })?;
        }
        self.pad(stored)?;
        let after = rustix::fs::fstat(file).map_err(failed)?;
        if !is_whole || (after.st_mtime, after.st_mtime_nsec) != (stat.st_mtime, stat.st_mtime_nsec) {
            self.changed += 1;
        }
        Ok(())
    }

    /// `false`: the file has become shorter, and zeros stand for what is missing.
    fn contents(&mut self, file: &File, start: u64, end: u64) -> Result<bool, Failure> {
        let mut offset = start;
        while offset < end {
            let wanted = usize::try_from(end - offset).unwrap_or(CHUNK).min(CHUNK);
            let Some(buffer) = self.buffer.get_mut(..wanted) else { break };
            let read = match file.read_at(buffer, offset) {
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                other => other.map_err(Failure::Read)?,
            };
            let ended = read == 0;
            if ended {
                buffer.fill(0);
            }
            let bytes = if ended { &*buffer } else { buffer.get(..read).unwrap_or_default() };
            self.out.put(bytes).map_err(Failure::Write)?;
            offset += len(bytes);
            (self.report)(len(bytes)).map_err(Failure::Read)?;
            if ended && offset < end {
                continue;
            }
            if ended {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

enum Failure {
    Read(io::Error),
    Write(VolumeError),
}

impl Out<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), VolumeError> {
        self.hash.update(bytes);
        self.to.write_all(bytes).map_err(written)
    }
}

/// Writes the parts with data into a header of a sparse file; what does not fit is in the blocks returned.
fn sparse(header: &mut Header, size: u64, parts: &[(u64, u64)]) -> Vec<GnuExtSparseHeader> {
    let mut list: Vec<(u64, u64)> = parts.iter().map(|(start, end)| (*start, end - start)).collect();
    // A hole at the end is told by an empty part there.
    if parts.last().is_none_or(|(_, end)| *end < size) {
        list.push((size, 0));
    }
    let (head, rest) = list.split_at(list.len().min(SPARSE_IN_HEADER));
    if let Some(gnu) = header.as_gnu_mut() {
        gnu.set_real_size(size);
        gnu.set_is_extended(!rest.is_empty());
        for (slot, (offset, length)) in gnu.sparse.iter_mut().zip(head) {
            slot.set_offset(*offset);
            slot.set_length(*length);
        }
    }
    let per_block = GnuExtSparseHeader::new().sparse().len();
    let count = rest.chunks(per_block).len();
    let block = |(index, chunk): (usize, &[(u64, u64)])| {
        let mut block = GnuExtSparseHeader::new();
        block.set_is_extended(index + 1 < count);
        for (slot, (offset, length)) in block.sparse_mut().iter_mut().zip(chunk) {
            slot.set_offset(*offset);
            slot.set_length(*length);
        }
        block
    };
    rest.chunks(per_block).enumerate().map(block).collect()
}

/// Puts a name into a header's field, as much as fits; whether all does.
fn fill(field: &mut [u8; 100], name: &[u8]) -> bool {
    let fits = name.len().min(field.len());
    if let (Some(field), Some(name)) = (field.get_mut(..fits), name.get(..fits)) {
        field.copy_from_slice(name);
    }
    name.len() <= field.len()
}

fn archived(path: &Path) -> Vec<u8> {
    [b"./", path.as_os_str().as_bytes()].concat()
}

fn len(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn written(err: io::Error) -> VolumeError {
    VolumeError::io("write", Path::new("the archive"), err)
}
