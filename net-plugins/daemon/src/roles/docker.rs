//! Networks for Docker: one socket for each driver.

use std::sync::Arc;

use anyhow::Result;
use berth_docker::ipam::Ipam;
use berth_docker::network::Driver;
use berth_docker::share::{self, Sharer};
use berth_docker::{Cores, Forward, Watcher, host, ipam, network, none, overlay};
use berth_overlay::shared;
use berth_plugin_http::{Plugin, serve, serve_router};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::context::Context;
use crate::threads;

/// Calls at a time of what watches Docker that may block: to compare, and to learn names meanwhile.
const WATCHING: usize = 4;

/// Serves Docker's network plugins.
pub(crate) async fn run(context: Context) -> Result<()> {
    let cores = Cores::new(&context.dirs);
    let forward = Arc::new(Forward::new());
    let watcher = {
        let (cores, forward) = (cores.clone(), Arc::clone(&forward));
        Watcher::new(cores, forward, context.docker_socket.clone(), context.workers.clone())
    };
    let sharer = Sharer::new(cores.clone(), context.docker_socket.clone(), context.workers.clone());
    let plugins = [
        ("rbridge.sock", bridge(&cores, &forward, &watcher)),
        ("ripam.sock", addresses(&cores)),
        (overlay::SOCKET, of_cluster(&cores, &forward, &watcher, &sharer)),
        (none::SOCKET, none::plugin()),
        (host::SOCKET, host::plugin()),
    ];
    // All sockets before the first answer: a name that is taken is found before anything has begun.
    let opened: Vec<_> = plugins
        .into_iter()
        .map(|(name, plugin)| Ok((context.socket(name)?, plugin)))
        .collect::<Result<_>>()?;
    let asked = context.socket_at(&context.dirs.run.join(shared::SOCKET))?;
    let mut servers = JoinSet::new();
    servers.spawn(serve_router(asked, share::router(sharer.clone()), context.stopped()));
    for (socket, plugin) in opened {
        servers.spawn(serve(socket, plugin, context.workers.clone(), context.stopped()));
    }
    tracing::info!(state = %context.dirs.state.display(), run = %context.dirs.run.display(), "serving Docker");
    context.ready();
    servers.spawn(watch(watcher, context.stopped()));
    servers.spawn(share_networks(sharer, context.stopped()));
    let served = all_end(servers).await;
    // dockerd was told that what is being detached is gone.
    tokio::task::spawn_blocking(move || cores.settle()).await?;
    served
}

/// Waits for the end of all, or for the first that fails; that ends the others.
async fn all_end(mut servers: JoinSet<std::io::Result<()>>) -> Result<()> {
    while let Some(ended) = servers.join_next().await {
        ended??;
    }
    Ok(())
}

/// On a thread of its own: what is asked of Docker between a container's creation and its start comes too late otherwise.
async fn watch(watcher: Watcher, stop: impl Future<Output = ()> + Send + 'static) -> std::io::Result<()> {
    let (ends, ended) = oneshot::channel();
    let watching = threads::apart("berthd-watch", WATCHING, async move {
        watcher.run(stop).await;
        let _ = ends.send(());
    })?;
    // Nothing is sent where it panics.
    let _ = ended.await;
    let joined = tokio::task::spawn_blocking(move || watching.join()).await?;
    joined.map_err(|_| std::io::Error::other("the thread that watches Docker panicked"))
}

async fn share_networks(sharer: Sharer, stop: impl Future<Output = ()>) -> std::io::Result<()> {
    sharer.run(stop).await;
    Ok(())
}

/// `roverlay`: networks of the cluster, and addresses for them.
fn of_cluster(cores: &Cores, forward: &Arc<Forward>, watcher: &Watcher, sharer: &Sharer) -> Plugin {
    let ipam = overlay::Ipam::new(cores.clone());
    let (started, doubted, poked) = (ipam.clone(), Arc::clone(forward), (watcher.clone(), sharer.clone()));
    let plugin = Plugin::implements(&["NetworkDriver", "IpamDriver"]).on_activate(move || {
        doubted.doubt();
        poked.0.poke();
        poked.1.poke();
        started.activated();
    });
    let driver = overlay::Driver::new(cores.clone(), Arc::clone(forward), watcher.hearing());
    ipam.methods(driver.methods(plugin))
}

/// `rbridge`: networks, and addresses for them.
fn bridge(cores: &Cores, forward: &Arc<Forward>, watcher: &Watcher) -> Plugin {
    let ipam = Ipam::new(cores.clone(), network::DRIVER);
    let (started, doubted, poked) = (ipam.clone(), Arc::clone(forward), watcher.clone());
    let plugin = Plugin::implements(&["NetworkDriver", "IpamDriver"]).on_activate(move || {
        doubted.doubt();
        poked.poke();
        started.activated();
    });
    ipam.methods(Driver::new(cores.clone(), Arc::clone(forward)).methods(plugin))
}

/// `ripam`: addresses for any network driver.
fn addresses(cores: &Cores) -> Plugin {
    let ipam = Ipam::new(cores.clone(), ipam::DRIVER);
    let started = ipam.clone();
    ipam.methods(Plugin::implements(&["IpamDriver"]).on_activate(move || started.activated()))
}
