//! The number that tells one VXLAN network's frames from another's on the wire.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a number is no VNI.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VniError {
    /// Outside 1 to 16777215.
    #[error("VNI {0} is out of range: a VNI is 1 to 16777215")]
    Range(u32),
    /// No number at all.
    #[error("`{0}` is no VNI: a VNI is a number, 1 to 16777215")]
    NoNumber(String),
}

/// A VXLAN network identifier (RFC 7348): 1 to 16777215.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Vni(u32);

impl Vni {
    /// The largest: the field has 24 bits.
    pub const MAX: u32 = 0x00ff_ffff;

    /// Checks `number`.
    ///
    /// # Errors
    ///
    /// [`VniError::Range`].
    pub fn new(number: u32) -> Result<Self, VniError> {
        if (1..=Self::MAX).contains(&number) { Ok(Self(number)) } else { Err(VniError::Range(number)) }
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Vni {
    type Error = VniError;
    fn try_from(number: u32) -> Result<Self, VniError> {
        Self::new(number)
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> Self {
        vni.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Vni {
    type Err = VniError;
    fn from_str(text: &str) -> Result<Self, VniError> {
        let number = text.parse().map_err(|_| VniError::NoNumber(text.chars().take(60).collect()))?;
        Self::new(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vni_has_24_bits_and_is_not_zero() {
        assert_eq!("4096".parse(), Ok(Vni(4096)));
        assert_eq!(Vni::new(Vni::MAX).map(Vni::get), Ok(16_777_215));
        for (text, error) in [
            ("0", "VNI 0 is out of range: a VNI is 1 to 16777215"),
            ("16777216", "VNI 16777216 is out of range: a VNI is 1 to 16777215"),
            ("blue", "`blue` is no VNI: a VNI is a number, 1 to 16777215"),
        ] {
            assert_eq!(text.parse::<Vni>().unwrap_err().to_string(), error);
        }
    }
}
