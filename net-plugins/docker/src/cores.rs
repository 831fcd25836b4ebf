//! Opened cores, kept for the next call: opening the records costs as much as a small change of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_core::{Berth, CoreError};
use berth_plugin_http::Plugin;
use berth_store::Dirs;

use crate::refusal::{Failure, named, plain};

/// How many are kept. Each holds a few hundred kilobytes; more calls than this at once are rare, and open their own.
const KEPT: usize = 4;

/// dockerd has no deadline of its own: a call that hangs would hold the container's lock for ever.
const DEADLINE: Duration = Duration::from_secs(25);

/// Cores of one host. Clones share them.
#[derive(Clone)]
pub struct Cores {
    dirs: Dirs,
    idle: Arc<Mutex<Vec<Berth>>>,
}

impl Cores {
    /// Opens nothing yet.
    pub fn new(dirs: &Dirs) -> Self {
        Self { dirs: dirs.clone(), idle: Arc::default() }
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

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Berth>> {
        // The list is changed by single pushes and pops, which leave nothing half done.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
