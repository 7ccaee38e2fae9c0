//! Items of an index and their neighbours.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use gradus_index::Filter;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::Refusal;
use crate::queue::work;
use crate::search::{MOST_NEIGHBOURS, refused};
use crate::shared::{Served, Shared};

/// Which index, and how many neighbours.
#[derive(Debug, Deserialize)]
pub(crate) struct Which {
    /// 0: the index; 1: the one to compare with.
    #[serde(default)]
    pub(crate) index: usize,
    k: Option<usize>,
}

pub(crate) fn served(shared: &Shared, index: usize) -> Result<&Served, Refusal> {
    shared.indexes.get(index).ok_or_else(|| {
        Refusal::bad(format!(
            "index={index}: there {} here, counted from 0",
            match shared.indexes.len() {
                1 => "is one index".to_owned(),
                count => format!("are {count} indexes"),
            }
        ))
    })
}

pub(crate) async fn item(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Query(which): Query<Which>,
) -> Result<Json<Value>, Refusal> {
    let served = served(&shared, which.index)?;
    let item = served.index.item(&id).ok_or_else(|| missing(&id))?;
    Ok(Json(json!(&*item)))
}

/// The nearest items of an item, without itself.
pub(crate) async fn neighbours(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Query(which): Query<Which>,
) -> Result<Json<Value>, Refusal> {
    served(&shared, which.index)?;
    let count = which.k.unwrap_or(12).min(MOST_NEIGHBOURS);
    let place = shared.queue.enter()?;
    let inside = Arc::clone(&shared);
    let hits = work(&shared.queue, &shared, place, move || {
        let index = &inside.indexes[which.index].index;
        let vector = index.vector(&id).map_err(|error| refused(&error))?;
        let vector = vector.ok_or_else(|| missing(&id))?;
        let found = index.search(&vector, count + 1, &Filter::default(), None);
        let hits = found.map_err(|error| refused(&error))?;
        Ok(hits
            .into_iter()
            .filter(|hit| hit.id != id)
            .take(count)
            .collect::<Vec<_>>())
    })
    .await?;
    Ok(Json(json!({"hits": hits})))
}

pub(crate) fn missing(id: &str) -> Refusal {
    Refusal::missing(format!("the index has no item {id}"))
}
