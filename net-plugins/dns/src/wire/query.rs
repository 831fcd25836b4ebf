//! A question, read from what a client sent.

use super::{HEADER, kind, u16_at};

/// A query, read. It is made once and filled again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The name asked for, in lower case, without the root's label.
    name: Vec<u8>,
    /// What is asked for.
    pub kind: u16,
    /// The class; 1 is the Internet.
    pub class: u16,
    /// The client's flags, the second two bytes of the header.
    pub flags: u16,
    /// Where the question ends in the message.
    pub end: usize,
    /// The extension, if the client speaks it.
    pub edns: Option<Edns>,
    /// Whether there are records besides the extension: a signature, for instance.
    pub extra: bool,
}

/// What a client's EDNS record says, RFC 6891.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edns {
    /// How much it takes over UDP.
    pub udp_size: u16,
    /// The version; 0 is the only one there is.
    pub version: u8,
    /// Whether it wants DNSSEC's records.
    pub dnssec: bool,
    /// Whether an option changes what the answer is, so that it is for this client only: the client's subnet for instance.
    pub personal: bool,
}

/// Why there is no question in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// Too short for a header, or itself an answer: answering it could make two servers talk for ever.
    Silent,
    /// The header can be answered with this code.
    Code(u8),
}

/// Options that say nothing about what is asked for: DNS cookies, keep-alive and padding.
const IMPERSONAL: [u16; 3] = [10, 11, 12];

impl Default for Query {
    fn default() -> Self {
        Self { name: Vec::with_capacity(255), kind: 0, class: 0, flags: 0, end: 0, edns: None, extra: false }
    }
}

impl Query {
    /// The name asked for, in lower case, as labels without the root's.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Whether the client asks for recursion.
    pub fn recursion_desired(&self) -> bool {
        self.flags & 0x0100 != 0
    }

    /// A question that no client sent.
    pub(crate) fn asking(name: &[u8], kind: u16) -> Self {
        let end = HEADER + name.len() + 5;
        Self { name: name.to_vec(), kind, class: 1, flags: 0x0100, end, ..Self::default() }
    }

    /// Reads `message` into this query. What is here after a failure is of no use.
    pub fn read(&mut self, message: &[u8]) -> Result<(), Unusable> {
        let (Some(flags), Some(questions)) = (u16_at(message, 2), u16_at(message, 4)) else {
            return Err(Unusable::Silent);
        };
        if message.len() < HEADER || flags & 0x8000 != 0 {
            return Err(Unusable::Silent);
        }
        if flags & 0x7800 != 0 {
            return Err(Unusable::Code(super::rcode::NOTIMP));
        }
        self.flags = flags;
        self.edns = None;
        self.extra = false;
        let whole = if questions == 1 { self.read_question(message) } else { None };
        whole.and_then(|()| self.read_rest(message)).ok_or(Unusable::Code(super::rcode::FORMERR))
    }

    fn read_question(&mut self, message: &[u8]) -> Option<()> {
        let mut at = HEADER;
        loop {
            let len = usize::from(*message.get(at)?);
            if len == 0 {
                break;
            }
            // No pointers: there is nothing before the first name that one could point to.
            if len > 63 {
                return None;
            }
            at += 1 + len;
            if at - HEADER > 254 {
                return None;
            }
        }
        self.name.clear();
        self.name.extend_from_slice(message.get(HEADER..at)?);
        self.name.make_ascii_lowercase();
        self.kind = u16_at(message, at + 1)?;
        self.class = u16_at(message, at + 3)?;
        self.end = at + 5;
        Some(())
    }

    /// The records behind the question. Most clients send none, or the one of EDNS.
    fn read_rest(&mut self, message: &[u8]) -> Option<()> {
        let [answers, authorities, additional] = [6, 8, 10].map(|at| u16_at(message, at));
        let before = u32::from(answers?) + u32::from(authorities?);
        let mut at = self.end;
        for number in 0..before + u32::from(additional?) {
            let record = super::message::Record::read(message, at)?;
            if record.kind == kind::OPT && number >= before {
                // Two of them, or one for a name, is an error (RFC 6891, section 6.1.1).
                if self.edns.is_some() || message.get(at) != Some(&0) {
                    return None;
                }
                self.edns = Some(edns_of(message, &record)?);
            } else {
                self.extra = true;
            }
            at = record.end;
        }
        // What follows the last record was counted nowhere.
        (at == message.len()).then_some(())
    }
}

