//! Names: the DNS server, fed from the records.
//!
//! The order at the start: control socket, records, answers. Whoever changes records first writes and then tells, so
//! what was written before the socket was there is read, and what is written later is told.

mod control;
mod feed;
mod handover;
mod plan;
mod store;

use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use berth_core::Berth;
use berth_core::names::{LOG, SOCKET};
use berth_dns::{Change, DnsError, HandedSocket, Server, ServerConfig};
use berth_plugin_http::{Socket, serve_router};
use berth_store::lock::NamesLock;
use tokio::net::UnixListener;
use tokio::sync::watch;

use self::control::Control;
use self::feed::{Feed, Worker};
use self::handover::{Predecessor, Successor};
use self::plan::Told;
use self::store::Stored;
use crate::context::Context;

/// How long a daemon may take from its control socket to where a successor asks, and from its end to being gone.
const BEGINS: Duration = Duration::from_secs(5);

/// Between two looks for it.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Serves names.
pub(crate) async fn run(context: Context) -> Result<()> {
    let begun = context.clone();
    let started =
        tokio::task::spawn_blocking(move || start(&begun)).await.context("the start panicked")??;
    let Some(Started { socket, handover, server, feed, thread, end }) = started else { return Ok(()) };
    tracing::info!(run = %context.dirs.run.display(), "serving names");
    context.ready();
    let control = Control { server: Arc::clone(&server), feed: feed.clone() };
    let stopped = {
        let (stop, mut end) = (context.stopped(), end);
        async move {
            tokio::select! {
                () = stop => (),
                // The sender goes with the feed.
                _ = end.wait_for(|end| *end) => (),
            }
        }
    };
    serve(&context, socket, handover, control, stopped).await?;
    tokio::task::spawn_blocking(move || {
        // Calls that are not done by now have been given up.
        feed.end();
        let _ = thread.join();
        stop(server);
    })
    .await
    .context("the end panicked")?;
    if context.on_demand {
        let _ = std::fs::remove_file(context.dirs.run.join(LOG));
    }
    Ok(())
}

/// What runs after the start.
struct Started {
    socket: Socket,
    /// Where a successor asks; none where a service manager has the control socket. It is the one that replaces daemons
    /// then, and keeps their sockets itself.
    handover: Option<Handover>,
    server: Arc<Server>,
    feed: Feed,
    thread: std::thread::JoinHandle<()>,
    /// Says that the server is to end by itself.
    end: watch::Receiver<bool>,
}

/// Opens the control socket, takes over what there is to take over, and answers. None where another server serves
/// already and this one was only started for want of one.
fn start(context: &Context) -> Result<Option<Started>> {
    let path = context.dirs.run.join(SOCKET);
    if context.on_demand {
        // Whoever started it holds the lock until it listens.
        return match begin(context, &path)? {
            Some(socket) => answer(context, socket, Vec::new()).map(Some),
            None => Ok(None),
        };
    }
    let lock = NamesLock::exclusive(&context.dirs)?;
    let mut handed = context.stored_sockets();
    let (socket, before) = succeed(context, &path, &mut handed)?;
    let started = answer(context, socket, handed)?;
    if let Some(before) = before {
        before.relieve().context("the daemon before this one does not stop")?;
    }
    lock.remove()?;
    Ok(Some(started))
}

