//! Collections on a server: against a double of the server, and, where `GRADUS_QDRANT_URL` names one, against a real one:
//!
//! ```text
//! docker run -p 6333:6333 qdrant/qdrant
//! GRADUS_QDRANT_URL=http://localhost:6333 cargo test --release -p gradus-index --test remote
//! ```
//!
//! `GRADUS_QDRANT_KEY` holds the API key, if there is one. The tests make collections called `gradus-test-…` and leave them behind.

#![cfg(feature = "remote")]
#![allow(clippy::unwrap_used)]

mod common;

use common::Double;
use gradus_index::{Address, EngineKind, Filter, IndexError, Item, Model, Remote, Settings};
use serde_json::json;

/// The double, and the real server if there is one.
fn servers(test: &str) -> Vec<(Address, Option<Double>)> {
    let double = Double::start();
    let address = |url: &str, api_key| Address {
        url: url.to_owned(),
        collection: format!("gradus-test-{test}-{}", std::process::id()),
        api_key,
    };
    let mut all = Vec::new();
    if let Ok(url) = std::env::var("GRADUS_QDRANT_URL") {
        all.push((address(&url, std::env::var("GRADUS_QDRANT_KEY").ok()), None));
    }
    all.push((address(&double.url, None), Some(double)));
    all
}

fn item(number: usize) -> Item {
    Item {
        class: Some(format!("class {}", number % 3)),
        image: Some(format!("{number}.png")),
        payload: json!({"price": number, "new": number.is_multiple_of(2)})
            .as_object()
            .cloned()
            .unwrap_or_default(),
        ..Item::new(format!("item {number}"))
    }
}

fn vector(number: usize) -> [f32; 2] {
    let angle = number as f32 * 0.1;
    [angle.cos(), angle.sin()]
}

fn settings(weights: &str) -> Settings {
    Settings {
        model: Some(Model::of("runs/a", &[weights.as_bytes()])),
        source: "numbers".into(),
        ..Settings::new(EngineKind::default(), 2)
    }
}

fn filled(address: &Address, count: usize) -> Remote {
    let mut remote = Remote::create(address, &settings("weights")).unwrap();
    let items: Vec<Item> = (0..count).map(item).collect();
    let vectors: Vec<f32> = (0..count).flat_map(vector).collect();
    remote.add(&items, &vectors).unwrap();
    remote
}

#[test]
fn what_was_added_is_found_filtered_and_deleted() {
    for (address, _double) in servers("found") {
        drop(filled(&address, 12));
        let remote = Remote::open(&address).unwrap();
        assert_eq!((remote.statistics().unwrap().count, remote.dimension()), (12, 2));
        let ids = |texts: &[&str], k| -> Vec<String> {
            let filter = Filter::parse(texts, remote.fields()).unwrap();
            let hits = remote.search(&vector(5).map(|value| value * 7.0), k, &filter).unwrap();
            hits.into_iter().map(|hit| hit.id).collect()
        };
        assert_eq!(ids(&[], 1), ["item 5"]);
        assert_eq!(
            ids(&[], 100).len(),
            12,
            "the point that says what the collection is is never found"
        );
        assert_eq!(ids(&["class=class 0"], 2), ["item 6", "item 3"]);
        assert_eq!(ids(&["class!=class 0", "price>=7", "price<9"], 9), ["item 7", "item 8"]);
        assert_eq!(ids(&["new=true", "price!=4"], 1), ["item 6"]);
        assert_eq!(ids(&["price=9"], 3), ["item 9"]);
        let answer = remote.identify(&vector(5), 3, &Filter::default(), Some(0.9)).unwrap();
        assert_eq!((answer.unknown, answer.class.as_deref()), (false, Some("class 2")));
        assert_eq!(answer.hits[0].payload["price"], 5);
        assert_eq!(answer.hits[0].image.as_deref(), Some("5.png"));
        assert!(
            remote
                .identify(&[-1.0, -0.2], 1, &Filter::default(), Some(0.9))
                .unwrap()
                .unknown
        );
        let present = remote.present(&["item 3", "item 99"]).unwrap();
        assert_eq!(present.into_iter().collect::<Vec<_>>(), ["item 3"]);
        assert_eq!(remote.delete(&["item 3", "item 99"]).unwrap(), 1);
        let filter = Filter::parse(&["price>8"], remote.fields()).unwrap();
        assert_eq!(remote.delete_matching(&filter).unwrap(), 3);
        assert!(remote.delete_matching(&Filter::default()).is_err());
        assert_eq!(remote.statistics().unwrap().count, 8);
    }
}

