//! Order among members that are near in a known factor, and recognition of those that are far: where an order over all members
//! has no room left, these two still have.

use std::ops::Range;

use rayon::prelude::*;

use super::EvaluationError;
use super::factors::FactorTable;
use super::measure::Measure;
use super::order_preservation::correlate;
use super::registry::Numbers;
use super::unit_rows::{UnitRows, distance};

/// Name and origin of the order among near members.
pub(super) const ORDER_NEAR: Measure = Measure {
    name: "order_preservation_near",
    summary: "order_preservation over the members within a third of the largest factor distance (on a circle 60 degrees) of the query alone",
    source: "gradus; rank correlation after Spearman 1904",
};

/// Name and origin of the recognition of far members.
pub(super) const RECALL_FAR: Measure = Measure {
    name: "recall_far",
    summary: "Recall@1 with the members of the class within a third of the largest factor distance (on a circle 60 degrees) left out",
    source: "gradus",
};

/// The names of both measures, for those who compute them together.
pub(super) const NAMES: [&str; 2] = [ORDER_NEAR.name, RECALL_FAR.name];

/// What one query contributes for one factor.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct NearAndFar {
    /// Spearman's correlation of factor and embedding distance over the near members; `None` with fewer than two of them or none
    /// farther than another.
    pub(super) order_near: Option<f64>,
    /// 1 if the nearest row is of the class once near members are left out, else 0; `None` without a far member.
    pub(super) recall_far: Option<f64>,
}

/// Both numbers of each query, in the order of `rows`, for each factor.
///
/// A member is near if its factor distance is at most a third of the largest one there can be: half the period of a
/// circular factor, else the largest inside the class.
pub(super) fn of_queries(rows: &UnitRows, table: &FactorTable) -> Vec<Vec<NearAndFar>> {
    let of_class: Vec<&Range<usize>> = rows.classes().iter().map(|class| &class.rows).collect();
    let index = |position: usize| rows.order()[position] as usize;
    let all_factors = 0..table.factors.len();
    let near_within: Vec<Vec<f64>> = of_class
        .par_iter()
        .map(|class| {
            let largest = |factor: usize| match table.factors[factor].period {
                Some(period) => f64::from(period) / 2.0,
                None => spread((*class).clone().map(|row| table.value(index(row), factor))),
            };
            all_factors.clone().map(|factor| largest(factor) / 3.0).collect()
        })
        .collect();
    let queries: Vec<(usize, usize)> = of_class
        .iter()
        .enumerate()
        .flat_map(|(class, members)| (*members).clone().map(move |row| (row, class)))
        .collect();
    queries
        .into_par_iter()
        .map(|(query, class)| {
            let members = of_class[class];
            let to = |row: usize| f64::from(distance(rows.row(query), rows.row(row)));
            // Ties go to the smaller index, as in every ranking.
            let nearest = |candidates: &mut dyn Iterator<Item = usize>| {
                candidates
                    .map(|row| (to(row), index(row)))
                    .min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))
            };
            let stranger = nearest(&mut (0..members.start).chain(members.end..rows.len()));
            let others: Vec<usize> = members.clone().filter(|&row| row != query).collect();
            let embedded: Vec<f64> = others.iter().map(|&row| to(row)).collect();
            all_factors
                .clone()
                .map(|factor| {
                    let known: Vec<f64> = others
                        .iter()
                        .map(|&row| table.distance(factor, index(query), index(row)))
                        .collect();
                    let limit = near_within[class][factor];
                    let (near_known, near_embedded): (Vec<f64>, Vec<f64>) = known
                        .iter()
                        .zip(&embedded)
                        .filter(|(known, _)| **known <= limit)
                        .map(|(known, embedded)| (*known, *embedded))
                        .unzip();
                    let far = nearest(
                        &mut others
                            .iter()
                            .zip(&known)
                            .filter(|pair| *pair.1 > limit)
                            .map(|pair| *pair.0),
                    );
                    NearAndFar {
                        order_near: correlate(&near_known, &near_embedded).map(|pair| pair.0),
                        recall_far: far.map(|far| match stranger {
                            Some(stranger) if stranger < far => 0.0,
                            _ => 1.0,
                        }),
                    }
                })
                .collect()
        })
        .collect()
}

