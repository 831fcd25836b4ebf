//! What is on a device or in an image: read from its first blocks, never guessed from a name.
//!
//! The layouts are those of the kernel's `fs/ext4/ext4.h`, `fs/xfs/libxfs/xfs_format.h` and `fs/btrfs/tree.h`. Nothing is
//! written, and a file that is shorter than a layout simply does not match it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::options::Filesystem;

/// A signature that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signature {
    /// What it is, for instance `xfs` or `LVM`.
    pub(crate) name: &'static str,
    /// The file system, if it is one that berth mounts.
    pub(crate) filesystem: Option<FilesystemInfo>,
}

/// What the superblock says of a file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FilesystemInfo {
    /// Its kind; ext2 and ext3 are what ext4 mounts too.
    pub(crate) kind: Filesystem,
    /// Its identity, as text.
    pub(crate) uuid: String,
    /// Bytes in all, and in use when it was last written back.
    pub(crate) space: (u64, u64),
}

/// Signatures of what berth does not mount: where, the bytes, what it is.
const OTHERS: &[(u64, &[u8], &str)] = &[
    (0, b"LUKS\xba\xbe", "LUKS"),
    (0, b"hsqs", "squashfs"),
    (512, b"LABELONE", "LVM"),
    (512, b"EFI PART", "a partition table"),
    (510, b"\x55\xaa", "a partition table or boot sector"),
    (1024, b"\x10\x20\xf5\xf2", "f2fs"),
    (1024, b"\xe2\xe1\xf5\xe0", "erofs"),
    (4086, b"SWAPSPACE2", "swap"),
    (4096, b"\xfc\x4e\x2b\xa9", "a RAID member"),
    (32769, b"CD001", "iso9660"),
];

/// Looks for a signature; `None` where there is none that is known.
pub(crate) fn signature(file: &File) -> io::Result<Option<Signature>> {
    // Filesystems first: some of them leave a boot sector's bytes alone.
    for read in [ext, xfs, btrfs] {
        if let Some(filesystem) = read(file)? {
            return Ok(Some(Signature { name: filesystem.kind.name(), filesystem: Some(filesystem) }));
        }
    }
    for (offset, bytes, name) in OTHERS {
        if block(file, *offset, bytes.len())?.as_deref() == Some(bytes) {
            return Ok(Some(Signature { name, filesystem: None }));
        }
    }
    Ok(None)
}

fn ext(file: &File) -> io::Result<Option<FilesystemInfo>> {
    let Some(block) = block(file, 1024, 1024)? else { return Ok(None) };
    if le16(&block, 56) != 0xef53 {
        return Ok(None);
    }
    let (compat, incompat) = (le32(&block, 92), le32(&block, 96));
    // Extents, 64 bit, flexible groups: only ext4 has them. A journal without them is ext3.
    let kind = match (incompat & 0x2c0 != 0, compat & 0x4 != 0) {
        (true, _) => Filesystem::Ext4,
        (false, true) => Filesystem::Ext3,
        (false, false) => Filesystem::Ext2,
    };
    let high = |offset| if incompat & 0x80 != 0 { le32(&block, offset) << 32 } else { 0 };
    let size = 1024_u64.checked_shl(u32::try_from(le32(&block, 24)).unwrap_or(64)).unwrap_or(0);
    let (blocks, free) = (le32(&block, 4) | high(336), le32(&block, 12) | high(344));
    let space = (blocks.saturating_mul(size), blocks.saturating_sub(free).saturating_mul(size));
    Ok(Some(FilesystemInfo { kind, uuid: uuid(&block, 104), space }))
}

fn xfs(file: &File) -> io::Result<Option<FilesystemInfo>> {
    let Some(block) = block(file, 0, 512)? else { return Ok(None) };
    if !block.starts_with(b"XFSB") {
        return Ok(None);
    }
    let size = be(&block, 4, 4);
    let (blocks, free) = (be(&block, 8, 8), be(&block, 144, 8));
    let space = (blocks.saturating_mul(size), blocks.saturating_sub(free).saturating_mul(size));
    Ok(Some(FilesystemInfo { kind: Filesystem::Xfs, uuid: uuid(&block, 32), space }))
}

