//! What is said on the server's socket: HTTP with JSON bodies, on `dns.sock` in the run directory.
//!
//! `POST /v1/changed` takes [`Changed`] and answers [`Applied`] once the change is in every answer. `GET /v1/entries` and
//! `GET /v1/listening` tell what is answered and where, `POST /v1/explain` takes a [`Question`], `GET /metrics` is
//! Prometheus' text. An error is a status of 400 and more with a sentence.

use std::net::{IpAddr, SocketAddr};

use berth_types::{AttachmentKey, NetworkName};
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
    /// The name, fully written.
    pub name: String,
    /// `A`, `AAAA`, `PTR` or `SRV`.
    pub kind: String,
    /// What it leads to, as text.
    pub value: String,
    /// Why it is there.
    pub why: String,
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
