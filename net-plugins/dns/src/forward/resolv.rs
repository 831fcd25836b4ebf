//! The host's servers, read again when their file changes.
//!
//! The file is watched by its directory, and by the directories of the links that lead to it: programs that manage it replace
//! it by another file under its name, write it in place, or let a link point elsewhere.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::fs::inotify;

use crate::zone::Servers;

/// As many as the C library takes (`MAXNS`).
const SERVERS: usize = 3;
/// Links that are followed, as the kernel does.
const LINKS: usize = 40;
/// A file without servers may be about to be written: it is believed when it still has none after this long.
const DOUBT: Duration = Duration::from_millis(500);
/// How often the file is read where it cannot be watched.
const BLIND: Duration = Duration::from_secs(5);

/// The file, watched.
#[derive(Debug)]
pub(crate) struct Resolv {
    path: PathBuf,
    current: Option<Arc<Servers>>,
    watched: BTreeSet<PathBuf>,
    inotify: Option<OwnedFd>,
    again: Option<Instant>,
    doubted: bool,
}

impl Resolv {
    /// The file at `path`, read once.
    pub(crate) fn new(path: PathBuf) -> Self {
        let current = read(&path);
        Self { path, current, watched: BTreeSet::new(), inotify: None, again: None, doubted: false }
    }

    /// The servers last read.
    pub(crate) fn current(&self) -> Option<Arc<Servers>> {
        self.current.clone()
    }

    /// How long until it is to be read again without any news.
    pub(crate) fn limit(&self) -> Option<Duration> {
        self.again.map(|again| again.saturating_duration_since(Instant::now()))
    }

    /// Whether that is now.
    pub(crate) fn is_due(&self) -> bool {
        self.again.is_some_and(|again| again <= Instant::now())
    }

    /// Reads it again, watched by `epoll` under `number`. Returns the servers if they are others than before.
    ///
    /// It is watched first and read then: what happens to it in between is news once more, and nothing is missed.
    pub(crate) fn refresh(&mut self, epoll: &OwnedFd, number: u64) -> Option<Option<Arc<Servers>>> {
        self.watch(epoll, number);
        self.again = self.inotify.is_none().then(|| Instant::now() + BLIND);
        let servers = read(&self.path);
        if servers.is_none() && self.current.is_some() && !self.doubted {
            self.doubted = true;
            self.again = Some(Instant::now() + DOUBT);
            return None;
        }
        self.doubted = false;
        if servers == self.current {
            return None;
        }
        let shown: Vec<String> =
            servers.iter().flat_map(|list| list.addrs()).map(ToString::to_string).collect();
        tracing::info!(servers = shown.join(" "), "the host's DNS servers are others now");
        self.current = servers;
        Some(self.current.clone())
    }

    /// Watches the folders that lead to the file. What happened so far is done with.
    fn watch(&mut self, epoll: &OwnedFd, number: u64) {
        if let Some(inotify) = &self.inotify {
            let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
            let mut reader = inotify::Reader::new(inotify, &mut buffer);
            while reader.next().is_ok() {}
        }
        // A link that leads elsewhere by the time it is watched is followed again.
        for _ in 0..LINKS {
            let folders = folders(&self.path);
            if self.inotify.is_some() && folders == self.watched {
                break;
            }
            self.inotify = begin(&folders, epoll, number);
            self.watched = folders;
        }
    }
}

/// A watch on all `folders`, or none.
fn begin(folders: &BTreeSet<PathBuf>, epoll: &OwnedFd, number: u64) -> Option<OwnedFd> {
    use inotify::{CreateFlags, WatchFlags};
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
    let news = WatchFlags::CREATE
        | WatchFlags::MOVED_TO
        | WatchFlags::MOVED_FROM
        | WatchFlags::DELETE
        | WatchFlags::CLOSE_WRITE
        | WatchFlags::MODIFY;
    for folder in folders {
        inotify::add_watch(&watch, folder, news).ok()?;
    }
    epoll::add(epoll, &watch, epoll::EventData::new_u64(number), epoll::EventFlags::IN).ok()?;
    Some(watch)
}