fn btrfs(file: &File) -> io::Result<Option<FilesystemInfo>> {
    let Some(block) = block(file, 64 << 10, 512)? else { return Ok(None) };
    if block.get(0x40..0x48) != Some(b"_BHRfS_M") {
        return Ok(None);
    }
    let space = (le(&block, 0x70, 8), le(&block, 0x78, 8));
    Ok(Some(FilesystemInfo { kind: Filesystem::Btrfs, uuid: uuid(&block, 0x20), space }))
}

/// `len` bytes at `offset`, or `None` where the file ends before.
fn block(file: &File, offset: u64, len: usize) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; len];
    match file.read_exact_at(&mut bytes, offset) {
        Ok(()) => Ok(Some(bytes)),
        Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(err) => Err(err),
    }
}

fn le(block: &[u8], offset: usize, len: usize) -> u64 {
    let bytes = block.get(offset..offset + len).unwrap_or_default();
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn le16(block: &[u8], offset: usize) -> u64 {
    le(block, offset, 2)
}

fn le32(block: &[u8], offset: usize) -> u64 {
    le(block, offset, 4)
}

fn be(block: &[u8], offset: usize, len: usize) -> u64 {
    let bytes = block.get(offset..offset + len).unwrap_or_default();
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn uuid(block: &[u8], offset: usize) -> String {
    let bytes = block.get(offset..offset + 16).unwrap_or_default();
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write as _;

    fn file(parts: &[(usize, &[u8])]) -> File {
        let mut bytes = vec![0; 128 << 10];
        for (offset, part) in parts {
            bytes[*offset..offset + part.len()].copy_from_slice(part);
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file
    }

    #[test]
    fn nothing_is_found_in_zeros_and_in_nothing() {
        assert_eq!(signature(&file(&[])).unwrap(), None);
        assert_eq!(signature(&tempfile::tempfile().unwrap()).unwrap(), None);
    }

    #[test]
    fn file_systems_are_told_apart() {
        let id: Vec<u8> = (0..16).collect();
        let text = "00010203-0405-0607-0809-0a0b0c0d0e0f";
        let ext4 = file(&[
            (1024 + 56, b"\x53\xef"),
            (1024 + 96, b"\x40"),
            (1024 + 104, &id),
            (1024 + 4, b"\x64"),
            (1024 + 12, b"\x32"),
        ]);
        let found = signature(&ext4).unwrap().unwrap().filesystem.unwrap();
        assert_eq!((found.kind, found.uuid.as_str()), (Filesystem::Ext4, text));
        assert_eq!(found.space, (100 << 10, 50 << 10));
        let xfs = file(&[(0, b"XFSB\0\0\x10\0\0\0\0\0\0\0\0\x0a"), (32, &id), (151, b"\x04")]);
        let found = signature(&xfs).unwrap().unwrap().filesystem.unwrap();
        assert_eq!((found.kind, found.space), (Filesystem::Xfs, (40 << 10, 24 << 10)));
        let btrfs = file(&[((64 << 10) + 0x40, b"_BHRfS_M"), ((64 << 10) + 0x20, &id)]);
        assert_eq!(signature(&btrfs).unwrap().unwrap().name, "btrfs");
    }

    #[test]
    fn what_is_not_mounted_is_still_recognised() {
        for (offset, bytes, name) in OTHERS {
            let found = signature(&file(&[(usize::try_from(*offset).unwrap(), bytes)])).unwrap().unwrap();
            assert_eq!((found.name, found.filesystem), (*name, None));
        }
    }

    proptest! {
        #[test]
        fn no_content_makes_it_panic(head in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&head).unwrap();
            let _ = signature(&file).unwrap();
        }
    }
}
