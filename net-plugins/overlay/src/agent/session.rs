//! The connection to the cluster: the node is kept present on its lease, and what changes is followed. Two tasks, each of
//! which goes on by itself until the session is dropped; what they find goes to the agent in order.
//!
//! The first listing is at the start, another one only when the history was lost: after a cut a watch goes on from where it
//! was.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::cluster::{Change, Cluster, ClusterError, Listing, News, Revision};
use crate::model::Node;

/// How long a node is believed to be there after it was last heard of.
pub const LEASE: Duration = Duration::from_secs(12);

/// How often it says that it is there: two that are lost are made up for.
const RENEW: Duration = Duration::from_secs(4);

/// Between two tries to reach the cluster: doubled each time, up to the last.
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// News that wait. The tasks wait too, then: etcd keeps what they have not read.
const QUEUE: usize = 64;

/// What comes from the cluster.
#[derive(Debug)]
pub(super) enum FromCluster {
    /// Everything, as it is now.
    Listed(Listing),
    /// What changed, up to the revision.
    Changed(Revision, Vec<Change>),
    /// It does not answer, or refuses; tried again.
    Away(ClusterError),
    /// The node is present in this epoch. One that is greater than before voids what the node wrote.
    Present(u64),
    /// The node is not kept present, and why; tried again.
    Absent(ClusterError),
}

/// The two tasks. They end when it is dropped.
#[derive(Debug)]
pub(super) struct Session {
    _tasks: JoinSet<()>,
}

impl Session {
    /// Starts. `node` is what this node says of itself, whenever it changes.
    pub(super) fn start(
        cluster: &Arc<dyn Cluster>,
        node: watch::Receiver<Node>,
    ) -> (Self, mpsc::Receiver<FromCluster>) {
        let (tell, told) = mpsc::channel(QUEUE);
        let mut tasks = JoinSet::new();
        tasks.spawn(follow(Arc::clone(cluster), tell.clone()));
        tasks.spawn(stay(Arc::clone(cluster), node, tell));
        (Self { _tasks: tasks }, told)
    }
}

/// Doubles from one failure to the next.
struct Patience(Duration);

impl Patience {
    async fn wait(&mut self) {
        sleep(self.0).await;
        self.0 = (self.0 * 2).min(LAST_RETRY);
    }

    fn renew(&mut self) {
        self.0 = FIRST_RETRY;
    }
}

/// Lists, and follows from there. Ends when nobody listens.
async fn follow(cluster: Arc<dyn Cluster>, tell: mpsc::Sender<FromCluster>) {
    let mut patience = Patience(FIRST_RETRY);
    let mut from = None;
    loop {
        let outcome = match from {
            None => list(&*cluster, &tell).await,
            Some(revision) => watch_from(&*cluster, revision, &tell, &mut patience).await,
        };
        match outcome {
            Ok(revision) => from = revision,
            Err(Ended::Nobody) => return,
            Err(Ended::Cluster(at, err)) => {
                from = at.or(from);
                if tell.send(FromCluster::Away(err)).await.is_err() {
                    return;
                }
                patience.wait().await;
            }
        }
    }
}

/// Why following ended.
enum Ended {
    /// Nobody listens any more.
    Nobody,
    /// The cluster went away, after the revision.
    Cluster(Option<Revision>, ClusterError),
}

async fn list(cluster: &dyn Cluster, tell: &mpsc::Sender<FromCluster>) -> Result<Option<Revision>, Ended> {
    let listing = cluster.list().await.map_err(|err| Ended::Cluster(None, err))?;
    let revision = listing.revision;
    tell.send(FromCluster::Listed(listing)).await.map_err(|_| Ended::Nobody)?;
    Ok(Some(revision))
}

/// Follows until the history is lost, which is `None`: list again.
async fn watch_from(
    cluster: &dyn Cluster,
    mut at: Revision,
    tell: &mpsc::Sender<FromCluster>,
    patience: &mut Patience,
) -> Result<Option<Revision>, Ended> {
    let mut watch = cluster.watch(at).await.map_err(|err| Ended::Cluster(Some(at), err))?;
    // It answers: nothing has changed as far as is known.
    tell.send(FromCluster::Changed(at, Vec::new())).await.map_err(|_| Ended::Nobody)?;
    patience.renew();
    loop {
        match watch.next().await.map_err(|err| Ended::Cluster(Some(at), err))? {
            News::Lost => return Ok(None),
            News::Changes { revision, changes } => {
                at = at.max(revision);
                tell.send(FromCluster::Changed(revision, changes)).await.map_err(|_| Ended::Nobody)?;
            }
        }
    }
}

/// Joins where that is needed and says again and again that the node is there.
async fn stay(cluster: Arc<dyn Cluster>, mut node: watch::Receiver<Node>, tell: mpsc::Sender<FromCluster>) {
    let mut patience = Patience(FIRST_RETRY);
    let mut joined = None;
    loop {
        let now = node.borrow_and_update().clone();
        let epoch = match joined {
            Some(epoch) if epoch >= now.epoch => Ok(epoch),
            _ => cluster.join(&now).await,
        };
        let present = match epoch {
            Ok(epoch) => {
                let now = Node { epoch, ..now };
                cluster.present(&now, LEASE).await.map(|()| epoch)
            }
            Err(err) => Err(err),
        };
        let pause = match present {
            Ok(epoch) => {
                if joined.replace(epoch) != Some(epoch)
                    && tell.send(FromCluster::Present(epoch)).await.is_err()
                {
                    return;
                }
                patience.renew();
                RENEW
            }
            Err(err) => {
                // Somebody removed the node, or its record is another host's by now: it asks for a place again.
                joined = None;
                if tell.send(FromCluster::Absent(err)).await.is_err() {
                    return;
                }
                patience.wait().await;
                continue;
            }
        };
        // Until it is time, or the node says something else of itself.
        if let Ok(Err(_)) = timeout(pause, node.changed()).await {
            return;
        }
    }
}
