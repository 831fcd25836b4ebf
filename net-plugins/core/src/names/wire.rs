//! What is said on the server's socket: HTTP with JSON bodies, on `dns.sock` in the run directory.
//!
//! `POST /v1/changed` takes [`Changed`] and answers [`Applied`] once the change is in every answer. `GET /v1/entries` and
//! `GET /v1/listening` tell what is answered and where, `POST /v1/explain` takes a [`Question`], `GET /metrics` is
//! Prometheus' text. An error is a status of 400 and more with a sentence.

use std::net::{IpAddr, SocketAddr};

use berth_types::{AttachmentKey, ContainerId, NetworkName};
use serde::{Deserialize, Serialize};

/// Records that were written: the server reads them and makes its answers agree.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Networks that were made, changed or removed.
    #[serde(default)]
    pub networks: Vec<NetworkName>,
    /// Attachments that were made, changed or removed.
    #[serde(default)]
    pub attachments: Vec<AttachmentKey>,
    /// Whether everything is to be compared, whatever was changed.
    #[serde(default)]
    pub all: bool,
}

/// A change is in every answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Where the changed networks are listened for.
    pub listening: Vec<ListeningView>,
    /// Whether nothing has names any more and the server, which was started for some, ends.
    #[serde(default)]
    pub leaving: bool,
}

/// Where a network's members are answered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ListeningView {
    /// The network.
    pub network: NetworkName,
    /// The address and the port that is really listened on.
    pub addr: SocketAddr,
    /// The port that is asked, and led to the other where it is another's.
    pub wanted: u16,
}

/// One name and what it leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryView {
    /// Whose members may ask for it.
    pub network: NetworkName,
    /// The name, without the domain.
    pub name: String,
    /// `A`, `AAAA`, `PTR` or `SRV`.
    pub kind: String,
    /// What it leads to, as text.
    pub value: String,
    /// How long the answer may be kept, seconds.
    pub ttl: u32,
    /// Whose it is; nobody's, for what the server knows by itself.
    pub container: Option<ContainerId>,
    /// Why it is answered.
    pub why: String,
}

/// The way an answer takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedView {
    /// What is decided, in order.
    pub steps: Vec<String>,
    /// How it ends, in a word or two.
    pub outcome: String,
    /// The records of the answer, as text.
    pub answers: Vec<String>,
    /// Who is asked, in order, if nothing here knows.
    pub upstreams: Vec<SocketAddr>,
}

/// A question whose way through the server is to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Who asks.
    pub from: IpAddr,
    /// For which name.
    pub name: String,
    /// For which type of record.
    pub kind: String,
}
