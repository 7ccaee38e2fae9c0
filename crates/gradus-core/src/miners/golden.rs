//! What pytorch-metric-learning chooses: `tools/golden/miners.py`.

use serde_json::Value;

use super::{Labels, Mined, MinerConfig, MiningInput, names};

fn golden() -> Value {
    serde_json::from_str(include_str!("../../../../tests/golden/miners.json")).unwrap()
}

fn rows(value: &Value) -> (Vec<f64>, usize) {
    let rows: Vec<Vec<f64>> = serde_json::from_value(value.clone()).unwrap();
    (rows.concat(), rows[0].len())
}

fn labels(value: &Value) -> Labels {
    serde_json::from_value::<Vec<u32>>(value.clone()).unwrap().into()
}

/// SplitMix64's finaliser.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Whether the tuples are those that were stored, in full or as a digest.
fn agrees<const N: usize>(found: &[[u32; N]], expected: &Value, unordered: bool) -> bool {
    let mut found = found.to_vec();
    if unordered {
        found.iter_mut().for_each(|tuple| tuple.sort_unstable());
    }
    found.sort_unstable();
    if let Some(expected) = expected.as_array() {
        let expected: Vec<Vec<u32>> = expected
            .iter()
            .map(|tuple| serde_json::from_value(tuple.clone()).unwrap())
            .collect();
        return found.len() == expected.len() && found.iter().zip(&expected).all(|(a, b)| a[..] == b[..]);
    }
    let digest = found.iter().fold(0_u64, |sum, tuple| {
        let number = tuple
            .iter()
            .fold(0_u64, |number, &index| number << 20 | u64::from(index));
        sum.wrapping_add(mix(number))
    });
    expected["count"].as_u64() == Some(found.len() as u64) && expected["digest"] == digest.to_string().as_str()
}

#[test]
fn deterministic_miners_choose_what_the_reference_chooses() {
    let golden = golden();
    let (mut tuples, mut digests) = (0, 0);
    for case in golden["cases"].as_array().unwrap() {
        let config: MinerConfig = serde_json::from_value(case["config"].clone()).unwrap();
        let batches = golden["batches"].as_array().unwrap();
        let batch = batches.iter().find(|batch| batch["name"] == case["batch"]).unwrap();
        let (query, dim) = rows(&batch["embeddings"]);
        let query_labels = labels(&batch["labels"]);
        let separate = batch.get("reference_labels").map(labels);
        let input = match &separate {
            Some(reference_labels) => {
                let (reference, _) = rows(&batch["reference_embeddings"]);
                MiningInput::between(query, &query_labels, reference, reference_labels, dim, 0)
            }
            None => MiningInput::batch(query, &query_labels, dim, 0),
        };
        let what = format!("{} on {}", case["config"], case["batch"]);
        match config.mine(&input.unwrap()).unwrap() {
            Mined::Triplets(triplets) => {
                assert!(
                    agrees(&triplets, &case["triplets"], false),
                    "{what}: {} triplets",
                    triplets.len()
                );
                tuples += triplets.len();
                digests += usize::from(case["triplets"].is_object());
            }
            Mined::Pairs(pairs) => {
                // Which of (i, j) and (j, i), equally far apart, a cut keeps is left open by the reference.
                let unordered = config.name() == "hdc" && separate.is_none();
                for (side, found) in [("positive", &pairs.positive), ("negative", &pairs.negative)] {
                    assert!(agrees(found, &case[side], unordered), "{what}: {side} {}", found.len());
                    tuples += found.len();
                    digests += usize::from(case[side].is_object());
                }
            }
        }
    }
    assert!(tuples > 10_000 && digests > 10, "{tuples} {digests}");
}

#[test]
fn every_miner_has_a_golden_case_or_is_random() {
    let golden = golden();
    for config in MinerConfig::all() {
        let cases = golden["cases"].as_array().unwrap().iter();
        let count = cases.filter(|case| case["config"].get(config.name()).is_some()).count();
        assert_eq!(count > 0, !config.is_random(), "{}", config.name());
    }
    assert_eq!(names().len(), MinerConfig::all().len());
}
