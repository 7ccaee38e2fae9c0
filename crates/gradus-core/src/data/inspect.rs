//! What `gradus data inspect` reports: layout, counts, parts, the split, class sizes, factors and broken images.

use std::fmt;
use std::path::PathBuf;

use rayon::prelude::*;
use serde::Serialize;

use super::dataset::{Dataset, Part, Source};
use super::layouts::{Layout, thousands};
use super::split::{SplitOptions, TestSet};

/// Decodes an image and gives its width and height, or says why it is broken.
pub type ImageCheck<'a> = &'a (dyn Fn(&Source) -> Result<(u32, u32), String> + Sync);

/// Most names listed of absent and broken images in the text.
const MOST_NAMES: usize = 10;

/// Everything there is to say about a data set before training on it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Inspection {
    /// The layout it was read as.
    pub layout: Layout,
    /// Where it was read from.
    pub root: PathBuf,
    /// Images listed.
    pub images: usize,
    /// Images whose files are there.
    pub images_present: usize,
    /// Images whose files are not there.
    pub images_absent: usize,
    /// The first absent images.
    pub absent_examples: Vec<String>,
    /// True when lists are all there is.
    pub annotations_only: bool,
    /// Classes with at least one image.
    pub classes: usize,
    /// Coarse classes, if the data set has them.
    pub coarse_classes: Option<usize>,
    /// Images and classes of each official part.
    pub parts: Vec<PartCount>,
    /// The split that training would use.
    pub split: Option<SplitCount>,
    /// Why there is no split.
    pub split_problem: Option<String>,
    /// Images per class.
    pub class_sizes: ClassSizes,
    /// Known continuous factors.
    pub factors: Vec<FactorRange>,
    /// Remarks on the counts and the files.
    pub notes: Vec<String>,
    /// Images that were decoded; `None` when that was not asked for.
    pub images_checked: Option<usize>,
    /// Smallest and largest width and height of the decoded images.
    pub image_sizes: Option<ImageSizes>,
    /// Images that are there and cannot be decoded.
    pub bad_images: Vec<BadImage>,
}

/// Images and classes of a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PartCount {
    /// `train`, `test`, `query`, `gallery` or `unassigned`.
    pub part: String,
    /// Images.
    pub images: usize,
    /// Classes.
    pub classes: usize,
}

/// Counts of both sides of the split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SplitCount {
    /// The rule in words.
    pub description: String,
    /// Training images.
    pub train_images: usize,
    /// Training classes.
    pub train_classes: usize,
    /// Test images.
    pub test_images: usize,
    /// Test classes.
    pub test_classes: usize,
    /// Query images, when queries and gallery are apart.
    pub query_images: Option<usize>,
    /// Gallery images, when queries and gallery are apart.
    pub gallery_images: Option<usize>,
}

/// Images per class.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ClassSizes {
    /// Fewest.
    pub min: usize,
    /// Median.
    pub median: f64,
    /// Most.
    pub max: usize,
    /// Classes with one image.
    pub with_one_image: usize,
}

/// A factor and the values it takes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FactorRange {
    /// Its name.
    pub name: String,
    /// Its period, if it is circular.
    pub period: Option<f32>,
    /// Smallest value.
    pub min: f32,
    /// Largest value.
    pub max: f32,
}

/// Smallest and largest sides of the images, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ImageSizes {
    /// Smallest width.
    pub min_width: u32,
    /// Smallest height.
    pub min_height: u32,
    /// Largest width.
    pub max_width: u32,
    /// Largest height.
    pub max_height: u32,
}

/// An image that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct BadImage {
    /// Its name.
    pub image: String,
    /// What is wrong.
    pub problem: String,
}

/// Inspects a data set with its default split; with `check` every image that is there is decoded, in parallel.
#[must_use]
pub fn inspect(dataset: &Dataset, check: Option<ImageCheck<'_>>) -> Inspection {
    inspect_split(dataset, &SplitOptions::default(), check)
}

fn is_present(source: &Source) -> bool {
    match source {
        Source::File(path) => path.is_file(),
        Source::Encoded { .. } | Source::Drawn { .. } | Source::Vector { .. } => true,
        Source::Turned { source, .. } => is_present(source),
    }
}

