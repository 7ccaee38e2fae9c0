//! What a search finds with and without the class of the query.

use std::collections::HashMap;
use std::sync::Arc;

use rayon::prelude::*;

use crate::IndexError;
use crate::index::Index;
use crate::item::Item;
use crate::vectors::{dot, normalize};

/// Items of known class that are searched for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeldOut {
    /// Class of each.
    pub classes: Vec<String>,
    /// Their vectors, row-major.
    pub vectors: Vec<f32>,
}

/// One query, as it would be answered with and without its class in the index.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// Its class.
    pub class: String,
    /// Score of the nearest item of its class, if there is another one.
    pub genuine: Option<f32>,
    /// Score of the nearest item of another class, and that class.
    pub impostor: Option<(f32, String)>,
}

/// Scores this near to 1 are of the same image: a query must not be its own match.
const SAME: f32 = 1.0 - 1e-6;

/// The query being looked at, and the best so far.
struct Query {
    class: u32,
    /// Row of the index it is, if it comes from there.
    own: Option<u32>,
    genuine: Option<f32>,
    impostor: Option<(f32, u32)>,
}

impl Query {
    fn offer(&mut self, score: f32, class: u32, equal_is_same: bool) {
        if class == self.class {
            if !(equal_is_same && score >= SAME) && self.genuine.is_none_or(|best| score > best) {
                self.genuine = Some(score);
            }
        } else if self.impostor.is_none_or(|(best, _)| score > best) {
            self.impostor = Some((score, class));
        }
    }
}

impl Index {
    /// Searches for held-out items, or, without any, for the index's own items of known class, each left out of its own answer. Of more than
    /// `limit` queries, so many are taken at equal distances.
    ///
    /// A held-out item of a class that the index does not have is compared with the other held-out items of its class. An index item
    /// of the same class with the same vector is the query itself, and passed over.
    ///
    /// # Errors
    /// Vectors that do not fit, classes missing, files that cannot be read.
    pub fn trials(&self, held_out: Option<&HeldOut>, limit: usize) -> Result<Vec<Trial>, IndexError> {
        let dimension = self.dimension();
        let items = self.items();
        let mut numbers: HashMap<String, u32> = HashMap::new();
        let mut number = |class: &str| {
            let next = numbers.len() as u32;
            *numbers.entry(class.to_owned()).or_insert(next)
        };
        let class_of_row: HashMap<u32, u32> = items
            .iter()
            .filter_map(|(row, item)| Some((*row, number(item.class.as_deref()?))))
            .collect();
        let (mut queries, mut vectors) = (Vec::new(), Vec::new());
        let spread = |count: usize| {
            let taken = count.min(limit);
            (0..taken).map(move |place| place * count / taken)
        };
        // Held-out items are searched by each other, too.
        let mut others: Option<(Vec<u32>, Vec<f32>)> = None;
        match held_out {
            None => {
                let labelled: Vec<&(u32, Arc<Item>)> =
                    items.iter().filter(|(row, _)| class_of_row.contains_key(row)).collect();
                let mut values = Vec::new();
                for place in spread(labelled.len()) {
                    let row = labelled[place].0;
                    self.vectors(row..row + 1, &mut values)?;
                    vectors.extend_from_slice(&values);
                    queries.push(query(class_of_row[&row], Some(row)));
                }
            }
            Some(set) => {
                if set.classes.len() * dimension != set.vectors.len() {
                    return Err(IndexError::Width {
                        expected: dimension,
                        found: set.vectors.len() / set.classes.len().max(1),
                    });
                }
                let mut unit = set.vectors.clone();
                for (row, vector) in unit.chunks_exact_mut(dimension).enumerate() {
                    normalize(vector, || format!("held-out row {row}"))?;
                }
                let classes: Vec<u32> = set.classes.iter().map(|class| number(class)).collect();
                for place in spread(classes.len()) {
                    vectors.extend_from_slice(&unit[place * dimension..(place + 1) * dimension]);
                    queries.push(query(classes[place], None));
                }
                others = Some((classes, unit));
            }
        }
        self.each_block(|rows, values| {
            let classes: Vec<Option<u32>> = rows.iter().map(|row| class_of_row.get(row).copied()).collect();
            queries
                .par_iter_mut()
                .zip(vectors.par_chunks_exact(dimension))
                .for_each(|(query, vector)| {
                    for ((row, class), candidate) in rows.iter().zip(&classes).zip(values.chunks_exact(dimension)) {
                        if let (Some(class), true) = (class, query.own != Some(*row)) {
                            query.offer(dot(vector, candidate), *class, query.own.is_none());
                        }
                    }
                });
            Ok(())
        })?;
        if let Some((classes, unit)) = others {
            queries
                .par_iter_mut()
                .zip(vectors.par_chunks_exact(dimension))
                .for_each(|(query, vector)| {
                    let (no_genuine, no_impostor) = (query.genuine.is_none(), query.impostor.is_none());
                    if no_genuine || no_impostor {
                        for (class, candidate) in classes.iter().zip(unit.chunks_exact(dimension)) {
                            if (*class == query.class && no_genuine) || (*class != query.class && no_impostor) {
                                query.offer(dot(vector, candidate), *class, true);
                            }
                        }
                    }
                });
        }
        let mut names = vec![String::new(); numbers.len()];
        for (name, number) in numbers {
            names[number as usize] = name;
        }
        Ok(queries
            .into_iter()
            .map(|query| Trial {
                class: names[query.class as usize].clone(),
                genuine: query.genuine,
                impostor: query
                    .impostor
                    .map(|(score, class)| (score, names[class as usize].clone())),
            })
            .collect())
    }
}

fn query(class: u32, own: Option<u32>) -> Query {
    Query {
        class,
        own,
        genuine: None,
        impostor: None,
    }
}
