//! Every engine against a naive search: random adds, deletes, filters, re-opening.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use gradus_index::{EngineKind, Filter, Index, IndexError, Item, Settings};
use proptest::prelude::*;
use serde_json::json;

const DIMENSION: usize = 6;

fn engines() -> Vec<EngineKind> {
    let built_in = |kind: &EngineKind| *kind == EngineKind::Flat || cfg!(feature = "qdrant-edge");
    EngineKind::ALL.into_iter().filter(built_in).collect()
}

/// What is done to an index.
#[derive(Debug, Clone)]
enum Act {
    Add(Vec<[i8; DIMENSION]>),
    /// Every item whose number leaves this rest when divided by five.
    Delete(usize),
    DeleteClass(usize),
    Reopen,
    Optimize,
}

fn act() -> impl Strategy<Value = Act> {
    let vector = proptest::array::uniform6(-4_i8..=4)
        .prop_filter("no direction", |vector| vector.iter().any(|value| *value != 0));
    prop_oneof![
        4 => proptest::collection::vec(vector, 1..12).prop_map(Act::Add),
        1 => (0..5_usize).prop_map(Act::Delete),
        1 => (0..3_usize).prop_map(Act::DeleteClass),
        1 => Just(Act::Reopen),
        1 => Just(Act::Optimize),
    ]
}

/// A list of everything, searched one by one in double precision.
#[derive(Default)]
struct Naive {
    items: Vec<(Item, Vec<f64>)>,
}

fn unit(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let values: Vec<f64> = values.collect();
    let length = values.iter().map(|value| value * value).sum::<f64>().sqrt();
    values.into_iter().map(|value| value / length).collect()
}

impl Naive {
    fn search(&self, query: &[f32], k: usize, filter: &Filter) -> Vec<f64> {
        let query = unit(query.iter().map(|value| f64::from(*value)));
        let mut all: Vec<f64> = self
            .items
            .iter()
            .filter(|(item, _)| filter.matches(item))
            .map(|(_, vector)| query.iter().zip(vector).map(|(a, b)| a * b).sum())
            .collect();
        all.sort_by(|a, b| b.total_cmp(a));
        all.truncate(k);
        all
    }
}

fn item(number: usize) -> Item {
    let class = (!number.is_multiple_of(7)).then(|| format!("class {}", number % 3));
    let payload =
        json!({"number": number, "even": number.is_multiple_of(2), "tags": [format!("t{}", number % 4), "all"]});
    Item {
        class,
        payload: payload.as_object().cloned().unwrap_or_default(),
        ..Item::new(format!("item/{number}.png"))
    }
}

fn reopened(index: Index, path: &Path) -> Index {
    drop(index);
    Index::open(path).unwrap()
}

