//! A cluster without a server: peers and networks from a file that is the same on every node, attachments from the peers
//! themselves.
//!
//! With no server, nobody can be asked who has what. So what must be unique is dealt out by the file (names, VNIs, subnets, and a
//! part of each subnet for each peer), and what is only known at run time is said by the node that it is of: each agent serves
//! its own attachments to the listed peers, over TCP on its VTEP address, and keeps what theirs say. A peer is known by the address
//! that its connection comes from, as its VXLAN frames are: the underlay is trusted as far as that.
//!
//! What a peer that falls silent said last is kept, here and across restarts of the agent. A file that cannot be used is reported,
//! and the last good one stays.

mod exchange;
mod file;
mod state;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use berth_types::{NetworkName, NodeName};
use ipnetwork::IpNetwork;
use tokio::task::JoinSet;

pub use file::{FileError, PeersFile};

use self::state::Shared;
use super::{Answer, Cluster, ClusterError, EntryKey, Listing, News, Removal, Revision, Watch};
use crate::model::{Block, Lend, LendState, Node, OverlayAttachment, OverlayNetwork};

/// The TCP port on which agents talk to each other.
pub const EXCHANGE_PORT: u16 = 4791;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How a cluster without a server is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddedConfig {
    /// The file with peers and networks.
    pub file: PathBuf,
    /// Which of the peers this node is.
    pub own: NodeName,
    /// The TCP port of the exchange, the same on every node.
    pub port: u16,
}

/// A cluster without a server. Its tasks end when it is dropped.
pub struct Embedded {
    shared: Arc<Shared>,
    /// Held for their end.
    _tasks: JoinSet<()>,
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Embedded").field(&self.shared.name()).finish()
    }
}

impl Embedded {
    /// Reads the file and begins to talk to the peers in it, on the calling task's runtime. `remembered` is what this node saw
    /// last: what peers said is believed until they say it anew.
    ///
    /// # Errors
    ///
    /// [`ClusterError::Config`]: the file cannot be used, or this node is not in it.
    pub async fn start(config: EmbeddedConfig, remembered: Listing) -> Result<Self, ClusterError> {
        let name = format!("peers of {}", config.file.display());
        let refused = |why: String| ClusterError::Config { cluster: name.clone(), why };
        let (file, stamp) = read(&config).map_err(refused)?;
        let shared = Arc::new(Shared::new(config, file, remembered));
        let mut tasks = JoinSet::new();
        tasks.spawn(follow_file(Arc::clone(&shared), stamp));
        tasks.spawn(exchange::serve(Arc::clone(&shared)));
        tasks.spawn(exchange::dial_all(Arc::clone(&shared)));
        Ok(Self { shared, _tasks: tasks })
    }

    fn unsupported(&self, what: &str) -> ClusterError {
        ClusterError::Unsupported { cluster: self.shared.name(), what: what.to_owned() }
    }
}

/// What tells a file that was written anew.
type Stamp = Option<(SystemTime, u64, u64)>;

fn stamp(config: &EmbeddedConfig) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(&config.file).ok()?;
    Some((meta.modified().ok()?, meta.len(), meta.ino()))
}

fn read(config: &EmbeddedConfig) -> Result<(PeersFile, Stamp), String> {
    let seen = stamp(config);
    let text = std::fs::read_to_string(&config.file).map_err(|err| format!("cannot read it: {err}"))?;
    let file = PeersFile::parse(&text).map_err(|err| err.to_string())?;
    if !file.peers.contains_key(&config.own) {
        return Err(format!("this node, `{}`, is not among its peers", config.own));
    }
    Ok((file, seen))
}

async fn follow_file(shared: Arc<Shared>, mut seen: Stamp) {
    loop {
        tokio::time::sleep(LOOK).await;
        let now = stamp(shared.config());
        if now == seen {
            continue;
        }
        seen = now;
        match read(shared.config()) {
            Ok((file, read)) => {
                seen = read;
                shared.take_file(file);
            }
            Err(why) => {
                tracing::warn!(file = %shared.config().file.display(), why, "file of peers refused, the last good one stays");
                shared.file_refused(why);
            }
        }
    }
}

