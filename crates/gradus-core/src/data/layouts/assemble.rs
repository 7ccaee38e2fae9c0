//! From records with official class numbers to the items and classes of a [`Dataset`].

use std::collections::BTreeMap;
use std::path::Path;

use crate::data::Layout;
use crate::data::dataset::{Class, Dataset, Factor, Item, Part, Source};

/// One image as a list names it: the class is still an official number.
pub(super) struct Record {
    pub(super) source: Source,
    pub(super) number: u32,
    pub(super) part: Part,
    pub(super) factors: Vec<f32>,
}

impl Record {
    /// A record without factors.
    pub(super) fn new(source: Source, number: u32, part: Part) -> Self {
        Self {
            source,
            number,
            part,
            factors: Vec::new(),
        }
    }
}

/// Name and coarse class by official number.
pub(super) type ClassNames = BTreeMap<u32, (String, Option<String>)>;

/// Makes the data set: classes ordered by number; classes without any image are left out, with a note.
///
/// A number without a name is named by itself.
pub(super) fn assemble(
    layout: Layout,
    root: &Path,
    records: Vec<Record>,
    names: &ClassNames,
    factors: Vec<Factor>,
    mut notes: Vec<String>,
) -> Dataset {
    let mut index: BTreeMap<u32, u32> = records.iter().map(|record| (record.number, 0)).collect();
    let mut classes = Vec::with_capacity(index.len());
    for (dense, (number, slot)) in (0u32..).zip(index.iter_mut()) {
        *slot = dense;
        let (name, coarse) = names.get(number).cloned().unwrap_or_else(|| (number.to_string(), None));
        classes.push(Class {
            name,
            number: *number,
            coarse,
        });
    }
    let unused = names.keys().filter(|number| !index.contains_key(number)).count();
    if unused > 0 {
        notes.push(format!(
            "{unused} of the {} named classes have no image in the lists and were left out.",
            names.len()
        ));
    }
    let items = records
        .into_iter()
        .map(|record| Item {
            class: index[&record.number],
            source: record.source,
            part: record.part,
            factors: record.factors,
        })
        .collect();
    Dataset {
        layout,
        root: root.to_owned(),
        items,
        classes,
        factors,
        notes,
    }
}