/// Inspects a data set as split by `options`.
#[must_use]
pub fn inspect_split(dataset: &Dataset, options: &SplitOptions, check: Option<ImageCheck<'_>>) -> Inspection {
    let images = dataset.items.len();
    let present: Vec<bool> = dataset.items.par_iter().map(|item| is_present(&item.source)).collect();
    let images_present = present.iter().filter(|present| **present).count();
    let absent_examples = dataset
        .items
        .iter()
        .zip(&present)
        .filter(|(_, present)| !**present)
        .take(MOST_NAMES)
        .map(|(item, _)| item.source.name())
        .collect();

    type Checked = (usize, Result<(u32, u32), String>);
    let checked: Option<Vec<Checked>> = check.map(|check| {
        let there: Vec<usize> = (0..images).filter(|item| present[*item]).collect();
        there
            .into_par_iter()
            .map(|item| (item, check(&dataset.items[item].source)))
            .collect()
    });
    let mut bad_images = Vec::new();
    let mut image_sizes: Option<ImageSizes> = None;
    for (item, result) in checked.iter().flatten() {
        match result {
            Ok((width, height)) => {
                let so_far = image_sizes.get_or_insert(ImageSizes {
                    min_width: *width,
                    min_height: *height,
                    max_width: *width,
                    max_height: *height,
                });
                so_far.min_width = so_far.min_width.min(*width);
                so_far.min_height = so_far.min_height.min(*height);
                so_far.max_width = so_far.max_width.max(*width);
                so_far.max_height = so_far.max_height.max(*height);
            }
            Err(problem) => {
                let image = dataset.items[*item].source.name();
                let named = format!("{image}: ");
                bad_images.push(BadImage {
                    problem: problem.strip_prefix(&named).unwrap_or(problem).to_owned(),
                    image,
                });
            }
        }
    }

    let (split, split_problem) = match dataset.split(options) {
        Ok(split) => {
            let (query_images, gallery_images) = match &split.test {
                TestSet::Single(_) => (None, None),
                TestSet::QueryGallery { query, gallery } => (Some(query.len()), Some(gallery.len())),
            };
            let counts = SplitCount {
                train_images: split.train.len(),
                train_classes: split.train_classes,
                test_images: split.test.len(),
                test_classes: split.test_classes,
                query_images,
                gallery_images,
                description: split.description,
            };
            (Some(counts), None)
        }
        Err(error) => (None, Some(error.to_string())),
    };
    let coarse: std::collections::BTreeSet<&String> = dataset
        .classes
        .iter()
        .filter_map(|class| class.coarse.as_ref())
        .collect();
    Inspection {
        layout: dataset.layout,
        root: dataset.root.clone(),
        images,
        images_present,
        images_absent: images - images_present,
        absent_examples,
        annotations_only: images > 0 && images_present == 0,
        classes: dataset.classes.len(),
        coarse_classes: (!coarse.is_empty()).then_some(coarse.len()),
        parts: parts(dataset),
        split,
        split_problem,
        class_sizes: class_sizes(dataset),
        factors: factors(dataset),
        notes: dataset.notes.clone(),
        images_checked: checked.map(|checked| checked.len()),
        image_sizes,
        bad_images,
    }
}

fn parts(dataset: &Dataset) -> Vec<PartCount> {
    let all = [
        (Part::Train, "train"),
        (Part::Test, "test"),
        (Part::Query, "query"),
        (Part::Gallery, "gallery"),
        (Part::Unassigned, "unassigned"),
    ];
    all.into_iter()
        .filter_map(|(part, name)| {
            let mut seen = vec![false; dataset.classes.len()];
            let mut images = 0;
            for item in dataset.items.iter().filter(|item| item.part == part) {
                images += 1;
                seen[item.class as usize] = true;
            }
            let classes = seen.into_iter().filter(|seen| *seen).count();
            (images > 0).then(|| PartCount {
                part: name.to_owned(),
                images,
                classes,
            })
        })
        .collect()
}

fn class_sizes(dataset: &Dataset) -> ClassSizes {
    let mut sizes = vec![0usize; dataset.classes.len()];
    for item in &dataset.items {
        sizes[item.class as usize] += 1;
    }
    sizes.sort_unstable();
    let middle = sizes.len() / 2;
    let median = match sizes.len() {
        0 => 0.0,
        count if count % 2 == 1 => sizes[middle] as f64,
        _ => (sizes[middle - 1] + sizes[middle]) as f64 / 2.0,
    };
    ClassSizes {
        min: sizes.first().copied().unwrap_or(0),
        median,
        max: sizes.last().copied().unwrap_or(0),
        with_one_image: sizes.iter().filter(|size| **size == 1).count(),
    }
}

