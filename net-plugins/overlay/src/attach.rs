//! What a short-lived program does to put a container on a network of the cluster, whatever engine it is of. Without an agent
//! it works for a network that this host is on, as long as there is room in its blocks.

use std::net::IpAddr;

use berth_core::hold::HoldRequest;
use berth_core::request::{Addressing, AttachRequest, Attachment, PoolsRead};
use berth_core::{Berth, CoreError};
use berth_ipam::AllocateError;
use berth_store::LendDirection;
use berth_types::{AttachmentKey, NetworkName};

use crate::call::{self, CallError};
use crate::joined::{Joined, open_blocks};
use crate::wire::{AskNetwork, Changed, Published, Refusal, RefusalCode};

/// Why a container was not put on a network.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The records, the kernel or the addresses.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// The agent, or the cluster by its words.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The agent says that this host is on the network, and its records do not.
    #[error(
        "network `{0}` is not on record here though the overlay agent has joined it\nask it and this program for the same directories"
    )]
    Elsewhere(NetworkName),
    /// There is no room, and nobody who could get some.
    #[error("{why}, and there is nobody to get more: {call}")]
    NoRoom {
        /// What is full.
        why: String,
        /// Why there is no more.
        #[source]
        call: CallError,
    },
}

/// The network, joined by this host first if it is not on it. Only that needs the agent.
///
/// # Errors
///
/// The agent is not there, or refuses.
pub fn joined(berth: &mut Berth, ask: &AskNetwork) -> Result<Joined, AttachError> {
    if let Some(joined) = Joined::find(berth, &ask.name)? {
        return Ok(joined);
    }
    call::network(&berth.dirs().run, ask)?;
    Joined::find(berth, &ask.name)?.ok_or_else(|| AttachError::Elsewhere(ask.name.clone()))
}

/// Addresses of this host's part of the network.
pub fn addressing(joined: &Joined, request: berth_ipam::Request) -> Addressing {
    let joined = joined.clone();
    Addressing::Shared { pools: Box::new(move |tx| joined.pool(tx)), request }
}

/// Gives an engine an address of this host's part of the network before it says what for. A certain one that is in no block of
/// this host's is asked for; where there is no room, more is.
///
/// # Errors
///
/// It is somebody's, or there is none and nobody to get more.
pub fn hold(
    berth: &mut Berth,
    joined: &Joined,
    request: &HoldRequest,
) -> Result<ipnetwork::IpNetwork, AttachError> {
    ask_for(berth, joined, request.address.as_slice())?;
    let shared = joined.clone();
    let pools: PoolsRead = Box::new(move |tx| shared.pool(tx));
    match berth.hold(request, &pools) {
        Err(err) if is_full(&err) => {
            more_room(berth, joined, &err)?;
            Ok(berth.hold(request, &pools)?)
        }
        other => Ok(other?),
    }
}

fn more_room(berth: &Berth, joined: &Joined, full: &CoreError) -> Result<(), AttachError> {
    let ask = AskNetwork::named(joined.declaration.name.clone());
    call::room(&berth.dirs().run, &ask).map_err(|call| AttachError::NoRoom { why: full.to_string(), call })
}

/// Sees to it that certain addresses can be given here: those in no block of this host's are asked for.
///
/// # Errors
///
/// The agent is not there, or the address is another's.
pub fn ask_for(berth: &mut Berth, joined: &Joined, addresses: &[IpAddr]) -> Result<(), AttachError> {
    if addresses.is_empty() {
        return Ok(());
    }
    let name = &joined.declaration.name;
    let blocks = open_blocks(berth, name)?;
    let lends = berth.store_mut().read(|tx| tx.cluster_lends(name).map_err(CoreError::from))?;
    let has = |address: &IpAddr| {
        let mut taken = lends.iter().filter(|lend| lend.direction == LendDirection::Taken);
        blocks.iter().any(|block| block.contains(*address)) || taken.any(|lend| lend.address == *address)
    };
    let inside =
        |address: &&IpAddr| joined.declaration.subnets.iter().any(|subnet| subnet.subnet.contains(**address));
    for address in addresses.iter().filter(inside).filter(|address| !has(address)) {
        let ask = AskNetwork { address: Some(*address), ..AskNetwork::named(name.clone()) };
        call::room(&berth.dirs().run, &ask)?;
    }
    Ok(())
}

/// When the engine says what a container is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// It has, or it will at some time: the attachment is published as it is on record.
    AsTheyAre,
    /// Soon: the attachment is published with them, by [`publish_names`]. Until then nobody else knows of it, for a second at
    /// most.
    Soon,
}

