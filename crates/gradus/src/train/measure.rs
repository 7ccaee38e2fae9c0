//! What the test classes say of a network: their embeddings and the measures.

use gradus_core::EmbeddingSet;
use gradus_core::data::Dataset;
use gradus_core::data::split::TestSet;
use gradus_core::evaluation::{self, Evaluation, EvaluationOptions, FactorTable};

use super::embed::{self, Images, Output};
use super::error::TrainError;
use super::events::Observer;
use crate::config::Config;
use crate::models::Embedder;

/// Embedded test items.
#[derive(Debug, Clone)]
pub struct TestEmbeddings {
    /// Items that search.
    pub queries: EmbeddingSet,
    /// Items that are searched; `None`: the queries search each other.
    pub gallery: Option<EmbeddingSet>,
    /// Known factors of the queries.
    pub factors: Option<FactorTable>,
}

/// Embeds test items.
///
/// # Errors
/// If an image cannot be loaded or the device fails.
pub fn embed_test(
    embedder: &Embedder,
    images: &Images,
    dataset: &Dataset,
    test: &TestSet,
    what: &str,
    observer: &mut dyn Observer,
) -> Result<TestEmbeddings, TrainError> {
    let labels = |items: &[usize]| {
        items
            .iter()
            .map(|&item| dataset.items[item].class)
            .collect::<Vec<u32>>()
    };
    let mut embed = |items: &[usize]| {
        embed::embed(
            embedder,
            images,
            items,
            labels(items),
            Output::Embedding,
            what,
            &mut *observer,
        )
    };
    Ok(match test {
        TestSet::Single(items) => TestEmbeddings {
            queries: embed(items)?,
            gallery: None,
            factors: FactorTable::from_dataset(dataset, items),
        },
        TestSet::QueryGallery { query, gallery } => TestEmbeddings {
            queries: embed(query)?,
            gallery: Some(embed(gallery)?),
            factors: None,
        },
    })
}

/// How a run evaluates: its own levels K, or those of the benchmark.
#[must_use]
pub fn evaluation_options(dataset: &Dataset, config: &Config) -> EvaluationOptions {
    EvaluationOptions {
        recall_levels: if config.evaluation.recall.is_empty() {
            evaluation::recall_levels(dataset.layout.name())
        } else {
            config.evaluation.recall.clone()
        },
        memory: config.evaluation.memory_mib * 1024 * 1024,
        ..EvaluationOptions::default()
    }
}

/// Embeds and measures test items.
///
/// # Errors
/// If an image cannot be loaded, the device fails, or the embeddings cannot be measured.
pub fn measure(
    embedder: &Embedder,
    images: &Images,
    dataset: &Dataset,
    test: &TestSet,
    config: &Config,
    what: &str,
    observer: &mut dyn Observer,
) -> Result<Evaluation, TrainError> {
    let embedded = embed_test(embedder, images, dataset, test, what, observer)?;
    evaluate(&embedded, dataset, config)
}

/// Measures embedded test items.
///
/// # Errors
/// If the embeddings cannot be measured.
pub fn evaluate(embedded: &TestEmbeddings, dataset: &Dataset, config: &Config) -> Result<Evaluation, TrainError> {
    Ok(evaluation::evaluate(
        &embedded.queries,
        embedded.gallery.as_ref(),
        &evaluation_options(dataset, config),
        embedded.factors.as_ref(),
    )?)
}

/// The measures as one flat JSON object.
#[must_use]
pub fn measures(evaluation: &Evaluation) -> serde_json::Map<String, serde_json::Value> {
    match serde_json::to_value(evaluation) {
        Ok(serde_json::Value::Object(map)) => map,
        _ => serde_json::Map::new(),
    }
}
