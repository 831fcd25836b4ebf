//! Published ports.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An address family. Two values, never a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of `addr`.
    pub fn of(addr: IpAddr) -> Self {
        if addr.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// A transport protocol that has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    /// TCP, protocol number 6.
    Tcp,
    /// UDP, protocol number 17.
    Udp,
    /// SCTP, protocol number 132.
    Sctp,
}

impl Proto {
    /// The IP protocol number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The protocol of an IP protocol number, if it is one of the three.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp].into_iter().find(|proto| proto.number() == number)
    }

    /// The lower-case name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text names no protocol that has ports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown protocol `{text}`: known are tcp, udp and sctp")]
pub struct PortParseError {
    text: String,
}

impl FromStr for Proto {
    type Err = PortParseError;

    /// In either case; runtimes send `TCP` as well as `tcp`.
    fn from_str(text: &str) -> Result<Self, PortParseError> {
        [Self::Tcp, Self::Udp, Self::Sctp]
            .into_iter()
            .find(|proto| proto.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| PortParseError { text: text.chars().take(40).collect() })
    }
}

/// A published port, or a range of them: traffic to `host_port` + i is led to `target_port` + i.
///
/// One value is of one family: `host_addr` and `target` agree. "Any address" is the family's unspecified address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PublishedPort {
    /// The transport protocol.
    pub proto: Proto,
    /// The host's address it is published on; `0.0.0.0` or `::` is all of the host's.
    pub host_addr: IpAddr,
    /// The first port on the host, never 0.
    pub host_port: u16,
    /// The container's address.
    pub target: IpAddr,
    /// The first port in the container, never 0.
    pub target_port: u16,
    /// How many ports in a row, at least 1; neither end passes 65535.
    pub count: u16,
}

impl PublishedPort {
    /// Whether it is published on all of the host's addresses of its family.
    pub fn is_any_addr(&self) -> bool {
        self.host_addr.is_unspecified()
    }

    /// The family of both ends.
    pub fn family(&self) -> Family {
        Family::of(self.host_addr)
    }

    /// The last port on the host.
    pub fn last_host_port(&self) -> u16 {
        self.host_port.saturating_add(self.count.saturating_sub(1))
    }
}

impl fmt::Display for PublishedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let socket = |addr: IpAddr| match addr {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        };
        write!(f, "{}:{}", socket(self.host_addr), self.host_port)?;
        if self.count > 1 {
            write!(f, "-{}", self.last_host_port())?;
        }
        write!(f, "/{} -> {}:{}", self.proto, socket(self.target), self.target_port)?;
        if self.count > 1 {
            write!(f, "-{}", self.target_port.saturating_add(self.count - 1))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_read_in_either_case() {
        assert_eq!("TCP".parse(), Ok(Proto::Tcp));
        assert_eq!("sctp".parse(), Ok(Proto::Sctp));
        assert!("icmp".parse::<Proto>().is_err());
        assert_eq!(Proto::from_number(17), Some(Proto::Udp));
    }

    #[test]
    fn a_port_prints_as_people_write_it() {
        let port = PublishedPort {
            proto: Proto::Udp,
            host_addr: "::".parse().unwrap(),
            host_port: 8000,
            target: "fd80::2".parse().unwrap(),
            target_port: 80,
            count: 11,
        };
        assert_eq!(port.to_string(), "[::]:8000-8010/udp -> [fd80::2]:80-90");
    }
}