/// The folders of `path` and of all that it leads to by links.
fn folders(path: &Path) -> BTreeSet<PathBuf> {
    let mut folders = BTreeSet::new();
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let Some(folder) = path.parent().map(Path::to_owned) else { break };
        let target = fs::read_link(&path);
        folders.insert(folder.clone());
        match target {
            Ok(target) => path = folder.join(target),
            Err(_) => break,
        }
    }
    folders
}

fn read(path: &Path) -> Option<Arc<Servers>> {
    // What is not text in it is not a server.
    let bytes = fs::read(path).ok()?;
    Servers::new(&servers_in(&String::from_utf8_lossy(&bytes)))
}

/// The servers in the text of a `resolv.conf`. What cannot be understood is passed over, as resolvers do.
pub fn servers_in(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            return None;
        }
        words.next().and_then(server_of)
    };
    text.lines().filter_map(server).take(SERVERS).collect()
}

fn server_of(word: &str) -> Option<SocketAddr> {
    if let Ok(addr) = word.parse::<IpAddr>() {
        return Some(SocketAddr::new(addr, 53));
    }
    // A link-local address with its interface.
    let (addr, scope) = word.split_once('%')?;
    let index = scope
        .parse()
        .ok()
        .or_else(|| fs::read_to_string(format!("/sys/class/net/{scope}/ifindex")).ok()?.trim().parse().ok());
    Some(SocketAddr::V6(SocketAddrV6::new(addr.parse().ok()?, 53, 0, index?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_and_the_rest_is_passed_over() {
        let text = "# a comment\n; another\nsearch example.org\noptions edns0 unheard-of\n\
                    nameserver 192.0.2.1\nnameserver\tfd00::1\nnameserver not-one\nnameserver 192.0.2.2 192.0.2.3\n\
                    nameserver 192.0.2.4\n";
        let wanted: [SocketAddr; 3] =
            ["192.0.2.1:53", "[fd00::1]:53", "192.0.2.2:53"].map(|addr| addr.parse().unwrap());
        assert_eq!(servers_in(text), wanted);
        assert_eq!(servers_in(""), []);
        assert_eq!(servers_in("nameserver fe80::1%1"), ["[fe80::1%1]:53".parse().unwrap()]);
    }

    #[test]
    fn no_change_is_missed_however_soon_after_another_it_comes() {
        let dir = std::env::temp_dir().join(format!("berth-resolv-news-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("resolv.conf");
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let mut resolv = Resolv::new(path.clone());
        resolv.refresh(&epoll, 1);
        // Two changes, the second a little later each time, so that it falls into every part of reading the first.
        let (write, written) = std::sync::mpsc::sync_channel::<u16>(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in written {
                    for server in [0, number] {
                        let new = dir.join("new");
                        fs::write(&new, format!("nameserver 10.0.{}.{}\n", server >> 8, server & 0xff))
                            .unwrap();
                        fs::rename(&new, &path).unwrap();
                        let until = Instant::now() + Duration::from_micros(u64::from(number % 100));
                        while Instant::now() < until {}
                    }
                }
            });
            for number in 1..=1000_u16 {
                write.send(number).unwrap();
                let [high, low] = number.to_be_bytes();
                let last = SocketAddr::from(([10, 0, high, low], 53));
                while resolv.current().is_none_or(|servers| servers.addrs() != [last]) {
                    let mut events = Vec::with_capacity(4);
                    let limit = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
                    let buffer = rustix::buffer::spare_capacity(&mut events);
                    assert_ne!(
                        epoll::wait(&epoll, buffer, Some(&limit)),
                        Ok(0),
                        "change {number} was missed"
                    );
                    resolv.refresh(&epoll, 1);
                }
            }
            drop(write);
        });
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn links_are_followed_to_their_folders() {
        let dir = std::env::temp_dir().join(format!("berth-resolv-{}", std::process::id()));
        let (a, b) = (dir.join("a"), dir.join("b"));
        fs::create_dir_all(&a).unwrap();
        fs::create_dir_all(&b).unwrap();
        std::os::unix::fs::symlink("../b/real", a.join("link")).unwrap();
        let found = folders(&a.join("link"));
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(found, BTreeSet::from([a.clone(), a.join("../b")]));
    }
}
