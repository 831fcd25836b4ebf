//! Watches the host. The work is the core's; here is the thread it is done on.

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, Result};
use berth_core::keeper::{Audience, keep};
use berth_core::{Berth, Chain};
use berth_docker::Forward;
use berth_store::Dirs;
use berth_types::AttachmentKey;
use tokio::sync::oneshot;

use crate::context::Context;

/// Keeps the host right until the daemon stops.
pub(crate) async fn run(context: Context) -> Result<()> {
    // Netlink blocks, and hearing of nothing may take all day: that is a thread of its own.
    let (ours, theirs) = UnixStream::pair().context("failed to make a pair of sockets")?;
    let (done, mut ended) = oneshot::channel();
    let stopped = context.stopped();
    let thread = std::thread::Builder::new().name("berthd-keeper".to_owned()).spawn(move || {
        let dirs = context.dirs.clone();
        let mut listener = Listener { context, forward: Forward::new() };
        // Nobody waits any more only when the daemon is ending anyway.
        let _ = done.send(keep(&dirs, theirs.as_fd(), &mut listener));
    });
    let thread = thread.context("failed to start a thread")?;
    let outcome = tokio::select! {
        outcome = &mut ended => outcome,
        () = stopped => {
            drop(ours);
            ended.await
        }
    };
    let joined = thread.join();
    outcome.ok().filter(|_| joined.is_ok()).context("the keeper panicked")??;
    Ok(())
}

struct Listener {
    context: Context,
    forward: Forward,
}

impl Audience for Listener {
    fn ready(&mut self) {
        self.context.ready();
    }

    fn foreign_rules_changed(&mut self) {
        if has_networks(&self.context.dirs) {
            self.forward.look();
        }
    }

    fn collected(&mut self, attachments: &[AttachmentKey]) {
        match Berth::open(&self.context.dirs) {
            Ok(mut berth) => berth_overlay::attach::collected(&mut berth, attachments),
            Err(err) => tracing::warn!(error = %Chain(&err), "other nodes hear later of what was collected"),
        }
    }
}

/// Whether berth has networks here; without any, other programs' chains are none of its business.
fn has_networks(dirs: &Dirs) -> bool {
    Berth::open(dirs).and_then(|mut berth| berth.networks()).is_ok_and(|networks| !networks.is_empty())
}
