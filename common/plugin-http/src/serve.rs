//! One socket, answered until told to stop.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::serve::Listener;
use tokio::net::{UnixListener, UnixStream, unix};

use crate::plugin::Plugin;
use crate::socket::Socket;
use crate::workers::Workers;

/// How long calls that are being answered may take once the server is told to stop.
const GRACE: Duration = Duration::from_secs(10);

struct Shared {
    plugin: Plugin,
    workers: Workers,
}

/// Answers requests on `socket` until `stop` is done, then finishes the calls that are being answered and unlinks it.
pub async fn serve(
    socket: Socket,
    plugin: Plugin,
    workers: Workers,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let shared = Arc::new(Shared { plugin, workers });
    serve_router(socket, Router::new().fallback(answer).with_state(shared), stop).await
}

/// As [`serve`], for what is not Docker's protocol.
pub async fn serve_router(
    socket: Socket,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let listener = Guarded { listener: socket.listener()?, own_uid: rustix::process::geteuid().as_raw() };
    let (told, mut stopped) = tokio::sync::watch::channel(());
    let stop = async move {
        stop.await;
        // Nobody new: whoever comes from here on is refused at once instead of waiting for an answer.
        drop(socket);
        drop(told);
    };
    let server = axum::serve(listener, router).with_graceful_shutdown(stop);
    tokio::select! {
        ended = server.into_future() => ended,
        () = async {
            // Resolves once the sender is gone.
            while stopped.changed().await.is_ok() {}
            tokio::time::sleep(GRACE).await;
        } => {
            tracing::warn!("stopped while calls were being answered");
            Ok(())
        }
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    shared.plugin.answer(&shared.workers, &parts.method, parts.uri.path(), body).await
}

/// A listener that knows its peers: root and the daemon's own user.
///
/// The socket's mode says the same; this also holds where systemd made the socket, or its mode was changed since.
struct Guarded {
    listener: UnixListener,
    own_uid: u32,
}

impl Listener for Guarded {
    type Io = UnixStream;
    type Addr = unix::SocketAddr;

    async fn accept(&mut self) -> (UnixStream, unix::SocketAddr) {
        loop {
            let (stream, addr) = Listener::accept(&mut self.listener).await;
            match stream.peer_cred() {
                Ok(peer) if peer.uid() == 0 || peer.uid() == self.own_uid => return (stream, addr),
                Ok(peer) => {
                    tracing::warn!(uid = peer.uid(), pid = peer.pid(), "not answered: neither root nor me")
                }
                Err(err) => tracing::warn!(%err, "not answered: the peer cannot be told"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<unix::SocketAddr> {
        self.listener.local_addr()
    }
}
