//! The agent's socket: each request becomes a command to the agent, and its answer the reply.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};

use super::command::{Command, Reply};
use crate::wire::{Refusal, RefusalCode};

/// The methods.
pub(super) fn router(commands: mpsc::Sender<Command>) -> Router {
    Router::new()
        .route("/v1/network", post(|to, body| asked(to, body, Command::Network)))
        .route("/v1/create", post(|to, body| asked(to, body, Command::Create)))
        .route("/v1/remove", post(|to, body| asked(to, body, Command::Remove)))
        .route("/v1/let-go", post(|to, body| asked(to, body, Command::LetGo)))
        .route("/v1/describe", post(|to, body| asked(to, body, Command::Describe)))
        .route("/v1/share", post(|to, body| asked(to, body, Command::Share)))
        .route("/v1/room", post(|to, body| asked(to, body, Command::Room)))
        .route("/v1/changed", post(|to, body| asked(to, body, Command::Changed)))
        .route("/v1/nameless", post(|to, body| asked(to, body, Command::Nameless)))
        .route("/v1/joined", post(|to| said(to, Command::Joined)))
        .route("/v1/status", get(|to| said(to, Command::Status)))
        .route("/v1/ping", get(|| async { answer(&()) }))
        .with_state(commands)
}

type To = State<mpsc::Sender<Command>>;

async fn asked<A: DeserializeOwned, T: Serialize>(
    to: To,
    body: Bytes,
    command: impl FnOnce(A, Reply<T>) -> Command,
) -> Response {
    match serde_json::from_slice(&body) {
        Ok(ask) => said(to, |reply| command(ask, reply)).await,
        Err(err) => {
            refused(&Refusal::new(RefusalCode::Invalid, format!("the request makes no sense: {err}")))
        }
    }
}

async fn said<T: Serialize>(State(to): To, command: impl FnOnce(Reply<T>) -> Command) -> Response {
    let (reply, replied) = oneshot::channel();
    let ending = || refused(&Refusal::new(RefusalCode::Failed, "the overlay agent is ending"));
    if to.send(command(reply)).await.is_err() {
        return ending();
    }
    match replied.await {
        Ok(Ok(value)) => answer(&value),
        Ok(Err(refusal)) => refused(&refusal),
        Err(_) => ending(),
    }
}

fn answer(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(err) => refused(&Refusal::new(RefusalCode::Failed, err.to_string())),
    }
}

fn refused(refusal: &Refusal) -> Response {
    let status = match refusal.code {
        RefusalCode::Invalid => StatusCode::BAD_REQUEST,
        RefusalCode::NoNetwork => StatusCode::NOT_FOUND,
        RefusalCode::Taken | RefusalCode::InUse | RefusalCode::Exhausted => StatusCode::CONFLICT,
        RefusalCode::NotJoined | RefusalCode::Away | RefusalCode::Denied => StatusCode::SERVICE_UNAVAILABLE,
        RefusalCode::Unsupported => StatusCode::NOT_IMPLEMENTED,
        RefusalCode::Failed => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let body = serde_json::to_vec(refusal).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