/// Means over queries of each factor, and over factors of these: first the order among near members, then the recall of far ones.
///
/// # Errors
/// If the table does not fit the rows.
pub(super) fn near_and_far(rows: &UnitRows, table: &FactorTable) -> Result<[Numbers; 2], EvaluationError> {
    table.check(rows.len())?;
    let found = of_queries(rows, table);
    let numbers = |name: &str, value: fn(&NearAndFar) -> Option<f64>| {
        let per_factor = table.factors.iter().enumerate().map(|(number, factor)| {
            let counted: Vec<f64> = found.iter().filter_map(|query| value(&query[number])).collect();
            (format!("{name}.{}", factor.name), mean(&counted))
        });
        let per_factor: Numbers = per_factor.collect();
        let counted: Vec<f64> = per_factor.iter().filter_map(|(_, mean)| *mean).collect();
        let headline = std::iter::once((name.to_owned(), mean(&counted)));
        headline.chain(per_factor).collect()
    };
    Ok([
        numbers(ORDER_NEAR.name, |query| query.order_near),
        numbers(RECALL_FAR.name, |query| query.recall_far),
    ])
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn spread(values: impl Iterator<Item = f64>) -> f64 {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    (high - low).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EmbeddingSet;
    use crate::data::Factor;
    use crate::evaluation::testing::random_set;
    use crate::evaluation::{EvaluationOptions, ReportOptions, Subject, report};

    fn pose() -> Vec<Factor> {
        vec![Factor {
            name: "pose".into(),
            period: Some(360.0),
        }]
    }

    fn plane(points: &[[f32; 2]], labels: Vec<u32>) -> UnitRows {
        let set = EmbeddingSet {
            dim: 2,
            values: points.concat(),
            ids: vec![String::new(); labels.len()],
            labels,
        };
        UnitRows::new(&set, "query").unwrap()
    }

    #[test]
    fn near_members_are_ordered_although_far_ones_fold_back() {
        // Seen again from behind: the embedding of 180 + a is nearly that of a.
        let angles: Vec<f32> = (0..12).map(|step| step as f32 * 30.0).collect();
        let points: Vec<[f32; 2]> = angles
            .iter()
            .map(|angle| {
                let turned = (2.0 * angle + 0.01 * angle).to_radians();
                [turned.cos() + 3.0, turned.sin()]
            })
            .collect();
        let table = FactorTable {
            factors: pose(),
            values: angles,
        };
        let rows = plane(&points, vec![3; 12]);
        let [near, far] = near_and_far(&rows, &table).unwrap();
        let over_all = crate::evaluation::order_preservation(&rows, &table)
            .unwrap()
            .spearman
            .unwrap();
        assert!(near[0].1.unwrap() > over_all + 0.3, "{near:?} {over_all}");
        // No other class: every far member is found.
        assert_eq!(
            far,
            [("recall_far".into(), Some(1.0)), ("recall_far.pose".into(), Some(1.0))]
        );
    }

    #[test]
    fn a_class_known_from_near_views_alone_is_not_recognised_from_afar() {
        // Two views of class 0 side by side, its third far round; class 1 lies between.
        let points = [[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [1.0, 0.6], [0.7, 1.0]];
        let table = FactorTable {
            factors: pose(),
            values: vec![0.0, 10.0, 180.0, 0.0, 90.0],
        };
        let found = of_queries(&plane(&points, vec![0, 0, 0, 1, 1]), &table);
        let far: Vec<Option<f64>> = found.iter().map(|query| query[0].recall_far).collect();
        assert_eq!(far, [Some(0.0), Some(0.0), Some(0.0), Some(1.0), Some(1.0)]);
        assert!(
            found.iter().all(|query| query[0].order_near.is_none()),
            "one near member has no order"
        );
        let ordinary = Subject::of_sets;
        let set = EmbeddingSet {
            dim: 2,
            values: points.concat(),
            labels: vec![0, 0, 0, 1, 1],
            ids: vec![String::new(); 5],
        };
        let recall = report(
            &ordinary(&set, None),
            &EvaluationOptions::default(),
            None,
            &ReportOptions::default(),
        );
        assert!(recall.unwrap().evaluation.get("recall@1").unwrap() > 0.3);
    }

    #[test]
    fn it_equals_a_plain_loop_over_queries() {
        let set = random_set(8, 60, 6, 5);
        let rows = UnitRows::new(&set, "query").unwrap();
        let mut factors = pose();
        factors[0].period = Some(1.0);
        factors.push(Factor {
            name: "size".into(),
            period: None,
        });
        let table = FactorTable {
            factors,
            values: random_set(9, 60, 2, 1).values,
        };
        let found = of_queries(&rows, &table);
        let position = |row: usize| rows.order().iter().position(|&index| index as usize == row).unwrap();
        for query in 0..60 {
            let apart = |row: usize| f64::from(distance(rows.row(position(query)), rows.row(position(row))));
            for (factor, got) in found[position(query)].iter().enumerate() {
                let same = |row: usize| set.labels[row] == set.labels[query];
                let mut limit = 0.5;
                if factor == 1 {
                    limit = 0.0;
                    for a in (0..60).filter(|&row| same(row)) {
                        for b in (0..60).filter(|&row| same(row)) {
                            limit = f64::max(limit, table.distance(1, a, b));
                        }
                    }
                }
                limit /= 3.0;
                let far = |row: usize| same(row) && table.distance(factor, query, row) > limit;
                let mut best: Option<usize> = None;
                for row in (0..60).filter(|&row| row != query && (far(row) || !same(row))) {
                    if best.is_none_or(|best| apart(row) < apart(best)) {
                        best = Some(row);
                    }
                }
                let expected = (0..60).any(far).then(|| if same(best.unwrap()) { 1.0 } else { 0.0 });
                assert_eq!(got.recall_far, expected, "query {query} factor {factor}");
                let near: Vec<usize> = (0..60).filter(|&row| row != query && same(row) && !far(row)).collect();
                let known: Vec<f64> = near.iter().map(|&row| table.distance(factor, query, row)).collect();
                let embedded: Vec<f64> = near.iter().map(|&row| apart(row)).collect();
                let expected =
                    (near.len() > 1).then(|| crate::evaluation::rank_correlation::spearman(&known, &embedded));
                assert_eq!(got.order_near, expected.flatten(), "query {query} factor {factor}");
            }
        }
    }
}
