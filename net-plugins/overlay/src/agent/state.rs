//! The agent's state, and the loop that changes it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_core::{Chain, CoreError};
use berth_store::Dirs;
use berth_types::{BootId, NetworkName};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::command::{Command, Reply};
use super::elsewhere::Recorded;
use super::encrypt::Standing;
use super::hands::Hands;
use super::local::Me;
use super::nameless::Checked;
use super::networks::Claimed;
use super::publish::{Acknowledged, Write};
use super::publishing::Waiting;
use super::session::{FromCluster, Session};
use super::silence::Silence;
use super::tend::Need;
use super::watcher::Watcher;
use super::{AgentError, Settings};
use crate::blocks::Tended;
use crate::cluster::{Cluster, ClusterError, EntryKey};
use crate::joined::Joined;
use crate::membership::Membership;
use crate::model::{Node, OverlayAttachment};
use crate::mtu::MtuFault;
use crate::reconcile::Rounds;
use crate::underlay::Underlay;
use crate::view::View;
use crate::wire::CountersView;

/// Between two looks at blocks and loans.
pub(super) const TEND: Duration = Duration::from_secs(10);

/// The agent.
pub(super) struct Agent {
    pub(super) dirs: Dirs,
    pub(super) settings: Settings,
    pub(super) commands: mpsc::Receiver<Command>,
    /// Away while a job has them.
    pub(super) hands: Option<Hands>,
    pub(super) boot: BootId,
    pub(super) began: Instant,
    pub(super) watcher: Watcher,
    pub(super) rounds: Rounds,
    pub(super) link: Option<Link>,
    /// Why there is no link though this host is in a cluster; tried again in each round.
    pub(super) unlinked: Option<String>,
    pub(super) view: View,
    pub(super) silence: Silence,
    pub(super) joined: BTreeMap<NetworkName, Joined>,
    /// Encryption of networks.
    pub(super) standing: Standing,
    /// What is wrong with a network here.
    pub(super) troubles: BTreeMap<NetworkName, String>,
    /// What a network's packets do not fit through, as of the last round.
    pub(super) narrow: BTreeMap<NetworkName, Vec<MtuFault>>,
    /// Who is on record as being elsewhere.
    pub(super) elsewhere: Recorded,
    /// What this node is to publish.
    pub(super) wanted: BTreeMap<EntryKey, OverlayAttachment>,
    pub(super) acknowledged: Acknowledged,
    pub(super) writing: BTreeSet<EntryKey>,
    /// What the cluster refused and is not to be asked for at once again.
    pub(super) refused: BTreeSet<EntryKey>,
    /// Whose names are awaited, and until when: they are published together.
    pub(super) nameless: BTreeMap<EntryKey, Instant>,
    pub(super) checks: JoinSet<Checked>,
    pub(super) writes: JoinSet<(Write, Result<(), ClusterError>)>,
    pub(super) waiting: Vec<Waiting>,
    pub(super) claims: JoinSet<Claimed>,
    /// Who waits for room in a network, and what they need; the first of each is being looked after.
    pub(super) claiming: BTreeMap<NetworkName, Vec<(Need, Reply<()>)>>,
    /// Who asked for a network that the view does not have yet.
    pub(super) awaited: Vec<(NetworkName, Instant, Reply<()>)>,
    /// Networks whose blocks are being looked after.
    pub(super) tending: BTreeSet<NetworkName>,
    /// Networks that are to be left once nobody looks after their blocks.
    pub(super) leaving: Vec<(NetworkName, Reply<()>)>,
    /// What is to be known of a network's blocks: what was lost of them, for instance.
    pub(super) tended: BTreeMap<NetworkName, Tended>,
    pub(super) tend_at: Instant,
    pub(super) counters: CountersView,
    pub(super) last_change_ms: u64,
    /// Records that changed since memory was given back.
    pub(super) turned: usize,
}

/// This node's connection to its cluster.
pub(super) struct Link {
    pub(super) membership: Membership,
    pub(super) cluster: Arc<dyn Cluster>,
    pub(super) node: watch::Sender<Node>,
    pub(super) told: mpsc::Receiver<FromCluster>,
    pub(super) _session: Session,
    /// Whether the cluster is followed.
    pub(super) connected: bool,
    /// Whether the node is present, and may write.
    pub(super) present: bool,
    /// Whether everything was listed since the start.
    pub(super) listed: bool,
    /// Why not.
    pub(super) trouble: Option<String>,
}

