//! Items as points of Qdrant.

use serde_json::{Value, json};

use crate::IndexError;
use crate::engine::qdrant_filter;
use crate::index::Hit;
use crate::item::Item;
use crate::manifest::Model;

/// Id of the point that says what a collection is.
pub(super) const MARK: &str = "00000000-0000-0000-0000-000000000000";

/// Id of the point of an item: a UUID made from its name.
pub(super) fn point_id(name: &str) -> String {
    let digits = Model::of("", &[name.as_bytes()]).fingerprint;
    let [a, b, c, d, e] = [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| digits.get(range).unwrap_or_default());
    format!("{a}-{b}-{c}-{d}-{e}")
}

pub(super) fn of_items(items: &[Item], vectors: &[f32], dimension: usize) -> Vec<Value> {
    let points = items.iter().zip(vectors.chunks_exact(dimension));
    let points = points.map(|(item, vector)| {
        json!({
            "id": point_id(&item.id),
            "vector": vector,
            "payload": {
                "id": item.id, "image": item.image, qdrant_filter::CLASS: item.class, qdrant_filter::PAYLOAD: item.payload,
            },
        })
    });
    points.collect()
}

pub(super) fn from_point(point: &Value) -> Result<Hit, IndexError> {
    let payload = &point["payload"];
    let text = |name: &str| payload[name].as_str().map(str::to_owned);
    let (Some(id), Some(score)) = (text("id"), point["score"].as_f64()) else {
        return Err(IndexError::Remote(format!(
            "a point without name or score was found, which gradus did not write: {point}"
        )));
    };
    Ok(Hit {
        id,
        score: score as f32,
        class: text(qdrant_filter::CLASS),
        image: text("image"),
        payload: payload[qdrant_filter::PAYLOAD].as_object().cloned().unwrap_or_default(),
        row: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids_and_differ() {
        let id = point_id("a/1.jpg");
        assert_eq!(id.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert_eq!(id, point_id("a/1.jpg"));
        assert_ne!(id, point_id("a/2.jpg"));
        assert_ne!(id, MARK);
    }
}
