//! The items of the indexes as the page shows them.

use std::collections::BTreeMap;
use std::sync::Arc;

use gradus_core::EmbeddingSet;
use gradus_core::embedding_map::{MapMethod, MapOptions, embedding_map};
use gradus_core::evaluation::{EvaluationOptions, nearest};
use gradus_index::{Index, Item};
use serde_json::{Value, json};

use crate::shared::Inside;

/// Neighbours that say how well an item is found.
const NEIGHBOURS: usize = 10;

/// Points of one index.
struct Points {
    name: String,
    items: Vec<Arc<Item>>,
    set: EmbeddingSet,
    /// Names of the classes; the labels of `set` index them, one more than the last: none.
    classes: Vec<String>,
    shadow: Vec<[f32; 2]>,
    /// Whether the nearest other item is of another class; no class: no error.
    misses: Vec<bool>,
    /// Share of the nearest items of the class.
    precision: Vec<f32>,
    total: usize,
}

/// Points of all indexes.
pub(super) struct Prepared {
    indexes: Vec<Points>,
    images: bool,
}

pub(super) fn prepare(inside: &Inside) -> Result<Prepared, String> {
    let indexes = inside
        .indexes
        .iter()
        .map(|served| Points::new(&served.name, &served.index, inside.options.most_points))
        .collect::<Result<Vec<_>, String>>()?;
    Ok(Prepared {
        indexes,
        images: inside.embedder.is_some(),
    })
}

impl Points {
    fn new(name: &str, index: &Index, most: usize) -> Result<Self, String> {
        let mut all = index.items();
        let total = all.len();
        if total > most {
            all = (0..most).map(|at| all[at * total / most].clone()).collect();
        }
        let dim = index.dimension();
        let mut values = Vec::with_capacity(all.len() * dim);
        let mut row_values = Vec::new();
        for (row, _) in &all {
            index
                .vectors(*row..row + 1, &mut row_values)
                .map_err(|error| error.to_string())?;
            values.extend_from_slice(&row_values);
        }
        let items: Vec<Arc<Item>> = all.into_iter().map(|(_, item)| item).collect();
        let mut numbers: BTreeMap<&str, u32> = items
            .iter()
            .filter_map(|item| item.class.as_deref())
            .map(|class| (class, 0))
            .collect();
        for (number, value) in numbers.values_mut().enumerate() {
            *value = number as u32;
        }
        let none = numbers.len() as u32;
        let labels: Vec<u32> = items
            .iter()
            .map(|item| item.class.as_deref().map_or(none, |class| numbers[class]))
            .collect();
        let classes = numbers.keys().map(|&class| class.to_owned()).collect();
        let set = EmbeddingSet {
            dim,
            values,
            labels,
            ids: items.iter().map(|item| item.id.clone()).collect(),
        };
        let (mut shadow, mut misses, mut precision) = (Vec::new(), Vec::new(), Vec::new());
        if !set.is_empty() {
            let options = MapOptions {
                method: MapMethod::PrincipalComponents,
                ..MapOptions::default()
            };
            shadow = embedding_map(&set, &options).map_err(|error| error.to_string())?;
            let found =
                nearest(&set, None, NEIGHBOURS, &EvaluationOptions::default()).map_err(|error| error.to_string())?;
            for (row, &label) in set.labels.iter().enumerate() {
                let near = found.of(row);
                let same = near
                    .iter()
                    .filter(|&&other| set.labels[other as usize] == label)
                    .count();
                let first = near.first().is_some_and(|&other| set.labels[other as usize] != label);
                misses.push(label != none && first);
                precision.push(same as f32 / near.len().max(1) as f32);
            }
        }
        Ok(Self {
            name: name.to_owned(),
            items,
            set,
            classes,
            shadow,
            misses,
            precision,
            total,
        })
    }

    /// Number fields of the payload that vary: what the items can be coloured and laid out by.
    fn factors(&self) -> BTreeMap<&str, Vec<Option<f64>>> {
        let mut names: Vec<&str> = Vec::new();
        for (name, value) in self.items.iter().flat_map(|item| &item.payload) {
            if value.is_number() && !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        let column = |name: &str| -> Vec<Option<f64>> {
            let values = self.items.iter().map(|item| item.payload.get(name));
            values.map(|value| value.and_then(Value::as_f64)).collect()
        };
        names
            .into_iter()
            .map(|name| (name, column(name)))
            .filter(|(_, values)| {
                values
                    .iter()
                    .flatten()
                    .any(|value| Some(value) != values.iter().flatten().next())
            })
            .collect()
    }

    fn json(&self, layout: Option<&Vec<[f32; 2]>>) -> Value {
        let flat = |points: &[[f32; 2]]| -> Vec<f64> {
            let rounded = |value: &f32| f64::from((value * 1e4).round()) / 1e4;
            points.iter().flatten().map(rounded).collect()
        };
        json!({
            "name": self.name,
            "total": self.total,
            "classes": self.classes,
            "ids": self.set.ids,
            "class": self.set.labels,
            "picture": self.items.iter().map(|item| item.image.is_some()).collect::<Vec<_>>(),
            "image": self.items.iter().map(|item| item.image.clone().unwrap_or_default()).collect::<Vec<_>>(),
            "miss": self.misses,
            "precision": self.precision.iter().map(|value| f64::from((value * 100.0).round()) / 100.0).collect::<Vec<_>>(),
            "factors": self.factors(),
            "maps": {
                "principal components": flat(&self.shadow),
                "neighbours": layout.map(|layout| flat(layout)),
            },
        })
    }
}

impl Prepared {
    /// The neighbour-preserving layout of every index.
    pub(super) fn layouts(&self) -> Result<Vec<Vec<[f32; 2]>>, String> {
        // One thread each, side by side.
        std::thread::scope(|scope| {
            let running: Vec<_> = self
                .indexes
                .iter()
                .map(|points| {
                    scope.spawn(|| {
                        if points.set.is_empty() {
                            return Ok(Vec::new());
                        }
                        embedding_map(&points.set, &MapOptions::default()).map_err(|error| error.to_string())
                    })
                })
                .collect();
            running
                .into_iter()
                .map(|thread| {
                    thread
                        .join()
                        .unwrap_or_else(|_| Err("the layout met a defect".to_owned()))
                })
                .collect()
        })
    }

    /// What the page reads.
    pub(super) fn text(&self, layouts: Option<&[Vec<[f32; 2]>]>) -> String {
        let indexes: Vec<Value> = self
            .indexes
            .iter()
            .enumerate()
            .map(|(number, points)| points.json(layouts.map(|layouts| &layouts[number])))
            .collect();
        json!({"complete": layouts.is_some(), "images": self.images, "indexes": indexes}).to_string()
    }
}
