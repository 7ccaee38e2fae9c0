//! Words that stand for choices.

use gradus_core::evaluation::{LoneQueries, SearchDistance};
use pyo3::prelude::*;

use crate::failures::refused;

pub(crate) fn distance(word: &str) -> PyResult<SearchDistance> {
    match word {
        "cosine" => Ok(SearchDistance::Cosine),
        "inner-product" => Ok(SearchDistance::InnerProduct),
        "euclidean" => Ok(SearchDistance::Euclidean),
        _ => Err(refused(format!(
            "distance is {word:?}: expected \"cosine\", \"inner-product\" or \"euclidean\""
        ))),
    }
}

pub(crate) fn lone_queries(word: &str) -> PyResult<LoneQueries> {
    match word {
        "miss" => Ok(LoneQueries::Miss),
        "drop" => Ok(LoneQueries::Drop),
        _ => Err(refused(format!(
            "lone_queries is {word:?}: expected \"miss\" or \"drop\""
        ))),
    }
}

/// A string, or several.
#[derive(FromPyObject)]
pub(crate) enum Words {
    One(String),
    Several(Vec<String>),
}

impl Words {
    pub(crate) fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(word) => vec![word],
            Self::Several(words) => words,
        }
    }
}

/// A number, or several.
#[derive(FromPyObject)]
pub(crate) enum Levels {
    One(usize),
    Several(Vec<usize>),
}

impl Levels {
    pub(crate) fn into_vec(self) -> Vec<usize> {
        match self {
            Self::One(level) => vec![level],
            Self::Several(levels) => levels,
        }
    }
}