fn check(index: &Index, naive: &Naive, query: &[f32]) {
    assert_eq!(index.len(), naive.items.len());
    assert_eq!(index.items().len(), naive.items.len());
    assert_eq!(index.notice(), None);
    let fields = index.fields();
    let mut filters = vec![Vec::new(), vec!["class=class 1"], vec!["class!=class 1"]];
    if fields.contains_key("number") {
        filters.extend([
            vec!["number>=3", "number<20"],
            vec!["even=true", "class=class 0", "class=class 2"],
            vec!["tags=t1"],
            vec!["tags!=t1", "number>4", "number<=9.5"],
            vec!["number=4"],
            vec!["number!=4"],
        ]);
    }
    for texts in filters {
        let filter = Filter::parse(&texts, &fields).unwrap();
        for k in [1, 3, 1000] {
            let expected = naive.search(query, k, &filter);
            let found = index.search(query, k, &filter, None).unwrap();
            assert_eq!(found.len(), expected.len(), "{:?} {texts:?}", index.engine());
            for (hit, score) in found.iter().zip(&expected) {
                // Which of equally near ones is found is open.
                assert!((f64::from(hit.score) - score).abs() < 1e-6, "{texts:?} {hit:?} {score}");
                let (own, _) = naive.items.iter().find(|(item, _)| item.id == hit.id).unwrap();
                assert!(filter.matches(own) && own.class == hit.class && own.payload == hit.payload);
            }
        }
        let all = naive.search(query, 1000, &filter);
        let surely = all.iter().filter(|score| **score >= 0.5 + 1e-6).count();
        let found = index.search(query, 1000, &filter, Some(0.5)).unwrap();
        assert!(found.len() >= surely && found.iter().all(|hit| hit.score >= 0.5));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn every_engine_finds_what_a_naive_search_finds(
        acts in proptest::collection::vec(act(), 1..12),
        query in proptest::array::uniform6(-4_i8..=4),
    ) {
        prop_assume!(query.iter().any(|value| *value != 0));
        let query = query.map(f32::from);
        for engine in engines() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("index");
            let mut index = Index::create(&path, Settings::new(engine, DIMENSION)).unwrap().finish().unwrap();
            let mut naive = Naive::default();
            let mut number = 0;
            for act in &acts {
                match act {
                    Act::Add(vectors) => {
                        let items: Vec<Item> = (number..number + vectors.len()).map(item).collect();
                        number += vectors.len();
                        let values: Vec<f32> = vectors.iter().flatten().map(|value| f32::from(*value)).collect();
                        index.add(&items, &values).unwrap();
                        let vectors = vectors.iter().map(|vector| unit(vector.iter().map(|value| f64::from(*value))));
                        naive.items.extend(items.into_iter().zip(vectors));
                    }
                    Act::Delete(rest) => {
                        let ids: Vec<String> = (0..number).filter(|n| n % 5 == *rest).map(|n| item(n).id).collect();
                        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
                        let before = naive.items.len();
                        naive.items.retain(|(item, _)| !ids.contains(&item.id.as_str()));
                        prop_assert_eq!(index.delete(&ids).unwrap(), before - naive.items.len());
                    }
                    Act::DeleteClass(class) => {
                        let filter = Filter::class(format!("class {class}"));
                        let before = naive.items.len();
                        naive.items.retain(|(item, _)| !filter.matches(item));
                        prop_assert_eq!(index.delete_matching(&filter).unwrap(), before - naive.items.len());
                    }
                    Act::Reopen => index = reopened(index, &path),
                    Act::Optimize => index.optimize().unwrap(),
                }
                check(&index, &naive, &query);
            }
            let index = reopened(index, &path);
            check(&index, &naive, &query);
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    for engine in engines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index");
        let builder = Index::create(&path, Settings::new(engine, 2)).unwrap();
        builder.add(&[Item::new("a")], &[1.0, 0.0]).unwrap();
        let index = builder.finish().unwrap();
        let refused = |items: &[Item], values: &[f32]| index.add(items, values).unwrap_err();
        let one = refused(&[Item::new("b")], &[1.0, 0.0, 0.0]);
        assert!(matches!(one, IndexError::Width { expected: 2, found: 3 }));
        assert!(matches!(
            refused(&[Item::new("a")], &[1.0, 0.0]),
            IndexError::Duplicate { .. }
        ));
        let twice = [Item::new("b"), Item::new("b")];
        assert!(matches!(refused(&twice, &[1.0; 4]), IndexError::Duplicate { .. }));
        let two = [Item::new("b"), Item::new("c")];
        for bad in [0.0, f32::NAN, f32::INFINITY] {
            let error = refused(&two, &[1.0, 0.0, bad, 0.0]).to_string();
            assert!(error.contains("the vector of c"), "{error}");
        }
        let narrow = index.search(&[1.0], 1, &Filter::default(), None);
        assert!(matches!(narrow, Err(IndexError::Width { .. })));
        assert!(index.search(&[0.0, 0.0], 1, &Filter::default(), None).is_err());
        assert!(index.delete_matching(&Filter::default()).is_err());
        assert_eq!(index.len(), 1);
        assert_eq!(index.search(&[0.5, 0.1], 5, &Filter::default(), None).unwrap().len(), 1);
    }
}

#[test]
fn a_second_opening_searches_exactly_and_changes_nothing() {
    for engine in engines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index");
        let builder = Index::create(&path, Settings::new(engine, 2)).unwrap();
        builder
            .add(&[Item::new("a"), Item::new("b")], &[1.0, 0.0, 0.0, 1.0])
            .unwrap();
        let first = builder.finish().unwrap();
        let second = Index::open(&path).unwrap();
        assert_eq!(second.notice().is_some(), engine != EngineKind::Flat);
        let hits = second.search(&[0.1, 0.9], 1, &Filter::default(), None).unwrap();
        assert_eq!(hits[0].id, "b");
        first.add(&[Item::new("c")], &[1.0, 1.0]).unwrap();
        let error = second.add(&[Item::new("d")], &[1.0, 1.0]).unwrap_err();
        assert!(
            matches!(error, IndexError::Changed { .. } | IndexError::InUse { .. }),
            "{error}"
        );
        assert_eq!(
            second.search(&[1.0, 1.0], 5, &Filter::default(), None).unwrap().len(),
            2
        );
    }
}

