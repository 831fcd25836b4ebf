//! News of the host's links and of its encryption, from a thread that waits for them.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use berth_core::keeper::OURS;
use berth_netlink::xfrm::XfrmEvents;
use berth_netlink::{LinkEvents, LinkNews};
use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::Notify;

use super::AgentError;

/// The thread, and what it has heard.
pub(super) struct Watcher {
    heard: Arc<Heard>,
    /// Closed, it ends the thread.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Heard {
    news: Mutex<LinkNews>,
    encryption: AtomicBool,
    notify: Notify,
}

impl Watcher {
    /// Hears of everything from now on.
    pub(super) fn start() -> Result<Self, AgentError> {
        let failed = |err: io::Error| AgentError::Thread(err.to_string());
        let events = LinkEvents::open()?;
        // A kernel that has none encrypts nothing.
        let encryption = XfrmEvents::open().ok();
        let (stop, stopped) = UnixStream::pair().map_err(failed)?;
        let heard = Arc::new(Heard::default());
        let told = Arc::clone(&heard);
        let thread = std::thread::Builder::new().name("berthd-links".to_owned());
        let thread = thread.spawn(move || watch((events, encryption), &stopped, &told)).map_err(failed)?;
        Ok(Self { heard, stop: Some(stop), thread: Some(thread) })
    }

    /// Waits for news.
    pub(super) async fn heard(&self) {
        self.heard.notify.notified().await;
    }

    /// What was heard since this was last asked: of links, and whether anything of encryption.
    pub(super) fn news(&self) -> (LinkNews, bool) {
        let links =
            std::mem::take(&mut *self.heard.news.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        (links, self.heard.encryption.swap(false, Ordering::Relaxed))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn watch(
    (mut events, mut encryption): (LinkEvents, Option<XfrmEvents>),
    stopped: &UnixStream,
    heard: &Heard,
) {
    loop {
        let mut fds = vec![
            PollFd::new(&events, PollFlags::IN),
            PollFd::from_borrowed_fd(stopped.as_fd(), PollFlags::IN),
        ];
        fds.extend(encryption.as_ref().map(|encryption| PollFd::new(encryption, PollFlags::IN)));
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => (),
            Err(err) => return tracing::error!(%err, "news of links are not heard any more"),
        }
        let [of_links, of_stop, of_encryption] =
            [0, 1, 2].map(|at| fds.get(at).is_some_and(|fd| !fd.revents().is_empty()));
        drop(fds);
        if of_stop {
            return;
        }
        if of_encryption {
            if encryption.as_mut().is_some_and(|encryption| encryption.drain().is_err()) {
                // The next round looks all the same.
                encryption = None;
            }
            heard.encryption.store(true, Ordering::Relaxed);
            heard.notify.notify_one();
        }
        if !of_links {
            continue;
        }
        let news = match events.read(OURS) {
            Ok(news) => news,
            // The next round looks all the same.
            Err(err) => return tracing::error!(%err, "news of links are not heard any more"),
        };
        if news == LinkNews::default() {
            continue;
        }
        {
            let mut all = heard.news.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            all.lost |= news.lost;
            all.suspicious |= news.suspicious;
        }
        heard.notify.notify_one();
    }
}
