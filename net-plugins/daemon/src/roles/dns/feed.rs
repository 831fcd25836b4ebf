//! The thread between the records and the server. One at a time, in the order of their coming, so that what is told last
//! is what the records said last; those that wait are read and applied together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use berth_core::names::{Applied, Changed, ListeningView, ServedView};
use berth_core::{Berth, Chain, CoreError};
use berth_dns::{Change, Listening, Server};
use berth_store::Dirs;
use berth_store::lock::NamesLock;
use berth_types::NetworkName;
use tokio::sync::{oneshot, watch};

use super::plan::Told;
use super::store::Stored;

/// Between two comparisons of everything: whoever changed records and was killed has told nobody.
const COMPARE_EVERY: Duration = Duration::from_secs(60);

/// How long a server that was started on demand waits for the first name.
const FIRST_NAME: Duration = Duration::from_secs(10);

/// Calls that wait. More are made to wait in their own threads: each of them is a process or a worker already.
const QUEUE: usize = 256;

type Reply<T> = oneshot::Sender<Result<T, String>>;

/// What the thread is asked for.
pub(super) enum Job {
    /// Records were changed.
    Changed(Changed, Reply<Applied>),
    /// Compare everything.
    Compare,
    /// What the server was told.
    View(Reply<ServedView>),
    /// End, once what came before is done.
    End,
}

/// Asks the thread.
#[derive(Clone)]
pub(super) struct Feed {
    jobs: SyncSender<Job>,
}

/// What the thread works with.
pub(super) struct Worker {
    pub(super) berth: Berth,
    pub(super) server: Arc<Server>,
    pub(super) told: Told,
    pub(super) stored: Stored,
    pub(super) dirs: Dirs,
    /// Whether it ends for want of names.
    pub(super) on_demand: bool,
    /// Whom it tells.
    pub(super) end: watch::Sender<bool>,
}

impl Feed {
    /// Starts the thread.
    pub(super) fn start(worker: Worker) -> std::io::Result<(Self, std::thread::JoinHandle<()>)> {
        let (jobs, queue) = mpsc::sync_channel(QUEUE);
        let thread = std::thread::Builder::new().name("berthd-names".to_owned());
        let thread = thread.spawn(move || worker.run(&queue))?;
        Ok((Self { jobs }, thread))
    }

    /// Applies what changed; returns when it is in every answer. May block while the queue is full.
    pub(super) fn changed(&self, changed: Changed) -> oneshot::Receiver<Result<Applied, String>> {
        let (reply, answer) = oneshot::channel();
        // Where the thread is gone the reply is dropped, which the caller sees.
        let _ = self.jobs.send(Job::Changed(changed, reply));
        answer
    }

    /// What the server was told.
    pub(super) fn view(&self) -> oneshot::Receiver<Result<ServedView, String>> {
        let (reply, answer) = oneshot::channel();
        let _ = self.jobs.send(Job::View(reply));
        answer
    }

    /// Ends the thread.
    pub(super) fn end(&self) {
        let _ = self.jobs.send(Job::End);
    }

    /// Compares everything soon.
    pub(super) fn compare(&self) {
        let _ = self.jobs.send(Job::Compare);
    }
}

