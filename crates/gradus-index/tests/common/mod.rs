//! A server that speaks the part of Qdrant's REST interface that gradus uses, with everything in memory and searched naively.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value, json};

/// What the server holds, and how it misbehaves.
#[derive(Default)]
pub(crate) struct State {
    collections: BTreeMap<String, Collection>,
    /// So many requests are answered with 503 first.
    pub(crate) failures: usize,
    /// So many requests are cut off without an answer.
    pub(crate) hang_ups: usize,
    pub(crate) api_key: Option<String>,
    pub(crate) requests: usize,
}

struct Collection {
    size: u64,
    indexes: BTreeMap<String, String>,
    points: BTreeMap<String, (Vec<f64>, Map<String, Value>)>,
}

/// A running server; it ends with the test program.
pub(crate) struct Double {
    pub(crate) url: String,
    pub(crate) state: Arc<Mutex<State>>,
}

impl Double {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream.unwrap(), &shared));
            }
        });
        Self { url, state }
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let mut words = line.split_whitespace();
        let (method, target) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
        let (mut length, mut key) = (0, None);
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).unwrap();
            let header = header.trim();
            if header.is_empty() {
                break;
            }
            let (name, value) = header.split_once(':').unwrap();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().unwrap(),
                "api-key" => key = Some(value.trim().to_owned()),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let (status, answer) = {
            let mut state = state.lock().unwrap();
            state.requests += 1;
            if state.hang_ups > 0 {
                state.hang_ups -= 1;
                return;
            }
            if state.failures > 0 {
                state.failures -= 1;
                (503, json!({"status": {"error": "overloaded"}}))
            } else if state.api_key.is_some() && state.api_key != key {
                (401, json!({"status": {"error": "Must provide an API key"}}))
            } else {
                state.answer(&method, &target, &body)
            }
        };
        let text = answer.to_string();
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            text.len()
        );
        if writer.write_all(format!("{head}{text}").as_bytes()).is_err() {
            return;
        }
    }
}

impl State {
    fn answer(&mut self, method: &str, target: &str, body: &Value) -> (u16, Value) {
        let path = target.split('?').next().unwrap().trim_start_matches('/');
        let parts: Vec<&str> = path.split('/').collect();
        let refused = |status: u16, error: &str| (status, json!({"status": {"error": error}}));
        let name = parts[1].to_owned();
        if let ("PUT", 2) = (method, parts.len()) {
            if self.collections.contains_key(&name) {
                return refused(409, "already exists");
            }
            assert_eq!(body["vectors"]["distance"], "Cosine");
            let size = body["vectors"]["size"].as_u64().unwrap();
            let made = Collection {
                size,
                indexes: BTreeMap::new(),
                points: BTreeMap::new(),
            };
            self.collections.insert(name, made);
            return (200, json!({"result": true}));
        }
        let Some(collection) = self.collections.get_mut(&name) else {
            return refused(404, "no such collection");
        };
        let result = match (method, parts[2..].join("/").as_str()) {
            ("GET", "") => json!({
                "status": "green", "points_count": collection.points.len(), "indexed_vectors_count": 0,
                "config": {"params": {"vectors": {"size": collection.size, "distance": "Cosine"}}},
            }),
            ("DELETE", "") => {
                self.collections.remove(&name);
                json!(true)
            }
            ("PUT", "index") => {
                let field = body["field_name"].as_str().unwrap().to_owned();
                collection
                    .indexes
                    .insert(field, body["field_schema"].as_str().unwrap().to_owned());
                json!({"status": "completed"})
            }
            ("PUT", "points") => {
                for point in body["points"].as_array().unwrap() {
                    let vector: Vec<f64> = point["vector"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|value| value.as_f64().unwrap())
                        .collect();
                    if vector.len() as u64 != collection.size {
                        return refused(400, "wrong vector size");
                    }
                    let payload = point["payload"].as_object().unwrap().clone();
                    collection
                        .points
                        .insert(point["id"].as_str().unwrap().to_owned(), (vector, payload));
                }
                json!({"status": "completed"})
            }
            ("POST", "points") => {
                let ids = body["ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap());
                let found = ids.filter_map(|id| Some(json!({"id": id, "payload": collection.points.get(id)?.1})));
                Value::Array(found.collect())
            }
            ("POST", "points/delete") => {
                if let Some(ids) = body["points"].as_array() {
                    ids.iter()
                        .for_each(|id| drop(collection.points.remove(id.as_str().unwrap())));
                } else {
                    collection
                        .points
                        .retain(|id, (_, payload)| !passes(&body["filter"], id, payload));
                }
                json!({"status": "completed"})
            }
            ("POST", "points/count") => {
                let count = collection
                    .points
                    .iter()
                    .filter(|(id, (_, payload))| passes(&body["filter"], id, payload))
                    .count();
                json!({"count": count})
            }
            ("POST", "points/query") => {
                let query: Vec<f64> = body["query"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|value| value.as_f64().unwrap())
                    .collect();
                let length = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>().sqrt();
                let mut found: Vec<(f64, Value)> = collection
                    .points
                    .iter()
                    .filter(|(id, (_, payload))| passes(&body["filter"], id, payload))
                    .map(|(id, (vector, payload))| {
                        let product: f64 = vector.iter().zip(&query).map(|(a, b)| a * b).sum();
                        let score = product / length(vector) / length(&query);
                        (score, json!({"id": id, "score": score, "payload": payload}))
                    })
                    .collect();
                found.sort_by(|a, b| b.0.total_cmp(&a.0));
                found.truncate(body["limit"].as_u64().unwrap() as usize);
                json!({"points": found.into_iter().map(|(_, point)| point).collect::<Vec<_>>()})
            }
            other => panic!("the double does not know {other:?}"),
        };
        (200, json!({"result": result, "status": "ok"}))
    }
}

/// Whether a point passes a filter of Qdrant.
fn passes(filter: &Value, id: &str, payload: &Map<String, Value>) -> bool {
    let each = |name: &str| filter[name].as_array().cloned().unwrap_or_default();
    let holds = |condition: &Value| {
        if let Some(ids) = condition["has_id"].as_array() {
            return ids.iter().any(|other| other == id);
        }
        let Some(key) = condition["key"].as_str() else {
            return passes(condition, id, payload);
        };
        let value = match key.strip_prefix("payload.") {
            Some(field) => payload
                .get("payload")
                .and_then(|inner| inner.get(field.trim_matches('"'))),
            None => payload.get(key),
        };
        let values = match value {
            Some(Value::Array(values)) => values.clone(),
            Some(value) => vec![value.clone()],
            None => Vec::new(),
        };
        values.iter().any(|value| {
            if !condition["match"].is_null() {
                return *value == condition["match"]["value"];
            }
            let Some(number) = value.as_f64() else { return false };
            let range = &condition["range"];
            let bound = |name: &str| range[name].as_f64();
            bound("gt").is_none_or(|bound| number > bound)
                && bound("gte").is_none_or(|bound| number >= bound)
                && bound("lt").is_none_or(|bound| number < bound)
                && bound("lte").is_none_or(|bound| number <= bound)
        })
    };
    let should = each("should");
    each("must").iter().all(holds)
        && !each("must_not").iter().any(holds)
        && (should.is_empty() || should.iter().any(holds))
}
