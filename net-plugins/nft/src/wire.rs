//! Netlink messages of netfilter: writing them and taking them apart. Pure.
//!
//! Framing is `linux/netlink.h`: a 16-byte header, then `struct nfgenmsg`, then attributes padded to four bytes.

/// `NLMSG_HDRLEN` and `sizeof(struct nfgenmsg)`.
const HEADER: usize = 16;
const NFGENMSG: usize = 4;

/// `linux/netlink.h`, message types and flags.
pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;
pub(crate) const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_DUMP_INTR: u16 = 0x10;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_APPEND: u16 = 0x800;

/// `NLA_TYPE_MASK`: without the flags for nesting and byte order.
const TYPE_MASK: u16 = 0x3fff;
const NLA_F_NESTED: u16 = 0x8000;

/// What a message is, apart from its attributes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    /// `NFNL_SUBSYS_* << 8 | message`.
    pub(crate) kind: u16,
    /// Beside `NLM_F_REQUEST`, which is always set.
    pub(crate) flags: u16,
    pub(crate) seq: u32,
    /// `NFPROTO_*`.
    pub(crate) family: u8,
    /// `nfgenmsg.res_id`: the subsystem in a batch's first and last message, otherwise 0.
    pub(crate) res_id: u16,
}

/// Messages one after another, as they go into one send.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends a message whose attributes `fill` writes.
    pub(crate) fn message(&mut self, head: Head, fill: impl FnOnce(&mut Attrs<'_>)) {
        let start = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.bytes.extend(head.kind.to_ne_bytes());
        self.bytes.extend((head.flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend(head.seq.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend([head.family, 0]);
        self.bytes.extend(head.res_id.to_be_bytes());
        fill(&mut Attrs { bytes: &mut self.bytes });
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.patch(start, &length.to_ne_bytes());
    }

    fn patch(&mut self, at: usize, value: &[u8]) {
        if let Some(slot) = self.bytes.get_mut(at..at + value.len()) {
            slot.copy_from_slice(value);
        }
    }
}

/// Attributes being written.
pub(crate) struct Attrs<'a> {
    bytes: &'a mut Vec<u8>,
}

impl Attrs<'_> {
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) {
        let start = self.open(kind);
        self.bytes.extend(value);
        self.close(start);
    }

    /// Big-endian, as nf_tables writes its numbers.
    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// With the terminating zero.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        let start = self.open(kind);
        self.bytes.extend(value.as_bytes());
        self.bytes.push(0);
        self.close(start);
    }

    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Attrs<'_>)) {
        let start = self.open(kind | NLA_F_NESTED);
        fill(&mut Attrs { bytes: self.bytes });
        self.close(start);
    }

    /// Attributes that were read before, as they were.
    pub(crate) fn nest_bytes(&mut self, kind: u16, value: &[u8]) {
        self.bytes(kind | NLA_F_NESTED, value);
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend(kind.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) {
        let length = u16::try_from(self.bytes.len() - start)
            .expect("an attribute here is a few hundred bytes at most");
        if let Some(slot) = self.bytes.get_mut(start..start + 2) {
            slot.copy_from_slice(&length.to_ne_bytes());
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// One received message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) seq: u32,
    /// After the netlink header.
    payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The messages of one datagram. Ends early at a malformed one.
    pub(crate) fn each(mut datagram: &'a [u8]) -> impl Iterator<Item = Self> {
        std::iter::from_fn(move || {
            let length = usize::try_from(u32_at(datagram, 0)?).ok()?;
            let payload = datagram.get(HEADER..length)?;
            let message = Self {
                kind: u16_at(datagram, 4)?,
                flags: u16_at(datagram, 6)?,
                seq: u32_at(datagram, 8)?,
                payload,
            };
            datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some(message)
        })
    }

    /// The error number of an `NLMSG_ERROR` or an `NLMSG_DONE`, positive; 0 is success.
    pub(crate) fn errno(&self) -> Option<i32> {
        let number = self.payload.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
        match self.kind {
            NLMSG_ERROR => number.map(i32::wrapping_neg),
            NLMSG_DONE => Some(number.unwrap_or(0).wrapping_neg()),
            _ => None,
        }
    }

    pub(crate) fn attrs(&self) -> AttrSet<'a> {
        AttrSet { bytes: self.payload.get(NFGENMSG..).unwrap_or_default() }
    }
}

/// Attributes being read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttrSet<'a> {
    bytes: &'a [u8],
}

impl<'a> AttrSet<'a> {
    /// Every attribute's type and value. Ends early at a malformed one.
    pub(crate) fn each(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut rest = self.bytes;
        std::iter::from_fn(move || {
            let length = usize::from(u16_at(rest, 0)?);
            let kind = u16_at(rest, 2)? & TYPE_MASK;
            let value = rest.get(4..length)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some((kind, value))
        })
    }

    pub(crate) fn get(self, kind: u16) -> Option<&'a [u8]> {
        self.each().find_map(|(found, value)| (found == kind).then_some(value))
    }

    pub(crate) fn nested(self, kind: u16) -> Option<AttrSet<'a>> {
        self.get(kind).map(|bytes| AttrSet { bytes })
    }

    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(crate) fn u32(self, kind: u16) -> Option<u32> {
        self.get(kind)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
    }

    /// Without the terminating zero.
    pub(crate) fn text(self, kind: u16) -> Option<&'a str> {
        let bytes = self.get(kind)?;
        std::str::from_utf8(bytes.strip_suffix(&[0]).unwrap_or(bytes)).ok()
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|value| u16::from_ne_bytes(*value))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|value| u32::from_ne_bytes(*value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut writer = Writer::default();
        for seq in [7, 8] {
            let head = Head { kind: 0xa0c, flags: NLM_F_ACK, seq, family: 1, res_id: 0 };
            writer.message(head, |attrs| {
                attrs.text(1, "berth");
                attrs.nest(2, |attrs| attrs.u32(3, seq));
            });
        }
        let read: Vec<_> = Message::each(writer.as_bytes()).collect();
        assert_eq!(read.len(), 2);
        assert_eq!((read[1].kind, read[1].flags, read[1].seq), (0xa0c, NLM_F_ACK | NLM_F_REQUEST, 8));
        assert_eq!(read[1].attrs().text(1), Some("berth"));
        assert_eq!(read[1].attrs().nested(2).and_then(|attrs| attrs.u32(3)), Some(8));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for message in Message::each(&bytes) {
                message.errno();
                message.attrs().each().count();
            }
        }
    }
}
