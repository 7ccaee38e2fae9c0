//! What each way of post-processing does to the retrieval metrics.

use super::{
    ExpansionOptions, KReciprocalOptions, PostProcessingError, Whitening, database_augmentation, k_reciprocal,
    query_expansion,
};
use crate::EmbeddingSet;
use crate::evaluation::{
    Evaluation, EvaluationOptions, Horizon, PositiveRanks, Relevance, RetrievalMeasures, Rows, SearchDistance, Subject,
    rank_positives, reordered,
};

/// One way of post-processing.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Queries and gallery are whitened.
    Whitening(Whitening),
    /// Queries are expanded and search the gallery as it is.
    QueryExpansion(ExpansionOptions),
    /// The gallery is expanded by itself; queries stay as they are. Where the queries search each other, the gallery is a copy of
    /// them, so that a row may have taken in the query, as wherever a query stands in its database.
    DatabaseAugmentation(ExpansionOptions),
    /// The head of each ranking is re-ranked.
    KReciprocal(KReciprocalOptions),
}

impl Step {
    /// Its name in results.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Whitening(_) => "whitening",
            Self::QueryExpansion(_) => "query-expansion",
            Self::DatabaseAugmentation(_) => "database-augmentation",
            Self::KReciprocal(_) => "re-ranking",
        }
    }
}

/// The retrieval metrics after a step, applied to the embeddings as they are.
///
/// # Errors
/// Embeddings that are not all in memory or not compared by cosine; those of the step.
///
/// ```
/// use gradus_core::EmbeddingSet;
/// use gradus_core::evaluation::{EvaluationOptions, RetrievalMeasures, Subject};
/// use gradus_core::post_processing::{ExpansionOptions, Step, effect};
///
/// let set = EmbeddingSet {
///     dim: 2,
///     values: vec![1.0, 0.0, 0.9, 0.1, 0.0, 1.0, 0.1, 0.9],
///     labels: vec![0, 0, 1, 1],
///     ids: vec![String::new(); 4],
/// };
/// let step = Step::QueryExpansion(ExpansionOptions { neighbors: 1, ..ExpansionOptions::default() });
/// let metrics = RetrievalMeasures::new(None, &[1])?;
/// let after = effect(&Subject::of_sets(&set, None), &step, &metrics, &EvaluationOptions::default())?;
/// assert_eq!(after.get("recall@1"), Some(1.0));
/// # Ok::<(), gradus_core::post_processing::PostProcessingError>(())
/// ```
pub fn effect(
    subject: &Subject<'_>,
    step: &Step,
    metrics: &RetrievalMeasures,
    options: &EvaluationOptions,
) -> Result<Evaluation, PostProcessingError> {
    if options.distance != SearchDistance::Cosine {
        return Err(PostProcessingError::Options(format!(
            "{} looks at directions: it needs the cosine as distance",
            step.name()
        )));
    }
    let in_memory = |rows: &'_ dyn Rows| {
        rows.as_set().cloned().ok_or_else(|| {
            PostProcessingError::Options(format!(
                "{} needs all rows in memory, and they are read in blocks: allow more memory (--memory)",
                step.name()
            ))
        })
    };
    let Some(horizon) = metrics.horizon() else {
        return Err(PostProcessingError::Options(format!(
            "{} changes rankings, and no retrieval metric is asked for: name one, such as recall or map@r",
            step.name()
        )));
    };
    let relevance = subject.relevance()?;
    let queries = in_memory(subject.queries)?;
    let gallery = subject.gallery_rows().map(in_memory).transpose()?;
    let search = |queries: &EmbeddingSet, gallery: Option<&EmbeddingSet>| {
        rank_positives(
            queries,
            gallery.map(|gallery| gallery as &dyn Rows),
            &relevance,
            horizon,
            options,
        )
    };
    let ranks = match step {
        Step::Whitening(whitening) => {
            let gallery = gallery.map(|gallery| whitening.apply(&gallery)).transpose()?;
            search(&whitening.apply(&queries)?, gallery.as_ref())?
        }
        Step::QueryExpansion(how) => {
            let expanded = query_expansion(&queries, gallery.as_ref(), how, options)?;
            // Where the queries search each other, they search themselves as they were; each leaves out its own row.
            search(&expanded, Some(gallery.as_ref().unwrap_or(&queries)))?
        }
        Step::DatabaseAugmentation(how) => {
            let augmented = database_augmentation(gallery.as_ref().unwrap_or(&queries), how, options)?;
            search(&queries, Some(&augmented))?
        }
        Step::KReciprocal(how) => re_ranked(&queries, gallery.as_ref(), &relevance, how, options)?,
    };
    Ok(metrics.means(&ranks, options.lone_queries))
}

