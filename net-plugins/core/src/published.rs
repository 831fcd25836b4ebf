//! What is published for an attachment, and the record it is kept in.

use std::collections::BTreeSet;
use std::net::IpAddr;

use berth_types::{AttachmentKey, PublishedPort};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::attachment::AttachmentRecord;
use crate::names::MemberNames;

/// Published ports and what goes with them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The ports.
    pub ports: Vec<PublishedPort>,
    /// Ports that another interface of the same container publishes for now. When that goes, these take over.
    #[serde(default)]
    pub standby: Vec<PublishedPort>,
    /// (subnet, container address) pairs whose traffic through a published port comes back masqueraded; for bridges
    /// that are not berth's.
    pub hairpin: Vec<(IpNetwork, IpAddr)>,
    /// Container addresses that see every client as the host (`masqAll`).
    pub masquerade_all: Vec<IpAddr>,
}

/// What the records keep of one key. Stored as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Held {
    /// An attachment berth made.
    Bridge(Box<AttachmentRecord>),
    /// Ports and names of a container that another plugin attached.
    Ports(PortsRecord),
}

/// Ports and names of a container that another plugin attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortsRecord {
    /// Layout of this record; 1 so far.
    pub version: u32,
    /// Whose ports they are.
    pub key: AttachmentKey,
    /// What is published.
    pub published: Published,
    /// What it is called, where names were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<Box<MemberNames>>,
}

impl PortsRecord {
    /// The layout this version writes.
    pub const VERSION: u32 = 1;

    /// Nothing published and no names yet.
    pub fn new(key: AttachmentKey) -> Self {
        Self { version: Self::VERSION, key, published: Published::default(), names: None }
    }
}

impl Published {
    /// Everything that was asked for, published or on standby.
    pub fn asked(&self) -> BTreeSet<PublishedPort> {
        self.ports.iter().chain(&self.standby).copied().collect()
    }
}

impl Held {
    /// Whose record it is.
    pub fn key(&self) -> &AttachmentKey {
        match self {
            Self::Bridge(record) => &record.key,
            Self::Ports(record) => &record.key,
        }
    }

    /// What is published.
    pub fn published(&self) -> &Published {
        match self {
            Self::Bridge(record) => &record.published,
            Self::Ports(record) => &record.published,
        }
    }

    /// What it is called, where it is on a network with names.
    pub fn names(&self) -> Option<&MemberNames> {
        match self {
            Self::Bridge(record) => record.names.as_ref(),
            Self::Ports(record) => record.names.as_deref(),
        }
    }

    /// Whether the record is there for more than its published ports.
    pub(crate) fn stays_without_ports(&self) -> bool {
        matches!(self, Self::Bridge(_)) || self.names().is_some()
    }

    /// The same record with other names.
    #[must_use]
    pub(crate) fn with_names(self, names: Option<MemberNames>) -> Self {
        match self {
            Self::Bridge(record) => Self::Bridge(Box::new(AttachmentRecord { names, ..*record })),
            Self::Ports(record) => Self::Ports(PortsRecord { names: names.map(Box::new), ..record }),
        }
    }

    /// The same record with something else published.
    #[must_use]
    pub fn with_published(self, published: Published) -> Self {
        match self {
            Self::Bridge(record) => Self::Bridge(Box::new(AttachmentRecord { published, ..*record })),
            Self::Ports(record) => Self::Ports(PortsRecord { published, ..record }),
        }
    }
}
