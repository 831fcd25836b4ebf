//! Runs of addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use berth_types::Family;
use ipnetwork::IpNetwork;

use crate::json::parse_cidr;

/// A run of addresses of one family, both ends included, never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    family: Family,
    first: u128,
    last: u128,
}

/// The text is not an address, a prefix or two addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an address, a prefix (10.80.0.0/28) or a range (10.80.0.5-10.80.0.9)")]
pub struct SpanParseError {
    text: String,
}

impl Span {
    /// From `first` to `last`; `None` if they are of two families or in the wrong order.
    pub fn new(first: IpAddr, last: IpAddr) -> Option<Self> {
        let (family, first) = number(first);
        let (other, last) = number(last);
        (family == other && first <= last).then_some(Self { family, first, last })
    }

    /// One address.
    pub fn single(address: IpAddr) -> Self {
        let (family, first) = number(address);
        Self { family, first, last: first }
    }

    /// All addresses of a prefix, the network's own and the broadcast address included.
    pub fn of_network(network: IpNetwork) -> Self {
        let (family, first) = number(network.network());
        let host_bits = match family {
            Family::V4 => 32 - u32::from(network.prefix()),
            Family::V6 => 128 - u32::from(network.prefix()),
        };
        let mask = 1_u128.checked_shl(host_bits).map_or(u128::MAX, |size| size - 1);
        Self { family, first, last: first | mask }
    }

    /// The family of both ends.
    pub fn family(&self) -> Family {
        self.family
    }

    /// The lowest address.
    pub fn first(&self) -> IpAddr {
        address(self.family, self.first)
    }

    /// The highest address.
    pub fn last(&self) -> IpAddr {
        address(self.family, self.last)
    }

    /// Both ends.
    pub fn ends(&self) -> (IpAddr, IpAddr) {
        (self.first(), self.last())
    }

    /// The address `index` places after the first, if it is in it.
    pub fn nth(&self, index: u128) -> Option<IpAddr> {
        let number = self.first.checked_add(index).filter(|number| *number <= self.last)?;
        Some(address(self.family, number))
    }

    /// How many addresses; all of IPv6 counts as one less than there are.
    pub fn count(&self) -> u128 {
        (self.last - self.first).saturating_add(1)
    }

    /// Whether `address` is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (family, address) = number(address);
        family == self.family && (self.first..=self.last).contains(&address)
    }

    /// Whether both have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.family == other.family && self.first <= other.last && other.first <= self.last
    }

    /// What both have in common.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        self.overlaps(other).then(|| Self {
            family: self.family,
            first: self.first.max(other.first),
            last: self.last.min(other.last),
        })
    }

    /// The part after `address`, if any of it is.
    pub fn after(&self, address: IpAddr) -> Option<Self> {
        let (family, after) = number(address);
        let first = after.checked_add(1)?.max(self.first);
        (family == self.family && first <= self.last).then_some(Self { first, ..*self })
    }

    /// The part from `address` on, itself included, if any of it is.
    pub fn since(&self, address: IpAddr) -> Option<Self> {
        let (family, since) = number(address);
        let first = since.max(self.first);
        (family == self.family && first <= self.last).then_some(Self { first, ..*self })
    }

    /// The part up to `address`, itself excluded.
    pub fn before(&self, address: IpAddr) -> Option<Self> {
        let (family, before) = number(address);
        let last = before.checked_sub(1)?.min(self.last);
        (family == self.family && self.first <= last).then_some(Self { last, ..*self })
    }

    /// How far `address` is from the first one; 0 for an address before it or of another family.
    pub fn offset(&self, address: IpAddr) -> u128 {
        let (family, address) = number(address);
        if family == self.family { address.saturating_sub(self.first) } else { 0 }
    }

    /// What remains without `blocks`, which are in order and do not overlap.
    pub fn without(&self, blocks: &[Self]) -> Vec<Self> {
        let mut rest = Some(*self);
        let mut parts = Vec::new();
        for block in blocks.iter().filter(|block| block.overlaps(self)) {
            let Some(open) = rest else { break };
            parts.extend(open.before(block.first()));
            rest = open.after(block.last());
        }
        parts.extend(rest);
        parts
    }

    /// In order, with what touches or overlaps joined.
    pub fn merged(mut spans: Vec<Self>) -> Vec<Self> {
        spans.sort_unstable();
        let mut merged: Vec<Self> = Vec::with_capacity(spans.len());
        for span in spans {
            match merged.last_mut() {
                Some(open) if open.family == span.family && span.first <= open.last.saturating_add(1) => {
                    open.last = open.last.max(span.last);
                }
                _ => merged.push(span),
            }
        }
        merged
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first(), self.last())
    }
}

