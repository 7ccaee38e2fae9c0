//! Splits on made-up data sets.

use std::path::PathBuf;

use super::{
    ClassFold, ClassSelection, Split, SplitOptions, TestSet, dense_labels, fold_split, validation_split, whole_classes,
};
use crate::data::dataset::{Class, Dataset, Item, Part, Source};
use crate::data::layouts::Layout;

/// A data set of (class number, part) items; classes ordered by number.
fn dataset(items: &[(u32, Part)]) -> Dataset {
    let mut numbers: Vec<u32> = items.iter().map(|(number, _)| *number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let item = |(number, part): &(u32, Part)| Item {
        source: Source::File(PathBuf::from("x")),
        class: numbers.iter().position(|known| known == number).unwrap() as u32,
        part: *part,
        factors: Vec::new(),
    };
    Dataset {
        layout: Layout::Csv,
        root: PathBuf::from("list.csv"),
        items: items.iter().map(item).collect(),
        classes: numbers
            .iter()
            .map(|number| Class {
                name: number.to_string(),
                number: *number,
                coarse: None,
            })
            .collect(),
        factors: Vec::new(),
        notes: Vec::new(),
    }
}

fn plain(numbers: &[u32]) -> Dataset {
    dataset(
        &numbers
            .iter()
            .map(|number| (*number, Part::Unassigned))
            .collect::<Vec<_>>(),
    )
}

fn options(train: &str, test: &str) -> SplitOptions {
    let side = |text: &str| (!text.is_empty()).then(|| text.parse().unwrap());
    SplitOptions {
        train_classes: side(train),
        test_classes: side(test),
    }
}

fn single(split: &Split) -> (Vec<usize>, Vec<usize>) {
    let TestSet::Single(test) = &split.test else {
        panic!("apart")
    };
    (split.train.clone(), test.clone())
}

#[test]
fn selections_parse_print_and_refuse() {
    let selection: ClassSelection = " 40-50, 1-25 ,30".parse().unwrap();
    assert_eq!(selection.to_string(), "1-25,30,40-50");
    assert!([1, 25, 30, 40, 50].iter().all(|number| selection.contains(*number)));
    assert!(
        [0, 26, 29, 31, 39, 51]
            .iter()
            .all(|number| !selection.contains(*number))
    );
    for (bad, words) in [
        ("", "no whole number"),
        ("a", "`a`"),
        ("1-", "no whole number"),
        ("-3", "no whole number"),
        ("5-2", "backwards"),
        ("1-5,5-7", "twice"),
        ("1,,2", "no whole number"),
        ("1-2-3", "`1-2-3`"),
        ("99999999999", "no whole number"),
    ] {
        let error = bad.parse::<ClassSelection>().unwrap_err().to_string();
        assert!(error.contains(words) && error.contains("1-25,30,40-50"), "{error}");
    }
    let json = serde_json::to_string(&options("1-2", "")).unwrap();
    assert_eq!(json, r#"{"train-classes":"1-2","test-classes":null}"#);
    assert_eq!(serde_json::from_str::<SplitOptions>(&json).unwrap(), options("1-2", ""));
    assert!(serde_json::from_str::<SplitOptions>(r#"{"train-classes":"2-1"}"#).is_err());
}

#[test]
fn halves_of_the_classes_in_official_order() {
    let split = plain(&[9, 1, 4, 9, 2, 2, 7]).split(&SplitOptions::default()).unwrap();
    assert_eq!(single(&split), (vec![1, 2, 4, 5], vec![0, 3, 6]));
    assert_eq!((split.train_classes, split.test_classes), (3, 2));
    assert!(
        split.description.contains("1 to 4") && split.description.contains("7 to 9"),
        "{}",
        split.description
    );
    assert!(
        split.description.contains("2 training classes have one image"),
        "{}",
        split.description
    );
    assert!(
        split.description.contains("1 test classes have one image"),
        "{}",
        split.description
    );
}

#[test]
fn given_classes_and_their_complement() {
    let data = plain(&[1, 2, 3, 4, 5, 6]);
    assert_eq!(
        single(&data.split(&options("1-2", "4,6")).unwrap()),
        (vec![0, 1], vec![3, 5])
    );
    assert_eq!(
        single(&data.split(&options("1-2", "")).unwrap()),
        (vec![0, 1], vec![2, 3, 4, 5])
    );
    assert_eq!(
        single(&data.split(&options("", "1-2")).unwrap()),
        (vec![2, 3, 4, 5], vec![0, 1])
    );
    // Numbers may have gaps inside a range.
    assert_eq!(
        single(&plain(&[1, 5, 8, 9]).split(&options("1-5", "")).unwrap()),
        (vec![0, 1], vec![2, 3])
    );
}

#[test]
fn impossible_splits_say_why() {
    let refused = |data: &Dataset, options: &SplitOptions, words: &[&str]| {
        let error = data.split(options).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "`{word}` is not in: {error}");
        }
    };
    let six = plain(&[1, 2, 3, 4, 5, 6]);
    refused(&six, &options("1-3", "3-6"), &["1 classes", "being 3", "zero-shot"]);
    refused(&six, &options("1-7", ""), &["class 7", "6 classes", "1 to 6"]);
    refused(&six, &options("0-2", ""), &["class 0"]);
    refused(&six, &options("1-6", ""), &["no images", "at least two classes"]);
    refused(&six, &options("1", "2-3"), &["training side", "only one class"]);
    refused(&six, &options("1-2", "3"), &["test side", "only one class"]);
    refused(
        &plain(&[4, 4]),
        &SplitOptions::default(),
        &["1 class:", "at least two classes"],
    );
    refused(
        &plain(&[]),
        &SplitOptions::default(),
        &["0 classes", "at least two classes"],
    );
    refused(
        &plain(&[1, 2]),
        &SplitOptions::default(),
        &["at least two", "1 classes train, 1 test"],
    );
    use Part::{Query, Train};
    refused(
        &dataset(&[(1, Train), (2, Train), (3, Query), (4, Query)]),
        &SplitOptions::default(),
        &["0 gallery"],
    );
}

#[test]
fn official_lists_are_used_when_they_share_no_class() {
    use Part::{Gallery, Query, Test, Train};
    let data = dataset(&[(9, Train), (1, Test), (8, Train), (2, Test), (9, Train)]);
    assert_eq!(
        single(&data.split(&SplitOptions::default()).unwrap()),
        (vec![0, 2, 4], vec![1, 3])
    );
    let shared = dataset(&[(1, Train), (1, Test), (2, Train), (3, Test), (4, Test)]);
    let split = shared.split(&SplitOptions::default()).unwrap();
    assert_eq!(single(&split), (vec![0, 1, 2], vec![3, 4]));
    assert!(split.description.contains("1 common classes"), "{}", split.description);

    let apart = dataset(&[
        (1, Train),
        (2, Train),
        (3, Query),
        (3, Gallery),
        (4, Gallery),
        (5, Query),
        (2, Train),
    ]);
    let split = apart.split(&SplitOptions::default()).unwrap();
    assert_eq!(
        split.test,
        TestSet::QueryGallery {
            query: vec![2, 5],
            gallery: vec![3, 4]
        }
    );
    assert_eq!((split.train.clone(), split.test_classes), (vec![0, 1, 6], 3));
    assert!(
        split.description.contains("1 queries have no image of their class"),
        "{}",
        split.description
    );
    // Training images never test where queries and gallery are apart.
    let split = dataset(&[
        (1, Train),
        (2, Train),
        (3, Query),
        (3, Gallery),
        (4, Gallery),
        (4, Query),
        (2, Train),
    ])
    .split(&options("1,2", ""))
    .unwrap();
    assert_eq!(split.train, [0, 1, 6]);
    let mixed = dataset(&[
        (1, Train),
        (2, Train),
        (3, Query),
        (3, Gallery),
        (4, Gallery),
        (4, Query),
        (5, Train),
    ]);
    let split = mixed.split(&options("1,2", "")).unwrap();
    assert_eq!(
        split.test,
        TestSet::QueryGallery {
            query: vec![2, 5],
            gallery: vec![3, 4]
        }
    );
    assert!(
        split.description.contains("1 images of the test classes are neither"),
        "{}",
        split.description
    );
}

#[test]
fn validation_holds_out_whole_classes() {
    let numbers: Vec<u32> = (0..40).map(|item| item % 10).collect();
    let data = plain(&numbers);
    let train: Vec<usize> = (0..40).filter(|item| item % 10 != 3).collect();
    let (fit, held) = validation_split(&train, &data, 0.3, 7);
    let classes = |items: &[usize]| {
        items
            .iter()
            .map(|item| data.items[*item].class)
            .collect::<std::collections::BTreeSet<u32>>()
    };
    assert!(classes(&fit).is_disjoint(&classes(&held)));
    assert_eq!((classes(&held).len(), held.len(), fit.len()), (3, 12, 24));
    assert!(fit.is_sorted() && held.is_sorted());
    assert_eq!(validation_split(&train, &data, 0.3, 7), (fit, held.clone()));
    assert!(
        (8..20).any(|seed| validation_split(&train, &data, 0.3, seed).1 != held),
        "the seed has no effect"
    );
    // At least two classes on either side, or none held out.
    assert_eq!(classes(&validation_split(&train, &data, 0.01, 7).1).len(), 2);
    assert_eq!(classes(&validation_split(&train, &data, 5.0, 7).0).len(), 2);
    for (items, fraction) in [
        (&train[..], 0.0),
        (&train[..], f64::NAN),
        (&train[..3], 0.5),
        (&train[..0], 0.5),
    ] {
        assert_eq!(validation_split(items, &data, fraction, 7), (items.to_vec(), vec![]));
    }
}

#[test]
fn every_class_validates_in_exactly_one_fold() {
    let numbers: Vec<u32> = (0..44).map(|item| item % 11).collect();
    let data = plain(&numbers);
    let train: Vec<usize> = (0..40).collect();
    let mut seen = Vec::new();
    for number in 1..=4 {
        let fold = ClassFold { number, of: 4 };
        let (fit, held) = fold_split(&train, &data, fold, 7).unwrap();
        let classes = |items: &[usize]| {
            items
                .iter()
                .map(|item| data.items[*item].class)
                .collect::<std::collections::BTreeSet<u32>>()
        };
        assert!(classes(&fit).is_disjoint(&classes(&held)) && fit.len() + held.len() == 40);
        assert!((2..=3).contains(&classes(&held).len()));
        assert!(fit.is_sorted() && held.is_sorted());
        seen.extend(classes(&held));
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..11).collect::<Vec<u32>>());
    let first = ClassFold { number: 1, of: 4 };
    assert!((8..20).any(|seed| fold_split(&train, &data, first, seed).unwrap() != fold_split(&train, &data, first, 7).unwrap()));
    assert!(
        fold_split(&train, &data, ClassFold { number: 1, of: 6 }, 7)
            .unwrap_err()
            .to_string()
            .contains("fewer folds")
    );
    assert_eq!(String::from(ClassFold::try_from("2/4".to_owned()).unwrap()), "2/4");
    for wrong in ["0/4", "5/4", "1/1", "x/2", "3"] {
        assert!(ClassFold::try_from(wrong.to_owned()).is_err(), "{wrong}");
    }
}

#[test]
fn a_part_to_measure_often_is_made_of_whole_classes() {
    let numbers: Vec<u32> = (0..40).map(|item| item % 10).collect();
    let data = plain(&numbers);
    let items: Vec<usize> = (0..36).collect();
    let part = whole_classes(&items, &data, 9, 7);
    let class = |item: &usize| data.items[*item].class;
    let classes: std::collections::BTreeSet<u32> = part.iter().map(class).collect();
    let of_classes: Vec<usize> = items
        .iter()
        .copied()
        .filter(|item| classes.contains(&class(item)))
        .collect();
    assert_eq!(part, of_classes);
    assert!((9..13).contains(&part.len()), "{}", part.len());
    assert_eq!(whole_classes(&items, &data, 9, 7), part);
    assert!((8..20).any(|seed| whole_classes(&items, &data, 9, seed) != part));
    assert_eq!(whole_classes(&items, &data, 0, 7), items);
    assert_eq!(whole_classes(&items, &data, 99, 7), items);
}

#[test]
fn labels_are_dense_in_class_order() {
    let data = plain(&[10, 20, 30, 40, 20]);
    assert_eq!(dense_labels(&[3, 1, 4], &data), (vec![1, 0, 0], vec![1, 3]));
    assert_eq!(dense_labels(&[], &data), (vec![], vec![]));
}
