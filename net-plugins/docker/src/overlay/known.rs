//! Which network of the cluster is which of Docker's on this host, and what was chosen for it here. Durable.

use std::net::IpAddr;

use berth_core::{Berth, CoreError, Held};
use berth_overlay::attach::{let_go, publish_names};
use berth_plugin_http::Refusal;
use berth_store::{EngineNetworkRow, Tx};
use berth_types::{AttachmentKey, NetworkName};
use serde::{Deserialize, Serialize};

use super::typed;
use crate::names;
use crate::network::{ENGINE, forget_names};
use crate::option::shortened;
use crate::refusal::Failure;

/// A network of Docker's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    /// Docker's number of it.
    pub(crate) id: String,
    /// The network of the cluster.
    pub(crate) network: NetworkName,
    /// What was chosen for it.
    pub(crate) choices: Choices,
    /// Since when, milliseconds since 1970.
    pub(crate) created_ms: i64,
}

/// What is this host's to choose. Stored as JSON; `version` tells the layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Choices {
    version: u32,
    /// Where ports are published that name no address.
    pub(crate) host_binding: Option<IpAddr>,
    /// What links are called in containers, without a number.
    pub(crate) link_prefix: String,
    /// Whether forged frames are dropped.
    pub(crate) anti_spoofing: bool,
}

impl Default for Choices {
    fn default() -> Self {
        Self { version: 1, host_binding: None, link_prefix: "eth".to_owned(), anti_spoofing: true }
    }
}

impl From<EngineNetworkRow> for Known {
    fn from(row: EngineNetworkRow) -> Self {
        let EngineNetworkRow { id, network, payload, created_ms } = row;
        // What cannot be read is as it usually is.
        Self { id, network, choices: serde_json::from_str(&payload).unwrap_or_default(), created_ms }
    }
}

/// All of them, by number.
pub(crate) fn all(berth: &mut Berth) -> Result<Vec<Known>, CoreError> {
    let rows = berth.store_mut().read(|tx| tx.engine_networks(ENGINE).map_err(CoreError::from))?;
    Ok(rows.into_iter().map(Known::from).collect())
}

/// The one with this number, if it is known.
pub(crate) fn find(berth: &mut Berth, id: &str) -> Result<Option<Known>, CoreError> {
    let row = berth.store_mut().read(|tx| tx.engine_network(ENGINE, id).map_err(CoreError::from))?;
    Ok(row.map(Known::from))
}

/// The one with this number.
pub(super) fn known(berth: &mut Berth, id: &str) -> Result<Known, Failure> {
    let text = || {
        let id = shortened(id);
        format!("berth does not know network {id}; remove it and create it again: {}", typed("NETWORK"))
    };
    find(berth, id)?.ok_or_else(|| Refusal::new(text()).into())
}

/// Notes which network it is. Known already as the same, it stays as it is.
pub(super) fn add(
    berth: &mut Berth,
    id: &str,
    network: &NetworkName,
    choices: &Choices,
) -> Result<(), Failure> {
    let text = serde_json::to_string(choices).map_err(|err| Refusal::from_error(&err))?;
    let added = berth
        .store_mut()
        .write(|tx| tx.engine_network_add(ENGINE, (id, network), &text).map_err(CoreError::from))?;
    if added { Ok(()) } else { refuse_second(berth, id, network) }
}

/// Refuses a second network of Docker's for one of the cluster, and another one of the cluster for the same of Docker's.
pub(super) fn refuse_second(berth: &mut Berth, id: &str, network: &NetworkName) -> Result<(), Failure> {
    for Known { id: other, network: theirs, .. } in all(berth)? {
        if other == id && theirs != *network {
            let text = format!("this network of Docker's is network `{theirs}` of the cluster already");
            return Err(Refusal::new(text).into());
        }
        if other != id && theirs == *network {
            let name = names::of_network(berth, network).unwrap_or_else(|| other.chars().take(12).collect());
            let text = format!(
                "network `{network}` of the cluster is Docker's network `{name}` on this host already: use that one, or \
                 remove it first (what Docker removed while berthd was down is forgotten within seconds)"
            );
            return Err(Refusal::new(text).into());
        }
    }
    Ok(())
}

/// Forgets that Docker has the network, with whatever it still has of it. The network itself stays the cluster's; this node leaves
/// it, unless other engines are on it here. What fails is done by the next call.
pub(crate) fn forget(berth: &mut Berth, known: &Known) -> Result<(), Failure> {
    let left = handed(berth, &known.network)?;
    let mut errors = Vec::new();
    for key in &left {
        errors.extend(berth.detach(key).err().map(|err| berth_core::Chain(&err).to_string()));
    }
    publish_names(berth, &left);
    if !errors.is_empty() {
        return Err(CoreError::Several(errors).into());
    }
    forget_names(berth, &known.network)?;
    berth.holds_keep(&known.network, &std::collections::BTreeSet::new(), -1)?;
    let_go(berth, &known.network)?;
    let removed = |tx: &Tx<'_>| tx.engine_network_remove(ENGINE, &known.id).map(drop);
    Ok(berth.store_mut().write(|tx| removed(tx).map_err(CoreError::from))?)
}

/// Endpoints of Docker's on the network: those whose links it takes itself.
fn handed(berth: &mut Berth, network: &NetworkName) -> Result<Vec<AttachmentKey>, CoreError> {
    let is_handed = |held: &Held| matches!(held, Held::Bridge(record) if record.peer.is_some());
    let handed = berth.held_on(network)?.into_iter().filter(|(_, held)| is_handed(held));
    Ok(handed.map(|(row, _)| row.key).collect())
}
