//! Refusals. `Display` is the sentence the reference plugin says, where it says one, since people search for it;
//! `details` adds what it leaves out: who holds what, and what to do.

use std::fmt;
use std::net::IpAddr;

use berth_store::{LeaseRow, StoreError};
use berth_types::AttachmentKey;
use ipnetwork::IpNetwork;

use crate::{RangeSet, Span, SpanParseError};

/// A configuration that cannot be used (CNI code 7).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not `address/length`.
    #[error("invalid CIDR address: {text}")]
    Cidr {
        /// The text given.
        text: String,
        /// The field it is in.
        path: String,
    },
    /// Not an address.
    #[error("invalid IP address: {text}")]
    Addr {
        /// The text given.
        text: String,
        /// The field it is in.
        path: String,
    },
    /// Not an address, a prefix or a range of addresses.
    #[error("invalid {path}: {source}")]
    Span {
        /// The field it is in.
        path: String,
        /// Why.
        source: SpanParseError,
    },
    /// A JSON value of the wrong type.
    #[error("{path} is {found}, not {expected}")]
    Type {
        /// The field.
        path: String,
        /// What it has to be.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// There is nothing to allocate from.
    #[error("no IP ranges specified")]
    NoRanges,
    /// One range set is wrong.
    #[error("invalid range set {index}: {reason}")]
    RangeSet {
        /// Its place, from 0, runtime and top-level ranges included.
        index: usize,
        /// Why.
        reason: RangeError,
    },
    /// Two range sets share addresses.
    #[error("range set {one} overlaps with {other}")]
    SetsOverlap {
        /// The first one's place.
        one: usize,
        /// The other's.
        other: usize,
    },
}

impl ConfigError {
    /// What to look at and what to do.
    pub fn details(&self) -> String {
        match self {
            Self::Cidr { path, .. } => {
                format!("{path} is an address and a prefix length, such as 10.80.0.0/24")
            }
            Self::Addr { path, .. } => format!("{path} is one address, such as 10.80.0.1"),
            Self::Span { .. } | Self::Type { .. } => "correct this key of the ipam configuration".to_owned(),
            Self::NoRanges => {
                "give ipam.ranges, such as [[{\"subnet\": \"10.80.0.0/24\"}]], or ipam.subnet".to_owned()
            }
            Self::RangeSet { reason, .. } => reason.hint().to_owned(),
            Self::SetsOverlap { .. } => {
                "each set gives one address; give the sets different subnets".to_owned()
            }
        }
    }
}

/// What is wrong with a range or a set of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// A set of no range.
    #[error("empty range set")]
    Empty,
    /// A range of no subnet.
    #[error("range has no subnet")]
    NoSubnet,
    /// Fewer than four addresses.
    #[error("Network {subnet} too small to allocate from")]
    TooSmall {
        /// The subnet.
        subnet: IpNetwork,
    },
    /// The subnet is given by an address inside it.
    #[error(
        "Network has host bits set. For a subnet mask of length {prefix} the network address is {network}"
    )]
    HostBits {
        /// Its length.
        prefix: u8,
        /// What it has to be.
        network: IpAddr,
    },
    /// An end of the range is not in the subnet.
    #[error("{what} {address} not in network {subnet}")]
    Outside {
        /// `RangeStart` or `RangeEnd`.
        what: &'static str,
        /// The address given.
        address: IpAddr,
        /// The subnet.
        subnet: IpNetwork,
    },
    /// The end is before the start.
    #[error("RangeEnd {last} not in network {subnet} after RangeStart {first}")]
    Backwards {
        /// The start.
        first: IpAddr,
        /// The end.
        last: IpAddr,
        /// The subnet.
        subnet: IpNetwork,
    },
    /// A set has both families.
    #[error("mixed address families")]
    MixedFamilies,
    /// Two ranges of a set share addresses.
    #[error("subnets {one} and {other} overlap")]
    Overlap {
        /// One.
        one: Span,
        /// The other.
        other: Span,
    },
}

impl RangeError {
    fn hint(&self) -> &'static str {
        match self {
            Self::Empty | Self::NoSubnet => {
                "a set is a list of ranges, each with a subnet: [{\"subnet\": \"10.80.0.0/24\"}]"
            }
            Self::TooSmall { .. } => {
                "the smallest subnets are /30 and /126: network, gateway and a container"
            }
            Self::HostBits { .. } => "write the subnet with that address",
            Self::Outside { .. } => "both ends of a range are addresses of its subnet",
            Self::Backwards { .. } => "exchange rangeStart and rangeEnd",
            Self::MixedFamilies => "a set gives one address; for an address of each family give two sets",
            Self::Overlap { .. } => "give each range of the set addresses of its own",
        }
    }
}

