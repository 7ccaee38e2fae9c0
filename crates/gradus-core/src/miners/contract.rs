//! What every miner of the registry promises.

use super::testing::{random_rows, sorted};
use super::*;

const DIM: usize = 4;

/// All miners with default settings, and the settings that take other paths.
fn variants() -> Vec<MinerConfig> {
    let mut all = MinerConfig::all();
    for text in [
        r#"{"batch-easy-hard": {"pos-strategy": "all", "neg-strategy": "hard"}}"#,
        r#"{"batch-easy-hard": {"pos-strategy": "semihard", "neg-strategy": "easy", "distance": "cosine"}}"#,
        r#"{"batch-easy-hard": {"allowed-pos-range": [0.1, 1.5]}}"#,
        r#"{"triplet-margin": {"type-of-triplets": "semihard", "distance": "dot"}}"#,
        r#"{"triplet-margin": {"type-of-triplets": "easy", "distance": "hyperbolic"}}"#,
        r#"{"pair-margin": {"distance": {"lp": {"normalize": false}}}}"#,
        r#"{"multi-similarity": {"distance": "snr"}}"#,
        r#"{"hdc": {"filter-percentage": 0.25, "distance": "cosine"}}"#,
        r#"{"uniform-histogram": {"distance": "cosine", "num-bins": 3}}"#,
    ] {
        all.push(serde_json::from_str(text).expect(text));
    }
    all
}

/// Works on rows whose number is no multiple of three.
fn is_free(config: &MinerConfig) -> bool {
    config.name() != "embeddings-already-packaged-as-triplets"
}

/// Calls some positives negatives, on purpose.
fn swaps(config: &MinerConfig) -> bool {
    config.name() == "rho-regularization"
}

/// What was mined, checked to exist and to be what it is called.
fn mine(config: &MinerConfig, rows: Vec<f64>, labels: &Labels, seed: u64) -> Mined {
    let input = MiningInput::batch(rows, labels, DIM, seed).expect("rows fit");
    let mined = config
        .mine(&input)
        .unwrap_or_else(|error| panic!("{config:?}: {error}"));
    if is_free(config) {
        let partners: Vec<Partners> = (0..labels.len())
            .map(|anchor| input.relations().partners(anchor))
            .collect();
        let pairs = mined.clone().into_pairs();
        for [anchor, positive] in pairs.positive {
            assert!(partners[anchor as usize].positives.contains(&positive), "{config:?}");
        }
        for [anchor, negative] in pairs.negative {
            if swaps(config) && partners[anchor as usize].positives.contains(&negative) {
                continue;
            }
            assert!(partners[anchor as usize].negatives.contains(&negative), "{config:?}");
        }
    }
    mined
}

#[test]
fn degenerate_batches_give_what_there_is() {
    for config in variants() {
        let classes = |classes: Vec<u32>| Labels::from(classes);
        assert!(mine(&config, vec![], &classes(vec![]), 1).is_empty(), "{config:?}");
        let apart = mine(&config, random_rows(6, DIM, 1), &classes((0..6).collect()), 1);
        let together = mine(&config, random_rows(6, DIM, 2), &classes(vec![3; 6]), 1);
        if is_free(&config) {
            assert!(
                mine(&config, random_rows(1, DIM, 3), &classes(vec![0]), 1).is_empty(),
                "{config:?}"
            );
            assert!(apart.into_pairs().positive.is_empty() && together.into_pairs().negative.is_empty());
        }
        let labels = classes(vec![0, 0, 1, 1, 2, 2]);
        mine(&config, random_rows(1, DIM, 4).repeat(6), &labels, 1);
        mine(&config, vec![0.0; 6 * DIM], &labels, 1);
        for factor in [1e-200, 1e-6, 1e6, 1e200] {
            let rows = random_rows(6, DIM, 5).iter().map(|value| value * factor).collect();
            mine(&config, rows, &labels, 1);
        }
        let mut rows = random_rows(6, DIM, 6);
        rows[..DIM].fill(0.0);
        mine(&config, rows, &labels, 1);
    }
}

#[test]
fn the_order_of_rows_changes_nothing() {
    let classes = [0, 1, 1, 2, 0, 2, 2, 3, 1, 1, 0, 2];
    let order = [3, 0, 7, 5, 1, 6, 2, 4, 11, 8, 10, 9];
    let rows = random_rows(12, DIM, 7);
    let moved: Vec<f64> = order
        .iter()
        .flat_map(|&row| rows[row * DIM..][..DIM].to_vec())
        .collect();
    // Between (i, j) and (j, i) the place decides where a share is cut.
    let settled = |config: &&MinerConfig| !config.is_random() && is_free(config) && config.name() != "hdc";
    for config in variants().iter().filter(settled) {
        let first = mine(config, rows.clone(), &classes.to_vec().into(), 1);
        let back = |item: u32| order[item as usize] as u32;
        let second = match mine(config, moved.clone(), &order.map(|row| classes[row]).to_vec().into(), 1) {
            Mined::Triplets(triplets) => Mined::Triplets(triplets.into_iter().map(|tuple| tuple.map(back)).collect()),
            Mined::Pairs(pairs) => Mined::Pairs(Pairs {
                positive: pairs.positive.into_iter().map(|tuple| tuple.map(back)).collect(),
                negative: pairs.negative.into_iter().map(|tuple| tuple.map(back)).collect(),
            }),
        };
        assert!(!first.is_empty(), "{config:?}: nothing to compare");
        assert_eq!(sorted(second), sorted(first), "{config:?}");
    }
}

