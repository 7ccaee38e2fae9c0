//! Order preservation: does a stronger change inside a class lie farther away? The measure the method is about.

use rayon::prelude::*;

use super::EvaluationError;
use super::factors::FactorTable;
use super::measure::Measure;
use super::rank_correlation::{kendall_tau_b, spearman};
use super::unit_rows::{UnitRows, distance};

/// Name and origin of the headline value.
pub(super) const MEASURE: Measure = Measure {
    name: "order_preservation",
    summary: "Spearman correlation of factor distance and embedding distance inside the class of each query, mean over queries and factors",
    source: "gradus; rank correlation after Spearman 1904",
};

/// Name and origin of its Kendall form.
pub(super) const KENDALL: Measure = Measure {
    name: "order_preservation_kendall",
    summary: "the same with Kendall's tau-b",
    source: "gradus; rank correlation after Kendall 1945",
};

/// Name and origin of the value of one factor.
pub(super) const PER_FACTOR: Measure = Measure {
    name: "order_preservation.FACTOR",
    summary: "the same for one factor alone",
    source: "gradus",
};

/// Name and origin of the value of all factors together.
pub(super) const COMBINED: Measure = Measure {
    name: "order_preservation_combined",
    summary: "the same for the distance in all factors together, each in units of its mean distance inside classes",
    source: "gradus",
};

/// Name and origin of the headline value under the name of the statistic.
pub(super) const SPEARMAN: Measure = Measure {
    name: "order_spearman",
    summary: "order_preservation under the name of its statistic: Spearman correlation of factor and embedding distance inside classes",
    source: "gradus; rank correlation after Spearman 1904",
};

/// Name and origin of its Kendall form under the name of the statistic.
pub(super) const KENDALL_TAU: Measure = Measure {
    name: "order_kendall",
    summary: "order_preservation_kendall under the name of its statistic: Kendall's tau-b in place of Spearman's correlation",
    source: "gradus; rank correlation after Kendall 1945",
};

/// Order preservation of one factor (or of all together).
#[derive(Clone, Debug, PartialEq)]
pub struct FactorOrder {
    /// Name of the factor.
    pub name: String,
    /// Mean over the counted queries of Spearman's correlation; `None` if no query counts.
    pub spearman: Option<f64>,
    /// Mean over the counted queries of Kendall's tau-b.
    pub kendall: Option<f64>,
    /// Queries counted.
    pub queries: usize,
    /// Queries left out: fewer than two other members, or all equally far in the factor.
    pub skipped: usize,
}

/// Order preservation of every factor and of all together.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderPreservation {
    /// One entry per factor of the table.
    pub factors: Vec<FactorOrder>,
    /// Of the distance in all factors together.
    pub combined: FactorOrder,
    /// The headline: mean over factors (those with a counted query) of the mean over queries of Spearman's correlation.
    pub spearman: Option<f64>,
    /// The same with Kendall's tau-b.
    pub kendall: Option<f64>,
}

