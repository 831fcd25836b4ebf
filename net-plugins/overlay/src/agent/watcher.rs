//! News of the host's links, from a thread that waits for them.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use berth_core::keeper::OURS;
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
    notify: Notify,
}

impl Watcher {
    /// Hears of everything from now on.
    pub(super) fn start() -> Result<Self, AgentError> {
        let failed = |err: io::Error| AgentError::Thread(err.to_string());
        let events = LinkEvents::open()?;
        let (stop, stopped) = UnixStream::pair().map_err(failed)?;
        let heard = Arc::new(Heard::default());
        let told = Arc::clone(&heard);
        let thread = std::thread::Builder::new().name("berthd-links".to_owned());
        let thread = thread.spawn(move || watch(events, &stopped, &told)).map_err(failed)?;
        Ok(Self { heard, stop: Some(stop), thread: Some(thread) })
    }

    /// Waits for news.
    pub(super) async fn heard(&self) {
        self.heard.notify.notified().await;
    }

    /// What was heard since this was last asked.
    pub(super) fn news(&self) -> LinkNews {
        std::mem::take(&mut *self.heard.news.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
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

fn watch(mut events: LinkEvents, stopped: &UnixStream, heard: &Heard) {
    loop {
        let mut fds =
            [PollFd::new(&events, PollFlags::IN), PollFd::from_borrowed_fd(stopped.as_fd(), PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => (),
            Err(err) => return tracing::error!(%err, "news of links are not heard any more"),
        }
        if fds.last().is_some_and(|stop| !stop.revents().is_empty()) {
            return;
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