impl Link {
    pub(super) fn me(&self) -> Me {
        Me { name: self.membership.name.clone(), epoch: self.membership.epoch }
    }

    /// Where this node's frames leave from.
    pub(super) fn local(&self) -> Option<IpAddr> {
        let node = self.node.borrow();
        node.vtep4.map(IpAddr::V4).or(node.vtep6.map(IpAddr::V6))
    }
}

/// What there is to do.
enum Event {
    Command(Option<Command>),
    Cluster(Option<FromCluster>),
    Written(Write, Result<(), ClusterError>),
    Checked(Checked),
    Claimed(Claimed),
    Links,
    Round,
    /// A generation of keys is over.
    Turn,
    Tend,
    /// A deadline of somebody who waits, of names that are awaited, or of a silent node's.
    Deadline,
    Stop,
}

impl Agent {
    pub(super) async fn start(
        dirs: &Dirs,
        settings: Settings,
        commands: mpsc::Receiver<Command>,
    ) -> Result<Self, AgentError> {
        let watcher = Watcher::start()?;
        let opened = dirs.clone();
        let open = tokio::task::spawn_blocking(move || {
            let mut hands = Hands::open(&opened)?;
            let boot = hands.berth().boot().clone();
            Ok::<_, CoreError>((hands, boot))
        });
        let (hands, boot) = open.await.map_err(|err| AgentError::Thread(err.to_string()))??;
        let now = Instant::now();
        let mut agent = Self {
            dirs: dirs.clone(),
            settings,
            commands,
            hands: Some(hands),
            boot,
            began: now,
            watcher,
            rounds: Rounds::new(Duration::ZERO),
            link: None,
            unlinked: None,
            view: View::default(),
            silence: Silence::default(),
            joined: BTreeMap::new(),
            standing: Standing::default(),
            troubles: BTreeMap::new(),
            narrow: BTreeMap::new(),
            elsewhere: Recorded::default(),
            wanted: BTreeMap::new(),
            acknowledged: Acknowledged::default(),
            writing: BTreeSet::new(),
            refused: BTreeSet::new(),
            nameless: BTreeMap::new(),
            checks: JoinSet::new(),
            writes: JoinSet::new(),
            waiting: Vec::new(),
            claims: JoinSet::new(),
            claiming: BTreeMap::new(),
            awaited: Vec::new(),
            tending: BTreeSet::new(),
            leaving: Vec::new(),
            tended: BTreeMap::new(),
            tend_at: now + TEND,
            counters: CountersView::default(),
            last_change_ms: 0,
            turned: 0,
        };
        agent.load().await?;
        Ok(agent)
    }

