//! Whether the server lives, is ready, and what it did; what it can be asked.

use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::shared::Shared;

pub(crate) async fn health() -> Json<Value> {
    Json(json!({"status": "alive"}))
}

/// Ready: the index is open and the end has not been asked for.
pub(crate) async fn ready(State(shared): State<Shared>) -> Response {
    if shared.ending.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "ending"}))).into_response();
    }
    let index = &shared.indexes[0].index;
    Json(json!({
        "status": "ready",
        "items": index.len(),
        "dimension": index.dimension(),
        "images": shared.embedder.is_some(),
        "map": shared.explorer.is_ready(),
    }))
    .into_response()
}

pub(crate) async fn metrics(State(shared): State<Shared>) -> Response {
    let text = shared.metrics.text(shared.indexes[0].index.len());
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        text,
    )
        .into_response()
}

pub(crate) async fn openapi() -> Response {
    (
        [(header::CONTENT_TYPE, "application/json")],
        include_str!("openapi.json"),
    )
        .into_response()
}
