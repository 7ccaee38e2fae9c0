//! An index of vectors on disk, searched with a filter. Only `gradus-index`: no tensors, no Burn.

#![allow(clippy::print_stdout)]

use gradus_examples::clusters;
use gradus_index::{EngineKind, Filter, Index, Item, Settings};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (values, labels) = clusters(20, 10, 32, 0.5);
    let items: Vec<Item> = labels
        .iter()
        .enumerate()
        .map(|(row, class)| Item {
            class: Some(format!("class {class}")),
            ..Item::new(format!("item {row}"))
        })
        .collect();
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("index");
    let builder = Index::create(&path, Settings::new(EngineKind::default(), 32))?;
    builder.add(&items, &values)?;
    let index = builder.finish()?;

    let query = &values[..32];
    for (title, filter) in [
        ("nearest", Filter::default()),
        ("nearest of class 3", Filter::class("class 3")),
    ] {
        let hits = index.search(query, 3, &filter, None)?;
        let shown: Vec<String> = hits
            .iter()
            .map(|hit| format!("{} ({:.3})", hit.id, hit.score))
            .collect();
        println!("{title}: {}", shown.join(", "));
    }
    Ok(())
}