#[test]
fn the_seed_decides_random_miners_and_no_other() {
    let labels = Labels::from((0..30).map(|item| item % 5).collect::<Vec<u32>>());
    let rows = random_rows(30, DIM, 8);
    for config in variants() {
        let first = mine(&config, rows.clone(), &labels, 1);
        assert_eq!(first, mine(&config, rows.clone(), &labels, 1), "{config:?}");
        let other = mine(&config, rows.clone(), &labels, 2);
        assert_eq!(first != other, config.is_random(), "{config:?}");
    }
}

#[test]
fn a_reference_set_equal_to_the_batch_adds_only_the_anchor_itself() {
    let labels = Labels::from(vec![0, 0, 1, 1, 2, 2, 2, 0, 1]);
    let rows = random_rows(9, DIM, 9);
    for config in variants().iter().filter(|config| is_free(config)) {
        let input = MiningInput::between(rows.clone(), &labels, rows.clone(), &labels, DIM, 3).expect("fits");
        let pairs = config.mine(&input).expect("mines").into_pairs();
        for [anchor, positive] in pairs.positive {
            assert_eq!(
                labels.classes().unwrap()[anchor as usize],
                labels.classes().unwrap()[positive as usize]
            );
        }
        let none = Labels::from(vec![]);
        let input = MiningInput::between(rows.clone(), &labels, vec![], &none, DIM, 3).expect("fits");
        assert!(config.mine(&input).expect("mines").is_empty(), "{config:?}");
        let input = MiningInput::between(vec![], &none, rows.clone(), &labels, DIM, 3).expect("fits");
        assert!(config.mine(&input).expect("mines").is_empty(), "{config:?}");
    }
}

#[test]
fn several_labels_make_weighted_positives_and_ignored_pairs() {
    let labels = Labels::MultiLabel(vec![vec![1, 2], vec![2, 3], vec![4], vec![], vec![1, 2], vec![4, 5]].into());
    let rows = random_rows(6, DIM, 10);
    for config in variants().iter().filter(|config| is_free(config)) {
        let pairs = mine(config, rows.clone(), &labels, 1).into_pairs();
        let touches = |pairs: &[[u32; 2]]| pairs.iter().any(|pair| pair.contains(&3));
        assert!(!touches(&pairs.positive) && !touches(&pairs.negative), "{config:?}");
    }
    let Mined::Pairs(pairs) = mine(&MinerConfig::by_name("pair-margin").unwrap(), rows, &labels, 1) else {
        panic!("pairs")
    };
    assert!(pairs.positive.contains(&[0, 1]), "{pairs:?}");
}