/// The control socket of a server that was started for want of one; none where another listens by now. One that was killed
/// has its socket closed before it is gone: it is waited for.
fn begin(context: &Context, path: &Path) -> Result<Option<Socket>> {
    let until = Instant::now() + BEGINS;
    loop {
        match context.socket_at(path) {
            Ok(socket) => return Ok(Some(socket)),
            Err(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => return Ok(None),
            Err(err) if Instant::now() >= until => return Err(err),
            Err(_) => std::thread::sleep(LOOK_AGAIN),
        }
    }
}

/// The control socket, and the daemon it was taken over from with its sockets, if there is one. One that has only just begun
/// has its control socket before it can hand over: it is waited for.
fn succeed(
    context: &Context,
    path: &Path,
    handed: &mut Vec<HandedSocket>,
) -> Result<(Socket, Option<Predecessor>)> {
    let until = Instant::now() + BEGINS;
    loop {
        let found = Predecessor::find(&context.dirs.run);
        let mut before = found.context("failed to ask the daemon before this one")?;
        if let Some(before) = &mut before {
            handed.extend(before.take().context("the daemon before this one did not hand over its sockets")?);
            tracing::info!(sockets = handed.len(), "taking over from the daemon before this one");
        }
        match context.socket_at(path) {
            Ok(socket) => return Ok((socket, before)),
            Err(err) if before.is_some() || Instant::now() >= until => return Err(err),
            Err(_) => std::thread::sleep(LOOK_AGAIN),
        }
    }
}

/// Reads all records and answers what they say.
fn answer(context: &Context, socket: Socket, handed: Vec<HandedSocket>) -> Result<Started> {
    let mut berth = Berth::open(&context.dirs)?;
    let mut told = Told::default();
    let changes: Vec<Change> = told.all(&berth.served()?);
    let stored = Stored::of(&handed);
    let server = Arc::new(start_server(&mut told, changes, &handed)?);
    // What it did not take over is closed.
    drop(handed);
    let (ending, end) = watch::channel(false);
    let worker = Worker {
        berth,
        server: Arc::clone(&server),
        told,
        stored,
        dirs: context.dirs.clone(),
        on_demand: context.on_demand,
        end: ending,
    };
    let (feed, thread) = Feed::start(worker).context("failed to start a thread")?;
    // Where it listens is not in the records yet, and what was told to the daemon before this one may be.
    feed.compare();
    let handover = match socket.is_inherited() {
        true => None,
        false => Some(Handover::open(context)?),
    };
    Ok(Started { socket, handover, server, feed, thread, end })
}

/// Starts the server. A network whose address cannot be listened at is left out and told again later: it must not keep
/// the others from their names.
fn start_server(told: &mut Told, mut changes: Vec<Change>, handed: &[HandedSocket]) -> Result<Server> {
    loop {
        let copied = |socket: &HandedSocket| {
            let fd = socket.fd.try_clone()?;
            Ok(HandedSocket { name: socket.name.clone(), fd })
        };
        let copies = handed.iter().map(copied).collect::<io::Result<_>>();
        let copies = copies.context("failed to take over sockets")?;
        match Server::start(ServerConfig::default(), changes.clone(), copies) {
            Err(DnsError::Listen { addr, source }) => {
                let deaf = |change: &Change| match change {
                    Change::NetworkPut(spec) => spec.listeners.contains(&addr.ip()),
                    _ => false,
                };
                let Some(place) = changes.iter().position(deaf) else {
                    return Err(DnsError::Listen { addr, source }.into());
                };
                if let Change::NetworkPut(spec) = changes.remove(place) {
                    tracing::warn!(network = %spec.name, %addr, %source, "its names are not answered");
                    told.doubt(&spec.name);
                }
            }
            other => return Ok(other?),
        }
    }
}

/// Serves the control socket until the end, or until a successor has taken over.
async fn serve(
    context: &Context,
    socket: Socket,
    mut handover: Option<Handover>,
    control: Control,
    stopped: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let mut socket = Some(socket);
    let mut stopped = pin!(stopped);
    let path = context.dirs.run.join(SOCKET);
    loop {
        let (close, closed) = watch::channel(false);
        let served = {
            let socket = match socket.take() {
                Some(socket) => socket,
                None => context.socket_at(&path)?,
            };
            let closed = async move {
                let mut closed = closed;
                // The sender gone is a reason to close, too.
                let _ = closed.wait_for(|closed| *closed).await;
            };
            tokio::spawn(serve_router(socket, control::router(control.clone()), closed))
        };
        let mut served = pin!(served);
        let successor = tokio::select! {
            ended = &mut served => return Ok(ended??),
            () = &mut stopped => None,
            successor = successor(handover.take()) => Some(successor?),
        };
        close.send_replace(true);
        served.await??;
        let Some(successor) = successor else { return Ok(()) };
        if hand(successor, Arc::clone(&control.server)).await {
            return Ok(());
        }
        // It changed its mind. What was written meanwhile nobody could tell.
        control.feed.compare();
        handover = Some(Handover::open(context)?);
    }
}

/// Hands the sockets over. Whether the other answers from now on.
async fn hand(mut successor: Successor, server: Arc<Server>) -> bool {
    let handed = tokio::task::spawn_blocking(move || successor.hand(&server.hand_over())).await;
    match handed {
        Ok(Ok(())) => {
            tracing::info!("another daemon has taken over");
            true
        }
        Ok(Err(err)) => {
            tracing::warn!(%err, "another daemon began to take over and did not; going on");
            false
        }
        Err(_) => false,
    }
}

/// Waits for a daemon that wants to take over.
async fn successor(handover: Option<Handover>) -> Result<Successor> {
    let Some(handover) = handover else { return std::future::pending().await };
    let listener = handover.listener()?;
    loop {
        let (stream, _) = listener.accept().await.context("failed to wait for a successor")?;
        let checked = stream.into_std().and_then(|stream| {
            stream.set_nonblocking(false)?;
            Successor::new(stream)
        });
        match checked {
            Ok(successor) => return Ok(successor),
            Err(err) => tracing::warn!(%err, "not handed over"),
        }
    }
}

/// The listener for successors. Whoever serves the control socket owns it: its path is replaced.
struct Handover(std::os::unix::net::UnixListener, PathBuf);

impl Handover {
    fn open(context: &Context) -> Result<Self> {
        let path = context.dirs.run.join(handover::SOCKET);
        match std::fs::remove_file(&path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                bail!("failed to remove `{}`: {err}", path.display());
            }
            _ => (),
        }
        // The run directory is for its owner only, and so is what the process makes.
        let listener = std::os::unix::net::UnixListener::bind(&path);
        let listener = listener.with_context(|| format!("failed to bind `{}`", path.display()))?;
        Ok(Self(listener, path))
    }

    /// The listener, for the runtime that calls this.
    fn listener(&self) -> Result<UnixListener> {
        let listener = self.0.try_clone().context("failed to wait for a successor")?;
        listener.set_nonblocking(true).context("failed to wait for a successor")?;
        UnixListener::from_std(listener).context("failed to wait for a successor")
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.1);
    }
}

/// Stops the server once nobody else has it.
fn stop(server: Arc<Server>) {
    match Arc::try_unwrap(server) {
        Ok(server) => server.stop(),
        // A call that is still being answered has it, and the process is about to end.
        Err(server) => drop(server),
    }
}
