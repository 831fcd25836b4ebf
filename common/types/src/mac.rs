//! Ethernet addresses.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{NetworkName, fnv64};

/// A 48-bit Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr(pub [u8; 6]);

/// The text is not six pairs of hexadecimal digits, or not an address an interface may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid MAC address `{text}`: {why}")]
pub struct MacParseError {
    text: String,
    why: &'static str,
}

impl MacAddr {
    /// A locally administered unicast address made of six `random` bytes.
    pub fn local(random: [u8; 6]) -> Self {
        let [first, rest @ ..] = random;
        let [a, b, c, d, e] = rest;
        Self([(first & 0xfc) | 0x02, a, b, c, d, e])
    }

    /// The address that goes with `addr` on `network`: the same whenever the address is given out again, so that no
    /// neighbour's cache is wrong after it moved to another container. Like [`host_ifname`](crate::host_ifname) it never
    /// changes between versions.
    pub fn of_address(network: &NetworkName, addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(v4) => {
                let [_, _, _, _, _, _, _, hash] = fnv64([network.as_str()]).to_be_bytes();
                let [a, b, c, d] = v4.octets();
                Self([0x02, hash, a, b, c, d])
            }
            IpAddr::V6(v6) => {
                let [_, _, _, a, b, c, d, e] = fnv64([network.as_str(), &v6.to_string()]).to_be_bytes();
                // Apart from those of IPv4 by a bit of the first byte.
                Self([0x06, a, b, c, d, e])
            }
        }
    }

    /// An address made of names that are one thing's alone, such as those of an attachment: it stays when the thing is made
    /// again, and no other thing gets it. Like [`host_ifname`](crate::host_ifname) it never changes between versions.
    pub fn of_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let [_, _, a, b, c, d, e, f] = fnv64(names).to_be_bytes();
        // Apart from those of addresses by a bit of the first byte.
        let Self([first, rest @ ..]) = Self::local([a, b, c, d, e, f]);
        let [b, c, d, e, f] = rest;
        Self([first | 0x08, b, c, d, e, f])
    }

    /// Whether an interface may carry it: unicast and not all zeroes (`is_valid_ether_addr` in the kernel).
    pub fn is_assignable(self) -> bool {
        let Self([first, ..]) = self;
        first & 1 == 0 && self != Self([0; 6])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([a, b, c, d, e, g]) = self;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddr {
    type Err = MacParseError;

    /// Takes `aa:bb:cc:dd:ee:ff` and `aa-bb-cc-dd-ee-ff`, in either case.
    fn from_str(text: &str) -> Result<Self, MacParseError> {
        let fail = |why| MacParseError { text: text.chars().take(40).collect(), why };
        let mut bytes = [0_u8; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(|| fail("it has fewer than six bytes"))?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(fail("each byte is two hexadecimal digits"));
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| fail("each byte is two hexadecimal digits"))?;
        }
        if parts.next().is_some() {
            return Err(fail("it has more than six bytes"));
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for MacAddr {
    type Error = MacParseError;
    fn try_from(text: String) -> Result<Self, MacParseError> {
        text.parse()
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> String {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_agree() {
        let mac: MacAddr = "C2-b0:57:49:47:f2".parse().unwrap();
        assert_eq!(mac.to_string(), "c2:b0:57:49:47:f2");
        for bad in [
            "",
            "c2:b0:57:49:47",
            "c2:b0:57:49:47:f2:00",
            "c2:b0:57:49:47:g2",
            "+1:00:00:00:00:00",
            "c2b0574947f2",
        ] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn an_address_has_one_mac_on_a_network_whatever_the_version() {
        let mac = |network: &str, addr: &str| {
            MacAddr::of_address(&NetworkName::new(network).unwrap(), addr.parse().unwrap()).to_string()
        };
        assert_eq!(mac("n0", "10.80.0.2"), "02:69:0a:50:00:02");
        assert_eq!(mac("n0", "fd00::2"), "06:f0:fb:e4:91:19");
        assert_ne!(mac("n0", "10.80.0.2"), mac("n1", "10.80.0.2"));
        assert_ne!(mac("n0", "fd00::2"), mac("n0", "fd00::3"));
    }

    #[test]
    fn names_give_an_address_that_is_apart_from_those_of_addresses() {
        let mac = MacAddr::of_names(["n0", "c1", "eth0"]);
        assert_eq!(mac, MacAddr::of_names(["n0", "c1", "eth0"]));
        assert_ne!(mac, MacAddr::of_names(["n0", "c2", "eth0"]));
        for names in [["n0", "c1", "eth0"], ["n0", "c2", "eth0"], ["n1", "c1", "eth1"]] {
            let MacAddr([first, ..]) = MacAddr::of_names(names);
            assert_eq!(first & 0x0b, 0x0a, "local, unicast, and not as of an address");
        }
    }

    #[test]
    fn made_addresses_are_assignable() {
        assert!(MacAddr::local([0xff; 6]).is_assignable());
        assert!(MacAddr::local([0; 6]).is_assignable());
        let network = NetworkName::new("n0").unwrap();
        for addr in ["10.80.0.2", "fd00::2"] {
            assert!(MacAddr::of_address(&network, addr.parse().unwrap()).is_assignable());
        }
        assert!(!MacAddr([1, 0, 0, 0, 0, 0]).is_assignable());
        assert!(!MacAddr([0; 6]).is_assignable());
    }
}
