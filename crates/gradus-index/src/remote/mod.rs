//! The same on a Qdrant server or cluster, over its REST interface, where one machine is not enough.
//!
//! A collection holds one point per item, whose id is derived from the item's name: sending a batch twice changes nothing, so that failed
//! requests are repeated and interrupted builds go on. One more point, never found by searches, says which model the vectors come from. Shards,
//! replicas and quantisation are the cluster's own affair: create the collection beforehand to choose them.

mod http;
mod points;

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::http::Client;
use self::points::{MARK, from_point, of_items, point_id};
use crate::IndexError;
use crate::engine::qdrant_filter;
use crate::filter::Filter;
use crate::index::{Answer, Hit};
use crate::item::{self, FieldKind, Fields, Item};
use crate::manifest::Model;
use crate::vectors::normalize;

/// A collection on a Qdrant server.
#[derive(Debug)]
pub struct Remote {
    client: Client,
    collection: String,
    about: About,
}

/// What the mark of a collection says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct About {
    format: u32,
    dimension: usize,
    #[serde(default)]
    source: String,
    #[serde(default)]
    model: Option<Model>,
    #[serde(default)]
    image_root: Option<std::path::PathBuf>,
    #[serde(default)]
    fields: Fields,
}

/// Where a collection is.
#[derive(Debug, Clone)]
pub struct Address {
    /// The server, such as `http://localhost:6333`.
    pub url: String,
    /// The collection.
    pub collection: String,
    /// Sent with every request, if the server asks for one.
    pub api_key: Option<String>,
}

/// What a collection holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RemoteStatistics {
    /// The collection.
    pub collection: String,
    /// Items that can be found.
    pub count: usize,
    /// Width of the vectors.
    pub dimension: usize,
    /// What the server says of itself: green, yellow (at work) or red.
    pub status: String,
    /// Vectors in the graph; others are compared one by one.
    pub approximate_rows: u64,
    /// The model the vectors come from.
    pub model: Option<Model>,
    /// Fields of the payload that can be filtered by.
    pub fields: Fields,
}

/// The format of the mark.
const FORMAT: u32 = 1;

impl Remote {
    /// Opens a collection that gradus filled.
    ///
    /// # Errors
    /// A server that cannot be reached or refuses the key, a collection that is not there or was filled by something else.
    pub fn open(address: &Address) -> Result<Self, IndexError> {
        let client = Client::new(address)?;
        let collection = address.collection.clone();
        let found = client.get(&format!("/collections/{collection}"))?;
        if found.is_none() {
            return Err(IndexError::Remote(format!(
                "{} has no collection {collection}: check the spelling, or make it with `gradus index build --url`",
                address.url
            )));
        }
        let about = about(&client, &collection)?.ok_or_else(|| {
            IndexError::Remote(format!(
                "the collection {collection} was not filled by gradus (it lacks the point that says by which model): choose another name"
            ))
        })?;
        Ok(Self {
            client,
            collection,
            about,
        })
    }

    /// Makes a collection, or goes on with one of the same settings that was interrupted; `engine` of the settings is the server's own.
    ///
    /// # Errors
    /// As [`open`](Self::open), and a collection of another model, width or source.
    pub fn create(address: &Address, settings: &crate::index::Settings) -> Result<Self, IndexError> {
        let client = Client::new(address)?;
        let collection = address.collection.clone();
        let path = format!("/collections/{collection}");
        let about_new = About {
            format: FORMAT,
            dimension: settings.dimension,
            source: settings.source.clone(),
            model: settings.model.clone(),
            image_root: settings.image_root.clone(),
            fields: Fields::new(),
        };
        if let Some(found) = client.get(&path)? {
            let width = found["result"]["config"]["params"]["vectors"]["size"].as_u64();
            if width != Some(settings.dimension as u64) {
                return Err(IndexError::Remote(format!(
                    "the collection {collection} holds vectors of width {}, the model makes {}: choose another name",
                    width.map_or_else(|| "unknown".to_owned(), |width| width.to_string()),
                    settings.dimension
                )));
            }
            if let Some(about) = about(&client, &collection)? {
                let remote = Self {
                    client,
                    collection,
                    about,
                };
                if let Some(model) = &settings.model {
                    remote.check_model(model)?;
                }
                if remote.about.source != settings.source {
                    return Err(IndexError::Remote(format!(
                        "the collection {} holds another index ({}): choose another name, delete it on the server, or use `gradus index add`",
                        remote.collection, remote.about.source
                    )));
                }
                return Ok(remote);
            }
            let count = found["result"]["points_count"].as_u64().unwrap_or(0);
            if count > 0 {
                return Err(IndexError::Remote(format!(
                    "the collection {collection} holds {count} points of something else: choose another name"
                )));
            }
        } else {
            client.put(
                &path,
                &json!({"vectors": {"size": settings.dimension, "distance": "Cosine"}}),
            )?;
        }
        let mut remote = Self {
            client,
            collection,
            about: about_new,
        };
        remote.declare_field(qdrant_filter::CLASS, FieldKind::Text)?;
        remote.write_about()?;
        remote.declare(&Fields::new())?;
        Ok(remote)
    }

