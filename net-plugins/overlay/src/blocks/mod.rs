//! This node's blocks of addresses: claimed in the cluster, written down here, given from without asking anybody.
//!
//! A block comes in three steps, each of which leaves a state that the next call goes on from: claimed in the cluster as
//! *pending*; written down on this node, with the addresses of it that were lent before; *confirmed*. Only then is anything given
//! from it. It goes in three steps too: written down as *draining*, by a transaction that sees no lease in it; said so in the
//! cluster; given back.
//!
//! A single address of a block is its owner's to lend: whether it is free is decided in the transaction that takes it out of the
//! local pool. Who gives an address and who lends one never meet, because both write to one database.
//!
//! The view may lag. So it is only what is tried first: what is so, the cluster says in the transaction.

mod lends;
mod lost;
mod pool;
mod tend;

use berth_store::StoreError;
use berth_types::{NodeName, fnv64};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

pub use lends::{Borrowed, borrowable_of};
pub use lost::lost_nodes;
pub use pool::local_pool;
pub use tend::unused_of;

use crate::cluster::{Cluster, ClusterError};
use crate::model::{Block, LAYOUT, Node};

/// Keeps the blocks of this node.
#[derive(Debug, Clone, Copy)]
pub struct Keeper<'a> {
    /// Where they are claimed.
    pub cluster: &'a dyn Cluster,
    /// This node, with the epoch it joined with.
    pub node: &'a Node,
}

/// What was done, and what a person may want to know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tended {
    /// Blocks that are this node's now.
    pub claimed: Vec<IpNetwork>,
    /// Blocks that were given back.
    pub given_back: Vec<IpNetwork>,
    /// Blocks that this node held to be its own and are another's: containers with addresses of them are in conflict.
    pub lost: Vec<IpNetwork>,
    /// Blocks that are said to be this node's, of which it knows nothing, and from which somebody has an address.
    pub unknown: Vec<IpNetwork>,
    /// Subnets in which everything is given: addresses have to be borrowed.
    pub short: Vec<IpNetwork>,
}

/// Why blocks could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum BlocksError {
    /// The cluster did not do it.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The local records could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A record of the cluster as it is written down here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Noted<T> {
    v: u32,
    record: T,
    /// When it was written down, milliseconds since 1970.
    since_ms: i64,
}

impl<T: Serialize + for<'de> Deserialize<'de>> Noted<T> {
    fn text(record: T) -> String {
        let noted = Self { v: LAYOUT, record, since_ms: berth_store::unix_ms() };
        serde_json::to_string(&noted)
            .expect("records have no keys that are not text, the only thing JSON refuses")
    }

    fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// The number that leads nodes to different blocks.
fn seed(node: &NodeName) -> u64 {
    fnv64([node.as_str()])
}

fn is_own(block: &Block, node: &Node) -> bool {
    block.owner == node.name
}
