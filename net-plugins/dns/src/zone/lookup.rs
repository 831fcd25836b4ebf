//! Which of a network's names a question means.

use super::{Net, Owned, Settings};
use crate::wire::{below, kind};

/// What a name is to one network.
pub(super) enum Meaning<'n> {
    /// A name of its members.
    Member(&'n Owned),
    /// A name that exists without any record, such as the domain itself.
    Empty,
    /// A name that only the network could have, and has not.
    Absent,
    /// None of its business.
    Foreign,
}

impl Net {
    /// Looks for `name`: as it is, below the domain, below the network's names, and below both.
    pub(super) fn meaning(&self, settings: &Settings, name: &[u8]) -> Meaning<'_> {
        if let Some(owned) = self.names.get(name) {
            return Meaning::Member(owned);
        }
        // Most questions have no dot, and end here.
        if let Some(rest) = below(name, &settings.domain).filter(|_| !settings.domain.is_empty()) {
            return self.below_domain(settings, rest);
        }
        match self.below_network(settings, name) {
            Meaning::Absent if is_single(name) => Meaning::Foreign,
            meaning => meaning,
        }
    }

    fn below_domain(&self, settings: &Settings, rest: &[u8]) -> Meaning<'_> {
        if rest.is_empty() || settings.called.iter().any(|called| **called == *rest) {
            return Meaning::Empty;
        }
        if let Some(owned) = self.names.get(rest) {
            return Meaning::Member(owned);
        }
        match self.below_network(settings, rest) {
            Meaning::Foreign => Meaning::Absent,
            meaning => meaning,
        }
    }

    /// `name` as `NAME.NETWORK`. With one label before the network it is the network's whether there is such a member or
    /// not: the name of a container that stopped must not be asked for elsewhere. With more it may be a name of the world.
    fn below_network(&self, settings: &Settings, name: &[u8]) -> Meaning<'_> {
        let mut meaning = Meaning::Foreign;
        for called in &settings.called {
            let Some(rest) = below(name, called).filter(|rest| !rest.is_empty()) else { continue };
            match self.names.get(rest) {
                Some(owned) => return Meaning::Member(owned),
                None if is_single(rest) => meaning = Meaning::Absent,
                None => (),
            }
        }
        meaning
    }
}

/// Whether the name has one label.
pub(super) fn is_single(name: &[u8]) -> bool {
    name.first().is_some_and(|len| usize::from(*len) + 1 == name.len())
}

/// Whether a type is asked of top-level domains: by resolvers that walk down from the root, which must not be told that
/// there is no `com`.
pub(super) fn asked_of_tops(kind: u16) -> bool {
    matches!(kind, kind::NS | kind::SOA | kind::DS | kind::DNSKEY)
}

/// Splits `_http._tcp.web` into service, protocol and the rest.
pub(super) fn service(name: &[u8]) -> Option<(&str, &str, &[u8])> {
    let (service, rest) = underscored(name)?;
    let (proto, rest) = underscored(rest)?;
    (!rest.is_empty()).then_some((service, proto, rest))
}

fn underscored(name: &[u8]) -> Option<(&str, &[u8])> {
    let (len, rest) = name.split_first()?;
    let (label, rest) = rest.split_at_checked(usize::from(*len))?;
    Some((std::str::from_utf8(label).ok()?.strip_prefix('_')?, rest))
}
