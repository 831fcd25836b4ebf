//! The socket on which the agent and people ask; the words are `berth-overlay`'s ([`berth_overlay::shared`]).

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use berth_overlay::shared::Settle;
use serde::Serialize;

use super::Sharer;

/// The methods.
pub fn router(sharer: Sharer) -> Router {
    Router::new()
        .route("/v1/look", post(look))
        .route("/v1/settle", post(settle))
        .route("/v1/shared", get(shared))
        .with_state(sharer)
}

async fn look(State(sharer): State<Sharer>) -> Response {
    sharer.poke();
    json(&())
}

async fn settle(State(sharer): State<Sharer>, body: Bytes) -> Response {
    let Ok(Settle { network }) = serde_json::from_slice(&body) else {
        return (StatusCode::BAD_REQUEST, "the request makes no sense to this version of berthd")
            .into_response();
    };
    match sharer.settled(network).await {
        Ok(outcome) => json(&outcome),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why).into_response(),
    }
}

async fn shared(State(sharer): State<Sharer>) -> Response {
    json(&sharer.outcomes())
}

fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(err) => (StatusCode::INTERNAL_SERVER_ERROR, err.to_string()).into_response(),
    }
}
