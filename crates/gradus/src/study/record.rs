//! What is kept of a finished run beside its measures: what each query contributed.

use std::path::Path;

use gradus_core::EmbeddingSet;
use gradus_core::evaluation::{PerQuery, ReportOptions, Subject, per_query, report};
use gradus_core::files::write_atomically;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::train::measure::{TestEmbeddings, evaluation_options};
use crate::train::{PreparedData, TrainError};

/// Name of the file in the folder of a run.
const FILE: &str = "queries.json";
/// Measures of known factors that a run does not report itself.
const OF_FACTORS: [&str; 2] = ["order_preservation_near", "recall_far"];
/// Measures of the whole set that need a reference space.
const OF_REFERENCE: [&str; 3] = ["reference_spearman", "knn_overlap", "linear_cka"];

/// What each query of the test classes contributed, and how the classes lie beside the reference network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Which reference network was compared with, if any, as its section says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Measures that a run does not report itself: of known factors `order_preservation_near` and `recall_far`, beside the reference
    /// `reference_spearman`, `knn_overlap`, `linear_cka`.
    #[serde(default)]
    pub measures: serde_json::Map<String, serde_json::Value>,
    /// The queries.
    pub queries: PerQuery,
}

impl RunRecord {
    /// Measures embedded test classes query by query; `reference` holds the description and the embeddings of the same queries.
    ///
    /// # Errors
    /// If the embeddings cannot be measured.
    pub fn new(
        embedded: &TestEmbeddings,
        reference: Option<(&str, &EmbeddingSet)>,
        config: &Config,
        data: &PreparedData,
    ) -> Result<Self, TrainError> {
        let mut subject = Subject::of_sets(&embedded.queries, embedded.gallery.as_ref());
        subject.factors = embedded.factors.as_ref();
        subject.reference = reference.map(|(_, set)| set);
        let options = evaluation_options(&data.dataset, config);
        let queries = per_query(&subject, &options)?;
        let of_factors = OF_FACTORS.iter().filter(|_| embedded.factors.is_some());
        let of_reference = OF_REFERENCE.iter().filter(|_| reference.is_some());
        let names: Vec<String> = of_factors.chain(of_reference).map(|&name| name.to_owned()).collect();
        let mut measures = serde_json::Map::new();
        if !names.is_empty() {
            let found = report(&subject, &options, Some(&names), &ReportOptions::default())?.evaluation;
            measures = crate::train::measure::measures(&found);
            measures.retain(|name, _| names.iter().any(|asked| asked == name));
        }
        Ok(Self {
            reference: reference.map(|(name, _)| name.to_owned()),
            measures,
            queries,
        })
    }

    /// The record of a run that came to nothing.
    pub(super) fn empty() -> Self {
        Self {
            reference: None,
            measures: serde_json::Map::new(),
            queries: PerQuery::default(),
        }
    }

    /// The record in the folder of a run; `None` if there is none that can be read.
    #[must_use]
    pub fn read(place: &Path) -> Option<Self> {
        serde_json::from_str(&std::fs::read_to_string(place.join(FILE)).ok()?).ok()
    }

    /// Writes it into the folder of a run, whole or not at all.
    ///
    /// # Errors
    /// If the place cannot be written to.
    pub fn write(&self, place: &Path) -> Result<(), TrainError> {
        let unwritable =
            |problem: String| TrainError::Folder(format!("cannot write to {}: {problem}", place.display()));
        let text = serde_json::to_string(self).map_err(|error| unwritable(error.to_string()))?;
        write_atomically(&place.join(FILE), |file| file.write_all(text.as_bytes()))
            .map_err(|error| unwritable(error.to_string()))
    }
}