#[test]
fn an_old_index_stays_until_the_new_one_is_whole() {
    for engine in engines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index");
        let settings = Settings {
            source: "the same".into(),
            ..Settings::new(engine, 2)
        };
        let builder = Index::create(&path, settings.clone()).unwrap();
        builder.add(&[Item::new("old")], &[1.0, 0.0]).unwrap();
        assert!(matches!(Index::open(&path), Err(IndexError::Unfinished { .. })));
        assert!(matches!(
            Index::create(&path, settings.clone()),
            Err(IndexError::InUse { .. })
        ));
        drop(builder.finish().unwrap());
        let again = Settings {
            source: "another".into(),
            ..settings.clone()
        };
        let builder = Index::create(&path, again.clone()).unwrap();
        builder.add(&[Item::new("new 1")], &[1.0, 0.0]).unwrap();
        drop(builder);
        assert!(Index::open(&path).unwrap().contains("old"));
        let builder = Index::create(&path, again).unwrap();
        assert_eq!((builder.resumed(), builder.contains("new 1")), (1, true));
        builder.add(&[Item::new("new 2")], &[0.0, 1.0]).unwrap();
        let index = builder.finish().unwrap();
        assert_eq!((index.len(), index.contains("old")), (2, false));
        drop(index);
        assert_eq!(Index::open(&path).unwrap().len(), 2);
        let vectors = std::fs::read_dir(&path).unwrap().filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_string_lossy().starts_with("vectors-")
        });
        assert_eq!(vectors.count(), 1, "the files of the old one are gone");
    }
}

#[test]
fn folders_of_other_files_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("thesis.tex"), "x").unwrap();
    let error = Index::create(folder.path(), Settings::new(EngineKind::Flat, 2)).unwrap_err();
    assert!(matches!(error, IndexError::NotEmpty { .. }));
    assert!(matches!(Index::open(folder.path()), Err(IndexError::Missing { .. })));
}

#[test]
fn an_engine_that_was_damaged_or_lost_is_made_anew() {
    for engine in engines().into_iter().filter(|engine| *engine != EngineKind::Flat) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index");
        let builder = Index::create(&path, Settings::new(engine, 2)).unwrap();
        builder
            .add(&[Item::new("a"), Item::new("b")], &[1.0, 0.0, 0.0, 1.0])
            .unwrap();
        drop(builder.finish().unwrap());
        for lost in ["engine-1/segments", "engine-1"] {
            std::fs::remove_dir_all(path.join(lost)).unwrap();
            let index = Index::open(&path).unwrap();
            assert_eq!(index.notice(), None);
            let hits = index.search(&[0.1, 0.9], 5, &Filter::default(), None).unwrap();
            assert_eq!(hits.iter().map(|hit| hit.id.as_str()).collect::<Vec<_>>(), ["b", "a"]);
        }
    }
}

#[test]
fn an_empty_index_finds_nothing() {
    for engine in engines() {
        let folder = tempfile::tempdir().unwrap();
        let builder = Index::create(&folder.path().join("index"), Settings::new(engine, 3)).unwrap();
        let index = builder.finish().unwrap();
        assert!(index.is_empty());
        let answer = index.identify(&[1.0, 0.0, 0.0], 3, &Filter::default(), None).unwrap();
        assert!(answer.unknown && answer.hits.is_empty());
        assert_eq!(index.recall(10, 100).unwrap(), None);
    }
}
