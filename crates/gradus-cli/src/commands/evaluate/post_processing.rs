//! What post-processing does to the retrieval metrics.

use gradus_core::EmbeddingSet;
use gradus_core::evaluation::{Evaluation, EvaluationOptions, RetrievalMeasures, Subject};
use gradus_core::post_processing::{ExpansionOptions, KReciprocalOptions, Step, Whitening, WhiteningOptions, effect};
use serde::Serialize;
use serde::ser::SerializeMap;

use crate::arguments::PostProcessing;
use crate::failure::Failure;
use crate::output;

/// The retrieval metrics after each step.
pub(super) struct Effects(Vec<(&'static str, Evaluation)>);

impl Effects {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(&'static str, Evaluation)> {
        self.0.iter()
    }
}

impl Serialize for Effects {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, means) in &self.0 {
            map.serialize_entry(name, means)?;
        }
        map.end()
    }
}

/// The steps that are asked for.
pub(super) fn steps(asked: &PostProcessing, training: Option<&EmbeddingSet>) -> Result<Vec<Step>, Failure> {
    let expansion = |neighbors: u32| {
        let mut how = ExpansionOptions {
            neighbors: neighbors as usize,
            ..ExpansionOptions::default()
        };
        how.alpha = asked.expansion_alpha.unwrap_or(how.alpha);
        how
    };
    if asked.expansion_alpha.is_some() && asked.query_expansion.is_none() && asked.database_augmentation.is_none() {
        return Err(Failure::new(
            "--expansion-alpha weighs the neighbours of --query-expansion and --database-augmentation: give one of them as well",
        ));
    }
    let mut steps = Vec::new();
    steps.extend(
        asked
            .query_expansion
            .map(|count| Step::QueryExpansion(expansion(count))),
    );
    steps.extend(
        asked
            .database_augmentation
            .map(|count| Step::DatabaseAugmentation(expansion(count))),
    );
    if let Some(training) = training {
        let how = WhiteningOptions {
            dim: asked.whitening_width,
            ..WhiteningOptions::default()
        };
        steps.push(Step::Whitening(Whitening::fit(training, &how)?));
    }
    if asked.re_ranking {
        let default = KReciprocalOptions::default();
        steps.push(Step::KReciprocal(KReciprocalOptions {
            k1: asked.k1.unwrap_or(default.k1),
            k2: asked.k2.unwrap_or(default.k2),
            lambda: asked.lambda.unwrap_or(default.lambda),
            candidates: asked.candidates.unwrap_or(default.candidates),
        }));
    }
    Ok(steps)
}

pub(super) fn effects(
    subject: &Subject<'_>,
    steps: &[Step],
    wanted: Option<&[String]>,
    options: &EvaluationOptions,
) -> Result<Effects, Failure> {
    let mut all = Vec::new();
    if !steps.is_empty() {
        let metrics = RetrievalMeasures::new(wanted, &options.recall_levels)?;
        for step in steps {
            output::note(&format!("post-processing: {}", step.name()));
            all.push((step.name(), effect(subject, step, &metrics, options)?));
        }
    }
    Ok(Effects(all))
}