    /// Runs until `stop`.
    pub(super) async fn run(&mut self, stop: impl Future<Output = ()> + Send) -> Result<(), AgentError> {
        let mut stop = std::pin::pin!(stop);
        loop {
            let event = {
                let round = tokio::time::Instant::now() + self.rounds.wait(self.began.elapsed());
                let deadline = self.next_deadline().map(tokio::time::Instant::from_std);
                let turn = self.standing.turns_at.map(tokio::time::Instant::from_std);
                let told = async {
                    match &mut self.link {
                        Some(link) => link.told.recv().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    () = &mut stop => Event::Stop,
                    Some(written) = self.writes.join_next() => match written {
                        Ok((write, outcome)) => Event::Written(write, outcome),
                        Err(err) => return Err(AgentError::Thread(err.to_string())),
                    },
                    Some(checked) = self.checks.join_next() => match checked {
                        Ok(checked) => Event::Checked(checked),
                        Err(err) => return Err(AgentError::Thread(err.to_string())),
                    },
                    told = told => Event::Cluster(told),
                    command = self.commands.recv() => Event::Command(command),
                    Some(claimed) = self.claims.join_next() => match claimed {
                        Ok(claimed) => Event::Claimed(claimed),
                        Err(err) => return Err(AgentError::Thread(err.to_string())),
                    },
                    () = self.watcher.heard() => Event::Links,
                    () = at(turn) => Event::Turn,
                    () = sleep_until(round) => Event::Round,
                    () = sleep_until(tokio::time::Instant::from_std(self.tend_at)) => Event::Tend,
                    () = at(deadline) => Event::Deadline,
                }
            };
            match event {
                Event::Stop | Event::Command(None) => return Ok(()),
                Event::Command(Some(command)) => self.command(command).await?,
                Event::Cluster(Some(news)) => self.heard(news).await?,
                // The session's tasks end only with it.
                Event::Cluster(None) => return Err(AgentError::Thread("the cluster's".to_owned())),
                Event::Written(write, outcome) => self.written(write, outcome),
                Event::Checked(checked) => self.checked(checked),
                Event::Claimed(claimed) => self.claimed(claimed).await?,
                Event::Links => {
                    let (news, encryption) = self.watcher.news();
                    self.rounds.heard(self.began.elapsed(), news);
                    if encryption {
                        self.encrypt(true).await?;
                    }
                }
                Event::Turn => drop(self.encrypt(false).await?),
                Event::Round => self.round().await?,
                Event::Tend => self.tend(),
                Event::Deadline => self.deadlines().await?,
            }
        }
    }

    /// Does something that blocks.
    pub(super) async fn with<T: Send + 'static>(
        &mut self,
        job: impl FnOnce(&mut Hands) -> T + Send + 'static,
    ) -> Result<T, AgentError> {
        let gone = || AgentError::Thread("the one for records and the kernel".to_owned());
        let mut hands = self.hands.take().ok_or_else(gone)?;
        let done = tokio::task::spawn_blocking(move || {
            let value = job(&mut hands);
            (hands, value)
        });
        let (hands, value) = done.await.map_err(|_| gone())?;
        self.hands = Some(hands);
        Ok(value)
    }

    async fn command(&mut self, command: Command) -> Result<(), AgentError> {
        match command {
            Command::Network(ask, reply) => self.network(ask, reply).await?,
            Command::Create(new, reply) => self.create(new, reply).await?,
            Command::Remove(ask, reply) => self.remove(ask, reply).await?,
            Command::LetGo(ask, reply) => self.let_go(ask.name, reply).await?,
            Command::Describe(ask, reply) => self.describe(ask, reply).await?,
            Command::Share(ask, reply) => self.share(ask, reply),
            Command::Room(ask, reply) => self.room(&ask, reply),
            Command::Changed(changed, reply) => self.changed(changed, reply).await?,
            Command::Nameless(changed, reply) => self.nameless(changed, reply).await?,
            Command::Joined(reply) => {
                self.load().await?;
                self.tell_sharer();
                answer(reply, Ok(()));
            }
            Command::Status(reply) => answer(reply, Ok(self.status())),
        }
        Ok(())
    }

    /// The next moment at which somebody is to be told something, whatever happens.
    fn next_deadline(&self) -> Option<Instant> {
        let waiting = self.waiting.iter().map(|waiting| waiting.until);
        let awaited = self.awaited.iter().map(|(_, until, _)| *until);
        let nameless = self.nameless.values().copied();
        waiting.chain(awaited).chain(nameless).chain(self.silence.next(Instant::now())).min()
    }

    async fn deadlines(&mut self) -> Result<(), AgentError> {
        let now = Instant::now();
        self.give_up_waiting(now);
        self.give_up_awaited(now);
        self.publish_nameless(now);
        self.names_anew(now).await
    }

    /// Where this node's frames leave from and how large they may be, as it is now; said, where it cannot be told.
    pub(super) async fn underlay(&mut self, membership: &Membership) -> Result<Option<Underlay>, AgentError> {
        let (chosen, hosts) = (membership.address, membership.cluster.hosts());
        let found = self.with(move |_| Underlay::find(chosen, &hosts)).await?;
        Ok(found.inspect_err(|err| tracing::error!(error = %Chain(err), "this node has no tunnel end")).ok())
    }
}

async fn at(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Answers; who gave up waiting has no use for it.
pub(super) fn answer<T>(reply: Reply<T>, value: Result<T, crate::wire::Refusal>) {
    let _ = reply.send(value);
}
