//! Which path is answered where.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};

use crate::answer::Refusal;
use crate::shared::Shared;
use crate::{access, explorer, items, pictures, search, status};

/// All routes.
pub(crate) fn router(shared: &Shared) -> Router {
    let data = Router::new()
        .route("/search", post(search::search))
        .route("/items/{*id}", get(items::item))
        .route("/neighbours/{*id}", get(items::neighbours))
        .route("/images/{*path}", get(pictures::image))
        .route("/thumbnails/{*id}", get(pictures::thumbnail))
        .route("/metrics", get(status::metrics))
        .route("/explorer/data", get(explorer::data))
        .layer(from_fn_with_state(Arc::clone(shared), access::with_token));
    Router::new()
        .merge(data)
        .route("/sign-in", post(access::sign_in))
        .route("/health", get(status::health))
        .route("/ready", get(status::ready))
        .route("/openapi.json", get(status::openapi))
        .route("/", get(explorer::page))
        .route("/assets/{name}", get(explorer::asset))
        .fallback(|| async { Refusal::missing("there is nothing here; GET /openapi.json lists what there is") })
        .method_not_allowed_fallback(|| async {
            Refusal::new(
                axum::http::StatusCode::METHOD_NOT_ALLOWED,
                "this path is asked with another method; GET /openapi.json lists what there is",
            )
        })
        .layer(from_fn_with_state(Arc::clone(shared), access::of_browsers))
        .layer(from_fn_with_state(Arc::clone(shared), counted))
        .with_state(Arc::clone(shared))
}

async fn counted(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    const ROUTES: [&str; 9] = [
        "/search",
        "/items/",
        "/neighbours/",
        "/images/",
        "/thumbnails/",
        "/metrics",
        "/explorer/",
        "/health",
        "/ready",
    ];
    // Names of routes, never what was asked: whoever asks must not make the table grow.
    let path = request.uri().path();
    let route = ROUTES
        .into_iter()
        .find(|route| path.starts_with(route))
        .unwrap_or("other");
    let begin = Instant::now();
    let response = next.run(request).await;
    shared
        .metrics
        .answered(route, response.status().as_u16(), begin.elapsed());
    response
}
