//! What the kernel should hold for encryption, and the order in which it comes to hold it. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use berth_netlink::xfrm::{EspPolicy, EspState};

use super::keys::{Member, Secret, pair_keys, spis};
use crate::create::ENCRYPTED_PORT;

/// Keys are made anew from time to time: the number of the period of time, counted from 1970. No node is told of it, so clocks
/// may differ by almost a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub u32);

impl Generation {
    /// That of a moment, given as the time since 1970, where each lasts `period`.
    pub fn at(now: Duration, period: Duration) -> Self {
        let number = now.as_nanos().checked_div(period.as_nanos()).unwrap_or(0);
        Self(u32::try_from(number & u128::from(u32::MAX)).unwrap_or(0))
    }

    /// Those that are taken while this one is sent by: this node's clock may be behind another's, or before it.
    pub fn taken(self) -> [Self; 3] {
        [self.0.wrapping_sub(1), self.0, self.0.wrapping_add(1)].map(Self)
    }
}

/// A node with its tunnel end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub member: Member,
    /// Its tunnel end.
    pub vtep: IpAddr,
}

/// States and policies: those that the kernel has, or should have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// One direction each.
    pub states: BTreeSet<EspState>,
    /// What must have gone through a state.
    pub policies: BTreeSet<EspPolicy>,
}

impl Held {
    /// Whether it is nothing.
    pub fn is_empty(&self) -> bool {
        let Self { states, policies } = self;
        states.is_empty() && policies.is_empty()
    }
}

/// One change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Makes a state.
    StateAdd(EspState),
    /// Takes a state away.
    StateDel(EspState),
    /// Makes a policy, or puts it right.
    PolicyPut(EspPolicy),
    /// Takes a policy away.
    PolicyDel(EspPolicy),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StateAdd(state) => write!(f, "state add {state}"),
            Self::StateDel(state) => write!(f, "state del {state}"),
            Self::PolicyPut(policy) => write!(f, "policy put {policy}"),
            Self::PolicyDel(policy) => write!(f, "policy del {policy}"),
        }
    }
}

/// What `here` should hold with `peers`: it takes three generations and sends by the one in the middle. A peer whose key is no
/// good gets no state, and so no packet.
pub fn desired(secret: &Secret, here: &Peer, peers: &[Peer], generation: Generation) -> Held {
    let mut held = Held { policies: guards(here.vtep).into(), ..Held::default() };
    let members: Vec<Member> =
        peers.iter().map(|peer| peer.member.clone()).chain([here.member.clone()]).collect();
    for taken in generation.taken() {
        let coming = spis(&here.member, &members, taken.0);
        for peer in peers.iter().filter(|peer| peer.member.name != here.member.name) {
            let Some((to, from)) = pair_keys(secret, &here.member, &peer.member, taken.0) else { continue };
            let numbers =
                (coming.get(&peer.member.name), spi_at(&peer.member, &here.member, &members, taken));
            let (Some(spi_in), Some(spi_out)) = numbers else { continue };
            held.states.insert(EspState { from: peer.vtep, to: here.vtep, spi: *spi_in, key: from });
            if taken == generation {
                held.states.insert(EspState { from: here.vtep, to: peer.vtep, spi: spi_out, key: to });
                let (from, to) = (here.vtep, peer.vtep);
                held.policies.insert(EspPolicy::Encrypt { from, to, port: ENCRYPTED_PORT });
            }
        }
    }
    held
}

/// By which number `to` tells what `from` sends.
fn spi_at(to: &Member, from: &Member, members: &[Member], generation: Generation) -> Option<u32> {
    spis(to, members, generation.0).get(&from.name).copied()
}

/// Nothing in clear comes in at `own` or leaves from it, whatever else the kernel holds.
fn guards(own: IpAddr) -> [EspPolicy; 2] {
    let port = ENCRYPTED_PORT;
    [EspPolicy::Require { to: own, port }, EspPolicy::Block { from: own, port }]
}

/// What makes `want` of `have`, where `own` is this node's tunnel end: first nothing in clear, either way; then what comes in;
/// what goes out last, so that nobody is answered by what is not taken yet. Taken away in the opposite order, and after what
/// takes its place is there: of two states to a peer the kernel sends by the younger (`xfrm_state_look_at`), and each state is
/// taken by the peer.
pub fn steps(have: &Held, want: &Held, own: IpAddr) -> Vec<Step> {
    let goes_out = |state: &&EspState| state.from == own;
    let guards = |policy: &&EspPolicy| !matches!(policy, EspPolicy::Encrypt { .. });
    let new: Vec<&EspState> = want.states.difference(&have.states).collect();
    let old: Vec<&EspState> = have.states.difference(&want.states).collect();
    let (going, coming): (Vec<&EspState>, Vec<&EspState>) = new.iter().copied().partition(goes_out);
    // The kernel tells states by receiver and number: one in the place of another is made after that is gone.
    let in_the_way = |state: &&EspState| new.iter().any(|new| (new.to, new.spi) == (state.to, state.spi));
    let (first, old): (Vec<&EspState>, Vec<&EspState>) = old.into_iter().partition(in_the_way);
    let (gone_out, gone_in): (Vec<&EspState>, Vec<&EspState>) = old.into_iter().partition(goes_out);
    let (new_guards, new_pairs): (Vec<&EspPolicy>, Vec<&EspPolicy>) =
        want.policies.difference(&have.policies).partition(guards);
    let (old_guards, old_pairs): (Vec<&EspPolicy>, Vec<&EspPolicy>) =
        have.policies.difference(&want.policies).partition(guards);
    let add = |states: Vec<&EspState>| states.into_iter().copied().map(Step::StateAdd).collect::<Vec<_>>();
    let del = |states: Vec<&EspState>| states.into_iter().copied().map(Step::StateDel).collect::<Vec<_>>();
    let put = |all: Vec<&EspPolicy>| all.into_iter().copied().map(Step::PolicyPut).collect::<Vec<_>>();
    let away = |all: Vec<&EspPolicy>| all.into_iter().copied().map(Step::PolicyDel).collect::<Vec<_>>();
    [
        put(new_guards),
        del(first),
        add(coming),
        add(going),
        put(new_pairs),
        away(old_pairs),
        del(gone_out),
        del(gone_in),
        away(old_guards),
    ]
    .concat()
}
