//! Sockets that members ask at, and the threads that answer there.
//!
//! | module | does |
//! |---|---|
//! | [`bind`] | opens the sockets of a gateway address, on port 53 or beside it |
//! | [`udp`] | answers datagrams, many by one system call |
//! | [`tcp`] | answers on connections, within limits |
//! | [`local`] | knows whether an address is the host's |
//!
//! A socket is registered with its thread's epoll instance by whoever opens it, under a number; the thread finds what it is
//! in a table that is replaced as a whole. So no thread is ever told anything, and none waits.

pub(crate) mod bind;
pub(crate) mod local;
pub(crate) mod tcp;
pub(crate) mod udp;

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use berth_types::NetworkName;
use rustix::event::{EventfdFlags, epoll, eventfd};

/// A socket on a gateway address.
#[derive(Debug)]
pub(crate) struct Listener {
    /// The network that the address is the gateway of.
    pub(crate) network: NetworkName,
    /// The socket.
    pub(crate) fd: OwnedFd,
}

/// Sockets by the numbers they have in an epoll instance.
type Table = HashMap<u64, Arc<Listener>>;

/// The number of the descriptor that wakes a thread.
pub(crate) const WAKE: u64 = 0;

/// What a thread waits for, as seen from outside.
#[derive(Debug)]
pub(crate) struct Station {
    /// What it waits with.
    pub(crate) epoll: OwnedFd,
    wake: OwnedFd,
    stop: AtomicBool,
    table: ArcSwap<Table>,
}

impl Station {
    /// A station where nothing is waited for yet.
    pub(crate) fn new() -> rustix::io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        Ok(Self { epoll, wake, stop: AtomicBool::new(false), table: ArcSwap::default() })
    }

    /// Waits for `listener` too, under `number`. Only one thread changes this at a time.
    pub(crate) fn add(&self, number: u64, listener: Arc<Listener>) -> rustix::io::Result<()> {
        let mut table = Table::clone(&self.table.load());
        let listener = table.entry(number).insert_entry(listener).into_mut().clone();
        self.table.store(Arc::new(table));
        epoll::add(&self.epoll, &listener.fd, epoll::EventData::new_u64(number), epoll::EventFlags::IN)
    }

    /// Waits for `number` no longer. A thread that is at it finishes.
    pub(crate) fn remove(&self, number: u64) {
        let mut table = Table::clone(&self.table.load());
        if let Some(listener) = table.remove(&number) {
            // It is registered: the table says so.
            let _ = epoll::delete(&self.epoll, &listener.fd);
        }
        self.table.store(Arc::new(table));
    }

    /// The socket with this number, unless it was removed meanwhile.
    pub(crate) fn listener(&self, number: u64) -> Option<Arc<Listener>> {
        self.table.load().get(&number).cloned()
    }

    /// Wakes the thread.
    pub(crate) fn wake(&self) {
        // A counter that is full wakes as well.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Forgets that it was woken.
    pub(crate) fn woken(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.wake, &mut count);
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }

    /// Whether the thread is to end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Waits for events.
    pub(crate) fn wait<'e>(
        &self,
        events: &'e mut Vec<epoll::Event>,
        limit: Option<std::time::Duration>,
    ) -> &'e [epoll::Event] {
        events.clear();
        let limit = limit.and_then(|limit| rustix::event::Timespec::try_from(limit).ok());
        match epoll::wait(self.epoll.as_fd(), rustix::buffer::spare_capacity(events), limit.as_ref()) {
            Ok(_) => events.as_slice(),
            // Interrupted: nothing has happened.
            Err(_) => &[],
        }
    }
}
