//! DNS messages, as far as the server reads and writes them itself (RFC 1035, RFC 6891).
//!
//! Nothing here allocates on the path of a question that is answered from the zone: a question is read into a [`Query`] that
//! is used again, and its answer is written behind it into the buffer it came in. Answers of other servers are only walked
//! through (`message`): their bytes are passed on as they are.
//!
//! Nothing here trusts a length, a count or a pointer, and nothing recurses.

pub(crate) mod message;
mod name;
mod query;
mod reply;
#[cfg(test)]
mod tests;

pub(crate) use name::{Reverse, below, reverse, text_of, wire_of};
pub use query::{Edns, Query, Unusable};
pub(crate) use reply::{Reply, refuse_header};

/// Where a message's first question begins: behind the header.
pub(crate) const HEADER: usize = 12;
/// The most that is answered over UDP, whatever a client says it takes: it passes every link unfragmented (DNS flag day 2020).
pub(crate) const UDP_MAX: usize = 1232;
/// The same, as EDNS says it.
pub(crate) const UDP_SIZE: [u8; 2] = 1232_u16.to_be_bytes();
/// What a client takes over UDP that says nothing (RFC 1035, section 2.3.4).
pub(crate) const UDP_PLAIN: usize = 512;

/// Types of records, by number.
pub mod kind {
    /// IPv4 address.
    pub const A: u16 = 1;
    /// Name server.
    pub const NS: u16 = 2;
    /// Another name.
    pub const CNAME: u16 = 5;
    /// Start of authority.
    pub const SOA: u16 = 6;
    /// Name of an address.
    pub const PTR: u16 = 12;
    /// Text.
    pub const TXT: u16 = 16;
    /// IPv6 address.
    pub const AAAA: u16 = 28;
    /// Location of a service.
    pub const SRV: u16 = 33;
    /// Another subtree.
    pub const DNAME: u16 = 39;
    /// The pseudo record of EDNS.
    pub const OPT: u16 = 41;
    /// Delegation signer.
    pub const DS: u16 = 43;
    /// Signature.
    pub const RRSIG: u16 = 46;
    /// Key of a zone.
    pub const DNSKEY: u16 = 48;
    /// All there is.
    pub const ANY: u16 = 255;

    const NAMES: [(u16, &str); 17] = [
        (A, "A"),
        (NS, "NS"),
        (CNAME, "CNAME"),
        (SOA, "SOA"),
        (PTR, "PTR"),
        (15, "MX"),
        (TXT, "TXT"),
        (AAAA, "AAAA"),
        (SRV, "SRV"),
        (35, "NAPTR"),
        (DNAME, "DNAME"),
        (DS, "DS"),
        (RRSIG, "RRSIG"),
        (DNSKEY, "DNSKEY"),
        (64, "SVCB"),
        (65, "HTTPS"),
        (ANY, "ANY"),
    ];

    /// The type called `text`, in either case: a common name, or `TYPE` and a number (RFC 3597).
    pub(crate) fn from_text(text: &str) -> Option<u16> {
        let upper = text.to_ascii_uppercase();
        let known = NAMES.iter().find(|(_, name)| *name == upper).map(|(number, _)| *number);
        known.or_else(|| upper.strip_prefix("TYPE")?.parse().ok())
    }

    /// What type `number` is called.
    pub(crate) fn to_text(number: u16) -> String {
        let known = NAMES.iter().find(|(known, _)| *known == number);
        known.map_or_else(|| format!("TYPE{number}"), |(_, name)| (*name).to_owned())
    }
}

/// Response codes, by number.
pub mod rcode {
    /// Answered.
    pub const NOERROR: u8 = 0;
    /// The question cannot be understood.
    pub const FORMERR: u8 = 1;
    /// The answer could not be found out.
    pub const SERVFAIL: u8 = 2;
    /// There is no such name.
    pub const NXDOMAIN: u8 = 3;
    /// The operation is not known.
    pub const NOTIMP: u8 = 4;
    /// Not for this client.
    pub const REFUSED: u8 = 5;
    /// The version of EDNS is not known; its upper bits are in the pseudo record.
    pub const BADVERS: u8 = 16;
}

/// Reasons in an answer, RFC 8914.
pub(crate) mod ede {
    /// The question is not for this server's policy.
    pub(crate) const PROHIBITED: u16 = 18;
    /// No server that knows could be reached.
    pub(crate) const NO_REACHABLE_AUTHORITY: u16 = 22;
    /// The network failed.
    pub(crate) const NETWORK_ERROR: u16 = 23;
}

/// Two bytes at `at`.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|pair| u16::from_be_bytes(*pair))
}

/// Four bytes at `at`.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|four| u32::from_be_bytes(*four))
}

/// Writes `value` at `at`, where there is room for it.
pub(crate) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..).and_then(|rest| rest.get_mut(..value.len())) {
        place.copy_from_slice(value);
    }
}
