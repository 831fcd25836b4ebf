//! What agents say to each other: one JSON value a line, from the one that was dialled to the one that dialled.
//!
//! `hello`, then all attachments, `whole`, then each change; `alive` where there is none for a while.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use berth_types::{NetworkName, NodeName};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::state::Shared;
use crate::cluster::{Change, Entry, EntryKey, Revision};
use crate::model::{LAYOUT, Node, Occupant, OverlayAttachment};

/// How often something is said.
const ALIVE: Duration = Duration::from_secs(2);

/// How long a peer says nothing when it is left and dialled anew.
const SILENT: Duration = Duration::from_secs(7);

/// How long a peer cannot be reached when it counts as suspect.
const SUSPECT: Duration = Duration::from_secs(10);

/// The pause before a peer is dialled again: doubled each time, up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));

/// No word is longer, and no peer has more attachments: what is, is no peer of ours.
const LONGEST: u64 = 64 << 10;
const MOST: usize = 100_000;

/// How many connections are served: each peer has one, and one that it has not noticed the end of.
const SERVED: usize = 2 * 256;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Hello {
        v: u32,
        node: Node,
    },
    Put(OverlayAttachment),
    Gone {
        network: NetworkName,
        of: Occupant,
    },
    Whole,
    /// And how its file deals addresses out.
    Alive {
        deal: u64,
    },
}