fn re_ranked(
    queries: &EmbeddingSet,
    gallery: Option<&EmbeddingSet>,
    relevance: &Relevance,
    how: &KReciprocalOptions,
    options: &EvaluationOptions,
) -> Result<PositiveRanks, PostProcessingError> {
    let plain = gallery.map(|gallery| gallery as &dyn Rows);
    let before = rank_positives(queries, plain, relevance, Horizon::EVERYTHING, options)?;
    let lists = k_reciprocal(queries, gallery, how, options)?;
    Ok(reordered(&before, relevance, |query| lists.of(query)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::testing::{random_set, similarity_matrix};
    use crate::evaluation::{LoneQueries, evaluate};
    use crate::post_processing::WhiteningOptions;

    /// Recall@1 of rankings written out: `skip_self` leaves out the row of the query's own number.
    fn recall(queries: &EmbeddingSet, gallery: &EmbeddingSet, skip_self: bool) -> f64 {
        let scores = similarity_matrix(queries, gallery);
        let hits = (0..queries.len()).filter(|&query| {
            let best = (0..gallery.len())
                .filter(|&row| !(skip_self && row == query))
                .max_by(|&a, &b| scores[query][a].total_cmp(&scores[query][b]).then(b.cmp(&a)))
                .unwrap();
            gallery.labels[best] == queries.labels[query]
        });
        hits.count() as f64 / queries.len() as f64
    }

    fn recall_after(queries: &EmbeddingSet, gallery: Option<&EmbeddingSet>, step: &Step) -> f64 {
        let metrics = RetrievalMeasures::new(Some(&["recall".into()]), &[1]).unwrap();
        let subject = Subject::of_sets(queries, gallery);
        let found = effect(&subject, step, &metrics, &EvaluationOptions::default()).unwrap();
        found.get("recall@1").unwrap()
    }

    #[test]
    fn rows_are_changed_where_each_step_says_so() {
        let (queries, gallery) = (random_set(5, 90, 12, 9), random_set(6, 120, 12, 9));
        let search = EvaluationOptions::default();
        let how = ExpansionOptions {
            neighbors: 5,
            alpha: 1.0,
        };
        let fitted = Whitening::fit(&random_set(8, 200, 12, 9), &WhiteningOptions::default()).unwrap();
        let mut differs = false;
        for other in [None, Some(&gallery)] {
            let (target, alone) = (other.unwrap_or(&queries), other.is_none());
            let expanded = query_expansion(&queries, other, &how, &search).unwrap();
            let augmented = database_augmentation(target, &how, &search).unwrap();
            let white = [&queries, target].map(|set| fitted.apply(set).unwrap());
            for (step, expected) in [
                (Step::QueryExpansion(how), recall(&expanded, target, alone)),
                (Step::DatabaseAugmentation(how), recall(&queries, &augmented, alone)),
                (Step::Whitening(fitted.clone()), recall(&white[0], &white[1], alone)),
            ] {
                assert_eq!(
                    recall_after(&queries, other, &step),
                    expected,
                    "{} {alone}",
                    step.name()
                );
            }
            let plain = recall(&queries, target, alone);
            let lambda_one = KReciprocalOptions {
                lambda: 1.0,
                ..KReciprocalOptions::default()
            };
            assert_eq!(recall_after(&queries, other, &Step::KReciprocal(lambda_one)), plain);
            let lists = k_reciprocal(&queries, other, &KReciprocalOptions::default(), &search).unwrap();
            let hits =
                (0..queries.len()).filter(|&query| target.labels[lists.of(query)[0] as usize] == queries.labels[query]);
            let expected = hits.count() as f64 / queries.len() as f64;
            differs |= expected != plain;
            let step = Step::KReciprocal(KReciprocalOptions::default());
            assert_eq!(recall_after(&queries, other, &step), expected);
        }
        assert!(differs, "the check of re-ranking would say nothing");
    }

    #[test]
    fn steps_that_change_nothing_change_no_metric() {
        let set = random_set(11, 80, 10, 30);
        let nothing = ExpansionOptions {
            neighbors: 0,
            alpha: 3.0,
        };
        let same = KReciprocalOptions {
            lambda: 1.0,
            candidates: 13,
            ..KReciprocalOptions::default()
        };
        for lone_queries in [LoneQueries::Miss, LoneQueries::Drop] {
            let options = EvaluationOptions {
                lone_queries,
                ..EvaluationOptions::default()
            };
            let plain = evaluate(&set, None, &options, None).unwrap();
            assert!(plain.get("lone_queries").unwrap() > 0.0);
            let names = ["recall", "r_precision", "map@r"].map(String::from);
            let metrics = RetrievalMeasures::new(Some(&names), &options.recall_levels).unwrap();
            for step in [
                Step::QueryExpansion(nothing),
                Step::DatabaseAugmentation(nothing),
                Step::KReciprocal(same),
            ] {
                let after = effect(&Subject::of_sets(&set, None), &step, &metrics, &options).unwrap();
                for key in metrics.keys() {
                    assert_eq!(after.get(key), plain.get(key), "{key} {}", step.name());
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let set = random_set(1, 10, 4, 3);
        let step = Step::QueryExpansion(ExpansionOptions::default());
        let refused = |names: &[&str], distance| {
            let names: Vec<String> = names.iter().map(|&name| name.into()).collect();
            let metrics = RetrievalMeasures::new(Some(&names), &[1]).unwrap();
            let options = EvaluationOptions {
                distance,
                ..EvaluationOptions::default()
            };
            effect(&Subject::of_sets(&set, None), &step, &metrics, &options)
                .unwrap_err()
                .to_string()
        };
        assert!(refused(&["recall"], SearchDistance::Euclidean).contains("cosine"));
        assert!(refused(&["density"], SearchDistance::Cosine).contains("retrieval metric"));
    }
}
