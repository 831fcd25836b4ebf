//! Names as they are looked at: what the records say beside what the server answers. Changes nothing.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use berth_store::Dirs;
use berth_types::{AttachmentKey, NetworkName};
use serde::{Deserialize, Serialize};

use super::call::{CallError, ask};
use super::served::Served;
use super::wire::ListeningView;
use crate::berth::Berth;
use crate::error::CoreError;

/// How long somebody who looks waits.
const LOOK: Duration = Duration::from_secs(3);

/// What the server holds, for comparing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedView {
    /// Where it listens.
    pub listening: Vec<ListeningView>,
    /// Whose names it answers, by the keys of their records.
    pub members: BTreeSet<AttachmentKey>,
}

/// Names on this host, in one look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamesState {
    /// What the records ask for.
    pub wanted: Served,
    /// Networks that an engine declared, whose daemon is its engine's.
    pub declared: BTreeSet<NetworkName>,
    /// What the server holds; why not, where it does not say.
    pub server: Result<ServedView, String>,
    /// Whether a server listens at all.
    pub is_there: bool,
}

impl NamesState {
    /// Looks.
    pub fn read(dirs: &Dirs) -> Result<Self, CoreError> {
        let answer = ask(&dirs.run, "/v1/served", LOOK);
        let is_there = !answer.as_ref().is_err_and(CallError::is_nobody);
        let server = answer.and_then(|text| serde_json::from_slice(&text).map_err(CallError::Answer));
        let (wanted, declared) = match Berth::look(dirs)? {
            Some(mut berth) => (berth.served()?, berth.declared_names()?),
            None => Default::default(),
        };
        Ok(Self { wanted, declared, server: server.map_err(|err| err.to_string()), is_there })
    }

    /// Gateways that are to be listened at and are not.
    pub fn deaf(&self) -> Vec<(NetworkName, IpAddr)> {
        let Ok(server) = &self.server else { return Vec::new() };
        let listens = |network: &NetworkName, addr: IpAddr| {
            server.listening.iter().any(|one| one.network == *network && one.addr.ip() == addr)
        };
        let wanted = self.wanted.networks.iter();
        let all =
            wanted.flat_map(|network| network.listeners.iter().map(|addr| (network.name.clone(), *addr)));
        all.filter(|(network, addr)| !listens(network, *addr)).collect()
    }

    /// Members the server does not know, and those it knows and the records do not.
    pub fn differing(&self) -> (Vec<AttachmentKey>, Vec<AttachmentKey>) {
        let Ok(server) = &self.server else { return (Vec::new(), Vec::new()) };
        let wanted: BTreeSet<AttachmentKey> =
            self.wanted.members.iter().map(|member| member.record.clone()).collect();
        let missing = wanted.difference(&server.members).cloned().collect();
        (missing, server.members.difference(&wanted).cloned().collect())
    }
}
