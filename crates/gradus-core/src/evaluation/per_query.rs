//! What each query contributes to the measures: the raw material of intervals over queries and classes.

use serde::{Deserialize, Serialize};

use super::measure::LoneQueries;
use super::near_and_far::NearAndFar;
use super::neighborhood_preservation::of_queries;
use super::retrieval_measures::RetrievalMeasures;
use super::search::rank_positives;
use super::subject::{COMPARED, Subject};
use super::unit_rows::UnitRows;
use super::{EvaluationError, EvaluationOptions, blocks, near_and_far, order_preservation};

/// One number of each query.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryColumn {
    /// The measure; its mean over the counted queries is the measure of this name.
    pub name: String,
    /// The value of each query; `None` where it does not count.
    pub values: Vec<Option<f64>>,
}

/// The contributions of the queries, in their order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PerQuery {
    /// Class of each query.
    pub classes: Vec<u32>,
    /// `recall@1`, `map@r`; `order_preservation.FACTOR`, `order_preservation_near.FACTOR` and `recall_far.FACTOR` of each known
    /// factor; `reference_spearman` with a reference space.
    pub columns: Vec<QueryColumn>,
}

impl PerQuery {
    /// The column of a name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&QueryColumn> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// Computes what each query contributes to Recall@1, MAP@R and, where factors or a reference space are known, to order
/// preservation and to the Spearman correlation with the reference.
///
/// # Errors
/// Those of [`evaluate`](super::evaluate); queries with several labels; a reference that does not hold the same items.
pub fn per_query(subject: &Subject<'_>, options: &EvaluationOptions) -> Result<PerQuery, EvaluationError> {
    if let Some(problem) = subject.no_classes() {
        return Err(EvaluationError::Options(format!(
            "what each query contributes {problem}"
        )));
    }
    let (Some(classes), Some(set)) = (subject.query_labels.classes(), subject.queries.as_set()) else {
        return Err(EvaluationError::Options(
            "what each query contributes needs all rows in memory".into(),
        ));
    };
    let retrieval = RetrievalMeasures::new(Some(&["recall@1".into(), "map@r".into()]), &[1])?;
    let mut all = PerQuery {
        classes: classes.to_vec(),
        columns: Vec::new(),
    };
    if let Some(horizon) = retrieval.horizon() {
        let relevance = subject.relevance()?;
        let ranks = rank_positives(subject.queries, subject.gallery_rows(), &relevance, horizon, options)?;
        let counts = |query: usize| options.lone_queries == LoneQueries::Miss || ranks.relevant(query) > 0;
        for (name, column) in retrieval.keys().zip(retrieval.columns(&ranks)) {
            let values = column.into_iter().enumerate();
            all.columns.push(QueryColumn {
                name: name.into(),
                values: values.map(|(query, value)| counts(query).then_some(value)).collect(),
            });
        }
    }
    blocks::on_threads(options.threads, || {
        if let Some(factors) = subject.factors {
            factors.check(set.len())?;
            let rows = UnitRows::new(set, "query")?;
            let found = order_preservation::of_queries(&rows, factors);
            for (number, factor) in factors.factors.iter().enumerate() {
                let mut values = vec![None; set.len()];
                for (query, correlations) in found.iter().enumerate() {
                    values[rows.order()[query] as usize] = correlations[number].map(|pair| pair.0);
                }
                all.columns.push(QueryColumn {
                    name: format!("order_preservation.{}", factor.name),
                    values,
                });
            }
            let found = near_and_far::of_queries(&rows, factors);
            let kinds: [fn(&NearAndFar) -> Option<f64>; 2] = [|query| query.order_near, |query| query.recall_far];
            for (name, value) in near_and_far::NAMES.into_iter().zip(kinds) {
                for (number, factor) in factors.factors.iter().enumerate() {
                    let mut values = vec![None; set.len()];
                    for (query, of_factors) in found.iter().enumerate() {
                        values[rows.order()[query] as usize] = value(&of_factors[number]);
                    }
                    all.columns.push(QueryColumn {
                        name: format!("{name}.{}", factor.name),
                        values,
                    });
                }
            }
        }
        if let Some(reference) = subject.reference {
            let (own, other) = subject.beside_reference(set, reference)?;
            let mut values = vec![None; set.len()];
            for query in of_queries(&own, &other, COMPARED) {
                values[own.order()[query.position] as usize] = query.spearman;
            }
            all.columns.push(QueryColumn {
                name: "reference_spearman".into(),
                values,
            });
        }
        Ok(())
    })?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Factor;
    use crate::evaluation::factors::FactorTable;
    use crate::evaluation::testing::random_set;
    use crate::evaluation::{ReportOptions, report};

    #[test]
    fn means_of_the_columns_are_the_measures() {
        let set = random_set(3, 90, 6, 11);
        let reference = random_set(4, 90, 9, 11);
        let factor = |name: &str| Factor {
            name: name.into(),
            period: None,
        };
        let values = (0..90_u32).flat_map(|row| [row as f32 * 7.0 % 13.0, row as f32 * 11.0 % 17.0]);
        let table = FactorTable {
            factors: vec![factor("angle"), factor("size")],
            values: values.collect(),
        };
        let mut subject = Subject::of_sets(&set, None);
        subject.factors = Some(&table);
        subject.reference = Some(&reference);
        let options = EvaluationOptions::default();
        let found = per_query(&subject, &options).unwrap();
        let names: Vec<&str> = found.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "recall@1",
                "map@r",
                "order_preservation.angle",
                "order_preservation.size",
                "order_preservation_near.angle",
                "order_preservation_near.size",
                "recall_far.angle",
                "recall_far.size",
                "reference_spearman"
            ]
        );
        let whole = report(&subject, &options, None, &ReportOptions::default())
            .unwrap()
            .evaluation;
        for column in &found.columns {
            let counted: Vec<f64> = column.values.iter().copied().flatten().collect();
            let mean = counted.iter().sum::<f64>() / counted.len() as f64;
            let expected = whole.get(&column.name).unwrap();
            assert!((mean - expected).abs() < 1e-12, "{}: {mean} {expected}", column.name);
        }
        assert_eq!(found.classes, set.labels);
    }
}
