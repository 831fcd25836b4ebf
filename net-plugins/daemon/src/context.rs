//! What a role is given.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use berth_dns::HandedSocket;
use berth_overlay::agent::Settings;
use berth_plugin_http::{Inherited, Socket, Workers};
use berth_store::Dirs;
use tokio::sync::{mpsc, watch};

use crate::cli::Cli;
use crate::roles::Role;

/// Blocking calls of engines that run at once, of all roles together. Changes of the network mostly wait for the kernel or for
/// each other, so more than there are processors pays, up to here.
const CALLS: usize = 16;

/// Threads beside those of calls, for what roles do themselves: calls ask the overlay agent and the DNS server, in this process
/// or in another, and wait for their answers.
const OWN: usize = 16;

/// Threads for all that blocks.
pub(crate) const THREADS: usize = CALLS + OWN;

/// What a role may use.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// Where the records are.
    pub(crate) dirs: Dirs,
    /// Threads for blocking calls.
    pub(crate) workers: Workers,
    /// Where dockerd is asked.
    pub(crate) docker_socket: PathBuf,
    /// What was chosen of the overlay.
    pub(crate) overlay: Settings,
    /// Whether this was started because a name was asked for, and ends when there are none.
    pub(crate) on_demand: bool,
    plugin_dir: PathBuf,
    inherited: Arc<Mutex<Inherited>>,
    stop: watch::Receiver<bool>,
    ready: mpsc::Sender<Role>,
    role: Role,
}

impl Context {
    /// The plugin socket called `name`, which ends in `.sock`: systemd's, or a new one.
    pub(crate) fn socket(&self, name: &str) -> Result<Socket> {
        self.socket_at(&self.plugin_dir.join(name))
    }

    /// The socket of `path`: systemd's, or a new one.
    pub(crate) fn socket_at(&self, path: &Path) -> Result<Socket> {
        let mut inherited = self.inherited.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(Socket::open(path, &mut inherited)?)
    }

    /// Sockets of the DNS server that systemd kept over a restart.
    pub(crate) fn stored_sockets(&self) -> Vec<HandedSocket> {
        let mut inherited = self.inherited.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        inherited.take_stored().into_iter().map(|(name, fd)| HandedSocket { name, fd }).collect()
    }

    /// Resolves when the role is to end.
    pub(crate) fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stop = self.stop.clone();
        async move {
            // An error is the supervisor gone, which is a reason to stop too.
            let _ = stop.wait_for(|stop| *stop).await;
        }
    }

    /// Says that the role does its work from now on.
    pub(crate) fn ready(&self) {
        // Full or closed: it was said before, or nobody waits any more.
        let _ = self.ready.try_send(self.role);
    }
}

/// What the supervisor keeps.
pub(crate) struct Shared {
    dirs: Dirs,
    workers: Workers,
    docker_socket: PathBuf,
    overlay: Settings,
    on_demand: bool,
    plugin_dir: PathBuf,
    inherited: Arc<Mutex<Inherited>>,
    stop: watch::Sender<bool>,
    ready: (mpsc::Sender<Role>, Option<mpsc::Receiver<Role>>),
}

impl Shared {
    pub(crate) fn new(cli: &Cli) -> Result<Self> {
        let (sender, receiver) = mpsc::channel(16);
        Ok(Self {
            dirs: cli.dirs()?,
            workers: Workers::new(CALLS),
            docker_socket: cli.docker_socket()?,
            overlay: cli.overlay(),
            on_demand: cli.on_demand,
            plugin_dir: cli.plugin_dir()?,
            inherited: Arc::new(Mutex::new(
                Inherited::from_env().context("failed to take over systemd's sockets")?,
            )),
            stop: watch::Sender::new(false),
            ready: (sender, Some(receiver)),
        })
    }

    pub(crate) fn context(&self, role: Role) -> Context {
        Context {
            dirs: self.dirs.clone(),
            workers: self.workers.clone(),
            docker_socket: self.docker_socket.clone(),
            overlay: self.overlay,
            on_demand: self.on_demand,
            plugin_dir: self.plugin_dir.clone(),
            inherited: Arc::clone(&self.inherited),
            stop: self.stop.subscribe(),
            ready: self.ready.0.clone(),
            role,
        }
    }

    /// Resolves when `count` roles have said that they are ready, and says which inherited sockets nobody serves.
    pub(crate) fn all_ready(&mut self, count: usize) -> impl Future<Output = ()> + use<> {
        let receiver = self.ready.1.take();
        let inherited = Arc::clone(&self.inherited);
        async move {
            let Some(mut receiver) = receiver else { return };
            let mut ready = Vec::new();
            while ready.len() < count {
                match receiver.recv().await {
                    Some(role) if !ready.contains(&role) => ready.push(role),
                    Some(_) => (),
                    None => std::future::pending().await,
                }
            }
            let inherited = inherited.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            for path in inherited.left() {
                tracing::warn!(path = %path.display(), "systemd handed over a socket that no role serves");
            }
        }
    }

    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }
}
