//! Versions of the CNI specification.

use std::fmt;

/// A version of the specification. Versions match by exact text: there is no `1.0`, and `1.1.1` is not "about 1.1.0".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CniVersion {
    /// 0.1.0, also meant by a configuration without `cniVersion`.
    V0_1_0,
    /// 0.2.0.
    V0_2_0,
    /// 0.3.0: results list interfaces and addresses.
    V0_3_0,
    /// 0.3.1: plugins are chained.
    V0_3_1,
    /// 0.4.0: CHECK, and DEL gets `prevResult`.
    V0_4_0,
    /// 1.0.0: addresses have no `version`.
    V1_0_0,
    /// 1.1.0: STATUS and GC.
    V1_1_0,
}

impl CniVersion {
    /// Every version there is, oldest first.
    pub const ALL: &'static [Self] =
        &[Self::V0_1_0, Self::V0_2_0, Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    /// The newest, whose model berth uses inside.
    pub const LATEST: Self = Self::V1_1_0;

    /// The version of a text, if there is such a version.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|version| version.as_str() == text)
    }

    /// The version as configurations write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }
}

impl fmt::Display for CniVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_reads_back_and_is_ordered() {
        for version in CniVersion::ALL {
            assert_eq!(CniVersion::parse(version.as_str()), Some(*version));
        }
        assert!(CniVersion::ALL.is_sorted());
        assert_eq!(CniVersion::ALL.last(), Some(&CniVersion::LATEST));
    }

    #[test]
    fn nearly_a_version_is_none() {
        for text in ["", "1", "1.0", "1.1", "1.1.1", "v1.0.0", " 1.0.0", "1.0.0 ", "0.5.0", "1.2.0"] {
            assert_eq!(CniVersion::parse(text), None, "{text:?}");
        }
    }
}
