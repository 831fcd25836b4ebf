//! Walking through messages of others, whose names may be compressed.

use super::{HEADER, u16_at, u32_at};

/// One record, by where its parts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    /// Its type.
    pub(crate) kind: u16,
    /// Its class; with EDNS, the size of datagrams.
    pub(crate) class: u16,
    /// How long it may be kept, seconds; with EDNS, flags.
    pub(crate) ttl: u32,
    /// Where it begins.
    pub(crate) start: usize,
    /// Where its data begins; the length is in the two bytes before, the lifetime in the four before these.
    pub(crate) data: usize,
    /// Where it ends.
    pub(crate) end: usize,
}

impl Record {
    /// Reads the record at `at`.
    pub(crate) fn read(message: &[u8], at: usize) -> Option<Self> {
        let fixed = skip_name(message, at)?;
        let len = usize::from(u16_at(message, fixed + 8)?);
        let data = fixed + 10;
        let end = data + len;
        if end > message.len() {
            return None;
        }
        Some(Self {
            kind: u16_at(message, fixed)?,
            class: u16_at(message, fixed + 2)?,
            ttl: u32_at(message, fixed + 4)?,
            start: at,
            data,
            end,
        })
    }
}

/// The section a record is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Section {
    /// What was asked for.
    Answer,
    /// Who knows.
    Authority,
    /// What helps.
    Additional,
}

/// The records of a message with one question, which ends at `end`. Ends early, with `None`, at one that is broken.
pub(crate) fn records(message: &[u8], end: usize) -> impl Iterator<Item = Option<(Section, Record)>> {
    let sections = [(6, Section::Answer), (8, Section::Authority), (10, Section::Additional)];
    let counted = sections.into_iter().flat_map(|(at, section)| {
        std::iter::repeat_n(section, usize::from(u16_at(message, at).unwrap_or(0)))
    });
    let mut at = Some(end);
    counted.map_while(move |section| {
        let record = Record::read(message, at?);
        at = record.map(|record| record.end);
        Some(record.map(|record| (section, record)))
    })
}

/// Where the name at `at` ends: behind its root label or its first pointer.
pub(crate) fn skip_name(message: &[u8], at: usize) -> Option<usize> {
    let mut at = at;
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            len @ 1..=63 => at += 1 + usize::from(len),
            // The second byte of a pointer has to be there too.
            192.. => return message.get(at + 1).map(|_| at + 2),
            // 01 and 10 are labels that nobody uses (RFC 6891, section 5).
            64..192 => return None,
        }
    }
}

/// The name at `at`, whole and in lower case, without the root's label.
pub(crate) fn name_at(message: &[u8], at: usize) -> Option<Vec<u8>> {
    let mut name = Vec::new();
    let mut at = at;
    // Every pointer must lead backwards, to before where the last one led: so this ends.
    let mut before = at;
    loop {
        match *message.get(at)? {
            0 => break,
            len @ 1..=63 => {
                let next = at + 1 + usize::from(len);
                name.extend_from_slice(message.get(at..next)?);
                at = next;
            }
            high @ 192.. => {
                at = usize::from(u16::from_be_bytes([high & 0x3f, *message.get(at + 1)?]));
                if at >= before || at < HEADER {
                    return None;
                }
                before = at;
            }
            64..192 => return None,
        }
        if name.len() > 254 {
            return None;
        }
    }
    name.make_ascii_lowercase();
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_lead_backwards_only() {
        let mut message = vec![0; HEADER];
        message.extend(b"\x03WeB\x00\x02ns\xc0\x0c\xc0\x15\xc0\x11");
        assert_eq!(name_at(&message, 12).unwrap(), b"\x03web");
        assert_eq!(name_at(&message, 17).unwrap(), b"\x02ns\x03web");
        // At 22 a pointer to itself less one, at 24 a good one.
        assert_eq!(name_at(&message, 24).unwrap(), b"\x02ns\x03web");
        assert_eq!(name_at(&message, 22), None);
        assert_eq!(skip_name(&message, 17), Some(22));
        assert_eq!(skip_name(&message, 25), None);
        assert_eq!(name_at(&[0xc0; 4000], 12), None);
    }
}
