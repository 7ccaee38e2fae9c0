//! The files of the page, inside the program.

use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::answer::Refusal;

const SCRIPT: &str = "text/javascript; charset=utf-8";
const ASSETS: [(&str, &str, &str); 8] = [
    ("style.css", "text/css; charset=utf-8", include_str!("style.css")),
    ("main.js", SCRIPT, include_str!("main.js")),
    ("interface.js", SCRIPT, include_str!("interface.js")),
    ("map.js", SCRIPT, include_str!("map.js")),
    ("colours.js", SCRIPT, include_str!("colours.js")),
    ("classes.js", SCRIPT, include_str!("classes.js")),
    ("gallery.js", SCRIPT, include_str!("gallery.js")),
    ("search.js", SCRIPT, include_str!("search.js")),
];

/// The page itself.
pub(crate) async fn page() -> Response {
    (
        [(header::CONTENT_TYPE, "text/html; charset=utf-8")],
        include_str!("page.html"),
    )
        .into_response()
}

/// A file of the page.
pub(crate) async fn asset(Path(name): Path<String>) -> Result<Response, Refusal> {
    let found = ASSETS.iter().find(|(known, _, _)| *known == name);
    let (_, kind, text) = found.ok_or_else(|| Refusal::missing(format!("the page has no file {name}")))?;
    Ok((
        [(header::CONTENT_TYPE, *kind), (header::CACHE_CONTROL, "no-cache")],
        *text,
    )
        .into_response())
}
