//! The whole evaluation against an independent one written as plain loops, and what must never change it.

use proptest::prelude::*;

use super::testing::{lattice_set, random_set};
use super::*;
use crate::data::Factor;

/// Recall, MAP@R and R-precision by sorting every row in double precision. Independent of the engine.
fn naive(
    queries: &EmbeddingSet,
    gallery: Option<&EmbeddingSet>,
    levels: &[usize],
    lone: LoneQueries,
) -> (Vec<f64>, f64, f64) {
    let target = gallery.unwrap_or(queries);
    let unit = |row: &[f32]| {
        let norm = row.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
        row.iter().map(|&value| f64::from(value) / norm).collect::<Vec<f64>>()
    };
    let others: Vec<Vec<f64>> = (0..target.len()).map(|row| unit(target.row(row))).collect();
    let (mut recall, mut map, mut precision, mut counted) = (vec![0.0; levels.len()], 0.0, 0.0, 0.0);
    for query in 0..queries.len() {
        let own = unit(queries.row(query));
        let mut all: Vec<(f64, bool)> = (0..target.len())
            .filter(|&other| gallery.is_some() || other != query)
            .map(|other| {
                (
                    own.iter().zip(&others[other]).map(|(a, b)| a * b).sum(),
                    target.labels[other] == queries.labels[query],
                )
            })
            .collect();
        all.sort_by(|a, b| b.0.partial_cmp(&a.0).unwrap());
        let hits: Vec<bool> = all.iter().map(|entry| entry.1).collect();
        let relevant = hits.iter().filter(|&&hit| hit).count();
        if relevant == 0 {
            counted += f64::from(u8::from(lone == LoneQueries::Miss));
            continue;
        }
        counted += 1.0;
        for (recall, &k) in recall.iter_mut().zip(levels) {
            *recall += f64::from(u8::from(hits.iter().take(k).any(|&hit| hit)));
        }
        let mut sum = 0.0;
        for place in 0..relevant {
            if hits[place] {
                sum += hits[..=place].iter().filter(|&&hit| hit).count() as f64 / (place + 1) as f64;
            }
        }
        map += sum / relevant as f64;
        precision += hits[..relevant].iter().filter(|&&hit| hit).count() as f64 / relevant as f64;
    }
    (
        recall.iter().map(|sum| sum / counted).collect(),
        map / counted,
        precision / counted,
    )
}

fn factors(len: usize) -> FactorTable {
    let values = random_set(77, len, 2, 1).values;
    FactorTable {
        factors: vec![
            Factor {
                name: "tilt".into(),
                period: None,
            },
            Factor {
                name: "pose".into(),
                period: Some(2.0),
            },
        ],
        values,
    }
}

#[test]
fn retrieval_metrics_equal_plain_loops() {
    let queries = random_set(1, 400, 24, 60);
    let gallery = random_set(2, 300, 24, 50);
    for gallery in [None, Some(&gallery)] {
        for lone_queries in [LoneQueries::Miss, LoneQueries::Drop] {
            let recall_levels = vec![1, 2, 5, 50, 10_000];
            let (recall, map, precision) = naive(&queries, gallery, &recall_levels, lone_queries);
            let options = EvaluationOptions {
                recall_levels: recall_levels.clone(),
                lone_queries,
                ..EvaluationOptions::default()
            };
            let found = evaluate(&queries, gallery, &options, None).unwrap();
            for (k, expected) in recall_levels.iter().zip(recall) {
                assert!(
                    (found.get(&format!("recall@{k}")).unwrap() - expected).abs() < 1e-12,
                    "recall@{k}"
                );
            }
            assert!((found.get("map@r").unwrap() - map).abs() < 1e-12);
            assert!((found.get("r_precision").unwrap() - precision).abs() < 1e-12);
        }
    }
}

#[test]
fn all_keys_are_there_and_lone_queries_are_counted() {
    let mut set = random_set(3, 40, 8, 4);
    set.labels[7] = 99;
    set.labels[9] = 98;
    let evaluation = evaluate(&set, None, &EvaluationOptions::default(), Some(&factors(40))).unwrap();
    let names: Vec<&str> = evaluation.entries().map(|entry| entry.0).collect();
    assert_eq!(
        names,
        [
            "recall@1",
            "recall@2",
            "recall@4",
            "recall@8",
            "map@r",
            "r_precision",
            "density",
            "rho",
            "rho_intra",
            "effective_rank",
            "order_preservation",
            "order_preservation_kendall",
            "order_preservation.tilt",
            "order_preservation.pose",
            "order_preservation_combined",
            "order_skipped",
            "queries",
            "lone_queries",
            "classes",
        ]
    );
    assert_eq!(
        [
            evaluation.get("queries"),
            evaluation.get("lone_queries"),
            evaluation.get("classes")
        ],
        [Some(40.0), Some(2.0), Some(6.0)]
    );
    assert!(
        evaluation.table(true).lines().all(|line| line.len() > 45),
        "every entry is explained"
    );
    let miss = evaluation.get("recall@8").unwrap() * 40.0;
    let options = EvaluationOptions {
        lone_queries: LoneQueries::Drop,
        ..EvaluationOptions::default()
    };
    let dropped = evaluate(&set, None, &options, None).unwrap();
    assert!((dropped.get("recall@8").unwrap() * 38.0 - miss).abs() < 1e-9);
}

