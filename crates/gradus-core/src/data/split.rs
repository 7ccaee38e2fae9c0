//! Splits of a data set into training and test classes: the zero-shot protocol, where no test class is trained on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::dataset::{DataError, Dataset, Part};
use super::layouts::thousands;
use crate::random::{SliceRandom, purpose, stream};

/// Classes selected by their official numbers, written like `1-25,30,40-50`.
///
/// ```
/// use gradus_core::data::ClassSelection;
/// let selection: ClassSelection = "1-25,30".parse().unwrap();
/// assert!(selection.contains(25) && selection.contains(30) && !selection.contains(26));
/// assert!("25-1".parse::<ClassSelection>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClassSelection {
    /// Inclusive ranges, sorted and without overlap.
    ranges: Vec<(u32, u32)>,
}

impl ClassSelection {
    /// Whether a class number is selected.
    #[must_use]
    pub fn contains(&self, number: u32) -> bool {
        self.ranges
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&number))
    }
}

impl FromStr for ClassSelection {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self, DataError> {
        let refused = |part: &str, why: &str| {
            Err(DataError::Unusable(format!(
                "class selection `{text}`: {why} at `{part}`; expected class numbers and ranges such as 1-25 or 1-25,30,40-50"
            )))
        };
        let mut ranges = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (first.trim(), last.trim()),
                None => (part, part),
            };
            let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) else {
                return refused(part, "no whole number");
            };
            if first > last {
                return refused(part, "a range that runs backwards");
            }
            ranges.push((first, last));
        }
        ranges.sort_unstable();
        if let Some(pair) = ranges.windows(2).find(|pair| pair[1].0 <= pair[0].1) {
            return refused(&pair[1].0.to_string(), "a class that is selected twice");
        }
        Ok(Self { ranges })
    }
}

impl TryFrom<String> for ClassSelection {
    type Error = DataError;

    fn try_from(text: String) -> Result<Self, DataError> {
        text.parse()
    }
}

impl From<ClassSelection> for String {
    fn from(selection: ClassSelection) -> Self {
        selection.to_string()
    }
}

impl fmt::Display for ClassSelection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            if first == last {
                write!(formatter, "{comma}{first}")?;
            } else {
                write!(formatter, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

/// Which classes train and which test; by default the official lists, else halves of the classes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SplitOptions {
    /// Training classes; `None` with test classes given means all others.
    pub train_classes: Option<ClassSelection>,
    /// Test classes; `None` with training classes given means all others.
    pub test_classes: Option<ClassSelection>,
}

/// A class-disjoint split: indices into [`Dataset::items`].
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// Training items.
    pub train: Vec<usize>,
    /// Test items.
    pub test: TestSet,
    /// How many classes the training items have.
    pub train_classes: usize,
    /// How many classes the test items have.
    pub test_classes: usize,
    /// One or more sentences: which rule split the data and what to mind.
    pub description: String,
}

/// The items that test.
#[derive(Debug, Clone, PartialEq)]
pub enum TestSet {
    /// Every item queries all the others.
    Single(Vec<usize>),
    /// Queries retrieve from the gallery only.
    QueryGallery {
        /// Items that query.
        query: Vec<usize>,
        /// Items that are retrieved.
        gallery: Vec<usize>,
    },
}

impl TestSet {
    /// All test items; queries before the gallery.
    #[must_use]
    pub fn items(&self) -> Vec<usize> {
        match self {
            Self::Single(items) => items.clone(),
            Self::QueryGallery { query, gallery } => query.iter().chain(gallery).copied().collect(),
        }
    }

