//! An answer, written behind its question in the buffer that the question came in.

use super::{HEADER, Query, UDP_SIZE, put, rcode, u16_at};

/// A pointer to the name of the question.
const TO_QUESTION: [u8; 2] = [0xc0, 0x0c];
/// The bytes of an EDNS record without options.
const OPT: usize = 11;

/// An answer being written.
#[derive(Debug)]
pub(crate) struct Reply<'b> {
    buffer: &'b mut [u8],
    len: usize,
    /// What may be filled with records: room for the EDNS record is kept.
    room: usize,
    answers: u16,
    truncated: bool,
}

impl<'b> Reply<'b> {
    /// Begins the answer to `query`, which is in `buffer`, with `limit` bytes at most.
    pub(crate) fn new(buffer: &'b mut [u8], query: &Query, limit: usize) -> Self {
        let kept = if query.edns.is_some() { OPT } else { 0 };
        let room = limit.min(buffer.len()).saturating_sub(kept);
        Self { buffer, len: query.end, room, answers: 0, truncated: false }
    }

    /// Adds a record of the name asked for. What does not fit is left out and the answer says so.
    pub(crate) fn record(&mut self, kind: u16, ttl: u32, data: &[u8]) {
        let size = 12 + data.len();
        let place =
            self.buffer.get_mut(..self.room).and_then(|room| room.get_mut(self.len..)?.get_mut(..size));
        let (Some(place), Ok(len)) = (place, u16::try_from(data.len())) else {
            self.truncated = true;
            return;
        };
        let mut fixed = [0_u8; 12];
        put(&mut fixed, 0, &TO_QUESTION);
        put(&mut fixed, 2, &kind.to_be_bytes());
        put(&mut fixed, 4, &[0, 1]);
        put(&mut fixed, 6, &ttl.to_be_bytes());
        put(&mut fixed, 10, &len.to_be_bytes());
        let (head, tail) = place.split_at_mut(12);
        head.copy_from_slice(&fixed);
        tail.copy_from_slice(data);
        self.len += size;
        self.answers += 1;
    }

    /// Whether something was left out, so that no more need be tried.
    pub(crate) fn is_full(&self) -> bool {
        self.truncated
    }

    /// Writes header and EDNS. Returns the length of the whole.
    pub(crate) fn finish(mut self, query: &Query, code: u8, reason: Option<u16>) -> usize {
        // QR, the client's RD and CD, RA. AA where there is something to have authority over.
        let authority = if matches!(code, rcode::NOERROR | rcode::NXDOMAIN) { 0x0400 } else { 0 };
        let truncated = if self.truncated { 0x0200 } else { 0 };
        let flags = 0x8080 | (query.flags & 0x0110) | authority | truncated | u16::from(code & 0x0f);
        let edns = query.edns.is_some();
        let counts = [1, self.answers, 0, u16::from(edns)];
        put(self.buffer, 2, &flags.to_be_bytes());
        for (at, count) in [4, 6, 8, 10].into_iter().zip(counts) {
            put(self.buffer, at, &count.to_be_bytes());
        }
        if edns {
            self.write_edns(query, code, reason);
        }
        self.len
    }

    fn write_edns(&mut self, query: &Query, code: u8, reason: Option<u16>) {
        let dnssec = query.edns.is_some_and(|edns| edns.dnssec);
        let mut opt = [0_u8; OPT + 6];
        put(&mut opt, 1, &super::kind::OPT.to_be_bytes());
        put(&mut opt, 3, &UDP_SIZE);
        put(&mut opt, 5, &[code >> 4, 0, if dnssec { 0x80 } else { 0 }, 0]);
        let mut size = OPT;
        // Only answers without records have a reason: there is room.
        if let Some(reason) = reason {
            put(&mut opt, 10, &[6, 0, 15, 0, 2]);
            put(&mut opt, 15, &reason.to_be_bytes());
            size += 6;
        }
        put(self.buffer, self.len, opt.get(..size).unwrap_or_default());
        self.len = (self.len + size).min(self.buffer.len());
    }
}

/// Turns what is in `buffer`, which need not be a question, into an answer of a header alone. Returns its length.
pub(crate) fn refuse_header(buffer: &mut [u8], code: u8) -> usize {
    let flags = u16_at(buffer, 2).unwrap_or(0);
    let flags = 0x8080 | (flags & 0x7910) | u16::from(code & 0x0f);
    put(buffer, 2, &flags.to_be_bytes());
    put(buffer, 4, &[0; 8]);
    HEADER
}
