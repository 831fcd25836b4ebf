//! The server's control socket: `dns.sock` in the run directory, HTTP, for root and the daemon's own user. The words are
//! the core's ([`berth_core::names`]).

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use berth_core::names::{Changed, EntryView, Question};
use berth_dns::{Entry, Server};
use serde::Serialize;
use tokio::sync::oneshot;

use super::feed::{Feed, listening_view};

/// What is asked.
#[derive(Clone)]
pub(super) struct Control {
    pub(super) server: Arc<Server>,
    pub(super) feed: Feed,
}

/// The methods.
pub(super) fn router(control: Control) -> Router {
    Router::new()
        .route("/v1/changed", post(changed))
        .route("/v1/served", get(served))
        .route("/v1/entries", get(entries))
        .route("/v1/listening", get(listening))
        .route("/v1/explain", post(explain))
        .route("/metrics", get(metrics))
        .with_state(control)
}

async fn changed(State(control): State<Control>, body: Bytes) -> Response {
    let Ok(changed) = serde_json::from_slice::<Changed>(&body) else { return senseless() };
    // A full queue makes the caller wait in a thread of its own, not the runtime.
    let answer = tokio::task::spawn_blocking(move || control.feed.changed(changed)).await;
    match answer {
        Ok(answer) => replied(answer).await,
        Err(_) => gone(),
    }
}

async fn served(State(control): State<Control>) -> Response {
    match tokio::task::spawn_blocking(move || control.feed.view()).await {
        Ok(answer) => replied(answer).await,
        Err(_) => gone(),
    }
}

async fn entries(State(control): State<Control>) -> Response {
    let entries = move || control.server.entries().into_iter().map(entry_view).collect::<Vec<_>>();
    // With many names this takes long enough to be felt by others.
    match tokio::task::spawn_blocking(entries).await {
        Ok(entries) => json(&entries),
        Err(_) => gone(),
    }
}

async fn listening(State(control): State<Control>) -> Response {
    json(&control.server.listening().into_iter().map(listening_view).collect::<Vec<_>>())
}

async fn explain(State(control): State<Control>, body: Bytes) -> Response {
    let Ok(Question { from, name, kind }) = serde_json::from_slice(&body) else { return senseless() };
    match tokio::task::spawn_blocking(move || control.server.explain(from, &name, &kind)).await {
        Ok(explained) => json(&explained),
        Err(_) => gone(),
    }
}

async fn metrics(State(control): State<Control>) -> Response {
    const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, PROMETHEUS)], control.server.metrics()).into_response()
}

async fn replied<T: Serialize>(answer: oneshot::Receiver<Result<T, String>>) -> Response {
    match answer.await {
        Ok(Ok(value)) => json(&value),
        Ok(Err(why)) => (StatusCode::INTERNAL_SERVER_ERROR, why).into_response(),
        Err(_) => gone(),
    }
}

fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(err) => (StatusCode::INTERNAL_SERVER_ERROR, err.to_string()).into_response(),
    }
}

fn senseless() -> Response {
    (StatusCode::BAD_REQUEST, "the request makes no sense to this version of berthd").into_response()
}

fn gone() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the DNS server is ending").into_response()
}

fn entry_view(entry: Entry) -> EntryView {
    let Entry { network, name, kind, value, ttl, container, why } = entry;
    EntryView { network, name, kind, value, ttl, container, why }
}