    /// How many items.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Single(items) => items.len(),
            Self::QueryGallery { query, gallery } => query.len() + gallery.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Dataset {
    /// Splits the classes into training and test ones.
    ///
    /// 1. Classes given by number: the side not given takes all other classes.
    /// 2. Else the official lists, if they give both sides and share no class.
    /// 3. Else the first half of the classes in official order trains and the second half tests (CUB-200-2011 1-100 and
    ///    101-200, Cars196 1-98 and 99-196); an odd class goes to training.
    ///
    /// Where official lists keep queries and gallery apart, a test side chosen by 1 or 3 has only images of those lists.
    ///
    /// # Errors
    /// Class numbers that do not exist, classes on both sides, an empty side, and fewer than two classes on a side.
    pub fn split(&self, options: &SplitOptions) -> Result<Split, DataError> {
        if self.classes.len() < 2 {
            let count = self.classes.len();
            return Err(DataError::Unusable(format!(
                "{} has {count} class{}: metric learning needs at least two classes on each side of the split, because an \
                 embedding is learned from what tells classes apart; add a folder (or label) per class",
                self.root.display(),
                if count == 1 { "" } else { "es" },
            )));
        }
        let has = |wanted: &[Part]| self.items.iter().any(|item| wanted.contains(&item.part));
        let apart = has(&[Part::Query, Part::Gallery]);
        let official = has(&[Part::Train]) && has(&[Part::Test, Part::Query, Part::Gallery]);

        if options.train_classes.is_some() || options.test_classes.is_some() {
            let (train, test) = self.selected(options)?;
            let rule = match (&options.train_classes, &options.test_classes) {
                (Some(train), Some(test)) => format!("Classes {train} train and classes {test} test, as given."),
                (Some(train), None) => format!("Classes {train} train, as given, and all other classes test."),
                (None, Some(test)) => format!("Classes {test} test, as given, and all other classes train."),
                (None, None) => String::new(),
            };
            return self.by_classes(&train, &test, apart, rule);
        }
        if official {
            let classes = |wanted: &[Part]| -> BTreeSet<u32> {
                self.items
                    .iter()
                    .filter(|item| wanted.contains(&item.part))
                    .map(|item| item.class)
                    .collect()
            };
            let shared = classes(&[Part::Train])
                .intersection(&classes(&[Part::Test, Part::Query, Part::Gallery]))
                .count();
            if shared == 0 {
                return self.by_parts(apart);
            }
            let rule = format!(
                "The given lists train and test on {} common classes, which is not the zero-shot protocol, so they were not \
                 used.",
                thousands(shared)
            );
            return self.halves(apart, &rule);
        }
        self.halves(apart, "")
    }

    /// Class flags of both sides from the options.
    fn selected(&self, options: &SplitOptions) -> Result<(Vec<bool>, Vec<bool>), DataError> {
        let flags = |selection: &ClassSelection| -> Result<Vec<bool>, DataError> {
            for (first, last) in &selection.ranges {
                let inside = self
                    .classes
                    .iter()
                    .filter(|class| (*first..=*last).contains(&class.number))
                    .count();
                // Numbers may have gaps, so only the ends of a range must exist.
                let known = |number: &u32| self.classes.iter().any(|class| class.number == *number);
                if inside == 0 || !known(first) || !known(last) {
                    let numbers = self.classes.iter().map(|class| class.number);
                    let (low, high) = (numbers.clone().min().unwrap_or(0), numbers.max().unwrap_or(0));
                    let unknown = if known(first) { last } else { first };
                    return Err(DataError::Unusable(format!(
                        "class {unknown} of the selection `{selection}` does not exist: {} has {} classes with numbers from \
                         {low} to {high}",
                        self.root.display(),
                        thousands(self.classes.len())
                    )));
                }
            }
            Ok(self
                .classes
                .iter()
                .map(|class| selection.contains(class.number))
                .collect())
        };
        let others = |flags: &[bool]| flags.iter().map(|flag| !flag).collect::<Vec<bool>>();
        let (train, test) = match (&options.train_classes, &options.test_classes) {
            (Some(train), Some(test)) => (flags(train)?, flags(test)?),
            (Some(train), None) => {
                let train = flags(train)?;
                let test = others(&train);
                (train, test)
            }
            (None, Some(test)) => {
                let test = flags(test)?;
                (others(&test), test)
            }
            (None, None) => (vec![false; self.classes.len()], vec![false; self.classes.len()]),
        };
        let both: Vec<u32> = (0..self.classes.len())
            .filter(|class| train[*class] && test[*class])
            .map(|class| self.classes[class].number)
            .collect();
        if let Some(first) = both.first() {
            return Err(DataError::Unusable(format!(
                "{} classes, the first being {first}, are selected for training and for testing: the zero-shot protocol \
                 tests on classes never trained on, so the two selections must share no class",
                both.len()
            )));
        }
        Ok((train, test))
    }

    fn by_parts(&self, apart: bool) -> Result<Split, DataError> {
        let of = |wanted: Part| -> Vec<usize> {
            (0..self.items.len())
                .filter(|item| self.items[*item].part == wanted)
                .collect()
        };
        let test = if apart {
            TestSet::QueryGallery {
                query: of(Part::Query),
                gallery: of(Part::Gallery),
            }
        } else {
            TestSet::Single(of(Part::Test))
        };
        self.finish(
            of(Part::Train),
            test,
            "The official lists, which share no class.".to_owned(),
        )
    }

    fn halves(&self, apart: bool, before: &str) -> Result<Split, DataError> {
        let half = self.classes.len().div_ceil(2);
        let train: Vec<bool> = (0..self.classes.len()).map(|class| class < half).collect();
        let test = train.iter().map(|train| !train).collect::<Vec<bool>>();
        let rule = format!(
            "The first half of the classes trains ({} to {}) and the second half tests ({} to {}).",
            self.classes[0].number,
            self.classes[half - 1].number,
            self.classes[half].number,
            self.classes[self.classes.len() - 1].number
        );
        self.by_classes(&train, &test, apart, [before, &rule].join(" ").trim().to_owned())
    }

    fn by_classes(&self, train: &[bool], test: &[bool], apart: bool, rule: String) -> Result<Split, DataError> {
        let of = |flags: &[bool], parts: &dyn Fn(Part) -> bool| -> Vec<usize> {
            (0..self.items.len())
                .filter(|item| flags[self.items[*item].class as usize] && parts(self.items[*item].part))
                .collect()
        };
        let items = of(train, &|_| true);
        if !apart {
            return self.finish(items, TestSet::Single(of(test, &|_| true)), rule);
        }
        let query = of(test, &|part| part == Part::Query);
        let gallery = of(test, &|part| part == Part::Gallery);
        let left_out = of(test, &|part| !matches!(part, Part::Query | Part::Gallery)).len();
        let rule = if left_out > 0 {
            format!(
                "{rule} {} images of the test classes are neither query nor gallery and were left out.",
                thousands(left_out)
            )
        } else {
            rule
        };
        self.finish(items, TestSet::QueryGallery { query, gallery }, rule)
    }

    /// Counts and checks both sides.
    fn finish(&self, train: Vec<usize>, test: TestSet, mut description: String) -> Result<Split, DataError> {
        let sizes = |items: &[usize]| {
            let mut sizes = vec![0usize; self.classes.len()];
            for item in items {
                sizes[self.items[*item].class as usize] += 1;
            }
            sizes
        };
        let classes = |sizes: &[usize]| sizes.iter().filter(|size| **size > 0).count();
        let lonely = |sizes: &[usize]| sizes.iter().filter(|size| **size == 1).count();
        let train_sizes = sizes(&train);
        let test_sizes = sizes(&test.items());
        let (train_classes, test_classes) = (classes(&train_sizes), classes(&test_sizes));
        for (side, count) in [("training", train_classes), ("test", test_classes)] {
            if count < 2 {
                return Err(DataError::Unusable(format!(
                    "the {side} side of the split has {} ({} classes train, {} test): metric learning needs at least two \
                     classes on each side; choose others with --train-classes and --test-classes, or add classes",
                    if count == 0 { "no images" } else { "only one class" },
                    train_classes,
                    test_classes
                )));
            }
        }
        let single = lonely(&train_sizes);
        if single > 0 {
            description += &format!(
                " {} training classes have one image, so no positive pair.",
                thousands(single)
            );
        }
        match &test {
            TestSet::Single(_) => {
                let single = lonely(&test_sizes);
                if single > 0 {
                    description += &format!(
                        " {} test classes have one image, which can never be found.",
                        thousands(single)
                    );
                }
            }
            TestSet::QueryGallery { query, gallery } => {
                if query.is_empty() || gallery.is_empty() {
                    return Err(DataError::Unusable(format!(
                        "the test side has {} query and {} gallery images: both are needed",
                        thousands(query.len()),
                        thousands(gallery.len())
                    )));
                }
                let gallery_sizes = sizes(gallery);
                let lost = query
                    .iter()
                    .filter(|item| gallery_sizes[self.items[**item].class as usize] == 0)
                    .count();
                if lost > 0 {
                    description += &format!(
                        " {} queries have no image of their class in the gallery.",
                        thousands(lost)
                    );
                }
            }
        }
        Ok(Split {
            train,
            test,
            train_classes,
            test_classes,
            description,
        })
    }
}

/// Carves validation classes out of the training items: a seeded choice of whole classes, so that early stopping looks at
/// classes never trained on.
///
/// `fraction` of the classes (rounded, at least two) is held out, and at least two classes keep training; the order of
/// the items is kept. With `fraction` 0 (or not a number), or with fewer than four classes, nothing is held out and the
/// second list is empty.
///
/// # Panics
/// If an index is outside the data set.
#[must_use]
pub fn validation_split(train: &[usize], dataset: &Dataset, fraction: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let mut classes: Vec<u32> = train
        .iter()
        .map(|item| dataset.items[*item].class)
        .collect::<BTreeSet<u32>>()
        .into_iter()
        .collect();
    if fraction.is_nan() || fraction <= 0.0 || classes.len() < 4 {
        return (train.to_vec(), Vec::new());
    }
    let held = ((classes.len() as f64 * fraction).round() as usize).clamp(2, classes.len() - 2);
    classes.shuffle(&mut stream(seed, &[purpose::VALIDATION]));
    let held: BTreeSet<u32> = classes[..held].iter().copied().collect();
    train
        .iter()
        .partition(|item| !held.contains(&dataset.items[**item].class))
}

/// One of several folds of the training classes, written `2/4`: the second of four.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClassFold {
    /// Number from 1.
    pub number: usize,
    /// How many folds there are.
    pub of: usize,
}

