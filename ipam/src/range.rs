//! Ranges and range sets, checked once: a [`RangeSet`] can be allocated from as it is.

use std::fmt;
use std::net::IpAddr;

use berth_types::{Family, fnv64};
use ipnetwork::IpNetwork;

use crate::error::RangeError;
use crate::{PoolConfig, Span};

/// Addresses of one subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    subnet: IpNetwork,
    span: Span,
    gateway: IpAddr,
}

/// A range as configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RawRange {
    pub(crate) subnet: Option<IpNetwork>,
    pub(crate) start: Option<IpAddr>,
    pub(crate) end: Option<IpAddr>,
    pub(crate) gateway: Option<IpAddr>,
}

impl Range {
    /// Checks a range and fills in what is absent: the gateway is the subnet's first address, the start as well (the
    /// allocator passes over the gateway), and the end is the last address, but for the broadcast address of IPv4.
    pub(crate) fn new(raw: RawRange) -> Result<Self, RangeError> {
        let RawRange { subnet, start, end, gateway } = raw;
        let subnet = subnet.ok_or(RangeError::NoSubnet)?;
        let all = Span::of_network(subnet);
        if all.count() < 4 {
            return Err(RangeError::TooSmall { subnet });
        }
        if subnet.ip() != all.first() {
            return Err(RangeError::HostBits { prefix: subnet.prefix(), network: all.first() });
        }
        // Four addresses at least: there is a first one after the network's and a last one before the broadcast.
        let inner = all.after(all.first()).expect("a subnet of four addresses has a second one");
        let usable = match all.family() {
            Family::V4 => inner.before(inner.last()).expect("a subnet of four addresses has a third one"),
            Family::V6 => inner,
        };
        let first = start.unwrap_or(usable.first());
        let last = end.unwrap_or(usable.last());
        if !all.contains(first) {
            return Err(RangeError::Outside { what: "RangeStart", address: first, subnet });
        }
        if !all.contains(last) {
            return Err(RangeError::Outside { what: "RangeEnd", address: last, subnet });
        }
        let span = Span::new(first, last).ok_or(RangeError::Backwards { first, last, subnet })?;
        Ok(Self { subnet, span, gateway: gateway.unwrap_or(usable.first()) })
    }

    /// A part of a subnet whose gateway is known. What of it names the subnet or everybody in it is passed over.
    ///
    /// # Errors
    ///
    /// [`RangeError`]: the subnet has fewer than four addresses or host bits, or the part is not in it.
    pub fn part(subnet: IpNetwork, gateway: IpAddr, span: Span) -> Result<Self, RangeError> {
        let (first, last) = span.ends();
        Self::new(RawRange {
            subnet: Some(subnet),
            start: Some(first),
            end: Some(last),
            gateway: Some(gateway),
        })
    }

    /// The subnet.
    pub fn subnet(&self) -> IpNetwork {
        self.subnet
    }

    /// The addresses that may be given, but for those a [`PoolConfig`] keeps back.
    pub fn span(&self) -> Span {
        self.span
    }

    /// The subnet's gateway.
    pub fn gateway(&self) -> IpAddr {
        self.gateway
    }

    /// What `address` is, if no container may have it: it names the subnet, or everybody in it.
    pub(crate) fn special(&self, address: IpAddr) -> Option<&'static str> {
        let all = Span::of_network(self.subnet);
        match all.family() {
            _ if address == self.gateway => Some("the gateway"),
            Family::V4 if address == all.first() => Some("the network address"),
            Family::V4 if address == all.last() => Some("the broadcast address"),
            Family::V6 if address == all.first() => Some("the subnet-router anycast address"),
            _ => None,
        }
    }

    /// The addresses of the range that are never given unasked, in order.
    pub(crate) fn blocks(&self, pools: &PoolConfig) -> Vec<Span> {
        let all = Span::of_network(self.subnet);
        let special = [self.gateway, all.first(), all.last()].map(Span::single);
        let special = special.into_iter().filter(|span| self.special(span.first()).is_some());
        let kept_back = pools.exclude.iter().chain(&pools.reserved).copied();
        Span::merged(special.chain(kept_back).filter_map(|span| span.intersection(&self.span)).collect())
    }

    /// Names the range and what of it is kept back; a cursor belongs to one such text.
    pub(crate) fn spec(&self, blocks: &[Span]) -> String {
        let texts: Vec<String> = blocks.iter().map(Span::to_string).collect();
        format!("{}:{:016x}", self.span, fnv64(texts.iter().map(String::as_str)))
    }
}

/// Ranges of one family that stand for one address: it comes from the first that has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeSet {
    ranges: Vec<Range>,
}

impl RangeSet {
    pub(crate) fn new(raw: &[RawRange]) -> Result<Self, RangeError> {
        Self::of(raw.iter().copied().map(Range::new).collect::<Result<Vec<_>, _>>()?)
    }

    /// Makes a set of ranges that were checked one by one.
    ///
    /// # Errors
    ///
    /// [`RangeError`]: there is none, they are of two families, or two of them overlap.
    pub fn of(ranges: Vec<Range>) -> Result<Self, RangeError> {
        let Some((first, rest)) = ranges.split_first() else { return Err(RangeError::Empty) };
        if rest.iter().any(|range| range.span.family() != first.span.family()) {
            return Err(RangeError::MixedFamilies);
        }
        for (index, one) in ranges.iter().enumerate() {
            if let Some(other) = ranges.iter().skip(index + 1).find(|other| one.span.overlaps(&other.span)) {
                return Err(RangeError::Overlap { one: one.span, other: other.span });
            }
        }
        Ok(Self { ranges })
    }

    /// The ranges, in the order in which they are used. Never none.
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// The family of all its ranges.
    pub fn family(&self) -> Family {
        self.ranges.first().map(|range| range.span.family()).expect("a set with no range is refused by `new`")
    }

    /// The range that `address` is in.
    pub fn range_of(&self, address: IpAddr) -> Option<&Range> {
        self.ranges.iter().find(|range| range.span.contains(address))
    }

    /// Whether both have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.ranges.iter().any(|one| other.ranges.iter().any(|two| one.span.overlaps(&two.span)))
    }
}

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.ranges.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}", range.span)?;
        }
        Ok(())
    }
}
