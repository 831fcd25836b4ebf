//! The entries of a tar stream: headers of every common dialect, read into one form.
//!
//! Written for berth because names and attributes may hold any byte: records of PAX headers are read by their lengths.

use std::io::{self, Read};

use tar::{EntryType, Header};

use super::{BLOCK, pax};
use crate::error::VolumeError;

/// The longest header of names and attributes that is read.
const EXTRA_MAX: u64 = 16 << 20;

/// The most parts with data that a sparse file may have.
const PARTS_MAX: usize = 1 << 22;

/// A stream, hashed on the way.
pub(super) struct Stream<'s> {
    from: Box<dyn Read + 's>,
    hash: blake3::Hasher,
}

/// What a header said.
pub(super) struct Item {
    pub(super) kind: EntryType,
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) header: Header,
    /// Bytes that follow in the stream, and are to be read before the next item.
    pub(super) stored: u64,
    /// Of a file: its size, and which parts of it follow; `None` for the whole.
    pub(super) size: u64,
    pub(super) parts: Option<Vec<(u64, u64)>>,
    /// Records about this one.
    pub(super) records: Vec<pax::Record>,
    /// Of a global header: the hash of all before it.
    pub(super) hash_before: Option<String>,
}

impl<'s> Stream<'s> {
    pub(super) fn new(from: Box<dyn Read + 's>) -> Self {
        Self { from, hash: blake3::Hasher::new() }
    }