/// Answers listed peers on this node's VTEP addresses.
pub(super) async fn serve(shared: Arc<Shared>) {
    let mut listeners: BTreeMap<IpAddr, JoinSet<()>> = BTreeMap::new();
    loop {
        let file = shared.file();
        let own = file.peers.get(&shared.config().own).map(|peer| peer.vteps.clone()).unwrap_or_default();
        listeners.retain(|vtep, tasks| own.contains(vtep) && tasks.try_join_next().is_none());
        for vtep in own {
            listeners.entry(vtep).or_insert_with(|| {
                let mut tasks = JoinSet::new();
                tasks.spawn(listen(Arc::clone(&shared), vtep));
                tasks
            });
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// Until it cannot: the address may not be there yet.
async fn listen(shared: Arc<Shared>, vtep: IpAddr) {
    let address = SocketAddr::new(vtep, shared.config().port);
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(err) => {
            tracing::debug!(%address, %err, "cannot listen for peers");
            return;
        }
    };
    let mut served = JoinSet::new();
    loop {
        while served.try_join_next().is_some() {}
        let Ok((stream, from)) = listener.accept().await else {
            sleep(PAUSE.0).await;
            continue;
        };
        let listed = shared.file().peer_at(from.ip()).is_some_and(|name| *name != shared.config().own);
        if !listed || served.len() >= SERVED {
            tracing::debug!(%from, "a connection that is no peer's was closed");
            continue;
        }
        let shared = Arc::clone(&shared);
        served.spawn(async move { drop(talk(&shared, stream, from.ip()).await) });
    }
}

/// Tells a peer all and then each change, until it is gone, or is no peer any more.
async fn talk(shared: &Shared, mut stream: TcpStream, from: IpAddr) -> std::io::Result<()> {
    let mut changed = shared.changed();
    let mut told: Option<Revision> = None;
    loop {
        changed.borrow_and_update();
        let (revision, words) = match told.and_then(|told| shared.since(told)) {
            Some((revision, changes)) => {
                (revision, changes.into_iter().filter_map(|change| word(shared, change)).collect())
            }
            None => whole(shared),
        };
        let quiet = told.is_some() && words.is_empty();
        say(&mut stream, if quiet { vec![Word::Alive { deal: shared.file().deal }] } else { words }).await?;
        told = Some(revision);
        let _ = timeout(ALIVE, own_change(shared, &mut changed, revision)).await;
        if shared.file().peer_at(from).is_none() {
            return Ok(());
        }
    }
}

/// Waits for a change that peers are told of.
async fn own_change(shared: &Shared, changed: &mut tokio::sync::watch::Receiver<i64>, told: Revision) {
    while changed.changed().await.is_ok() {
        let news = shared
            .since(told)
            .is_none_or(|(_, changes)| changes.into_iter().any(|change| word(shared, change).is_some()));
        if news {
            return;
        }
    }
}

fn whole(shared: &Shared) -> (Revision, Vec<Word>) {
    let (listing, own) = (shared.listing(), &shared.config().own);
    let hello = shared.own_node().map(|node| Word::Hello { v: LAYOUT, node });
    let attachments = listing.entries.into_iter().filter_map(|entry| match entry {
        Entry::Attachment(attachment) if attachment.node == *own => Some(Word::Put(attachment)),
        _ => None,
    });
    (listing.revision, hello.into_iter().chain(attachments).chain([Word::Whole]).collect())
}

/// What a peer is told of a change: of this node's own attachments, and of itself.
fn word(shared: &Shared, change: Change) -> Option<Word> {
    let own = &shared.config().own;
    match change {
        Change::Put(Entry::Attachment(attachment)) if attachment.node == *own => Some(Word::Put(attachment)),
        Change::Gone(EntryKey::Attachment(network, node, of)) if node == *own => {
            Some(Word::Gone { network, of })
        }
        Change::Put(Entry::Known(node)) if node.name == *own => Some(Word::Hello { v: LAYOUT, node }),
        _ => None,
    }
}

async fn say(stream: &mut TcpStream, words: Vec<Word>) -> std::io::Result<()> {
    for some in words.chunks(256) {
        let mut text = Vec::new();
        for word in some {
            serde_json::to_writer(&mut text, word)?;
            text.push(b'\n');
        }
        timeout(SILENT, stream.write_all(&text)).await??;
    }
    Ok(())
}

/// Keeps a connection to each peer of the file.
pub(super) async fn dial_all(shared: Arc<Shared>) {
    let mut dialled: BTreeMap<NodeName, (Vec<IpAddr>, JoinSet<()>)> = BTreeMap::new();
    loop {
        let file = shared.file();
        let others = || file.peers.iter().filter(|(name, _)| **name != shared.config().own);
        dialled
            .retain(|name, (vteps, _)| others().any(|(other, peer)| other == name && peer.vteps == *vteps));
        for (name, peer) in others() {
            dialled.entry(name.clone()).or_insert_with(|| {
                let mut tasks = JoinSet::new();
                tasks.spawn(dial(Arc::clone(&shared), name.clone(), peer.vteps.clone()));
                (peer.vteps.clone(), tasks)
            });
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// Hears one peer, for as long as it is listed.
async fn dial(shared: Arc<Shared>, name: NodeName, vteps: Vec<IpAddr>) {
    let (mut pause, mut heard) = (PAUSE.0, Instant::now());
    loop {
        for vtep in &vteps {
            let mut last = None;
            let ended = hear(&shared, &name, *vtep, &mut last).await;
            tracing::debug!(peer = %name, %vtep, ?ended, "a peer is not heard any more");
            if let Some(last) = last {
                (pause, heard) = (PAUSE.0, last);
            }
        }
        if heard.elapsed() >= SUSPECT {
            shared.peer_silent(&name);
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// One connection, to its end. `last` is when the peer was last heard on it.
async fn hear(
    shared: &Shared,
    name: &NodeName,
    vtep: IpAddr,
    last: &mut Option<Instant>,
) -> std::io::Result<()> {
    let stream = timeout(SILENT, connect(shared, vtep)).await??;
    let mut reader = BufReader::new(stream);
    let mut all: Option<Vec<OverlayAttachment>> = Some(Vec::new());
    loop {
        let word = next_word(&mut reader).await?;
        *last = Some(Instant::now());
        match word {
            Word::Hello { v, node, .. } if v > LAYOUT || node.name != *name => {
                return Err(std::io::Error::other(format!("it is {} (layout {v})", node.name)));
            }
            Word::Hello { node, .. } => shared.peer_came(node),
            Word::Put(attachment) if attachment.node != *name => {
                return Err(std::io::Error::other(format!("it speaks for {}", attachment.node)));
            }
            Word::Put(attachment) => match &mut all {
                Some(all) if all.len() < MOST => all.push(attachment),
                Some(_) => return Err(std::io::Error::other("it has more attachments than any node")),
                None => shared.peer_changed(attachment),
            },
            Word::Gone { network, of } => {
                shared.peer_lost(EntryKey::Attachment(network, name.clone(), of));
            }
            // A second one comes when this node was too slow to hear each change.
            Word::Whole => match all.take() {
                Some(all) => shared.peer_has(name, all),
                None => return Err(std::io::Error::other("it begins anew")),
            },
            Word::Alive { deal } => shared.peer_deals(name, deal),
        }
    }
}

/// From this node's own VTEP: by it the peer knows who it is.
async fn connect(shared: &Shared, vtep: IpAddr) -> std::io::Result<TcpStream> {
    let file = shared.file();
    let own = file.peers.get(&shared.config().own);
    let from = own.and_then(|peer| peer.vteps.iter().find(|own| own.is_ipv4() == vtep.is_ipv4()));
    let from = from.ok_or_else(|| std::io::Error::other("this node has no VTEP of the peer's family"))?;
    let socket = if vtep.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(*from, 0))?;
    socket.connect(SocketAddr::new(vtep, shared.config().port)).await
}

async fn next_word(reader: &mut BufReader<TcpStream>) -> std::io::Result<Word> {
    let mut line = Vec::new();
    timeout(SILENT, reader.take(LONGEST).read_until(b'\n', &mut line)).await??;
    if !line.ends_with(b"\n") {
        return Err(std::io::Error::other("it ended, or a word is too long"));
    }
    Ok(serde_json::from_slice(&line)?)
}