#[test]
fn exact_duplicates_neither_hide_nor_stand_in_for_the_query() {
    // Two pairs of equal images, the classes crossed: everyone's nearest is its twin of the other class.
    let set = EmbeddingSet {
        dim: 2,
        values: vec![1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0],
        labels: vec![0, 1, 0, 1],
        ids: vec![String::new(); 4],
    };
    let found = evaluate(
        &set,
        None,
        &EvaluationOptions {
            recall_levels: vec![1, 2, 3],
            ..EvaluationOptions::default()
        },
        None,
    )
    .unwrap();
    // Behind the twin, 2 and 3 are tied for queries 0 and 1, and 0 and 1 for queries 2 and 3: the smaller index is second.
    assert_eq!(
        [1, 2, 3].map(|k| found.get(&format!("recall@{k}"))),
        [Some(0.0), Some(0.5), Some(1.0)]
    );
}

#[test]
fn bad_input_is_refused_in_words() {
    let good = random_set(1, 10, 4, 2);
    let mut nan = good.clone();
    nan.values[9] = f32::NAN;
    let refuse =
        |queries: &EmbeddingSet,
         gallery: Option<&EmbeddingSet>,
         options: &EvaluationOptions,
         table: Option<&FactorTable>| { evaluate(queries, gallery, options, table).unwrap_err().to_string() };
    let plain = EvaluationOptions::default();
    assert!(refuse(&nan, None, &plain, None).contains("row 2 (2.png) of the query set"));
    assert!(refuse(&good, Some(&nan), &plain, None).contains("row 2 (2.png) of the gallery set"));
    assert!(refuse(&good, Some(&EmbeddingSet::default()), &plain, None).contains("gallery set is empty"));
    assert!(refuse(&good, Some(&random_set(1, 10, 5, 2)), &plain, None).contains("4 wide"));
    assert!(
        refuse(
            &good,
            None,
            &EvaluationOptions {
                recall_levels: vec![0],
                ..plain.clone()
            },
            None
        )
        .contains("recall-levels")
    );
    assert!(refuse(&good, None, &plain, Some(&factors(9))).contains("10 embeddings"));
    let mut lone = good.clone();
    lone.labels = (0..10).collect();
    let drop = EvaluationOptions {
        lone_queries: LoneQueries::Drop,
        ..plain.clone()
    };
    assert!(refuse(&lone, None, &drop, None).contains("none of the 10 queries"));
    assert_eq!(evaluate(&lone, None, &plain, None).unwrap().get("recall@1"), Some(0.0));
    assert_eq!(
        evaluate(&good.select(&[3]), None, &plain, None).unwrap().get("map@r"),
        Some(0.0)
    );
    let error = serde_json::from_str::<EvaluationOptions>(r#"{"recall-level": [1]}"#)
        .unwrap_err()
        .to_string();
    assert!(error.contains("recall-levels"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn blocks_and_threads_change_no_bit(seed in 0_u64..500, len in 2_usize..200, dim in 1_usize..40, classes in 1_u32..20, ties in any::<bool>()) {
        let make = if ties { lattice_set } else { random_set };
        let set = make(seed, len, dim, classes);
        let table = factors(len);
        let all = |memory, threads| evaluate(&set, None, &EvaluationOptions { memory, threads, ..EvaluationOptions::default() }, Some(&table)).unwrap();
        let first = all(1 << 30, 1);
        prop_assert_eq!(&first, &all(0, 3));
        prop_assert_eq!(&first, &all(50_000, 2));
    }

    #[test]
    fn metrics_are_shares_and_recall_rises(seed in 0_u64..500, len in 2_usize..80, dim in 1_usize..6, classes in 1_u32..20) {
        let options = EvaluationOptions { recall_levels: vec![1, 2, 3, 10, 79], ..EvaluationOptions::default() };
        let found = evaluate(&lattice_set(seed, len, dim, classes), None, &options, None).unwrap();
        let recall: Vec<f64> = options.recall_levels.iter().map(|k| found.get(&format!("recall@{k}")).unwrap()).collect();
        prop_assert!(recall.windows(2).all(|pair| pair[0] <= pair[1]));
        let (map, precision) = (found.get("map@r").unwrap(), found.get("r_precision").unwrap());
        prop_assert!(recall.iter().chain([&map, &precision]).all(|value| (0.0..=1.0).contains(value)));
        prop_assert!(map <= precision + 1e-12);
        let lone = found.get("lone_queries").unwrap() / len as f64;
        prop_assert!((recall[4] + lone - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_order_of_the_rows_does_not_matter(seed in 0_u64..500, len in 4_usize..120, classes in 1_u32..12) {
        let set = random_set(seed, len, 12, classes);
        let table = factors(len);
        let mut order: Vec<usize> = (0..len).collect();
        order.sort_by_key(|&index| crate::random::derive(seed, &[index as u64]));
        let shuffled = FactorTable { factors: table.factors.clone(), values: order.iter().flat_map(|&row| table.values[2 * row..2 * row + 2].to_vec()).collect() };
        let a = evaluate(&set, None, &EvaluationOptions::default(), Some(&table)).unwrap();
        let b = evaluate(&set.select(&order), None, &EvaluationOptions::default(), Some(&shuffled)).unwrap();
        for ((name, _), (other, _)) in a.entries().zip(b.entries()) {
            prop_assert_eq!(name, other);
            match (a.get(name), b.get(name)) {
                (Some(a), Some(b)) => prop_assert!((a - b).abs() < 1e-6 * a.abs().max(1.0), "{} {} {}", name, a, b),
                (a, b) => prop_assert_eq!(a, b),
            }
        }
    }
}
