//! Opened cores, kept for the next call: opening the records costs as much as a small change of them.

use std::sync::{Arc, Mutex, PoisonError};

use berth_core::{Berth, CoreError};
use berth_store::Dirs;

/// How many are kept. Each holds a few hundred kilobytes; more calls than this at once are rare, and open their own.
const KEPT: usize = 4;

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

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Berth>> {
        // The list is changed by single pushes and pops, which leave nothing half done.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