impl Cluster for Embedded {
    fn name(&self) -> String {
        self.shared.name()
    }

    fn list(&self) -> Answer<'_, Listing> {
        Box::pin(async { Ok(self.shared.listing()) })
    }

    fn watch(&self, revision: Revision) -> Answer<'_, Box<dyn Watch>> {
        let watch = EmbeddedWatch { shared: Arc::clone(&self.shared), revision };
        Box::pin(async { Ok(Box::new(watch) as Box<dyn Watch>) })
    }

    fn join<'a>(&'a self, node: &'a Node) -> Answer<'a, u64> {
        let joined = self.shared.own_only(&node.name).map(|()| self.shared.join(node));
        Box::pin(async { joined })
    }

    fn present<'a>(&'a self, node: &'a Node, _: Duration) -> Answer<'a, ()> {
        let present = self.shared.own_only(&node.name).map(|()| self.shared.present(node));
        Box::pin(async { present })
    }

    fn remove_node<'a>(&'a self, _: &'a NodeName, _: Removal) -> Answer<'a, ()> {
        Box::pin(async {
            Err(self.unsupported("remove nodes: take the peer out of the file, on every node"))
        })
    }

    fn create_network<'a>(&'a self, _: &'a OverlayNetwork) -> Answer<'a, ()> {
        Box::pin(async {
            Err(self.unsupported("create networks: add the network to the file, on every node"))
        })
    }

    fn remove_network<'a>(&'a self, _: &'a NetworkName) -> Answer<'a, ()> {
        Box::pin(async {
            Err(self.unsupported("remove networks: take the network out of the file, on every node"))
        })
    }

    fn share_network<'a>(&'a self, _: &'a NetworkName, _: bool) -> Answer<'a, OverlayNetwork> {
        Box::pin(async {
            Err(self.unsupported(
                "share networks: write `\"shared\": true` of the network into the file, on every node",
            ))
        })
    }

    fn put_attachment<'a>(&'a self, attachment: &'a OverlayAttachment) -> Answer<'a, ()> {
        Box::pin(async { self.shared.attach(attachment) })
    }

    fn check_attachment<'a>(&'a self, attachment: &'a OverlayAttachment) -> Answer<'a, ()> {
        Box::pin(async { self.shared.check(attachment) })
    }

    fn remove_attachment<'a>(&'a self, key: &'a EntryKey, generation: u64) -> Answer<'a, ()> {
        Box::pin(async move { self.shared.detach(key, generation) })
    }

    fn put_block<'a>(&'a self, before: Option<&'a Block>, block: &'a Block) -> Answer<'a, Vec<Lend>> {
        Box::pin(async move { self.shared.put_block(before, block).map(|()| Vec::new()) })
    }

    /// A part that was dealt out is not given back; it is only not used.
    fn remove_block<'a>(&'a self, _: &'a Block) -> Answer<'a, ()> {
        Box::pin(async { Err(self.unsupported("give blocks back: the file deals them out")) })
    }

    fn put_lend<'a>(&'a self, lend: &'a Lend, _: IpNetwork) -> Answer<'a, LendState> {
        let holder = self.shared.part_of(&lend.network, lend.address);
        let what = format!("address {} of network `{}`", lend.address, lend.network);
        Box::pin(async { Err(ClusterError::Taken { what, holder }) })
    }

    fn settle_lend<'a>(&'a self, _: &'a Lend) -> Answer<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn remove_lend<'a>(&'a self, _: &'a Lend) -> Answer<'a, ()> {
        Box::pin(async { Ok(()) })
    }
}

struct EmbeddedWatch {
    shared: Arc<Shared>,
    revision: Revision,
}

impl Watch for EmbeddedWatch {
    fn next(&mut self) -> Answer<'_, News> {
        Box::pin(async {
            let mut changed = self.shared.changed();
            loop {
                changed.borrow_and_update();
                match self.shared.since(self.revision) {
                    None => return Ok(News::Lost),
                    Some((revision, changes)) if !changes.is_empty() => {
                        self.revision = revision;
                        return Ok(News::Changes { revision, changes });
                    }
                    Some(_) => (),
                }
                if changed.changed().await.is_err() {
                    return Ok(News::Lost);
                }
            }
        })
    }
}