/// Measures how well the distances inside classes follow known factors.
///
/// For each query, over the m other members of its class: the rank correlation of their factor distance with their
/// Euclidean embedding distance; 1 is a perfect order, 0 none. Ties have mid-ranks. A query whose members all lie equally
/// far in the factor has no order to preserve and is left out; one whose members all lie equally far in the embedding
/// (a class collapsed to a point) has preserved none of it and counts 0.
///
/// The combined distance is `sqrt(sum_f (d_f / mean d_f)^2)`, the mean over all pairs inside classes; factors that never
/// vary inside a class do not take part.
///
/// # Errors
/// If the table does not fit the rows.
pub fn order_preservation(rows: &UnitRows, table: &FactorTable) -> Result<OrderPreservation, EvaluationError> {
    table.check(rows.len())?;
    let per_query = of_queries(rows, table);
    let mut names: Vec<String> = table.factors.iter().map(|factor| factor.name.clone()).collect();
    names.push("combined".into());
    let mut orders: Vec<FactorOrder> = names
        .into_iter()
        .enumerate()
        .map(|(column, name)| {
            let counted: Vec<(f64, f64)> = per_query
                .iter()
                .filter_map(|correlations| correlations[column])
                .collect();
            let queries = counted.len();
            let mean = |sum: f64| (queries > 0).then(|| sum / queries as f64);
            FactorOrder {
                name,
                spearman: mean(counted.iter().map(|pair| pair.0).sum()),
                kendall: mean(counted.iter().map(|pair| pair.1).sum()),
                queries,
                skipped: per_query.len() - queries,
            }
        })
        .collect();
    let combined = orders.pop().expect("the combined order was pushed last");
    let mean = |values: Vec<f64>| (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
    Ok(OrderPreservation {
        spearman: mean(orders.iter().filter_map(|order| order.spearman).collect()),
        kendall: mean(orders.iter().filter_map(|order| order.kendall).collect()),
        factors: orders,
        combined,
    })
}

/// Spearman's correlation and Kendall's tau-b of each query (in the order of `rows`) for each factor, then for all together; `None`
/// where there is no order to preserve.
pub(super) fn of_queries(rows: &UnitRows, table: &FactorTable) -> Vec<Vec<Option<(f64, f64)>>> {
    let count = table.factors.len();
    let scales = scales(rows, table);
    let members: Vec<(usize, std::ops::Range<usize>)> = rows
        .classes()
        .iter()
        .flat_map(|class| class.rows.clone().map(|row| (row, class.rows.clone())))
        .collect();
    members
        .into_par_iter()
        .map(|(query, class)| {
            let others: Vec<usize> = class.filter(|&other| other != query).collect();
            let embedded: Vec<f64> = others
                .iter()
                .map(|&other| f64::from(distance(rows.row(query), rows.row(other))))
                .collect();
            let index = |position: usize| rows.order()[position] as usize;
            let mut combined = vec![0.0_f64; others.len()];
            let mut correlations = Vec::with_capacity(count + 1);
            for (factor, scale) in scales.iter().enumerate() {
                let known: Vec<f64> = others
                    .iter()
                    .map(|&other| table.distance(factor, index(query), index(other)))
                    .collect();
                for (combined, known) in combined.iter_mut().zip(&known) {
                    *combined += (known * scale).powi(2);
                }
                correlations.push(correlate(&known, &embedded));
            }
            correlations.push(correlate(&combined, &embedded));
            correlations
        })
        .collect()
}

/// One over the mean distance inside classes of each factor; 0 for a factor that never varies there.
fn scales(rows: &UnitRows, table: &FactorTable) -> Vec<f64> {
    (0..table.factors.len())
        .map(|factor| {
            let per_class: Vec<(f64, f64)> = rows
                .classes()
                .par_iter()
                .map(|class| {
                    let indices: Vec<usize> = rows.order()[class.rows.clone()]
                        .iter()
                        .map(|&index| index as usize)
                        .collect();
                    let mut sum = 0.0;
                    for (place, &a) in indices.iter().enumerate() {
                        sum += indices[..place]
                            .iter()
                            .map(|&b| table.distance(factor, a, b))
                            .sum::<f64>();
                    }
                    (sum, (indices.len() * indices.len().saturating_sub(1) / 2) as f64)
                })
                .collect();
            let (sum, pairs) = per_class
                .iter()
                .fold((0.0, 0.0), |total, class| (total.0 + class.0, total.1 + class.1));
            if sum > 0.0 { pairs / sum } else { 0.0 }
        })
        .collect()
}

/// `None`: nothing to preserve. 0: the embedding distances are all equal.
pub(super) fn correlate(known: &[f64], embedded: &[f64]) -> Option<(f64, f64)> {
    if known.windows(2).all(|pair| pair[0] == pair[1]) {
        return None;
    }
    Some((
        spearman(known, embedded).unwrap_or(0.0),
        kendall_tau_b(known, embedded).unwrap_or(0.0),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EmbeddingSet;
    use crate::data::Factor;
    use crate::evaluation::testing::random_set;

    fn plain(name: &str) -> Factor {
        Factor {
            name: name.into(),
            period: None,
        }
    }

    /// One class on an arc: embedding angle = `angles[i]` radians.
    fn arc(angles: &[f32]) -> UnitRows {
        let values = angles.iter().flat_map(|angle| [angle.cos(), angle.sin()]).collect();
        let ids = vec![String::new(); angles.len()];
        UnitRows::new(
            &EmbeddingSet {
                dim: 2,
                values,
                labels: vec![4; angles.len()],
                ids,
            },
            "query",
        )
        .unwrap()
    }

    #[test]
    fn an_arc_in_order_is_one_and_a_collapsed_class_is_zero() {
        let angles: Vec<f32> = (0..9)
            .map(|step| step as f32 * 0.1 + 0.003 * (step * step) as f32)
            .collect();
        let table = FactorTable {
            factors: vec![plain("growth")],
            values: angles.iter().map(|angle| 3.0 * angle + 5.0).collect(),
        };
        let found = order_preservation(&arc(&angles), &table).unwrap();
        assert!(
            (found.spearman.unwrap() - 1.0).abs() < 1e-12 && (found.kendall.unwrap() - 1.0).abs() < 1e-12,
            "{found:?}"
        );
        assert_eq!((found.factors[0].queries, found.factors[0].skipped), (9, 0));
        assert_eq!(found.combined.spearman, found.spearman);
        let collapsed = order_preservation(&arc(&[0.4; 9]), &table).unwrap();
        assert_eq!((collapsed.spearman, collapsed.kendall), (Some(0.0), Some(0.0)));
    }

    #[test]
    fn a_circle_needs_its_period() {
        let angles: Vec<f32> = (0..12).map(|step| step as f32 * 30.0).collect();
        let rows = arc(&angles.iter().map(|angle| angle.to_radians()).collect::<Vec<_>>());
        let order = |period| {
            let table = FactorTable {
                factors: vec![Factor {
                    name: "pose".into(),
                    period,
                }],
                values: angles.clone(),
            };
            order_preservation(&rows, &table).unwrap().spearman.unwrap()
        };
        // Rounding separates embedding distances that mirror each other, so not exactly 1.
        assert!(order(Some(360.0)) > 0.98, "{}", order(Some(360.0)));
        assert!(order(None) < 0.8, "{}", order(None));
    }

    #[test]
    fn queries_without_order_are_left_out_and_counted() {
        let mut set = random_set(6, 9, 5, 1);
        set.labels = vec![0, 0, 0, 0, 1, 1, 2, 3, 3];
        let rows = UnitRows::new(&set, "query").unwrap();
        let values = [
            [1.0, 7.0],
            [2.0, 7.0],
            [3.0, 7.0],
            [9.0, 7.0],
            [1.0, 7.0],
            [2.0, 7.0],
            [5.0, 7.0],
            [1.0, 7.0],
            [1.0, 7.0],
        ]
        .concat();
        let table = FactorTable {
            factors: vec![plain("tilt"), plain("fixed")],
            values,
        };
        let found = order_preservation(&rows, &table).unwrap();
        assert_eq!((found.factors[0].queries, found.factors[0].skipped), (4, 5));
        assert_eq!(
            (
                found.factors[1].spearman,
                found.factors[1].queries,
                found.factors[1].skipped
            ),
            (None, 0, 9)
        );
        assert_eq!(found.spearman, found.factors[0].spearman);
        assert_eq!(found.combined.spearman, found.spearman);
    }

    #[test]
    fn it_equals_a_plain_loop_over_queries() {
        let set = random_set(8, 60, 6, 5);
        let rows = UnitRows::new(&set, "query").unwrap();
        let factors = vec![
            plain("a"),
            Factor {
                name: "b".into(),
                period: Some(1.0),
            },
        ];
        let values: Vec<f32> = random_set(9, 60, 2, 1).values;
        let table = FactorTable {
            factors,
            values: values.clone(),
        };
        let found = order_preservation(&rows, &table).unwrap();
        let unit = |row: usize| {
            let norm = set.row(row).iter().map(|value| value * value).sum::<f32>().sqrt();
            set.row(row).iter().map(|value| value / norm).collect::<Vec<_>>()
        };
        let factor_distance = |factor: usize, a: usize, b: usize| {
            let plain = f64::from(values[a * 2 + factor] - values[b * 2 + factor]).abs();
            if factor == 0 {
                plain
            } else {
                (plain % 1.0).min(1.0 - plain % 1.0)
            }
        };
        let mut means = [0.0; 2];
        let mut pairs = 0.0;
        for a in 0..60 {
            for b in (0..60).filter(|&b| b != a && set.labels[b] == set.labels[a]) {
                pairs += 1.0;
                means = [0, 1].map(|factor| means[factor] + factor_distance(factor, a, b));
            }
        }
        let means = means.map(|sum| sum / pairs);
        let (mut sums, mut queries) = ([0.0; 3], 0.0);
        for query in 0..60 {
            let others: Vec<usize> = (0..60)
                .filter(|&b| b != query && set.labels[b] == set.labels[query])
                .collect();
            let embedded: Vec<f64> = others
                .iter()
                .map(|&b| {
                    unit(query)
                        .iter()
                        .zip(unit(b))
                        .map(|(x, y)| f64::from(x - y).powi(2))
                        .sum::<f64>()
                        .sqrt()
                })
                .collect();
            let columns = [0, 1].map(|factor| {
                others
                    .iter()
                    .map(|&b| factor_distance(factor, query, b))
                    .collect::<Vec<f64>>()
            });
            let together: Vec<f64> = (0..others.len())
                .map(|at| (columns[0][at] / means[0]).hypot(columns[1][at] / means[1]))
                .collect();
            queries += 1.0;
            for (sum, known) in sums.iter_mut().zip([&columns[0], &columns[1], &together]) {
                *sum += spearman(known, &embedded).unwrap();
            }
        }
        let [a, b, together] = sums.map(|sum| sum / queries);
        assert!((found.factors[0].spearman.unwrap() - a).abs() < 1e-9);
        assert!((found.factors[1].spearman.unwrap() - b).abs() < 1e-9);
        assert!((found.combined.spearman.unwrap() - together).abs() < 1e-9);
        assert!((found.spearman.unwrap() - (a + b) / 2.0).abs() < 1e-9);
    }
}
