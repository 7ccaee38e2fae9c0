//! The explorer: its page, and what it shows of the indexes.

mod assets;
mod points;

use std::sync::{Arc, OnceLock};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

pub(crate) use assets::{asset, page};

use crate::answer::Refusal;
use crate::shared::{Inside, Shared};

/// What the page asks for, made once in the background: first with principal components, then with the layout.
#[derive(Debug, Default)]
pub(crate) struct Explorer {
    first: OnceLock<Result<String, String>>,
    whole: OnceLock<Result<String, String>>,
}

impl Explorer {
    /// Whether the layout is there.
    pub(crate) fn is_ready(&self) -> bool {
        self.whole.get().is_some()
    }

    /// Computes everything; takes seconds for thousands of items.
    pub(crate) fn compute(shared: &Arc<Inside>) {
        let explorer = &shared.explorer;
        let made = points::prepare(shared);
        let first = made.as_ref().map(|prepared| prepared.text(None)).map_err(Clone::clone);
        let _ = explorer.first.set(first);
        let whole = made.and_then(|prepared| {
            let layouts = prepared.layouts()?;
            Ok(prepared.text(Some(layouts.as_slice())))
        });
        let _ = explorer.whole.set(whole);
    }
}

/// All points of all indexes.
pub(crate) async fn data(State(shared): State<Shared>) -> Result<Response, Refusal> {
    let explorer = &shared.explorer;
    match explorer.whole.get().or_else(|| explorer.first.get()) {
        Some(Ok(text)) => Ok(([(header::CONTENT_TYPE, "application/json")], text.clone()).into_response()),
        Some(Err(problem)) => Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, problem.clone())),
        None => Err(Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the map is being prepared: ask again in a second",
        )),
    }
}
