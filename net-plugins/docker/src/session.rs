//! dockerd's starts, as an address driver has to tell them apart: what dockerd holds it asks for again when it starts.

use std::sync::{Arc, Mutex, PoisonError};

use berth_core::Berth;
use berth_plugin_http::Plugin;

use crate::cores::Cores;
use crate::refusal::{Failure, plain};

/// The calls of one address driver. Clones share what they know.
#[derive(Clone)]
pub(crate) struct Session {
    cores: Cores,
    /// The name under which dockerd knows it.
    pub(crate) driver: &'static str,
    /// dockerd started, and the records do not say so yet.
    started: Arc<Mutex<bool>>,
}

impl Session {
    pub(crate) fn new(cores: Cores, driver: &'static str) -> Self {
        Self { cores, driver, started: Arc::default() }
    }

    /// dockerd started.
    pub(crate) fn activated(&self) {
        *self.started() = true;
        if let Err(err) = self.cores.with(|berth| self.begin(berth)) {
            tracing::warn!(why = %plain(err), "not noted that dockerd started; it will be with the next call");
        }
    }

    /// Adds a method to `plugin` that is called once it is noted in which session.
    pub(crate) fn call<A, R>(
        &self,
        plugin: Plugin,
        name: &'static str,
        method: impl Fn(&mut Berth, A) -> Result<R, Failure> + Send + Sync + 'static,
    ) -> Plugin
    where
        A: serde::de::DeserializeOwned + 'static,
        R: serde::Serialize + 'static,
    {
        let session = self.clone();
        self.cores
            .method(plugin, name, move |berth, args| session.begin(berth).and_then(|()| method(berth, args)))
    }

    fn started(&self) -> std::sync::MutexGuard<'_, bool> {
        self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody goes on before it is noted: an address that is asked for again must not look taken.
    fn begin(&self, berth: &mut Berth) -> Result<(), Failure> {
        let mut started = self.started();
        if *started {
            berth.session_begin(self.driver)?;
            *started = false;
        }
        Ok(())
    }
}