    fn path(&self, rest: &str) -> String {
        format!("/collections/{}{rest}", self.collection)
    }

    fn write_about(&self) -> Result<(), IndexError> {
        let mut vector = vec![0.0_f32; self.about.dimension];
        vector[0] = 1.0;
        let about = serde_json::to_value(&self.about).map_err(|error| IndexError::Remote(error.to_string()))?;
        let points = json!({"points": [{"id": MARK, "vector": vector, "payload": {"gradus": about}}]});
        self.client.put(&self.path("/points?wait=true"), &points).map(|_| ())
    }

    fn declare_field(&self, key: &str, kind: FieldKind) -> Result<(), IndexError> {
        let schema = match kind {
            FieldKind::Text => "keyword",
            FieldKind::Number => "float",
            FieldKind::Boolean => "bool",
        };
        let field = json!({"field_name": key, "field_schema": schema});
        self.client.put(&self.path("/index?wait=true"), &field).map(|_| ())
    }

    /// Declares fields of the payload, so that filters on them are known.
    ///
    /// # Errors
    /// A field of another kind than before, or a server that fails.
    pub fn declare(&mut self, fields: &Fields) -> Result<(), IndexError> {
        let before = self.about.fields.clone();
        for (name, kind) in fields {
            match before.get(name) {
                Some(known) if known != kind => {
                    return Err(IndexError::Item(format!(
                        "the field {name} of the index is {}, it cannot become {}",
                        known.name(),
                        kind.name()
                    )));
                }
                Some(_) => {}
                None => {
                    self.declare_field(&qdrant_filter::key(name), *kind)?;
                    self.about.fields.insert(name.clone(), *kind);
                }
            }
        }
        if self.about.fields == before {
            Ok(())
        } else {
            self.write_about()
        }
    }

    /// Refuses another model than the one the collection was filled by.
    ///
    /// # Errors
    /// [`IndexError::Model`].
    pub fn check_model(&self, found: &Model) -> Result<(), IndexError> {
        crate::index::check_models(self.about.model.as_ref(), found)
    }

    /// The model whose embeddings it holds.
    #[must_use]
    pub fn model(&self) -> Option<&Model> {
        self.about.model.as_ref()
    }

    /// Folder the paths of images start from.
    #[must_use]
    pub fn image_root(&self) -> Option<&std::path::Path> {
        self.about.image_root.as_deref()
    }