#[test]
fn other_models_and_other_collections_are_refused() {
    for (address, _double) in servers("refused") {
        drop(filled(&address, 3));
        let refused = |settings: &Settings| Remote::create(&address, settings).unwrap_err();
        assert!(matches!(refused(&settings("other weights")), IndexError::Model { .. }));
        let wide = Settings {
            dimension: 3,
            ..settings("weights")
        };
        assert!(refused(&wide).to_string().contains("width 2"));
        let other = Settings {
            source: "letters".into(),
            ..settings("weights")
        };
        assert!(refused(&other).to_string().contains("holds another index"));
        assert!(
            Remote::create(&address, &settings("weights")).is_ok(),
            "the same build goes on"
        );
        let missing = Address {
            collection: "gradus-test-missing".into(),
            ..address.clone()
        };
        assert!(
            Remote::open(&missing)
                .unwrap_err()
                .to_string()
                .contains("no collection")
        );
        let mut remote = Remote::open(&address).unwrap();
        assert!(matches!(
            remote.add(&[Item::new("x")], &[0.0, 0.0]),
            Err(IndexError::Vector { .. })
        ));
        assert!(matches!(
            remote.search(&[1.0], 1, &Filter::default()),
            Err(IndexError::Width { .. })
        ));
    }
    for (url, collection, expected) in [
        ("localhost:6333", "a", "no address"),
        ("http://localhost:6333", "a/b", "cannot name a collection"),
        ("http://localhost:6333", "..", "cannot name a collection"),
    ] {
        let address = Address {
            url: url.into(),
            collection: collection.into(),
            api_key: None,
        };
        let message = Remote::open(&address).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn requests_that_fail_for_a_while_are_repeated() {
    let double = Double::start();
    let address = Address {
        url: double.url.clone(),
        collection: "c".into(),
        api_key: None,
    };
    let mut remote = filled(&address, 3);
    for (failures, hang_ups) in [(2, 0), (0, 2), (1, 1)] {
        {
            let mut state = double.state.lock().unwrap();
            (state.failures, state.hang_ups, state.requests) = (failures, hang_ups, 0);
        }
        remote.add(&[item(7)], &vector(7)).unwrap();
        assert_eq!(double.state.lock().unwrap().requests, 3);
        assert_eq!(remote.statistics().unwrap().count, 4, "sent twice, stored once");
    }
    double.state.lock().unwrap().failures = usize::MAX;
    let message = remote.add(&[item(8)], &vector(8)).unwrap_err().to_string();
    assert!(
        message.contains("failed 6 times") && message.contains("overloaded"),
        "{message}"
    );
}

#[test]
fn the_key_is_sent_and_asked_for() {
    let double = Double::start();
    double.state.lock().unwrap().api_key = Some("secret".into());
    let mut address = Address {
        url: double.url.clone(),
        collection: "c".into(),
        api_key: None,
    };
    let message = Remote::create(&address, &settings("w")).unwrap_err().to_string();
    assert!(message.contains("--api-key-env"), "{message}");
    address.api_key = Some("secret".into());
    assert!(Remote::create(&address, &settings("w")).is_ok());
    address.api_key = Some("sec\nret".into());
    assert!(
        Remote::open(&address)
            .unwrap_err()
            .to_string()
            .contains("no header can carry")
    );
}
