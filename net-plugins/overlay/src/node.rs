//! What a person does about this host's place in a cluster, and about other nodes: join, leave, remove. Blocking.
//!
//! The cluster is asked first: nothing is written here that it has not said yes to, and an agent that runs is told after.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use berth_core::{Berth, Chain, CoreError};
use berth_types::{NetworkName, NodeName};

use crate::call;
use crate::cluster::{Cluster, ClusterError, Entry, Listing, Removal};
use crate::joined::Joined;
use crate::membership::{ClusterPlace, Membership};
use crate::memory;
use crate::underlay::{Underlay, UnderlayError};
use crate::view::View;

/// No answer takes longer.
const DEADLINE: Duration = Duration::from_secs(10);

/// How this host joins.
#[derive(Debug, Clone)]
pub struct JoinRequest {
    /// The node's name; absent is the host's.
    pub name: Option<NodeName>,
    /// Where the cluster is.
    pub cluster: ClusterPlace,
    /// The address its frames leave from; absent is that of the way to the cluster.
    pub address: Option<IpAddr>,
    /// The largest packet of its link; absent is what the link says.
    pub underlay_mtu: Option<u32>,
}

/// Why it did not join, leave or remove.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The records.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// The cluster does not answer, or refuses.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// This host has no address for it.
    #[error(transparent)]
    Underlay(#[from] UnderlayError),
    /// The host's name cannot be a node's.
    #[error("the host's name `{0}` cannot be a node's\nchoose one: berth node join --name NAME")]
    Name(String),
    /// It is in another cluster.
    #[error(
        "this host is node {name} of another cluster, and on {count} of its networks\nleave that one first: berth node leave"
    )]
    Elsewhere {
        /// Which node it is.
        name: NodeName,
        /// How many networks.
        count: usize,
    },
    /// It is in none.
    #[error("this host has joined no cluster")]
    NotJoined,
    /// Containers are attached.
    #[error("{count} containers of this host are on network `{network}` of the cluster\nstop them first")]
    InUse {
        /// One of the networks.
        network: NetworkName,
        /// How many on it.
        count: usize,
    },
    /// There is no such node.
    #[error("the cluster has no node {0}")]
    NoNode(NodeName),
    /// It is this one.
    #[error("node {0} is this host\nleave the cluster instead: berth node leave")]
    Own(NodeName),
    /// There is no runtime.
    #[error("failed to start the runtime")]
    Runtime(#[source] std::io::Error),
    /// It took too long.
    #[error("{cluster} has not answered for {} s", DEADLINE.as_secs())]
    TimedOut {
        /// Which cluster.
        cluster: String,
    },
}

/// Joins, or joins again with other settings. What this host is from then on.
///
/// # Errors
///
/// Nothing is written.
pub fn join(berth: &mut Berth, request: &JoinRequest) -> Result<Membership, NodeError> {
    let had = Membership::read(berth)?;
    let name = request.name.clone().or(had.as_ref().map(|had| had.name.clone()));
    let name = name.map_or_else(host_name, Ok)?;
    if let Some(had) = had.as_ref().filter(|had| had.cluster != request.cluster || had.name != name) {
        let count = Joined::all(berth)?.len();
        if count > 0 {
            return Err(NodeError::Elsewhere { name: had.name.clone(), count });
        }
    }
    let fresh = Membership::new(name.clone(), request.cluster.clone())?;
    let mut membership = match had.filter(|had| had.cluster == request.cluster && had.name == name) {
        Some(had) => Membership { identity: had.identity, epoch: had.epoch, ..fresh },
        None => fresh,
    };
    (membership.address, membership.underlay_mtu) = (request.address, request.underlay_mtu);
    if matches!(membership.cluster, ClusterPlace::Peers(_)) && membership.address.is_none() {
        let name = membership.name.clone();
        membership.address = asked(&membership, async |cluster| Ok(listed(&*cluster, &name).await?))?;
    }
    // Outside of the runtime: netlink has one of its own.
    let underlay = Underlay::find(membership.address, &membership.cluster.hosts())?;
    let node = membership.node(&berth.boot().clone(), &underlay);
    membership.epoch = asked(&membership, async |cluster| Ok(cluster.join(&node).await?))?;
    membership.write(berth)?;
    tell(berth);
    Ok(membership)
}

