//! The addresses of an attachment: one or two, and tens of thousands of attachments.

use std::net::IpAddr;
use std::ops::Deref;

use serde::{Deserialize, Serialize};

/// Addresses in order, each once. No larger than what it holds: a tree has room for eleven.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<IpAddr>")]
pub struct Addresses(Box<[IpAddr]>);

impl From<Vec<IpAddr>> for Addresses {
    fn from(mut addresses: Vec<IpAddr>) -> Self {
        addresses.sort_unstable();
        addresses.dedup();
        Self(addresses.into())
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
        self.0.iter()
    }
}

impl Deref for Addresses {
    type Target = [IpAddr];

    fn deref(&self) -> &[IpAddr] {
        &self.0
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
}