    /// Width of its vectors.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.about.dimension
    }

    /// Fields of the payload that can be filtered by.
    #[must_use]
    pub fn fields(&self) -> &Fields {
        &self.about.fields
    }

    /// Which of these items are there.
    ///
    /// # Errors
    /// If the server fails.
    pub fn present(&self, ids: &[&str]) -> Result<HashSet<String>, IndexError> {
        let points: Vec<String> = ids.iter().map(|id| point_id(id)).collect();
        let body = json!({"ids": points, "with_payload": ["id"], "with_vector": false});
        let found = self.client.post(&self.path("/points"), &body)?;
        let found = found["result"].as_array().into_iter().flatten();
        Ok(found
            .filter_map(|point| Some(point["payload"]["id"].as_str()?.to_owned()))
            .collect())
    }

    /// Adds items with their vectors; items that are there are replaced. A request that fails for reasons that may pass is repeated.
    ///
    /// # Shapes
    /// `vectors` is row-major `[items, dimension]`.
    ///
    /// # Errors
    /// Vectors of another width, zero or not finite; payload of another kind than its field; a server that keeps failing.
    pub fn add(&mut self, items: &[Item], vectors: &[f32]) -> Result<(), IndexError> {
        let dimension = self.about.dimension;
        if items.len() * dimension != vectors.len() {
            return Err(IndexError::Width {
                expected: dimension,
                found: vectors.len() / items.len().max(1),
            });
        }
        if items.is_empty() {
            return Ok(());
        }
        let mut fields = self.about.fields.clone();
        item::declare(&mut fields, items)?;
        self.declare(&fields)?;
        let mut unit = vectors.to_vec();
        for (row, item) in unit.chunks_exact_mut(dimension).zip(items) {
            normalize(row, || item.id.clone())?;
        }
        let points = of_items(items, &unit, dimension);
        self.client
            .put(&self.path("/points?wait=true"), &json!({"points": points}))
            .map(|_| ())
    }

    /// Deletes items by name; returns how many there were.
    ///
    /// # Errors
    /// If the server fails.
    pub fn delete(&self, ids: &[&str]) -> Result<usize, IndexError> {
        let before = self.present(ids)?.len();
        let points: Vec<String> = ids.iter().map(|id| point_id(id)).collect();
        self.client
            .post(&self.path("/points/delete?wait=true"), &json!({"points": points}))?;
        Ok(before)
    }

    /// Deletes the items that pass a filter; returns how many there were.
    ///
    /// # Errors
    /// A filter that every item passes, or a server that fails.
    pub fn delete_matching(&self, filter: &Filter) -> Result<usize, IndexError> {
        if filter.is_empty() {
            return Err(IndexError::Filter(
                "a filter without conditions would delete every item: name what is to be deleted".into(),
            ));
        }
        let count = self.count(filter)?;
        let body = json!({"filter": all_but_mark(filter)});
        self.client.post(&self.path("/points/delete?wait=true"), &body)?;
        Ok(count)
    }

    fn count(&self, filter: &Filter) -> Result<usize, IndexError> {
        let body = json!({"filter": all_but_mark(filter), "exact": true});
        let found = self.client.post(&self.path("/points/count"), &body)?;
        Ok(found["result"]["count"].as_u64().unwrap_or(0) as usize)
    }

    /// The `k` items nearest to a vector that pass the filter, nearest first.
    ///
    /// # Errors
    /// A query of another width, zero or not finite; a server that fails.
    pub fn search(&self, query: &[f32], k: usize, filter: &Filter) -> Result<Vec<Hit>, IndexError> {
        if query.len() != self.about.dimension {
            return Err(IndexError::Width {
                expected: self.about.dimension,
                found: query.len(),
            });
        }
        let mut unit = query.to_vec();
        normalize(&mut unit, || "the query".to_owned())?;
        let body = json!({"query": unit, "limit": k, "filter": all_but_mark(filter), "with_payload": true});
        let found = self.client.post(&self.path("/points/query"), &body)?;
        let points = found["result"]["points"].as_array().into_iter().flatten();
        points.map(from_point).collect()
    }

    /// What a vector is: a match of the nearest item, or unknown where that scores less than the threshold.
    ///
    /// # Errors
    /// As [`search`](Self::search).
    pub fn identify(
        &self,
        query: &[f32],
        k: usize,
        filter: &Filter,
        threshold: Option<f32>,
    ) -> Result<Answer, IndexError> {
        Ok(Answer::of(self.search(query, k.max(1), filter)?, threshold))
    }

    /// What it holds.
    ///
    /// # Errors
    /// If the server fails.
    pub fn statistics(&self) -> Result<RemoteStatistics, IndexError> {
        let found = self.client.get(&self.path(""))?.unwrap_or(Value::Null);
        Ok(RemoteStatistics {
            collection: self.collection.clone(),
            count: self.count(&Filter::default())?,
            dimension: self.about.dimension,
            status: found["result"]["status"].as_str().unwrap_or("unknown").to_owned(),
            approximate_rows: found["result"]["indexed_vectors_count"].as_u64().unwrap_or(0),
            model: self.about.model.clone(),
            fields: self.about.fields.clone(),
        })
    }
}

/// The filter, and never the mark.
fn all_but_mark(filter: &Filter) -> Value {
    let mut value = qdrant_filter::to_json(filter).unwrap_or_else(|| json!({"must": [], "must_not": []}));
    if let Some(excluded) = value["must_not"].as_array_mut() {
        excluded.push(json!({"has_id": [MARK]}));
    }
    value
}

fn about(client: &Client, collection: &str) -> Result<Option<About>, IndexError> {
    let body = json!({"ids": [MARK], "with_payload": true, "with_vector": false});
    let found = client.post(&format!("/collections/{collection}/points"), &body)?;
    let Some(about) = found["result"][0]["payload"].get("gradus") else {
        return Ok(None);
    };
    let about: About = serde_json::from_value(about.clone()).map_err(|error| {
        IndexError::Remote(format!(
            "what the collection {collection} says of itself cannot be read: {error}"
        ))
    })?;
    if about.format != FORMAT {
        return Err(IndexError::Remote(format!(
            "the collection {collection} has the format {}, expected {FORMAT}: it was filled by another version of gradus",
            about.format
        )));
    }
    Ok(Some(about))
}
