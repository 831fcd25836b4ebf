//! Threads for calls that block.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

/// A bounded number of threads of the runtime's blocking pool. Clones share the bound.
#[derive(Debug, Clone)]
pub struct Workers {
    places: Arc<Semaphore>,
}

/// The call had no result by its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimedOut {
    /// It runs and goes on.
    Running,
    /// No thread was free; it never began.
    Queued,
    /// Its thread panicked or the runtime is going down.
    Lost,
}

impl Workers {
    /// At most `count` calls at a time; others wait for their turn. The order is that of their coming.
    pub fn new(count: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(count)) }
    }

    /// Runs `call` on a thread where it may block, and waits for it until `deadline` is over. A call that has begun cannot
    /// be stopped: it keeps its thread, and its result is dropped.
    pub async fn run<T: Send + 'static>(
        &self,
        deadline: Duration,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, TimedOut> {
        let until = tokio::time::Instant::now() + deadline;
        let place = match tokio::time::timeout_at(until, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(place)) => place,
            Ok(Err(_)) => return Err(TimedOut::Lost),
            Err(_) => return Err(TimedOut::Queued),
        };
        // The place goes with the thread, not with who waits: a caller that gives up does not make room for one more.
        let running = tokio::task::spawn_blocking(move || {
            let result = call();
            drop(place);
            result
        });
        match tokio::time::timeout_at(until, running).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(_)) => Err(TimedOut::Lost),
            Err(_) => Err(TimedOut::Running),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_call_that_hangs_keeps_its_place_and_no_more() {
        let workers = Workers::new(1);
        let (let_go, held) = std::sync::mpsc::channel::<()>();
        let hangs = workers.run(Duration::from_millis(20), move || held.recv().is_ok()).await;
        assert_eq!(hangs, Err(TimedOut::Running));
        assert_eq!(workers.run(Duration::from_millis(20), || ()).await, Err(TimedOut::Queued));
        let_go.send(()).unwrap();
        assert_eq!(workers.run(Duration::from_secs(60), || 7).await, Ok(7));
    }
}