fn edns_of(message: &[u8], record: &super::message::Record) -> Option<Edns> {
    let mut options = message.get(record.data..record.end)?;
    let mut personal = false;
    while !options.is_empty() {
        let (code, len) = (u16_at(options, 0)?, u16_at(options, 2)?);
        personal |= !IMPERSONAL.contains(&code);
        options = options.get(4 + usize::from(len)..)?;
    }
    let [_, version, flags, _] = record.ttl.to_be_bytes();
    Some(Edns { udp_size: record.class, version, dnssec: flags & 0x80 != 0, personal })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(questions: u16, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0xab, 0xcd, 1, 0];
        bytes.extend(questions.to_be_bytes());
        bytes.extend([0; 6]);
        bytes.extend(rest);
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Query, Unusable> {
        let mut query = Query::default();
        query.read(bytes).map(|()| query)
    }

    const FORMERR: Result<Query, Unusable> = Err(Unusable::Code(1));

    #[test]
    fn a_question_is_read_in_lower_case() {
        let query = read(&message(1, b"\x03WeB\x00\x00\x01\x00\x01")).unwrap();
        assert_eq!((query.name(), query.kind, query.class, query.end), (&b"\x03web"[..], 1, 1, 21));
        assert!(query.recursion_desired());
    }

    #[test]
    fn what_is_no_question_is_refused() {
        assert_eq!(read(&[0; 11]), Err(Unusable::Silent));
        let mut response = message(1, b"\x03web\x00\x00\x01\x00\x01");
        response[2] = 0x80;
        assert_eq!(read(&response), Err(Unusable::Silent));
        response[2] = 0x28;
        assert_eq!(read(&response), Err(Unusable::Code(4)));
        for questions in [0, 2, 65535] {
            assert_eq!(read(&message(questions, b"\x03web\x00\x00\x01\x00\x01")), FORMERR);
        }
        // A pointer to itself, a label that is cut off, a question that is, and something behind it.
        for rest in [
            &b"\xc0\x0c\x00\x01\x00\x01"[..],
            b"\x09web",
            b"\x03web\x00\x00\x01\x00",
            b"\x00\x00\x01\x00\x01x",
        ] {
            assert_eq!(read(&message(1, rest)), FORMERR, "{rest:?}");
        }
        let long = [&[63; 64][..]; 4].concat();
        assert_eq!(read(&message(1, &[&long, &b"\x00\x00\x01\x00\x01"[..]].concat())), FORMERR);
    }

    fn with_opt(opt: &[u8], count: u8) -> Vec<u8> {
        let mut bytes = message(1, &[b"\x03web\x00\x00\x01\x00\x01", opt].concat());
        bytes[11] = count;
        bytes
    }

    #[test]
    fn edns_is_read() {
        let query = read(&with_opt(b"\x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x00", 1)).unwrap();
        let edns = Edns { udp_size: 1232, version: 0, dnssec: true, personal: false };
        assert_eq!((query.edns, query.extra), (Some(edns), false));
        // A cookie says nothing of the answer, a subnet does.
        let cookie =
            read(&with_opt(b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x06\x00\x0a\x00\x02ab", 1)).unwrap();
        assert!(!cookie.edns.unwrap().personal);
        let subnet =
            read(&with_opt(b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x06\x00\x08\x00\x02ab", 1)).unwrap();
        assert!(subnet.edns.unwrap().personal);
    }

    #[test]
    fn broken_edns_is_refused() {
        let opt = b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00";
        assert_eq!(read(&with_opt(&[&opt[..], opt].concat(), 2)), FORMERR);
        assert_eq!(read(&with_opt(opt, 2)), FORMERR);
        assert_eq!(read(&with_opt(&[&b"\x03web"[..], opt].concat(), 1)), FORMERR);
        assert_eq!(read(&with_opt(b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x03\x00\x0a\x00", 1)), FORMERR);
    }
}