    /// The next item; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Item>, VolumeError> {
        let (mut name, mut link, mut records) = (None, None, Vec::new());
        loop {
            let hash = self.hash.clone();
            let Some(header) = self.header()? else { return Ok(None) };
            let size = header.entry_size().map_err(|err| broken(&err))?;
            let kind = header.entry_type();
            match kind {
                EntryType::XHeader => records.extend(pax::parse(&self.extra(size)?)?),
                EntryType::GNULongName => name = Some(text(self.extra(size)?)),
                EntryType::GNULongLink => link = Some(text(self.extra(size)?)),
                _ => {
                    let last = |key: &[u8]| {
                        records
                            .iter()
                            .rev()
                            .find(|(known, _)| known == key)
                            .map(|(_, value): &pax::Record| value)
                    };
                    let number = |key: &[u8]| last(key).map(|value| pax::number(value)).transpose();
                    let name = last(b"GNU.sparse.name").or_else(|| last(b"path")).cloned().or(name);
                    let link = last(b"linkpath").cloned().or(link);
                    let stored = number(b"size")?.unwrap_or(size);
                    let mut item = Item {
                        kind,
                        name: name.unwrap_or_else(|| header.path_bytes().into_owned()),
                        link: link
                            .unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned()),
                        stored,
                        size: stored,
                        parts: None,
                        hash_before: (kind == EntryType::XGlobalHeader)
                            .then(|| hash.finalize().to_hex().to_string()),
                        header,
                        records: Vec::new(),
                    };
                    if kind == EntryType::GNUSparse {
                        self.old_sparse(&mut item)?;
                    } else if number(b"GNU.sparse.major")?.is_some() {
                        item.size = number(b"GNU.sparse.realsize")?.unwrap_or(stored);
                        self.new_sparse(&mut item)?;
                    } else if last(b"GNU.sparse.map").is_some() || last(b"GNU.sparse.numblocks").is_some() {
                        let why = "it has sparse files of an old form; make it with `tar --format=gnu`";
                        return Err(VolumeError::Archive { why: why.to_owned() });
                    }
                    item.records = records;
                    return Ok(Some(item));
                }
            }
        }
    }

    /// Reads some of an item's bytes, as many as are asked for.
    pub(super) fn bytes(&mut self, buffer: &mut [u8]) -> Result<(), VolumeError> {
        self.from.read_exact(buffer).map_err(|err| match err.kind() {
            io::ErrorKind::UnexpectedEof => cut_off(),
            _ => broken(&err),
        })?;
        self.hash.update(buffer);
        Ok(())
    }

    /// Reads what fills the last block of `stored` bytes.
    pub(super) fn padding(&mut self, stored: u64) -> Result<(), VolumeError> {
        let mut block = [0; BLOCK];
        let over = usize::try_from(stored % 512).unwrap_or(0);
        if over == 0 { Ok(()) } else { self.bytes(block.get_mut(over..).unwrap_or_default()) }
    }

    /// Reads a whole item of limited size, for instance a comment.
    pub(super) fn extra(&mut self, size: u64) -> Result<Vec<u8>, VolumeError> {
        if size > EXTRA_MAX {
            return Err(VolumeError::Archive { why: format!("a header in it is {size} bytes long") });
        }
        let mut body = vec![0; usize::try_from(size).unwrap_or(0)];
        self.bytes(&mut body)?;
        self.padding(size)?;
        Ok(body)
    }

    /// The next header. `None` at the end: a block of zeros, or the end of the stream where a header would be.
    fn header(&mut self) -> Result<Option<Header>, VolumeError> {
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        let mut filled = 0;
        while filled < block.len() {
            match self.from.read(block.get_mut(filled..).unwrap_or_default()) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(cut_off()),
                Ok(read) => filled += read,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => (),
                Err(err) => return Err(broken(&err)),
            }
        }
        self.hash.update(block);
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        // The field itself counts as spaces.
        let sum = block
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) });
        let sum: u32 = sum.sum();
        match header.cksum() {
            Ok(expected) if expected == sum => Ok(Some(header)),
            _ => Err(VolumeError::Archive {
                why: "it is damaged, or no tar archive: a header's sum is wrong".to_owned(),
            }),
        }
    }

    /// GNU's own form: four parts in the header, more in blocks after it.
    fn old_sparse(&mut self, item: &mut Item) -> Result<(), VolumeError> {
        let Some(gnu) = item.header.as_gnu() else {
            return Err(VolumeError::Archive { why: "a sparse file in it has no map".to_owned() });
        };
        item.size = gnu.real_size().map_err(|err| broken(&err))?;
        let mut list: Vec<(u64, u64)> = Vec::new();
        let mut more = gnu.is_extended();
        for part in gnu.sparse.iter().filter(|part| !part.is_empty()) {
            list.push((
                part.offset().map_err(|err| broken(&err))?,
                part.length().map_err(|err| broken(&err))?,
            ));
        }
        while more {
            let mut block = tar::GnuExtSparseHeader::new();
            self.bytes(block.as_mut_bytes())?;
            more = block.is_extended();
            for part in block.sparse().iter().filter(|part| !part.is_empty()) {
                list.push((
                    part.offset().map_err(|err| broken(&err))?,
                    part.length().map_err(|err| broken(&err))?,
                ));
            }
            check_count(&list)?;
        }
        item.parts = Some(checked(list, item.size, item.stored)?);
        Ok(())
    }

    /// The form of PAX: numbers on lines, in blocks before the data.
    fn new_sparse(&mut self, item: &mut Item) -> Result<(), VolumeError> {
        let mut text = Vec::new();
        let mut block = [0; BLOCK];
        let mut numbers: Vec<u64> = Vec::new();
        loop {
            item.stored = item.stored.checked_sub(512).ok_or_else(cut_off)?;
            self.bytes(&mut block)?;
            text.extend_from_slice(&block);
            let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            for line in text
                .drain(..whole)
                .collect::<Vec<u8>>()
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty())
            {
                // What fills the last block is no number.
                if line.iter().all(u8::is_ascii_digit) {
                    numbers.push(pax::number(line)?);
                }
            }
            let count = numbers.first().copied().and_then(|count| usize::try_from(count).ok());
            if numbers.len() > 2 * PARTS_MAX || count.is_some_and(|count| count > PARTS_MAX) {
                return Err(VolumeError::Archive {
                    why: "a sparse file in it has too many parts".to_owned(),
                });
            }
            if count.is_some_and(|count| numbers.len() > 2 * count) {
                break;
            }
        }
        let pairs = numbers.get(1..).unwrap_or_default().chunks_exact(2);
        let list = pairs.filter_map(|pair| Some((*pair.first()?, *pair.last()?))).collect();
        item.parts = Some(checked(list, item.size, item.stored)?);
        Ok(())
    }
}

fn check_count(list: &[(u64, u64)]) -> Result<(), VolumeError> {
    if list.len() <= PARTS_MAX {
        return Ok(());
    }
    Err(VolumeError::Archive { why: "a sparse file in it has too many parts".to_owned() })
}

/// Parts as beginning and end, in order, in the file, and together as long as what follows.
fn checked(list: Vec<(u64, u64)>, size: u64, stored: u64) -> Result<Vec<(u64, u64)>, VolumeError> {
    let refuse =
        || VolumeError::Archive { why: "a sparse file in it has a map that is not possible".to_owned() };
    let (mut at, mut sum) = (0, 0_u64);
    let mut parts = Vec::with_capacity(list.len());
    for (offset, length) in list {
        let end = offset.checked_add(length).filter(|end| offset >= at && *end <= size).ok_or_else(refuse)?;
        sum += length;
        at = end;
        parts.push((offset, end));
    }
    if sum == stored { Ok(parts) } else { Err(refuse()) }
}

fn text(mut bytes: Vec<u8>) -> Vec<u8> {
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    bytes
}

pub(super) fn cut_off() -> VolumeError {
    VolumeError::Archive { why: "it is cut off".to_owned() }
}

pub(super) fn broken(err: &io::Error) -> VolumeError {
    VolumeError::Archive { why: err.to_string() }
}