impl TryFrom<String> for ClassFold {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let fold = text
            .split_once('/')
            .and_then(|(number, of)| Some((number.trim().parse().ok()?, of.trim().parse().ok()?)));
        match fold {
            Some((number, of)) if of >= 2 && (1..=of).contains(&number) => Ok(Self { number, of }),
            _ => Err(format!(
                "fold `{text}`: expected the number of a fold and how many there are, such as 2/4"
            )),
        }
    }
}

impl From<ClassFold> for String {
    fn from(fold: ClassFold) -> Self {
        format!("{}/{}", fold.number, fold.of)
    }
}

/// Holds out one fold of the training classes: classes in a seeded order are dealt to the folds in turn, so that with one seed every
/// class validates in exactly one of them, and folds differ by one class at most. The order of the items is kept.
///
/// # Errors
/// If a fold would have fewer than two classes.
///
/// # Panics
/// If an index is outside the data set.
pub fn fold_split(
    train: &[usize],
    dataset: &Dataset,
    fold: ClassFold,
    seed: u64,
) -> Result<(Vec<usize>, Vec<usize>), DataError> {
    let class = |item: &usize| dataset.items[*item].class;
    let classes: BTreeSet<u32> = train.iter().map(class).collect();
    let mut classes: Vec<u32> = classes.into_iter().collect();
    if classes.len() < 2 * fold.of {
        return Err(DataError::Unusable(format!(
            "{} training classes make no {} folds of two or more classes each: use fewer folds",
            classes.len(),
            fold.of
        )));
    }
    classes.shuffle(&mut stream(seed, &[purpose::VALIDATION, 2]));
    let held: BTreeSet<u32> = classes.into_iter().skip(fold.number - 1).step_by(fold.of).collect();
    Ok(train.iter().partition(|item| !held.contains(&class(item))))
}

