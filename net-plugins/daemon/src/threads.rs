//! The threads: few that wait for what happens, and a bounded number on which calls may block.

use std::io::Result;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::GRACE;

/// How long a thread of the blocking pool waits for more to do before it ends, with its memory.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// The nice value of threads that do little at a time, and for which somebody waits.
const PROMPT: i32 = -10;

/// Stack of a thread that calls the core, bytes: it holds no large values.
const STACK: usize = 1 << 20;

/// What drives tasks on the thread that blocks on it, and calls that may block on no more than `calls` others.
pub(crate) fn runtime(calls: usize) -> Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(calls)
        .thread_keep_alive(KEEP_ALIVE)
        .thread_stack_size(STACK)
        .thread_name("berthd-call")
        .on_thread_start(be_usual)
        .build()
}

/// Drives `work` on a prompt thread of its own, whatever the other threads are busy with. What it calls that may block has no more
/// than `calls` threads.
pub(crate) fn apart(
    name: &str,
    calls: usize,
    work: impl Future<Output = ()> + Send + 'static,
) -> Result<JoinHandle<()>> {
    let runtime = runtime(calls)?;
    std::thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(move || {
        be_prompt();
        runtime.block_on(work);
        runtime.shutdown_timeout(GRACE);
    })
}

/// Has the calling thread go before others that want a processor: containers that start may keep all of them busy. setpriority(2)
/// is of the calling thread on Linux; without CAP_SYS_NICE everything is as usual.
pub(crate) fn be_prompt() {
    if let Err(err) = rustix::process::setpriority_process(None, PROMPT) {
        tracing::debug!(error = %err, "no higher priority");
    }
}

/// What takes long has the usual priority.
fn be_usual() {
    // To lower it is allowed to everybody.
    let _ = rustix::process::setpriority_process(None, 0);
}
