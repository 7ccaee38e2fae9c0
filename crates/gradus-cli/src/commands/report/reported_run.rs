//! What a report knows of a run before anything is computed.

use std::path::Path;

use gradus::config::Config;
use gradus::train::measure::{self, TestEmbeddings};
use gradus::train::{PreparedData, RunFolder};
use gradus_core::data::split::TestSet;
use gradus_core::data::{Factor, Source};
use serde_json::{Map, Value};

use crate::failure::Failure;

/// A run as a report shows it.
pub(crate) struct ReportedRun {
    pub(crate) name: String,
    /// The resolved configuration as it is stored.
    pub(crate) config: String,
    /// Every line of `events.jsonl`.
    pub(crate) events: Vec<Value>,
    /// The measures of the test classes.
    pub(crate) measures: Map<String, Value>,
    /// What the data are, in words.
    pub(crate) data: String,
    /// Name of each class.
    pub(crate) classes: Vec<String>,
    pub(crate) factors: Vec<Factor>,
    /// Where the picture of each query, then of each item of a separate gallery, comes from.
    pub(crate) sources: Vec<Source>,
    pub(crate) embedded: TestEmbeddings,
}

impl ReportedRun {
    /// Puts together what lies in a run folder and the embeddings of its test classes.
    pub(crate) fn new(
        name: String,
        folder: &Path,
        config: &Config,
        data: &PreparedData,
        embedded: TestEmbeddings,
    ) -> Result<Self, Failure> {
        let run = RunFolder::open(folder)?;
        let read = |path: &Path| {
            std::fs::read_to_string(path)
                .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))
        };
        // A line that a crash cut short says nothing.
        let events = read(&folder.join("events.jsonl"))
            .unwrap_or_default()
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let measures = match read(&run.metrics())
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok())
        {
            Some(measures) => measures,
            None => measure::measures(&measure::evaluate(&embedded, &data.dataset, config)?),
        };
        let items: Vec<usize> = match &data.test {
            TestSet::Single(items) => items.clone(),
            TestSet::QueryGallery { query, gallery } => query.iter().chain(gallery).copied().collect(),
        };
        Ok(Self {
            name,
            config: read(&run.config())?,
            events,
            measures,
            data: data.description.clone(),
            classes: data.dataset.classes.iter().map(|class| class.name.clone()).collect(),
            factors: data.dataset.factors.clone(),
            sources: items.iter().map(|&item| data.items[item].source.clone()).collect(),
            embedded,
        })
    }

    /// Number of queries.
    pub(crate) fn queries(&self) -> usize {
        self.embedded.queries.len()
    }

    /// Class of a query.
    pub(crate) fn class(&self, query: usize) -> u32 {
        self.embedded.queries.labels[query]
    }

    /// Class of an item that is searched.
    pub(crate) fn found_class(&self, item: usize) -> u32 {
        let searched = self.embedded.gallery.as_ref().unwrap_or(&self.embedded.queries);
        searched.labels[item]
    }

    /// Picture of an item that is searched.
    pub(crate) fn found_source(&self, item: usize) -> &Source {
        let first = if self.embedded.gallery.is_some() {
            self.queries()
        } else {
            0
        };
        &self.sources[first + item]
    }

    /// Name of a class.
    pub(crate) fn class_name(&self, class: u32) -> &str {
        self.classes.get(class as usize).map_or("?", String::as_str)
    }

    /// Factors of a query in words: `tilt 12.5, rotation 80`.
    pub(crate) fn factors_of(&self, query: usize) -> String {
        let Some(table) = &self.embedded.factors else {
            return String::new();
        };
        let words: Vec<String> = (table.factors.iter().enumerate())
            .map(|(number, factor)| {
                let value = (table.value(query, number) * 100.0).round() / 100.0;
                format!("{} {value}", factor.name)
            })
            .collect();
        words.join(", ")
    }
}