impl FromStr for Span {
    type Err = SpanParseError;

    /// Takes an address, a prefix, or two addresses with a `-` between them.
    fn from_str(text: &str) -> Result<Self, SpanParseError> {
        let fail = || SpanParseError { text: text.chars().take(60).collect() };
        if let Some((first, last)) = text.split_once('-') {
            let parse = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| fail());
            return Self::new(parse(first)?, parse(last)?).ok_or_else(fail);
        }
        if text.contains('/') {
            return parse_cidr(text).map(Self::of_network).ok_or_else(fail);
        }
        text.parse().map(Self::single).map_err(|_| fail())
    }
}

fn number(address: IpAddr) -> (Family, u128) {
    match address {
        IpAddr::V4(v4) => (Family::V4, u128::from(v4.to_bits())),
        IpAddr::V6(v6) => (Family::V6, v6.to_bits()),
    }
}

fn address(family: Family, number: u128) -> IpAddr {
    match family {
        Family::V4 => {
            let bits = u32::try_from(number).expect("a span of IPv4 is made of IPv4 addresses only");
            Ipv4Addr::from_bits(bits).into()
        }
        Family::V6 => Ipv6Addr::from_bits(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(text: &str) -> Span {
        text.parse().unwrap()
    }

    #[test]
    fn prefixes_reach_from_the_first_to_the_last_address() {
        for (text, first, last, count) in [
            ("10.80.0.0/24", "10.80.0.0", "10.80.0.255", 256),
            ("10.80.0.7/32", "10.80.0.7", "10.80.0.7", 1),
            ("0.0.0.0/0", "0.0.0.0", "255.255.255.255", 1 << 32),
            ("fd80::/64", "fd80::", "fd80::ffff:ffff:ffff:ffff", 1 << 64),
            ("::/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", u128::MAX),
        ] {
            let span = span(text);
            assert_eq!((span.first().to_string(), span.last().to_string()), (first.into(), last.into()));
            assert_eq!(span.count(), count, "{text}");
        }
    }

    #[test]
    fn texts_that_are_no_span_are_refused() {
        for text in [
            "",
            "a",
            "10.0.0.1-",
            "10.0.0.9-10.0.0.1",
            "10.0.0.1-::1",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "::/129",
        ] {
            assert!(text.parse::<Span>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn the_ends_of_the_number_space_do_not_overflow() {
        let all = span("::/0");
        assert_eq!(all.after(all.last()), None);
        assert_eq!(all.before(all.first()), None);
        assert_eq!(span("255.255.255.255").after("255.255.255.255".parse().unwrap()), None);
    }

    #[test]
    fn blocks_cut_a_span_into_parts() {
        let blocks = Span::merged(vec![
            span("10.0.0.0"),
            span("10.0.0.9-10.0.0.12"),
            span("10.0.0.4-10.0.0.5"),
            span("10.0.0.6"),
        ]);
        assert_eq!(blocks, [span("10.0.0.0"), span("10.0.0.4-10.0.0.6"), span("10.0.0.9-10.0.0.12")]);
        assert_eq!(
            span("10.0.0.0-10.0.0.10").without(&blocks),
            [span("10.0.0.1-10.0.0.3"), span("10.0.0.7-10.0.0.8")]
        );
        assert_eq!(span("10.0.0.4-10.0.0.6").without(&blocks), []);
        assert_eq!(span("10.0.0.20").without(&blocks), [span("10.0.0.20")]);
        assert_eq!(span("fd80::1").without(&blocks), [span("fd80::1")]);
    }
}
