//! Opened cores, kept for the next call: opening the records costs as much as a small change of them.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use berth_core::{Berth, Chain, CoreError};
use berth_plugin_http::Plugin;
use berth_store::Dirs;
use berth_types::AttachmentKey;

use crate::refusal::{Failure, named, plain};

/// How many are kept. Each holds a few hundred kilobytes; more calls than this at once are rare, and open their own.
const KEPT: usize = 4;

/// How many endpoints may still be going while dockerd has its answer. The kernel takes about 30 ms for each; who comes while
/// so many are, waits for its own.
const LEAVING: usize = 8;

/// The stack of a thread that deletes a link and its record, bytes.
const STACK: usize = 512 * 1024;

/// dockerd has no deadline of its own: a call that hangs would hold the container's lock for ever.
const DEADLINE: Duration = Duration::from_secs(25);

/// Cores of one host. Clones share them.
#[derive(Clone)]
pub struct Cores {
    dirs: Dirs,
    idle: Arc<Mutex<Vec<Berth>>>,
    /// How many detaches are being ended, and who waits for that.
    leaving: Arc<(Mutex<usize>, Condvar)>,
}

impl Cores {
    /// Opens nothing yet.
    pub fn new(dirs: &Dirs) -> Self {
        Self { dirs: dirs.clone(), idle: Arc::default(), leaving: Arc::default() }
    }

    /// Where the records are.
    pub fn dirs(&self) -> &Dirs {
        &self.dirs
    }

    /// Calls `f` with a core that nobody else uses.
    pub fn with<T, E: From<CoreError>>(&self, f: impl FnOnce(&mut Berth) -> Result<T, E>) -> Result<T, E> {
        let kept = self.idle().pop();
        let mut core = match kept {
            Some(mut core) => {
                core.renew()?;
                core
            }
            None => Berth::open(&self.dirs)?,
        };
        let result = f(&mut core);
        let mut idle = self.idle();
        if idle.len() < KEPT {
            idle.push(core);
        }
        result
    }

    /// Adds a method to `plugin` that needs a core.
    pub(crate) fn method<A, R>(
        &self,
        plugin: Plugin,
        name: &'static str,
        method: impl Fn(&mut Berth, A) -> Result<R, Failure> + Send + Sync + 'static,
    ) -> Plugin
    where
        A: serde::de::DeserializeOwned + 'static,
        R: serde::Serialize + 'static,
    {
        let cores = self.clone();
        plugin.call(name, DEADLINE, move |args: A| {
            let called = |berth: &mut Berth| {
                // The refusal is worded while the core is at hand; only its opening fails outside.
                Ok::<_, Failure>(method(berth, args).map_err(|failure| named(berth, failure)))
            };
            cores.with(called).map_err(plain)?
        })
    }

    /// Detaches. When it returns, nothing of the attachment is known, published or answered any more; its link goes while the
    /// caller has its answer.
    pub(crate) fn detach(&self, berth: &mut Berth, key: &AttachmentKey) -> Result<(), CoreError> {
        let parting = berth.detach_begin(key)?;
        let Some(place) = Leaving::enter(self) else { return berth.detach_end(parting) };
        let endpoint = key.clone();
        let end = move || {
            // Its record says that it is being deleted, so what fails here is taken back as after a crash.
            if let Err(err) = place.0.with(|berth| berth.detach_end(parting)) {
                tracing::error!(%endpoint, error = %Chain(&err), "not removed; `berth gc` goes on with it");
            }
        };
        match std::thread::Builder::new().name("berthd-leave".to_owned()).stack_size(STACK).spawn(end) {
            Ok(_) => Ok(()),
            // What was begun is let go, and done once more from its record.
            Err(_) => berth.detach(key),
        }
    }

    /// Waits until all that was detached is gone.
    pub fn settle(&self) {
        let waited = self.leaving.1.wait_while(self.leaving(), |leaving| *leaving > 0);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn leaving(&self) -> std::sync::MutexGuard<'_, usize> {
        self.leaving.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Berth>> {
        // The list is changed by single pushes and pops, which leave nothing half done.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A detach that is being ended; while it is there, [`Cores::settle`] waits.
struct Leaving(Cores);

impl Leaving {
    fn enter(cores: &Cores) -> Option<Self> {
        let mut leaving = cores.leaving();
        let room = *leaving < LEAVING;
        *leaving += usize::from(room);
        drop(leaving);
        room.then(|| Self(cores.clone()))
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        *self.0.leaving() -= 1;
        self.0.leaving.1.notify_all();
    }
}