/// Attaches a container, and publishes it. Where there is no room, more is asked for and it is tried once more; `request`
/// makes the request anew for that.
///
/// # Errors
///
/// Nothing is left of the attempt. That the cluster will know of it only later is no error.
pub fn attach(
    berth: &mut Berth,
    joined: &Joined,
    names: Names,
    request: &mut dyn FnMut() -> Result<AttachRequest, CoreError>,
) -> Result<Attachment, AttachError> {
    let attached = match berth.attach(request()?) {
        Err(err) if is_full(&err) => {
            more_room(berth, joined, &err)?;
            berth.attach(request()?)?
        }
        other => other?,
    };
    let published = match names {
        Names::AsTheyAre => publish(berth, &attached.key),
        Names::Soon => offer(berth, &attached.key),
    };
    match published {
        Ok(()) => Ok(attached),
        Err(err) => {
            if let Err(left) = berth.detach(&attached.key) {
                tracing::error!(error = %berth_core::Chain(&left), "something left behind; `berth gc` removes it");
            }
            Err(err.into())
        }
    }
}

/// Asks the agent whether the cluster would have an attachment, and has it wait for its names. That nobody can say is only said.
fn offer(berth: &Berth, key: &AttachmentKey) -> Result<(), CallError> {
    refused_only(key, call::nameless(&berth.dirs().run, &Changed { attachments: vec![key.clone()] }))
}

/// Tells the agent of a change of an attachment's record. That it is not there, or the cluster is away, is only said: it is
/// published later, from the records.
///
/// # Errors
///
/// The cluster has the container's address as another's.
pub fn publish(berth: &Berth, key: &AttachmentKey) -> Result<(), CallError> {
    let changed = Changed { attachments: vec![key.clone()] };
    let told = call::changed(&berth.dirs().run, &changed).map(|published| {
        if let Published::Later(why) = published {
            tracing::warn!(attachment = %key, why, "other nodes hear of it later");
        }
    });
    refused_only(key, told)
}

/// Only that an address is another's is an error; everything else is done later, from the records.
fn refused_only(key: &AttachmentKey, told: Result<(), CallError>) -> Result<(), CallError> {
    match told {
        Ok(()) => Ok(()),
        Err(CallError::Refused(refusal @ Refusal { code: RefusalCode::Taken, .. })) => Err(refusal.into()),
        Err(err) => {
            tracing::warn!(attachment = %key, error = %berth_core::Chain(&err), "other nodes hear of it later");
            Ok(())
        }
    }
}

/// Tells the agent of names that were learned or forgotten after their containers were attached. That it is not there, or the
/// cluster is away, is only said.
pub fn publish_names(berth: &Berth, keys: &[AttachmentKey]) {
    tell_of(berth, keys.to_vec(), "names");
}

/// Has this node leave a network that an engine has given up, unless it needs it otherwise: its other containers, for instance.
///
/// # Errors
///
/// The agent is not there, or could not do it: ask again.
pub fn let_go(berth: &mut Berth, name: &NetworkName) -> Result<(), AttachError> {
    if Joined::find(berth, name)?.is_none() {
        return Ok(());
    }
    match call::let_go(&berth.dirs().run, &AskNetwork::named(name.clone())) {
        Err(CallError::Refused(refusal @ Refusal { code: RefusalCode::InUse, .. })) => {
            tracing::info!(%refusal, "this node stays on it");
            Ok(())
        }
        other => Ok(other?),
    }
}

/// Tells the agent of attachments that were collected: their engines called nobody, so that the cluster would have them for
/// another minute. As with [`publish`], what it does not hear now it reads later.
pub fn collected(berth: &mut Berth, keys: &[AttachmentKey]) {
    if keys.is_empty() {
        return;
    }
    match Joined::all(berth) {
        Ok(joined) => {
            let ours = keys.iter().filter(|key| joined.contains_key(&key.network));
            tell_of(berth, ours.cloned().collect(), "what was collected");
        }
        Err(err) => {
            tracing::warn!(error = %berth_core::Chain(&err), "other nodes hear later of what was collected");
        }
    }
}

/// Tells the agent of a change that nobody waits for.
fn tell_of(berth: &Berth, attachments: Vec<AttachmentKey>, what: &str) {
    if attachments.is_empty() {
        return;
    }
    match call::changed(&berth.dirs().run, &Changed { attachments }) {
        Ok(Published::Committed) => (),
        Ok(Published::Later(why)) => tracing::warn!(why, "other nodes hear later of {what}"),
        Err(err) => tracing::warn!(error = %berth_core::Chain(&err), "other nodes hear later of {what}"),
    }
}

fn is_full(err: &CoreError) -> bool {
    match err {
        CoreError::NoRoom { .. } => true,
        CoreError::Ipam(AllocateError::Range { reason, .. }) => {
            matches!(**reason, berth_ipam::Refusal::Exhausted(_))
        }
        _ => false,
    }
}
