//! The addresses of an attachment: one or two, and tens of thousands of attachments.

use std::net::IpAddr;
use std::ops::Deref;

use serde::{Deserialize, Serialize};

/// Addresses in order, each once. No larger than what it holds: a tree has room for eleven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<IpAddr>", into = "Vec<IpAddr>")]
pub struct Addresses(Kept);

/// Nearly always there is one, which needs no memory of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kept {
    One(IpAddr),
    /// None, or several.
    Many(Box<[IpAddr]>),
}

impl Default for Addresses {
    fn default() -> Self {
        Self(Kept::Many(Box::default()))
    }
}

impl From<Vec<IpAddr>> for Addresses {
    fn from(mut addresses: Vec<IpAddr>) -> Self {
        addresses.sort_unstable();
        addresses.dedup();
        Self(match *addresses {
            [one] => Kept::One(one),
            _ => Kept::Many(addresses.into()),
        })
    }
}

impl From<Addresses> for Vec<IpAddr> {
    fn from(addresses: Addresses) -> Self {
        addresses.to_vec()
    }
}

impl<const N: usize> From<[IpAddr; N]> for Addresses {
    fn from(addresses: [IpAddr; N]) -> Self {
        Self::from(Vec::from(addresses))
    }
}

impl FromIterator<IpAddr> for Addresses {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        Self::from(Vec::from_iter(addresses))
    }
}

impl<'a> IntoIterator for &'a Addresses {
    type Item = &'a IpAddr;
    type IntoIter = std::slice::Iter<'a, IpAddr>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Deref for Addresses {
    type Target = [IpAddr];

    fn deref(&self) -> &[IpAddr] {
        match &self.0 {
            Kept::One(one) => std::slice::from_ref(one),
            Kept::Many(many) => many,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_in_order_and_each_is_there_once() {
        let read: Addresses =
            serde_json::from_str(r#"["fd00::2","10.0.0.3","10.0.0.2","10.0.0.3"]"#).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), r#"["10.0.0.2","10.0.0.3","fd00::2"]"#);
    }

    #[test]
    fn one_address_and_none_are_written_as_they_are_read() {
        for text in ["[]", r#"["10.0.0.2"]"#] {
            let read: Addresses = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), text);
            assert_eq!(read, read.iter().copied().collect());
        }
        assert_eq!(Addresses::default(), Addresses::from([]));
        let twice: Addresses = serde_json::from_str(r#"["10.0.0.2","10.0.0.2"]"#).unwrap();
        assert_eq!(twice, Addresses::from([[10, 0, 0, 2].into()]));
    }
}
