//! Names, as labels with their lengths in front and without the empty one of the root.
//!
//! A length is at most 63 and so never an upper-case letter: a whole name is lower-cased byte by byte.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest name, its root label not counted (RFC 1035, section 2.3.4).
const MAX: usize = 254;

/// `text` as a name in lower case, or nothing if it cannot be one. A dot at the end changes nothing.
pub(crate) fn wire_of(text: &str) -> Option<Vec<u8>> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let mut wire = Vec::with_capacity(text.len() + 1);
    for label in text.split('.') {
        let len = u8::try_from(label.len()).ok().filter(|len| (1..=63).contains(len))?;
        wire.push(len);
        wire.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
    }
    (wire.len() <= MAX).then_some(wire)
}

/// A name as text, without a dot at the end, whether or not it has the root's label. Bytes that are no letter, digit, `-` or `_` are escaped as in zone files, so
/// that nothing gets onto a terminal that was not meant for it.
pub(crate) fn text_of(name: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(name.len());
    for label in labels(name) {
        if !text.is_empty() {
            text.push('.');
        }
        for byte in label {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
                text.push(char::from(*byte));
            } else {
                let _ = write!(text, "\\{byte:03}");
            }
        }
    }
    if text.is_empty() { ".".to_owned() } else { text }
}

/// What stands before `suffix` in `name`: nothing if it does not end so, an empty name if both are the same.
pub(crate) fn below<'n>(name: &'n [u8], suffix: &[u8]) -> Option<&'n [u8]> {
    if suffix.is_empty() {
        return Some(name);
    }
    let rest = name.strip_suffix(suffix)?;
    // The bytes of the suffix could be the inside of a label.
    let mut at = 0;
    while at < rest.len() {
        at += 1 + usize::from(*rest.get(at)?);
    }
    (at == rest.len()).then_some(rest)
}

/// The labels of a name.
pub(crate) fn labels(name: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    let mut found = Vec::new();
    let mut rest = name;
    while let Some((len, after)) = rest.split_first().filter(|(len, _)| **len != 0) {
        let Some((label, next)) = after.split_at_checked(usize::from(*len)) else { break };
        found.push(label);
        rest = next;
    }
    found.into_iter()
}

/// What a name below `in-addr.arpa` or `ip6.arpa` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reverse {
    /// One address.
    Addr(IpAddr),
    /// All addresses that begin so: the name of a zone, not of an address.
    Prefix(IpAddr, u8),
}

const IN_ADDR: &[u8] = b"\x07in-addr\x04arpa";
const IP6: &[u8] = b"\x03ip6\x04arpa";

/// The address or prefix that the lower-cased `name` is the reverse of.
pub(crate) fn reverse(name: &[u8]) -> Option<Reverse> {
    if let Some(rest) = below(name, IN_ADDR) {
        return reverse_v4(rest);
    }
    below(name, IP6).and_then(reverse_v6)
}

fn reverse_v4(rest: &[u8]) -> Option<Reverse> {
    let mut octets = [0_u8; 4];
    let mut count = 0_u8;
    for (label, octet) in labels(rest).rev().zip(octets.iter_mut()) {
        let text = std::str::from_utf8(label).ok()?;
        // `01` is another name than `1`, and not one that is ever given.
        let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        *octet = text.parse().ok().filter(|_| plain)?;
        count += 1;
    }
    let addr = IpAddr::V4(Ipv4Addr::from(octets));
    match labels(rest).count() {
        4 => Some(Reverse::Addr(addr)),
        1..=3 => Some(Reverse::Prefix(addr, count * 8)),
        // Below an address, or all of them.
        _ => None,
    }
}

fn reverse_v6(rest: &[u8]) -> Option<Reverse> {
    let mut bits = 0_u128;
    let mut count = 0_u8;
    for label in labels(rest).rev().take(32) {
        let [digit] = label else { return None };
        bits |= u128::from(char::from(*digit).to_digit(16)?) << (124 - 4 * u32::from(count));
        count += 1;
    }
    let addr = IpAddr::V6(Ipv6Addr::from_bits(bits));
    match labels(rest).count() {
        32 => Some(Reverse::Addr(addr)),
        1..=31 => Some(Reverse::Prefix(addr, count * 4)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_labels_and_text_again() {
        assert_eq!(wire_of("Web.Net").unwrap(), b"\x03web\x03net");
        assert_eq!(wire_of("web.net.").unwrap(), b"\x03web\x03net");
        assert_eq!(text_of(b"\x03web\x03net"), "web.net");
        assert_eq!(text_of(b""), ".");
        assert_eq!(text_of(b"\x03a.b\x02\x1b["), "a\\046b.\\027\\091");
    }

    #[test]
    fn what_cannot_be_a_name_is_none() {
        let (label, name) = ("a".repeat(64), format!("{}a", "ab.".repeat(85)));
        for bad in ["", ".", "a..b", ".a", &label, &name] {
            assert_eq!(wire_of(bad), None, "{bad:?}");
        }
        assert!(wire_of(&"a".repeat(63)).is_some());
    }

    #[test]
    fn a_suffix_ends_at_a_label() {
        let name = wire_of("web.net.berth.internal").unwrap();
        assert_eq!(below(&name, &wire_of("berth.internal").unwrap()), Some(&b"\x03web\x03net"[..]));
        assert_eq!(below(&name, &name), Some(&b""[..]));
        assert_eq!(below(&name, &wire_of("other").unwrap()), None);
        // The byte `\x03` in a label, followed by what looks like one.
        assert_eq!(below(b"\x05a\x03net", b"\x03net"), None);
    }

    #[test]
    fn reverse_names_are_addresses_or_prefixes() {
        let of = |text: &str| reverse(&wire_of(text).unwrap());
        assert_eq!(of("2.1.80.10.in-addr.arpa"), Some(Reverse::Addr("10.80.1.2".parse().unwrap())));
        assert_eq!(of("1.80.10.in-addr.arpa"), Some(Reverse::Prefix("10.80.1.0".parse().unwrap(), 24)));
        for none in [
            "02.1.80.10.in-addr.arpa",
            "256.1.80.10.in-addr.arpa",
            "a.2.1.80.10.in-addr.arpa",
            "in-addr.arpa",
            "x",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
        let addr: Ipv6Addr = "fd00:80:1::2".parse().unwrap();
        let nibbles: Vec<String> =
            format!("{:032x}", addr.to_bits()).chars().rev().map(String::from).collect();
        assert_eq!(of(&format!("{}.ip6.arpa", nibbles.join("."))), Some(Reverse::Addr(addr.into())));
        assert_eq!(of("0.0.d.f.ip6.arpa"), Some(Reverse::Prefix("fd00::".parse().unwrap(), 16)));
    }
}
