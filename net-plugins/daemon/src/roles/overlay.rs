//! The overlay's agent. The work is `berth-overlay`'s; here is where its socket is.

use anyhow::Result;
use berth_overlay::agent;
use berth_overlay::wire::SOCKET;

use crate::context::Context;

/// Keeps this node in its cluster until the daemon stops. Asleep where it has joined none.
pub(crate) async fn run(context: Context) -> Result<()> {
    let socket = context.socket_at(&context.dirs.run.join(SOCKET))?;
    let stopped = context.stopped();
    agent::run(&context.dirs, context.overlay, socket, || context.ready(), stopped).await?;
    Ok(())
}
