//! Listing everything, and following what changes.

use etcd_client::{Client, Error, Event, EventType, GetOptions, WatchOptions, WatchResponse, WatchStream};

use super::EtcdCluster;
use super::session::{Again, Fault, call, fault};
use crate::cluster::keys::{self, Read, WATCHED};
use crate::cluster::{Answer, Change, ClusterError, Listing, News, Revision, Watch};

/// How many records one page has: half a megabyte, far below what a message may have, and all that is in memory twice.
const PAGE: i64 = 1_000;

/// The largest message of a watch: when a network goes, all its keys come at once.
const LARGEST_MESSAGE: usize = 64 << 20;

/// How often a listing is begun again that a compaction interrupted.
const LISTINGS: usize = 3;

impl EtcdCluster {
    pub(super) async fn list_all(&self) -> Result<Listing, ClusterError> {
        let mut tries = 0;
        loop {
            match self.list_once().await {
                Err(Fault::Compacted) if tries < LISTINGS => tries += 1,
                other => return other.map_err(|fault| self.sessions.error(fault)),
            }
        }
    }

    /// All pages are of the first one's revision.
    async fn list_once(&self) -> Result<Listing, Fault> {
        let prefix = self.sessions.prefix();
        let (mut listing, mut from) = (Listing::default(), format!("{prefix}{}", WATCHED.0).into_bytes());
        loop {
            let page = |mut client: Client| {
                let end = format!("{prefix}{}", WATCHED.1);
                let options =
                    GetOptions::new().with_range(end).with_limit(PAGE).with_revision(listing.revision.0);
                let from = from.clone();
                async move { client.get(from, Some(options)).await }
            };
            let page = call(&self.sessions, Again::Yes, page).await?;
            if listing.revision.0 == 0 {
                listing.revision = Revision(page.header().map_or(0, |header| header.revision()));
            }
            for kv in page.kvs() {
                match keys::read(&path(prefix, kv.key()), kv.value()) {
                    Read::Entry(entry) => listing.entries.push(entry),
                    Read::Foreign(foreign) => listing.foreign.push(foreign),
                    Read::Index => (),
                }
            }
            let Some(last) = page.kvs().last().filter(|_| page.more()) else { return Ok(listing) };
            from = [last.key(), b"\0"].concat();
        }
    }

    pub(super) async fn watch_after(&self, revision: Revision) -> Result<Box<dyn Watch>, ClusterError> {
        let prefix = self.sessions.prefix().to_owned();
        let open = |client: Client| {
            let options = WatchOptions::new()
                .with_range(format!("{prefix}{}", WATCHED.1))
                .with_start_revision(revision.0 + 1)
                .with_progress_notify();
            let key = format!("{prefix}{}", WATCHED.0);
            async move {
                let mut watches = client.watch_client().max_decoding_message_size(LARGEST_MESSAGE);
                let mut stream = watches.watch(key, Some(options)).await?;
                let first = stream.message().await?;
                Ok::<_, Error>((stream, first))
            }
        };
        let opened =
            call(&self.sessions, Again::Yes, open).await.map_err(|fault| self.sessions.error(fault))?;
        let (stream, first) = opened;
        let name = self.sessions.name();
        // etcd that is behind what was seen is another one, or was brought back from a copy.
        let behind = first
            .as_ref()
            .and_then(|first| first.header())
            .is_some_and(|header| header.revision() < revision.0);
        let config = self.sessions.config().clone();
        Ok(Box::new(EtcdWatch { stream, first, prefix, name, config, revision, lost: behind }))
    }
}

struct EtcdWatch {
    stream: WatchStream,
    /// The answer to the request for it, not looked at yet.
    first: Option<WatchResponse>,
    prefix: String,
    name: String,
    config: super::EtcdConfig,
    revision: Revision,
    lost: bool,
}

impl Watch for EtcdWatch {
    fn next(&mut self) -> Answer<'_, News> {
        Box::pin(self.following())
    }
}

impl EtcdWatch {
    async fn following(&mut self) -> Result<News, ClusterError> {
        loop {
            if self.lost {
                return Ok(News::Lost);
            }
            let response = match self.first.take() {
                Some(first) => first,
                None => self.message().await?,
            };
            if response.compact_revision() > 0 {
                self.lost = true;
                continue;
            }
            if response.canceled() {
                return Err(self.canceled(response.cancel_reason()));
            }
            let changes: Vec<Change> =
                response.events().iter().filter_map(|event| self.change(event)).collect();
            self.revision = self.revision.max(reached(&response));
            if !changes.is_empty() {
                return Ok(News::Changes { revision: self.revision, changes });
            }
        }
    }

    async fn message(&mut self) -> Result<WatchResponse, ClusterError> {
        match self.stream.message().await {
            Ok(Some(response)) => Ok(response),
            Ok(None) => Err(self.away("it ended the watch".to_owned())),
            Err(err) => Err(match fault(&err, &self.config) {
                Fault::Refused(why) => ClusterError::Refused { cluster: self.name.clone(), why },
                Fault::Away(why) | Fault::Untrusted(why) | Fault::Config(why) => self.away(why),
                Fault::Compacted => self.away("compacted".to_owned()),
            }),
        }
    }

    fn away(&self, why: String) -> ClusterError {
        ClusterError::Away { cluster: self.name.clone(), why }
    }

    fn canceled(&self, reason: &str) -> ClusterError {
        if reason.contains("permission denied") {
            let why = format!("it may not watch below {} ({reason})", self.prefix);
            return ClusterError::Refused { cluster: self.name.clone(), why };
        }
        self.away(format!("it ended the watch ({reason})"))
    }

    fn change(&self, event: &Event) -> Option<Change> {
        let kv = event.kv()?;
        let path = path(&self.prefix, kv.key());
        if event.event_type() == EventType::Delete {
            return keys::gone(&path);
        }
        match keys::read(&path, kv.value()) {
            Read::Entry(entry) => Some(Change::Put(entry)),
            Read::Foreign(foreign) => Some(Change::Foreign(foreign)),
            Read::Index => None,
        }
    }
}

/// Up to when a response tells everything. Its header may be ahead of its events while a watch catches up, and the answer to the
/// request for the watch comes before all of them.
fn reached(response: &WatchResponse) -> Revision {
    let of = |event: &Event| event.kv().map(|kv| kv.mod_revision());
    let last = response.events().iter().filter_map(of).max();
    let told = response.header().filter(|_| !response.created()).map(|header| header.revision());
    Revision(last.or(told).unwrap_or(0))
}

fn path(prefix: &str, key: &[u8]) -> String {
    let key = String::from_utf8_lossy(key);
    key.strip_prefix(prefix).unwrap_or(&key).to_owned()
}