/// Leaves. With `force`, also while the cluster is away: its records of this node stay until somebody removes the node.
///
/// # Errors
///
/// Containers are attached, or the cluster is away; this host stays where it is.
pub fn leave(berth: &mut Berth, force: bool) -> Result<NodeName, NodeError> {
    let membership = Membership::read(berth)?.ok_or(NodeError::NotJoined)?;
    let joined = Joined::all(berth)?;
    for name in joined.keys() {
        let attached = berth.store_mut().read(|tx| tx.attachments_of(name).map_err(CoreError::from))?;
        if !attached.is_empty() {
            return Err(NodeError::InUse { network: name.clone(), count: attached.len() });
        }
    }
    let seen = berth.store_mut().read(|tx| memory::load(tx).map_err(CoreError::from))?;
    // An agent that went on would join anew as soon as the node is removed.
    Membership::forget(berth)?;
    tell(berth);
    let removed = asked(&membership, async |cluster: Arc<dyn Cluster>| {
        Ok(cluster.remove_node(&membership.name, Removal::Told).await?)
    });
    match removed {
        // Peers of a file are told by the file; that this host has left is its own affair until then.
        Err(NodeError::Cluster(ClusterError::Unsupported { .. })) => (),
        Err(err) if !force => {
            membership.write(berth)?;
            let all = View::default().replace(seen.listing());
            berth.store_mut().write(|tx| memory::note(tx, seen.revision(), &all).map_err(CoreError::from))?;
            tell(berth);
            return Err(err);
        }
        Err(err) => tracing::warn!(error = %Chain(&err), "the cluster was not told"),
        Ok(()) => (),
    }
    for name in joined.keys() {
        berth.delete_network(name)?;
    }
    tell(berth);
    Ok(membership.name)
}

/// Removes another node for ever, with what it has. One that returns joins anew.
///
/// # Errors
///
/// There is no such node, or the cluster is away.
pub fn remove(berth: &mut Berth, name: &NodeName) -> Result<(), NodeError> {
    let membership = Membership::read(berth)?.ok_or(NodeError::NotJoined)?;
    if membership.name == *name {
        return Err(NodeError::Own(name.clone()));
    }
    asked(&membership, async |cluster: Arc<dyn Cluster>| {
        let listing = cluster.list().await?;
        let is_it =
            |entry: &Entry| matches!(entry, Entry::Node(node) | Entry::Known(node) if node.name == *name);
        if !listing.entries.iter().any(is_it) {
            return Err(NodeError::NoNode(name.clone()));
        }
        Ok(cluster.remove_node(name, Removal::Told).await?)
    })
}

/// The cluster as last seen by this host.
///
/// # Errors
///
/// The records cannot be read.
pub fn last_seen(berth: &mut Berth) -> Result<View, CoreError> {
    berth.store_mut().read(|tx| memory::load(tx).map_err(CoreError::from))
}

/// The tunnel end that a peers' file has for this node.
async fn listed(cluster: &dyn Cluster, name: &NodeName) -> Result<Option<IpAddr>, ClusterError> {
    let listing = cluster.list().await?;
    let own = listing.entries.iter().find_map(|entry| match entry {
        Entry::Node(node) | Entry::Known(node) if node.name == *name => Some(node),
        _ => None,
    });
    Ok(own.and_then(|node| node.vtep4.map(IpAddr::V4).or(node.vtep6.map(IpAddr::V6))))
}

/// Runs `ask` with the way to the cluster.
fn asked<T>(
    membership: &Membership,
    ask: impl AsyncFnOnce(Arc<dyn Cluster>) -> Result<T, NodeError>,
) -> Result<T, NodeError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(NodeError::Runtime)?;
    let answer = runtime.block_on(async {
        let cluster = membership.connect(Listing::default).await?;
        let name = cluster.name();
        match tokio::time::timeout(DEADLINE, ask(cluster)).await {
            Ok(answer) => answer,
            Err(_) => Err(NodeError::TimedOut { cluster: name }),
        }
    });
    runtime.shutdown_background();
    answer
}

/// Tells an agent that runs; one that starts reads the records.
fn tell(berth: &Berth) {
    match call::joined(&berth.dirs().run) {
        Ok(()) => (),
        Err(err) if err.is_absent() => (),
        Err(err) => tracing::warn!(error = %Chain(&err), "the overlay agent was not told"),
    }
}

fn host_name() -> Result<NodeName, NodeError> {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let text = text.trim();
    text.parse().map_err(|_| NodeError::Name(text.to_owned()))
}