fn factors(dataset: &Dataset) -> Vec<FactorRange> {
    let range = |place: usize| {
        let values = dataset.items.iter().filter_map(|item| item.factors.get(place).copied());
        values.fold((f32::INFINITY, f32::NEG_INFINITY), |(min, max), value| {
            (min.min(value), max.max(value))
        })
    };
    let all = dataset.factors.iter().enumerate();
    all.map(|(place, factor)| {
        let (min, max) = range(place);
        FactorRange {
            name: factor.name.clone(),
            period: factor.period,
            min,
            max,
        }
    })
    .collect()
}

impl fmt::Display for Inspection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "layout   {}", self.layout)?;
        writeln!(out, "root     {}", self.root.display())?;
        writeln!(out, "images   {}{}", thousands(self.images), self.presence())?;
        for name in &self.absent_examples {
            if !self.annotations_only {
                writeln!(out, "         absent: {name}")?;
            }
        }
        let coarse = self
            .coarse_classes
            .map(|count| format!(" in {} coarse classes", thousands(count)));
        writeln!(
            out,
            "classes  {}{}",
            thousands(self.classes),
            coarse.unwrap_or_default()
        )?;
        let sizes = &self.class_sizes;
        writeln!(
            out,
            "sizes    {} to {} images per class, median {}; {} classes with one image",
            sizes.min,
            sizes.max,
            sizes.median,
            thousands(sizes.with_one_image)
        )?;
        for part in &self.parts {
            if part.part != "unassigned" {
                writeln!(
                    out,
                    "list     {}: {} images of {} classes",
                    part.part,
                    thousands(part.images),
                    thousands(part.classes)
                )?;
            }
        }
        if let Some(split) = &self.split {
            writeln!(
                out,
                "train    {} images of {} classes",
                thousands(split.train_images),
                thousands(split.train_classes)
            )?;
            let apart = match (split.query_images, split.gallery_images) {
                (Some(query), Some(gallery)) => {
                    format!(" ({} query, {} gallery)", thousands(query), thousands(gallery))
                }
                _ => String::new(),
            };
            let (images, classes) = (thousands(split.test_images), thousands(split.test_classes));
            writeln!(out, "test     {images} images of {classes} classes{apart}")?;
            writeln!(out, "split    {}", split.description)?;
        }
        if let Some(problem) = &self.split_problem {
            writeln!(out, "split    impossible: {problem}")?;
        }
        for factor in &self.factors {
            let period = factor
                .period
                .map(|period| format!(", circular with period {period}"))
                .unwrap_or_default();
            writeln!(
                out,
                "factor   {}: {} to {}{period}",
                factor.name, factor.min, factor.max
            )?;
        }
        if let Some(checked) = self.images_checked {
            writeln!(
                out,
                "decoded  {} images, {} bad",
                thousands(checked),
                thousands(self.bad_images.len())
            )?;
        }
        if let Some(sizes) = &self.image_sizes {
            writeln!(
                out,
                "pixels   {} to {} wide, {} to {} high",
                sizes.min_width, sizes.max_width, sizes.min_height, sizes.max_height
            )?;
        }
        for bad in self.bad_images.iter().take(MOST_NAMES) {
            writeln!(out, "bad      {}: {}", bad.image, bad.problem)?;
        }
        if self.bad_images.len() > MOST_NAMES {
            writeln!(
                out,
                "bad      … and {} more",
                thousands(self.bad_images.len() - MOST_NAMES)
            )?;
        }
        for note in &self.notes {
            writeln!(out, "note     {note}")?;
        }
        Ok(())
    }
}

impl Inspection {
    /// What is said about files behind the number of images.
    fn presence(&self) -> String {
        if self.annotations_only {
            " listed; none of the image files is here: annotations only".to_owned()
        } else if self.images_absent > 0 {
            format!(
                " listed; {} present, {} absent",
                thousands(self.images_present),
                thousands(self.images_absent)
            )
        } else {
            ", all present".to_owned()
        }
    }
}

#[cfg(test)]
#[path = "inspect_tests.rs"]
mod tests;