impl Worker {
    fn run(mut self, queue: &Receiver<Job>) {
        loop {
            let waiting_for_first = self.on_demand && self.told.is_empty();
            let first = match queue.recv_timeout(if waiting_for_first { FIRST_NAME } else { COMPARE_EVERY }) {
                Ok(job) => job,
                Err(RecvTimeoutError::Timeout) => Job::Compare,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let jobs: Vec<Job> = std::iter::once(first).chain(queue.try_iter().take(QUEUE)).collect();
            if self.work(jobs) {
                return;
            }
        }
    }

    /// Whether it is to end.
    fn work(&mut self, jobs: Vec<Job>) -> bool {
        let (mut changed, mut all, mut end) = (Changed::default(), false, false);
        let (mut replies, mut views) = (Vec::new(), Vec::new());
        for job in jobs {
            match job {
                Job::Changed(one, reply) => {
                    all |= one.all;
                    changed.networks.extend(one.networks.iter().cloned());
                    changed.attachments.extend(one.attachments.iter().cloned());
                    replies.push((one, reply));
                }
                Job::Compare => all = true,
                Job::View(reply) => views.push(reply),
                Job::End => end = true,
            }
        }
        if all || !replies.is_empty() {
            let done = self.apply(&mut changed, all).map_err(|err| Chain(&err).to_string());
            if let Err(why) = &done {
                tracing::warn!(why, "the records were not read");
            }
            let leaving = self.leaves();
            for (one, reply) in replies {
                let answer = done.as_ref().map_err(Clone::clone).and_then(|done| done.about(&one, leaving));
                // Who gave up waiting has no use for it.
                let _ = reply.send(answer);
            }
            if leaving {
                self.end.send_replace(true);
            }
        }
        for reply in views {
            let listening = self.server.listening().into_iter().map(listening_view).collect();
            let _ = reply.send(Ok(ServedView { listening, ..self.told.view() }));
        }
        end
    }

    /// Reads the records, tells the server, and leads queries to where it listens.
    fn apply(&mut self, changed: &mut Changed, all: bool) -> Result<Done, CoreError> {
        self.berth.renew()?;
        let part = self.berth.served_of(changed)?;
        // One that is new may have members already, whom nobody tells of again.
        let all = all || part.networks.iter().any(|network| !self.told.knows(&network.name));
        let changes = if all {
            let wanted = self.berth.served()?;
            changed.networks.extend(self.told.networks().cloned());
            changed.networks.extend(wanted.networks.iter().map(|network| network.name.clone()));
            self.told.all(&wanted)
        } else {
            self.told.part(changed, &part)
        };
        let mut refused = self.tell(changes);
        let listening = self.server.listening();
        let networks: BTreeSet<&NetworkName> = changed.networks.iter().collect();
        for name in networks {
            let led = lead(&mut self.berth, name, &listening);
            refused.extend(led.err().map(|err| (name.clone(), Chain(&err).to_string())));
        }
        for (network, why) in &refused {
            tracing::warn!(%network, why, "its names are not answered");
        }
        self.stored.keep(&self.server);
        Ok(Done { listening, refused })
    }

    /// Tells the server. A network that it refuses, because its address cannot be listened at, is no other's fault: each
    /// is told by itself.
    fn tell(&mut self, changes: Vec<Change>) -> BTreeMap<NetworkName, String> {
        let mut refused = BTreeMap::new();
        let mut rest = Vec::new();
        for change in changes {
            let Change::NetworkPut(spec) = change else {
                rest.push(change);
                continue;
            };
            let name = spec.name.clone();
            if let Err(err) = self.server.apply(vec![Change::NetworkPut(spec)]) {
                self.told.doubt(&name);
                refused.insert(name, Chain(&err).to_string());
            }
        }
        if !rest.is_empty()
            && let Err(err) = self.server.apply(rest)
        {
            tracing::error!(error = %Chain(&err), "the server was not told of members");
        }
        refused
    }

    /// Whether the server ends now: it was started for a container, there is none any more, and nobody is just looking for a server.
    /// The lock says so until the process is gone.
    fn leaves(&mut self) -> bool {
        if !self.on_demand || !self.told.is_empty() {
            return false;
        }
        let Ok(Some(lock)) = NamesLock::try_exclusive(&self.dirs) else { return false };
        // Whoever wrote a name before now has seen a server and will notice that it ends.
        match self.berth.served() {
            Ok(served) if served.members.iter().all(|member| member.elsewhere) => {
                std::mem::forget(lock);
                true
            }
            _ => false,
        }
    }
}

/// What became of a change.
struct Done {
    listening: Vec<Listening>,
    /// Networks whose names are not answered, and why.
    refused: BTreeMap<NetworkName, String>,
}

impl Done {
    /// The answer to one of those who asked.
    fn about(&self, changed: &Changed, leaving: bool) -> Result<Applied, String> {
        if let Some(why) = changed.networks.iter().find_map(|name| self.refused.get(name)) {
            return Err(why.clone());
        }
        let asked = self.listening.iter().filter(|one| changed.networks.contains(&one.network));
        Ok(Applied { listening: asked.cloned().map(listening_view).collect(), leaving })
    }
}

/// Leads queries to where the server listens for the network.
fn lead(berth: &mut Berth, name: &NetworkName, listening: &[Listening]) -> Result<(), CoreError> {
    let of_network = listening.iter().filter(|one| one.network == *name);
    let elsewhere = of_network.filter(|one| one.addr.port() != one.wanted);
    let alternates: BTreeMap<IpAddr, u16> = elsewhere.map(|one| (one.addr.ip(), one.addr.port())).collect();
    berth.names_listened(name, &alternates)
}

pub(super) fn listening_view(one: Listening) -> ListeningView {
    let Listening { network, addr, wanted } = one;
    ListeningView { network, addr, wanted }
}