#[test]
fn configuration_round_trips_and_refuses_what_it_does_not_know() {
    for config in variants() {
        config.validate().expect("valid");
        let text = serde_json::to_string(&config).expect("writes");
        assert_eq!(serde_json::from_str::<MinerConfig>(&text).expect("reads"), config);
        let name = config.name();
        let error = serde_json::from_str::<MinerConfig>(&format!(r#"{{"{name}": {{"no-such-key": 1}}}}"#));
        assert!(error.unwrap_err().to_string().contains("no-such-key"));
        assert_eq!(
            serde_json::from_str::<MinerConfig>(&format!("\"{name}\"")).expect("reads"),
            MinerConfig::by_name(name).expect("exists")
        );
        let distances = serde_json::to_value(&config).expect("writes")[name]["distance"].clone();
        assert!(
            distances.is_object() || !is_free(&config) || swaps(&config),
            "{name}: no distance"
        );
    }
    let message = MinerConfig::by_name("batch-hart").unwrap_err();
    assert!(message.contains("did you mean `batch-hard`?"), "{message}");
    assert!(!MinerConfig::by_name("zzz").unwrap_err().contains("did you mean"));
    assert_eq!(MinerConfig::default().name(), "multi-similarity");
}

#[test]
fn settings_that_are_not_numbers_are_refused_by_name() {
    for config in MinerConfig::all() {
        let name = config.name();
        let settings = serde_json::to_value(&config).expect("writes")[name].clone();
        let numbers = settings
            .as_object()
            .expect("settings")
            .iter()
            .filter(|(_, value)| value.is_f64());
        for (key, _) in numbers {
            // JSON has no infinity, but a number too large for single precision is none of a sane setting either.
            let text = format!(r#"{{"{name}": {{"{key}": 1e999}}}}"#);
            let Ok(broken) = serde_json::from_str::<MinerConfig>(&text) else {
                continue;
            };
            let message = broken.validate().expect_err("infinite");
            assert!(message.contains(&format!("miner.{name}.{key}")), "{message}");
        }
    }
    let infinite = PairMarginMiner {
        pos_margin: f64::NAN,
        ..Default::default()
    };
    let labels = Labels::from(vec![]);
    let input = MiningInput::batch(vec![], &labels, 1, 0).unwrap();
    let error = MinerConfig::PairMargin(infinite).mine(&input).unwrap_err();
    assert!(
        error.to_string().contains("miner.pair-margin.pos-margin is NaN"),
        "{error}"
    );
}

#[test]
fn the_registry_is_sorted_and_described() {
    assert!(names().is_sorted());
    let listed: Vec<&str> = info().iter().map(|info| info.name).collect();
    assert_eq!(listed, names());
    for info in info() {
        assert!(info.year > 1990 && !info.paper.is_empty() && !info.summary.contains('\n'));
        assert!(info.defaults.is_object());
    }
}

#[test]
fn input_that_does_not_fit_is_refused() {
    let labels = Labels::from(vec![0, 1]);
    let message = |result: Result<MiningInput<'_>, MiningError>| result.unwrap_err().to_string();
    let found = message(MiningInput::batch(vec![0.0; 5], &labels, 2, 0));
    assert!(found.contains("2 labels") && found.contains("5 numbers"), "{found}");
    assert!(MiningInput::batch(vec![], &labels, 0, 0).is_err());
    let found = message(MiningInput::batch(vec![0.0, 1.0, 2.0, f64::NAN], &labels, 2, 0));
    assert!(found.contains("row 1 of the embeddings holds NaN"), "{found}");
    let other = Labels::Hierarchy(vec![vec![0, 1]].into());
    let found = message(MiningInput::between(vec![0.0; 4], &labels, vec![0.0; 2], &other, 2, 0));
    assert!(found.contains("one kind"), "{found}");
}

/// The rules as they are written down, in loops over everything, for the distance of unit rows.
#[test]
fn naive_loops_choose_the_same() {
    let labels = [0, 1, 1, 2, 0, 2, 2, 3, 1, 1, 0, 2, 0, 4];
    let rows = random_rows(labels.len(), DIM, 11);
    let unit = |row: usize| {
        let row = &rows[row * DIM..][..DIM];
        let length = row.iter().map(|value| value * value).sum::<f64>().sqrt();
        row.iter().map(|value| value / length).collect::<Vec<f64>>()
    };
    let cosine = |a: usize, b: usize| unit(a).iter().zip(unit(b)).map(|(x, y)| x * y).sum::<f64>();
    let distance = |a: usize, b: usize| {
        let squares = unit(a).iter().zip(unit(b)).map(|(x, y)| (x - y).powi(2)).sum::<f64>();
        squares.sqrt()
    };
    let count = labels.len();
    let positive = |a: usize, b: usize| a != b && labels[a] == labels[b];
    let (mut semihard, mut similar, mut within) = (Vec::new(), Pairs::default(), Pairs::default());
    for a in 0..count {
        for b in 0..count {
            let pair = [a as u32, b as u32];
            if positive(a, b) {
                if (0..count).any(|n| labels[n] != labels[a] && cosine(a, b) - 0.1 < cosine(a, n)) {
                    similar.positive.push(pair);
                }
                if distance(a, b) > 0.2 {
                    within.positive.push(pair);
                }
                for n in (0..count).filter(|&n| labels[n] != labels[a]) {
                    let gap = distance(a, n) - distance(a, b);
                    if gap > 0.0 && gap <= 0.2 {
                        semihard.push([a as u32, b as u32, n as u32]);
                    }
                }
            } else if labels[a] != labels[b] {
                if (0..count).any(|p| positive(a, p) && cosine(a, b) + 0.1 > cosine(a, p)) {
                    similar.negative.push(pair);
                }
                if distance(a, b) < 0.8 {
                    within.negative.push(pair);
                }
            }
        }
    }
    let found = |text: &str| {
        mine(
            &serde_json::from_str(text).expect(text),
            rows.clone(),
            &labels.to_vec().into(),
            1,
        )
    };
    assert!(semihard.len() > 10 && similar.negative.len() > 10 && within.negative.len() > 5);
    let triplets = found(r#"{"triplet-margin": {"type-of-triplets": "semihard"}}"#);
    assert_eq!(triplets, Mined::Triplets(semihard));
    assert_eq!(found(r#""multi-similarity""#), Mined::Pairs(similar));
    assert_eq!(found(r#""pair-margin""#), Mined::Pairs(within));
}
