//! Which states and rules encryption needs, in which order. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use berth_types::{NodeName, Vni};

use super::keys::{Key, Member, Secret, pair_keys, spis};

/// Which way packets of a state go, as this node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// From the peer.
    In,
    /// To the peer.
    Out,
}

/// Keys are made anew from time to time; this is how often they were. It is the cluster's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub u32);

impl Generation {
    /// The one after it.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// An encrypted network: its packets are told by both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network {
    /// Its number on the wire.
    pub vni: Vni,
    /// Its UDP port.
    pub port: u16,
}

/// A node to encrypt for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub member: Member,
    /// Its tunnel end.
    pub vtep: IpAddr,
}

/// A state: one direction between two nodes, ESP in transport mode with AES-128-GCM, 128 bits of integrity check, extended
/// sequence numbers and a replay window of 1024 packets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct State {
    /// The peer.
    pub peer: NodeName,
    /// Which way.
    pub direction: Direction,
    /// The sender's tunnel end.
    pub from: IpAddr,
    /// The receiver's tunnel end.
    pub to: IpAddr,
    /// By what the receiver tells it, 256 and above.
    pub spi: u32,
    /// The key.
    pub key: Key,
    /// Of which generation it is.
    pub generation: Generation,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Packets of the network that come in and were not encrypted are dropped, before any other program sees them.
    DropClearIn(Network),
    /// Packets of the network that would leave in clear are dropped.
    DropClearOut(Network),
    /// Makes a state.
    StateAdd(State),
    /// Packets to the peer's tunnel end are encrypted by its states that go out: the one made last.
    PolicyAdd(IpAddr),
    /// Packets to the peer are encrypted by this state from now on.
    SendBy(State),
    /// Takes a state away.
    StateDel(State),
    /// Packets to the peer's tunnel end are encrypted no more.
    PolicyDel(IpAddr),
    /// The network is gone from this node, and with it what was dropped for its sake.
    AllowClear(Network),
}

/// The states of one generation with every peer that has a good key.
fn states(secret: &Secret, here: &Peer, peers: &[Peer], generation: Generation) -> Vec<State> {
    let members: Vec<Member> =
        peers.iter().map(|peer| peer.member.clone()).chain([here.member.clone()]).collect();
    let coming = spis(&here.member, &members, generation.0);
    let mut states = Vec::new();
    for peer in peers.iter().filter(|peer| peer.member.name != here.member.name) {
        let Some((to, from)) = pair_keys(secret, &here.member, &peer.member, generation.0) else { continue };
        let going = spis(&peer.member, &members, generation.0);
        let (Some(spi_in), Some(spi_out)) =
            (coming.get(&peer.member.name).copied(), going.get(&here.member.name).copied())
        else {
            continue;
        };
        let state = |direction, from, to, spi, key| State {
            peer: peer.member.name.clone(),
            direction,
            from,
            to,
            spi,
            key,
            generation,
        };
        states.push(state(Direction::In, peer.vtep, here.vtep, spi_in, from));
        states.push(state(Direction::Out, here.vtep, peer.vtep, spi_out, to));
    }
    states
}

fn split(states: Vec<State>) -> (Vec<State>, Vec<State>) {
    states.into_iter().partition(|state| state.direction == Direction::In)
}

/// What an encrypted network needs on a node that had none: first nothing in clear, either way; then what comes in; what goes
/// out last. A peer without a good key gets no state, and so no packet.
pub fn establish(
    secret: &Secret,
    here: &Peer,
    peers: &[Peer],
    networks: &BTreeSet<Network>,
    generation: Generation,
) -> Vec<Step> {
    let mut steps: Vec<Step> = networks.iter().copied().map(Step::DropClearIn).collect();
    steps.extend(networks.iter().copied().map(Step::DropClearOut));
    let (coming, going) = split(states(secret, here, peers, generation));
    steps.extend(coming.into_iter().map(Step::StateAdd));
    for state in going {
        let to = state.to;
        steps.push(Step::StateAdd(state));
        steps.push(Step::PolicyAdd(to));
    }
    steps
}

/// From one generation to the next, in three turns. Each turn begins when every node has done the one before, so that nobody
/// sends by what another does not take yet, and nobody takes away what another still sends by.
pub fn rotation(secret: &Secret, here: &Peer, peers: &[Peer], from: Generation) -> [Vec<Step>; 3] {
    let to = from.next();
    let (old_in, old_out) = split(states(secret, here, peers, from));
    let (new_in, new_out) = split(states(secret, here, peers, to));
    let mut switch: Vec<Step> = new_out.iter().cloned().map(Step::StateAdd).collect();
    switch.extend(new_out.into_iter().map(Step::SendBy));
    switch.extend(old_out.into_iter().map(Step::StateDel));
    [
        new_in.into_iter().map(Step::StateAdd).collect(),
        switch,
        old_in.into_iter().map(Step::StateDel).collect(),
    ]
}

/// Takes everything back: what is dropped in clear is so until nothing of the networks is left.
pub fn retire(
    secret: &Secret,
    here: &Peer,
    peers: &[Peer],
    networks: &BTreeSet<Network>,
    generation: Generation,
) -> Vec<Step> {
    let (coming, going) = split(states(secret, here, peers, generation));
    let mut steps: Vec<Step> = going.iter().map(|state| Step::PolicyDel(state.to)).collect();
    steps.extend(going.into_iter().chain(coming).map(Step::StateDel));
    steps.extend(networks.iter().copied().map(Step::AllowClear));
    steps
}
