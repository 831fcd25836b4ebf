//! Blocks: the parts of a subnet from which one node alone gives addresses, so that giving one asks nobody. Pure policy: what
//! to claim, when to fetch the next, what to give back, whom to ask for a single address.
//!
//! A node claims its first block with its first need, the next when three quarters of what it has are given, and gives one back
//! that was empty for ten minutes, never its last one. Which block is decided by the node's name, so that nodes that begin at one
//! moment ask for different ones.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use berth_types::Family;
use ipnetwork::IpNetwork;

use crate::{PoolConfig, Range, RangeError, RangeSet, Span};

/// How many of 100 addresses are given when the next block is fetched.
pub const FETCH_AT_PERCENT: u128 = 75;

/// How many of 100 addresses may at most be given in what remains when a block is given back: it is not fetched again at once.
pub const GIVE_BACK_BELOW_PERCENT: u128 = 50;

/// How long a block is empty when it is given back: longer than addresses rest.
pub const IDLE: Duration = Duration::from_secs(600);

/// How long a node is silent when its blocks are anybody's again.
pub const LOST_AFTER: Duration = Duration::from_secs(3_600);

/// How much later the next in the order of nodes reclaims, should those before it not.
pub const LOST_STEP: Duration = Duration::from_secs(30);

/// Among how many blocks nodes spread. IPv6 subnets have more than anybody counts.
const SPREAD: u128 = 65_536;

/// How far a block of this node has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Claimed, and not written down by this node yet.
    Pending,
    /// Addresses are given from it.
    Open,
    /// Nothing is given from it any more.
    Draining,
}

/// A block of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnBlock {
    /// Which.
    pub cidr: IpNetwork,
    /// How far it has come.
    pub stage: Stage,
    /// How many of its addresses are given, lent ones included.
    pub used: u128,
    /// Since how long it is empty.
    pub idle: Option<Duration>,
}

/// A subnet as this node sees it.
#[derive(Debug, Clone, Copy)]
pub struct SubnetState<'a> {
    /// The subnet.
    pub subnet: IpNetwork,
    /// The prefix length of its blocks, see [`block_length`].
    pub length: u8,
    /// Its gateway, which is nobody's to give.
    pub gateway: IpAddr,
    /// This node's blocks in it.
    pub own: &'a [OwnBlock],
    /// All blocks in it that somebody has, this node's included.
    pub taken: &'a BTreeSet<IpNetwork>,
    /// A number made of the node's name.
    pub seed: u64,
}

/// What to do about a subnet's blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Claim this block.
    Claim(IpNetwork),
    /// All blocks are somebody's: addresses can only be borrowed.
    Short,
    /// Give nothing from this block any more.
    Drain(IpNetwork),
    /// Give this block back.
    GiveBack(IpNetwork),
}

/// The prefix length of a subnet's blocks: 64 addresses in large subnets, 16 in a /24, fewer in smaller ones, 256 of IPv6.
pub fn block_length(subnet: IpNetwork) -> u8 {
    let prefix = subnet.prefix();
    match subnet {
        IpNetwork::V4(_) => match prefix {
            0..=20 => 26,
            21..=22 => 27,
            23..=24 => 28,
            25..=28 => (prefix + 2).min(30),
            _ => prefix,
        },
        IpNetwork::V6(_) => match prefix {
            0..=112 => 120,
            113..=124 => prefix + 4,
            _ => prefix,
        },
    }
}

/// The block that `address` is in; `None` if it is outside the subnet.
pub fn block_around(subnet: IpNetwork, length: u8, address: IpAddr) -> Option<IpNetwork> {
    let block = IpNetwork::new(address, length.max(subnet.prefix())).ok()?;
    let block = IpNetwork::new(block.network(), block.prefix()).ok()?;
    subnet.contains(address).then_some(block)
}

/// How many addresses of `block` containers can have.
pub fn usable(subnet: IpNetwork, gateway: IpAddr, block: IpNetwork) -> u128 {
    let (all, block) = (Span::of_network(subnet), Span::of_network(block));
    let ends = match all.family() {
        Family::V4 => vec![all.first(), all.last(), gateway],
        Family::V6 => vec![all.first(), gateway],
    };
    let special: BTreeSet<IpAddr> = ends.into_iter().filter(|address| block.contains(*address)).collect();
    block.count() - special.len() as u128
}

/// What to do, in order. Nothing while it is as it should be.
pub fn plan(state: &SubnetState<'_>) -> Vec<Step> {
    let usable = |block: &OwnBlock| usable(state.subnet, state.gateway, block.cidr);
    let open = || state.own.iter().filter(|block| block.stage == Stage::Open);
    let (used, room) = open().fold((0, 0), |(used, room), block| (used + block.used, room + usable(block)));
    let mut steps: Vec<Step> = Vec::new();
    let fetching = state.own.iter().any(|block| block.stage == Stage::Pending);
    if !fetching && used * 100 >= room * FETCH_AT_PERCENT {
        match next_block(state) {
            Some(block) => steps.push(Step::Claim(block)),
            None if used >= room => steps.push(Step::Short),
            None => (),
        }
    }
    let empty = state.own.iter().filter(|block| block.used == 0);
    let drained = empty.clone().filter(|block| block.stage == Stage::Draining);
    steps.extend(drained.map(|block| Step::GiveBack(block.cidr)));
    // One at a time: what remains is counted anew for the next.
    let mut idle =
        empty.filter(|block| block.stage == Stage::Open && block.idle.is_some_and(|idle| idle >= IDLE));
    if let Some(block) = idle.next_back().filter(|_| steps.is_empty() && open().count() > 1) {
        let rest = room - usable(block);
        if used * 100 <= rest * GIVE_BACK_BELOW_PERCENT {
            steps.push(Step::Drain(block.cidr));
        }
    }
    steps
}