/// Why no addresses were given. The transaction has to be rolled back: earlier range sets may have been served.
#[derive(Debug, thiserror::Error)]
pub enum AllocateError {
    /// One range set refused.
    #[error("failed to allocate for range {index}: {reason}")]
    Range {
        /// Its place, from 0.
        index: usize,
        /// Why.
        reason: Box<Refusal>,
    },
    /// Addresses were asked for that are in no range set, or of which another in the same set was given.
    #[error("failed to allocate all requested IPs: {}", list(.addresses))]
    Unused {
        /// Those addresses.
        addresses: Vec<IpAddr>,
        /// What there is to ask for.
        sets: Vec<RangeSet>,
    },
    /// The records failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AllocateError {
    /// Who holds what, and what to do.
    pub fn details(&self) -> String {
        match self {
            Self::Range { reason, .. } => reason.details(),
            Self::Unused { sets, .. } => {
                let sets: Vec<String> = sets.iter().map(RangeSet::to_string).collect();
                format!("ask for one address of each range set at most; there are: {}", sets.join("; "))
            }
            Self::Store(_) => String::new(),
        }
    }
}

/// Why a range set gave no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// All are held.
    #[error(transparent)]
    Exhausted(Exhausted),
    /// The gateway was asked for.
    #[error("requested ip {address} is subnet's gateway")]
    IsGateway {
        /// The address.
        address: IpAddr,
    },
    /// The address asked for has a holder.
    #[error("requested IP address {address} is not available in range set {set}")]
    Taken {
        /// The address.
        address: IpAddr,
        /// The set it is in.
        set: RangeSet,
        /// Who has it.
        holder: Box<LeaseRow>,
    },
    /// The address asked for is never given to a container.
    #[error("requested IP address {address} is not available in range set {set}")]
    KeptBack {
        /// The address.
        address: IpAddr,
        /// The set it is in.
        set: RangeSet,
        /// What it is.
        what: &'static str,
    },
    /// The attachment has another address of the same set.
    #[error("requested IP address {address} is not available to {owner}, which holds {held} already")]
    HoldsAnother {
        /// The address asked for.
        address: IpAddr,
        /// The one it has.
        held: IpAddr,
        /// Who asks.
        owner: AttachmentKey,
    },
}

impl Refusal {
    fn details(&self) -> String {
        match self {
            Self::Exhausted(exhausted) => exhausted.details(),
            Self::IsGateway { .. } => {
                "ask for another address, or give the subnet another gateway".to_owned()
            }
            Self::Taken { address, holder, .. } => {
                format!(
                    "{address} is held by {}; remove that container or ask for another address",
                    Holder(holder)
                )
            }
            Self::KeptBack { address, what, .. } => format!("{address} is {what}; ask for another address"),
            Self::HoldsAnother { .. } => {
                "delete the attachment before it is added with another address".to_owned()
            }
        }
    }
}

/// A range set of which every address is held by somebody who lives.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no IP addresses available in range set: {set}")]
pub struct Exhausted {
    /// The set.
    pub set: RangeSet,
    /// How many addresses it can give unasked.
    pub usable: u128,
    /// How many of those are held.
    pub held: u64,
    /// The first holders, five at most.
    pub holders: Vec<LeaseRow>,
}

impl Exhausted {
    fn details(&self) -> String {
        let Self { set: _, usable, held, holders } = self;
        let names: Vec<String> =
            holders.iter().map(|lease| format!("{} by {}", lease.address, Holder(lease))).collect();
        let more = if u64::try_from(names.len()).is_ok_and(|shown| *held > shown) { " and more" } else { "" };
        format!(
            "{held} of {usable} addresses are held: {}{more}; remove containers, or give the network a larger range",
            names.join(", ")
        )
    }
}

/// A holder with its sandbox, by which a person finds the container.
struct Holder<'l>(&'l LeaseRow);

impl fmt::Display for Holder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.owner)?;
        match &self.0.sandbox {
            Some((path, _)) => write!(f, " ({})", path.display()),
            None => Ok(()),
        }
    }
}

fn list(addresses: &[IpAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    texts.join(" ")
}