/// Whole classes in a seeded order until they hold at least `count` of the items (all items where `count` is 0): a part of them
/// that can be measured often, in which nobody loses the members of its class. The order of the items is kept.
///
/// # Panics
/// If an index is outside the data set.
#[must_use]
pub fn whole_classes(items: &[usize], dataset: &Dataset, count: usize, seed: u64) -> Vec<usize> {
    let class = |item: &usize| dataset.items[*item].class;
    let mut sizes: BTreeMap<u32, usize> = BTreeMap::new();
    for item in items {
        *sizes.entry(class(item)).or_default() += 1;
    }
    if count == 0 || count >= items.len() {
        return items.to_vec();
    }
    let mut classes: Vec<(u32, usize)> = sizes.into_iter().collect();
    classes.shuffle(&mut stream(seed, &[purpose::VALIDATION, 1]));
    let mut held = 0;
    let enough = |&(class, size): &(u32, usize)| {
        let wanted = held < count;
        held += size;
        wanted.then_some(class)
    };
    let kept: BTreeSet<u32> = classes.iter().map_while(enough).collect();
    items
        .iter()
        .copied()
        .filter(|item| kept.contains(&class(item)))
        .collect()
}

/// Labels of items counted from 0 without gaps, in the order of the classes; and the class of each label.
///
/// # Panics
/// If an index is outside the data set.
#[must_use]
pub fn dense_labels(items: &[usize], dataset: &Dataset) -> (Vec<u32>, Vec<u32>) {
    let mut label_of: Vec<Option<u32>> = vec![None; dataset.classes.len()];
    for item in items {
        label_of[dataset.items[*item].class as usize] = Some(0);
    }
    let mut classes = Vec::new();
    for (class, label) in (0u32..).zip(label_of.iter_mut()) {
        if let Some(label) = label {
            *label = classes.len() as u32;
            classes.push(class);
        }
    }
    // Every class of an item was marked above, so the default is never taken.
    let labels = items
        .iter()
        .map(|item| label_of[dataset.items[*item].class as usize].unwrap_or_default())
        .collect();
    (labels, classes)
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