/// The block to claim: the first free one from the place on that the node's name leads to.
pub fn next_block(state: &SubnetState<'_>) -> Option<IpNetwork> {
    let length = state.length.max(state.subnet.prefix());
    let all = Span::of_network(state.subnet);
    let bits = u32::from(length - state.subnet.prefix());
    let count = 1_u128.checked_shl(bits)?;
    let size = Span::of_network(IpNetwork::new(all.first(), length).ok()?).count();
    let start = u128::from(state.seed) % count.min(SPREAD);
    // Of one more than are taken, one is free; a block in which only the gateway could be is passed over.
    let tries = count.min(state.taken.len() as u128 + 4);
    (0..tries).map(|step| (start + step) % count).find_map(|index| {
        let block = IpNetwork::new(all.nth(index * size)?, length).ok()?;
        let free = !state.taken.contains(&block) && usable(state.subnet, state.gateway, block) > 0;
        free.then_some(block)
    })
}

/// Single addresses to ask others for, most promising first: of each block of `others` the highest that nobody is known to have,
/// since their owners give the lowest first.
pub fn borrowable(
    state: &SubnetState<'_>,
    others: &[IpNetwork],
    is_used: impl Fn(IpAddr) -> bool,
    limit: usize,
) -> Vec<IpAddr> {
    let all = Span::of_network(state.subnet);
    let special = |address: IpAddr| {
        let last = all.family() == Family::V4 && address == all.last();
        address == all.first() || address == state.gateway || last
    };
    let mut start: Vec<IpNetwork> = others.to_vec();
    let turn = usize::try_from(state.seed % (others.len().max(1) as u64)).unwrap_or(0);
    start.rotate_left(turn);
    let spans: Vec<Span> = start.into_iter().map(Span::of_network).collect();
    let deepest = spans.iter().map(Span::count).max().unwrap_or(0).min(256);
    // The highest of each, then the second highest of each: no owner is asked for much more than another.
    let from_above =
        |depth: u128| spans.iter().filter_map(move |span| span.nth(span.count().checked_sub(depth + 1)?));
    let candidates = (0..deepest).flat_map(from_above);
    candidates.filter(|address| !special(*address) && !is_used(*address)).take(limit).collect()
}

/// Whether this node, `rank`th among those alive in the order of their names, is to reclaim what a node has that is silent for
/// `silent`. The first does it after the grace, the others only should those before them not have.
pub fn is_lost(silent: Duration, grace: Duration, rank: usize) -> bool {
    let rank = u32::try_from(rank).unwrap_or(u32::MAX);
    silent >= grace.saturating_add(LOST_STEP.saturating_mul(rank))
}

/// The addresses of one subnet that this node may give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalSubnet {
    /// The subnet.
    pub subnet: IpNetwork,
    /// Its gateway.
    pub gateway: IpAddr,
    /// This node's blocks that are open.
    pub blocks: Vec<IpNetwork>,
    /// Single addresses that this node has of others' blocks, or of none: given to those who ask for them.
    pub borrowed: Vec<IpAddr>,
    /// Single addresses of its blocks that others have.
    pub lent: Vec<IpAddr>,
}

/// Why there is nothing to give.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocalPoolError {
    /// No block, and nothing borrowed.
    #[error("this node has no block of {subnet}")]
    NoBlock {
        /// The subnet.
        subnet: IpNetwork,
    },
    /// The blocks are not what a pool can be made of.
    #[error("blocks of {subnet} cannot be used: {reason}")]
    Range {
        /// The subnet.
        subnet: IpNetwork,
        /// Why.
        #[source]
        reason: RangeError,
    },
}

/// The pool that this node gives from without asking anybody: an attachment gets one address of each subnet.
///
/// # Errors
///
/// [`LocalPoolError`]: of one of the subnets there is nothing to give.
pub fn local_pool(subnets: &[LocalSubnet], quarantine: Duration) -> Result<PoolConfig, LocalPoolError> {
    let sets = subnets.iter().map(local_set).collect::<Result<_, _>>()?;
    let spans = |of: fn(&LocalSubnet) -> &Vec<IpAddr>| {
        subnets.iter().flat_map(|subnet| of(subnet).iter().copied().map(Span::single)).collect()
    };
    Ok(PoolConfig {
        sets,
        routes: Vec::new(),
        resolv_conf: None,
        data_dir: None,
        reserved: spans(|subnet| &subnet.borrowed),
        exclude: spans(|subnet| &subnet.lent),
        quarantine,
        sticky: false,
    })
}

fn local_set(local: &LocalSubnet) -> Result<RangeSet, LocalPoolError> {
    let LocalSubnet { subnet, gateway, blocks, borrowed, lent: _ } = local;
    let blocks = blocks.iter().map(|block| Span::of_network(*block));
    let inside = |address: &&IpAddr| !local.blocks.iter().any(|block| block.contains(**address));
    let singles = borrowed.iter().filter(inside).map(|address| Span::single(*address));
    let ranges = blocks.chain(singles).map(|span| Range::part(*subnet, *gateway, span));
    let ranges = ranges.collect::<Result<Vec<_>, _>>();
    let ranges = ranges.map_err(|reason| LocalPoolError::Range { subnet: *subnet, reason })?;
    if ranges.is_empty() {
        return Err(LocalPoolError::NoBlock { subnet: *subnet });
    }
    RangeSet::of(ranges).map_err(|reason| LocalPoolError::Range { subnet: *subnet, reason })
}
