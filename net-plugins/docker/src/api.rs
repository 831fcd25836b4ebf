//! Docker's API behind its socket.

use std::path::Path;
use std::time::Duration;

use axum::http::Uri;
use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use hyperlocal::UnixConnector;

/// Connections that stay open while nothing is asked.
const KEPT: usize = 2;

/// The dockerd behind `socket`, each of whose answers may take as long as `request`; why not, if it does not answer.
///
/// A question finds a connection open that an earlier one has left: whoever has little time, as between a container's creation and
/// its start, does not wait for one to be made.
pub(crate) async fn connect(socket: &Path, request: Duration) -> Result<Docker, String> {
    if !socket.exists() {
        return Err(format!("there is no {}", socket.display()));
    }
    let client = Client::builder(TokioExecutor::new())
        // dockerd closes none that is idle.
        .pool_idle_timeout(None)
        .pool_max_idle_per_host(KEPT)
        .build(UnixConnector);
    let ask = move |question: BollardRequest| {
        let answer = client.request(question);
        async move { answer.await.map_err(Error::from) }
    };
    let place: Uri = hyperlocal::Uri::new(socket, "/").into();
    let docker = Docker::connect_with_custom_transport(
        ask,
        Some(place.to_string().trim_end_matches('/')),
        request.as_secs(),
        API_DEFAULT_VERSION,
    );
    let docker = docker.map_err(|err| err.to_string())?;
    docker.negotiate_version().await.map_err(|err| err.to_string())
}
