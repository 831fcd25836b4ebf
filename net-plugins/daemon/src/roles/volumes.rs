//! Volumes for Docker and podman: one socket, and a look now and then at what crashes have left.

use anyhow::Result;
use berth_plugin_http::serve;
use berth_volume_docker::{SOCKET, TIDY_EVERY, plugin, tidy};

use crate::context::Context;

/// Serves the volume plugin.
pub(crate) async fn run(context: Context) -> Result<()> {
    let socket = context.socket(SOCKET)?;
    let served = serve(socket, plugin(&context.dirs), context.workers.clone(), context.stopped());
    let tidying = tidy_now_and_then(context.clone());
    tracing::info!(state = %context.dirs.state.display(), "serving volumes");
    context.ready();
    tokio::select! {
        ended = served => ended?,
        () = tidying => (),
    }
    Ok(())
}

/// Ends when the daemon does.
async fn tidy_now_and_then(context: Context) {
    let stopped = context.stopped();
    tokio::pin!(stopped);
    loop {
        let dirs = context.dirs.clone();
        // One that takes too long goes on, and the next waits its turn.
        let _ = context.workers.run(TIDY_EVERY, move || tidy(&dirs)).await;
        tokio::select! {
            () = tokio::time::sleep(TIDY_EVERY) => (),
            // What is being served ends by itself, and this with it.
            () = &mut stopped => std::future::pending().await,
        }
    }
}
