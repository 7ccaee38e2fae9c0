//! What sets a file of weights apart from a network.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::read::without_containers;
use crate::models::backbones::Trunk;
use crate::state::{NamedArray, named_shapes, summarise};

/// An array that is there, but of another shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OtherShape {
    /// Its name in the file.
    pub name: String,
    /// Its shape in the file.
    pub found: Vec<usize>,
    /// The network's.
    pub expected: Vec<usize>,
    /// What can be done about it, if the network knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// Everything in which the arrays of a file differ from the parameters of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Differences {
    /// Arrays that fit.
    pub matched: usize,
    /// Parameters that the file lacks, by the name they would have there, with their shape.
    pub missing: Vec<(String, Vec<usize>)>,
    /// Arrays of the file that the network lacks, with their shape.
    pub surplus: Vec<(String, Vec<usize>)>,
    /// Arrays of another shape.
    pub other_shape: Vec<OtherShape>,
    /// Arrays that hold values that are not finite.
    pub not_finite: Vec<String>,
    /// Arrays of a classifier or another part that the network leaves out; no difference.
    pub ignored: Vec<String>,
}

impl Differences {
    /// Whether names and shapes agree.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.missing.is_empty() && self.surplus.is_empty() && self.other_shape.is_empty()
    }

    /// How many tensors differ.
    #[must_use]
    pub fn count(&self) -> usize {
        self.missing.len() + self.surplus.len() + self.other_shape.len() + self.not_finite.len()
    }

    /// One line per difference.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let lacking = self
            .missing
            .iter()
            .map(|(name, shape)| format!("missing: {name} {shape:?}"));
        let left = self
            .surplus
            .iter()
            .map(|(name, shape)| format!("not part of it: {name} {shape:?}"));
        let shapes = self
            .other_shape
            .iter()
            .map(|other| format!("of another shape: {}", other.line()));
        let values = self.not_finite.iter().map(|name| format!("not finite: {name}"));
        lacking.chain(left).chain(shapes).chain(values).collect()
    }

    /// The first of each kind and how many more there are, in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let names = |arrays: &[(String, Vec<usize>)]| arrays.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        let shapes: Vec<String> = self.other_shape.iter().map(OtherShape::line).collect();
        [
            ("missing", names(&self.missing)),
            ("not part of it", names(&self.surplus)),
            ("of another shape", shapes),
        ]
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, names)| format!("{what}: {}", summarise(&names)))
        .collect::<Vec<_>>()
        .join("; ")
    }
}

impl OtherShape {
    fn line(&self) -> String {
        let advice = self
            .advice
            .as_ref()
            .map(|advice| format!(" ({advice})"))
            .unwrap_or_default();
        format!(
            "{} is {:?}, expected {:?}{advice}",
            self.name, self.found, self.expected
        )
    }
}

/// Compares the arrays of a file with the parameters of a trunk; gives the differences and the arrays that fit, under the trunk's
/// names and in its shapes.
#[must_use]
pub fn compare(trunk: &Trunk, arrays: Vec<NamedArray>) -> (Differences, Vec<NamedArray>) {
    let backbone = trunk.backbone();
    let parameters: Vec<(String, Vec<usize>, Vec<String>)> = named_shapes(trunk)
        .into_iter()
        .map(|(name, shape)| {
            let mut names = backbone.file_names(&name);
            names.push(name.clone());
            (name, shape, names)
        })
        .collect();
    let known: HashSet<String> = parameters.iter().flat_map(|(_, _, names)| names).cloned().collect();
    let arrays = without_containers(arrays, &known);
    let family = family_of(&parameters, &arrays);
    let mut by_name: HashMap<String, NamedArray> =
        arrays.into_iter().map(|array| (array.name.clone(), array)).collect();
    let mut differences = Differences::default();
    let mut found = Vec::with_capacity(parameters.len());
    for (name, shape, names) in parameters {
        let Some(array) = by_name.remove(&names[family]) else {
            differences.missing.push((names[family].clone(), shape));
            continue;
        };
        // The same numbers in the same order.
        let extents = |shape: &[usize]| shape.iter().copied().filter(|extent| *extent != 1).collect::<Vec<_>>();
        if extents(&array.shape) != extents(&shape) {
            differences.other_shape.push(OtherShape {
                advice: backbone.about_shape(&name, &array.shape),
                name: array.name,
                found: array.shape,
                expected: shape,
            });
            continue;
        }
        if array.values.iter().any(|value| !value.is_finite()) {
            differences.not_finite.push(array.name);
        }
        differences.matched += 1;
        found.push(NamedArray {
            name,
            shape,
            values: array.values,
        });
    }
    let mut left: Vec<NamedArray> = by_name.into_values().collect();
    left.sort_by(|a, b| a.name.cmp(&b.name));
    for array in left {
        if is_head(&array.name) || backbone.leaves_out(&array.name) {
            differences.ignored.push(array.name);
        } else {
            differences.surplus.push((array.name, array.shape));
        }
    }
    (differences, found)
}

/// Which of a parameter's names the arrays of the file have: the only ones that are looked for.
fn family_of(parameters: &[(String, Vec<usize>, Vec<String>)], arrays: &[NamedArray]) -> usize {
    let present: HashSet<&str> = arrays.iter().map(|array| array.name.as_str()).collect();
    let count = |family: usize| {
        let has = |names: &[String]| names.get(family).is_some_and(|name| present.contains(name.as_str()));
        parameters.iter().filter(|(_, _, names)| has(names)).count()
    };
    // The last name is gradus' own, of which a stranger's file may have a few by chance; and most of a ResNet's are torchvision's, too.
    let own = parameters.first().map_or(0, |(_, _, names)| names.len() - 1);
    // The first of equals: torchvision's, where there is one.
    let best = (0..own).rev().max_by_key(|&family| count(family)).unwrap_or(own);
    if count(own) > count(best) && 2 * count(own) > parameters.len() {
        own
    } else {
        best
    }
}

/// Whether an array belongs to what sits behind a backbone: a classifier, or gradus' own pooling and head.
fn is_head(name: &str) -> bool {
    const HEADS: [&str; 7] = [
        "fc.",
        "classifier.",
        "linear.",
        "last_linear.",
        "head.",
        "heads.",
        "pooling.",
    ];
    HEADS.iter().any(|prefix| name.starts_with(prefix))
}
