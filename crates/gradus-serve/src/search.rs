//! `POST /search`: an image or a vector, and its nearest items.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use gradus_core::data::Source;
use gradus_core::data::image::decode_within;
use gradus_index::{Filter, IndexError};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::Refusal;
use crate::items::served;
use crate::queue::work;
use crate::shared::{Inside, Shared};

/// Most neighbours of one search.
pub(crate) const MOST_NEIGHBOURS: usize = 1000;

/// What is asked beside an image; with a vector it stands in the same object.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// A vector instead of an image.
    vector: Option<Vec<f32>>,
    /// Neighbours; default 5.
    k: Option<usize>,
    /// One condition or several, such as `class=cat`, `price<=3`.
    filter: Option<Conditions>,
    /// Least similarity.
    threshold: Option<f32>,
    /// 0: the index; 1: the one to compare with.
    #[serde(default)]
    index: usize,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Conditions {
    One(String),
    All(Vec<String>),
}

pub(crate) async fn search(
    State(shared): State<Shared>,
    Query(asked): Query<Wanted>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    let content_type = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    // Whoever cannot be served soon is told so before anything is read.
    let place = shared.queue.enter()?;
    let body = read(&shared, request.into_body()).await?;
    let (wanted, image) = match content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
        .as_str()
    {
        "application/json" => (of_json(&body)?, None),
        "multipart/form-data" => (asked, Some(of_form(&content_type, body).await?)),
        kind if kind.starts_with("image/") || matches!(kind, "" | "application/octet-stream") => (asked, Some(body)),
        other => {
            return Err(Refusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                format!(
                    "Content-Type {other}: expected an image (image/jpeg, image/png, …), multipart/form-data with a file, or \
                     application/json with a vector"
                ),
            ));
        }
    };
    served(&shared, wanted.index)?;
    let inside = Arc::clone(&shared);
    work(&shared.queue, &shared, place, move || answer(&inside, &wanted, image))
        .await
        .map(Json)
}

/// The whole body, within the limits of size and time.
async fn read(shared: &Shared, body: Body) -> Result<Vec<u8>, Refusal> {
    let limit = shared.options.largest_body;
    let reading = axum::body::to_bytes(body, limit);
    match tokio::time::timeout(shared.options.timeout, reading).await {
        Ok(Ok(bytes)) => Ok(bytes.into()),
        Ok(Err(error)) => {
            let too_long =
                std::error::Error::source(&error).is_some_and(|source| source.to_string().contains("length limit"));
            if too_long {
                return Err(Refusal::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    format!("the body is larger than {} MiB", limit >> 20),
                ));
            }
            Err(Refusal::bad("the body ended before it was complete"))
        }
        Err(_) => Err(Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            format!(
                "the body did not arrive within {} s",
                shared.options.timeout.as_secs_f64()
            ),
        )),
    }
}

fn of_json(body: &[u8]) -> Result<Wanted, Refusal> {
    let wanted: Wanted = serde_json::from_slice(body).map_err(|error| {
        Refusal::bad(format!(
            "the body is no search: {error}; expected {{\"vector\": […], \"k\": 5}}"
        ))
    })?;
    if wanted.vector.is_none() {
        return Err(Refusal::bad(
            "the body has no \"vector\"; send an image as it is, or as multipart/form-data",
        ));
    }
    Ok(wanted)
}

/// The first file of a form, or its first field.
async fn of_form(kind: &str, body: Vec<u8>) -> Result<Vec<u8>, Refusal> {
    let damaged = |error: multer::Error| Refusal::bad(format!("the form is damaged: {error}"));
    let boundary = multer::parse_boundary(kind).map_err(damaged)?;
    let stream = axum::body::Body::from(body).into_data_stream();
    let mut form = multer::Multipart::new(stream, boundary);
    let mut first = None;
    while let Some(field) = form.next_field().await.map_err(damaged)? {
        let is_file = field.file_name().is_some();
        let bytes = field.bytes().await.map_err(damaged)?;
        if is_file {
            return Ok(bytes.into());
        }
        first.get_or_insert(bytes);
    }
    first
        .map(Into::into)
        .ok_or_else(|| Refusal::bad("the form has no file: send the image in any field"))
}

fn answer(inside: &Inside, wanted: &Wanted, image: Option<Vec<u8>>) -> Result<Value, Refusal> {
    let index = &inside.indexes[wanted.index].index;
    let count = wanted.k.unwrap_or(5);
    if count == 0 || count > MOST_NEIGHBOURS {
        return Err(Refusal::bad(format!("k = {count}: expected 1 to {MOST_NEIGHBOURS}")));
    }
    let conditions = match &wanted.filter {
        None => Vec::new(),
        Some(Conditions::One(one)) => vec![one.clone()],
        Some(Conditions::All(all)) => all.clone(),
    };
    let filter = Filter::parse(&conditions, &index.fields()).map_err(|error| refused(&error))?;
    let vector = match (&wanted.vector, image) {
        (Some(vector), _) => vector.clone(),
        (None, Some(bytes)) => embedded(inside, wanted.index, bytes)?,
        (None, None) => return Err(Refusal::bad("there is neither an image nor a vector")),
    };
    let hits = index
        .search(&vector, count, &filter, wanted.threshold)
        .map_err(|error| refused(&error))?;
    Ok(json!({"hits": hits}))
}

fn embedded(inside: &Inside, index: usize, bytes: Vec<u8>) -> Result<Vec<f32>, Refusal> {
    let embedder = inside.embedder.as_ref().filter(|_| index == 0).ok_or_else(|| {
        Refusal::new(
            StatusCode::NOT_IMPLEMENTED,
            if index == 0 {
                "this server has no model: send a vector as JSON, or start it with --run"
            } else {
                "images are searched in the first index only: the model belongs to it"
            },
        )
    })?;
    if bytes.is_empty() {
        return Err(Refusal::bad("the body is empty: expected an image"));
    }
    let encoded = Source::Encoded {
        name: "the image".to_owned(),
        bytes: bytes.into(),
    };
    let pixels =
        decode_within(&encoded, inside.options.most_pixels).map_err(|error| Refusal::bad(error.to_string()))?;
    let drawn = Source::Drawn {
        name: "the image".to_owned(),
        pixels,
    };
    embedder.embed(&drawn).map_err(|_| Refusal::internal())
}

/// What an error of the index says to whoever asked.
pub(crate) fn refused(error: &IndexError) -> Refusal {
    match error {
        IndexError::Width { .. } | IndexError::Filter(_) | IndexError::Vector { .. } => Refusal::bad(error.to_string()),
        _ => Refusal::internal(),
    }
}
