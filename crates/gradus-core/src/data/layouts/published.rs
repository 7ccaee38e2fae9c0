//! Published counts of the benchmarks, and differences from them in words.

use crate::data::dataset::{Dataset, Part};

/// Counts of one side of a protocol.
pub(super) struct Side {
    pub(super) name: &'static str,
    pub(super) images: usize,
    pub(super) classes: usize,
    pub(super) holds: fn(number: u32, part: Part) -> bool,
}

/// Published counts of a data set.
pub(super) struct Published {
    pub(super) name: &'static str,
    pub(super) images: usize,
    pub(super) classes: usize,
    pub(super) sides: &'static [Side],
    /// Well-known other counts (images, classes) and what they mean.
    pub(super) known: &'static [(usize, usize, &'static str)],
}

/// CUB-200-2011 (Wah et al. 2011), counts of the class-disjoint protocol.
pub(super) static CUB: Published = Published {
    name: "CUB-200-2011",
    images: 11_788,
    classes: 200,
    sides: &[
        Side {
            name: "classes 1-100",
            images: 5_864,
            classes: 100,
            holds: |number, _| number <= 100,
        },
        Side {
            name: "classes 101-200",
            images: 5_924,
            classes: 100,
            holds: |number, _| number > 100,
        },
    ],
    known: &[
        (
            5_994,
            200,
            "these are the closed-set training images (train_test_split.txt = 1) only",
        ),
        (
            5_794,
            200,
            "these are the closed-set test images (train_test_split.txt = 0) only",
        ),
        (
            5_864,
            100,
            "this is the training half of the class-disjoint protocol (classes 1-100) only",
        ),
        (
            5_924,
            100,
            "this is the test half of the class-disjoint protocol (classes 101-200) only",
        ),
    ],
};

/// Cars196 (Krause et al. 2013), counts of the class-disjoint protocol.
pub(super) static CARS: Published = Published {
    name: "Cars196",
    images: 16_185,
    classes: 196,
    sides: &[
        Side {
            name: "classes 1-98",
            images: 8_054,
            classes: 98,
            holds: |number, _| number <= 98,
        },
        Side {
            name: "classes 99-196",
            images: 8_131,
            classes: 98,
            holds: |number, _| number > 98,
        },
    ],
    known: &[
        (
            8_144,
            196,
            "this is the closed-set Cars196 training split (test=0) only; its 8,041 test images are not here",
        ),
        (
            8_041,
            196,
            "this is the closed-set Cars196 test split (test=1) only; its 8,144 training images are not here",
        ),
        (
            8_054,
            98,
            "this is the training half of the class-disjoint protocol (classes 1-98) only",
        ),
        (
            8_131,
            98,
            "this is the test half of the class-disjoint protocol (classes 99-196) only",
        ),
    ],
};

/// Stanford Online Products (Oh Song et al. 2016).
pub(super) static SOP: Published = Published {
    name: "Stanford Online Products",
    images: 120_053,
    classes: 22_634,
    sides: &[
        Side {
            name: "Ebay_train.txt",
            images: 59_551,
            classes: 11_318,
            holds: |_, part| part == Part::Train,
        },
        Side {
            name: "Ebay_test.txt",
            images: 60_502,
            classes: 11_316,
            holds: |_, part| part == Part::Test,
        },
    ],
    known: &[],
};

/// In-Shop Clothes Retrieval (Liu et al. 2016, DeepFashion).
pub(super) static IN_SHOP: Published = Published {
    name: "In-Shop",
    images: 52_712,
    classes: 7_982,
    sides: &[
        Side {
            name: "train",
            images: 25_882,
            classes: 3_997,
            holds: |_, part| part == Part::Train,
        },
        Side {
            name: "query",
            images: 14_218,
            classes: 3_985,
            holds: |_, part| part == Part::Query,
        },
        Side {
            name: "gallery",
            images: 12_612,
            classes: 3_985,
            holds: |_, part| part == Part::Gallery,
        },
    ],
    known: &[],
};

/// Omniglot (Lake et al. 2015).
pub(super) static OMNIGLOT: Published = Published {
    name: "Omniglot",
    images: 32_460,
    classes: 1_623,
    sides: &[
        Side {
            name: "background",
            images: 19_280,
            classes: 964,
            holds: |_, part| part == Part::Train,
        },
        Side {
            name: "evaluation",
            images: 13_180,
            classes: 659,
            holds: |_, part| part == Part::Test,
        },
    ],
    known: &[
        (
            19_280,
            964,
            "this is the background part only (30 alphabets); the evaluation part is not here",
        ),
        (
            13_180,
            659,
            "this is the evaluation part only (20 alphabets); the background part is not here",
        ),
        (2_720, 136, "this is one of the small background sets (5 alphabets)"),
    ],
};

/// COIL-20 (Nene, Nayar and Murase 1996).
pub(super) static COIL20: Published = Published {
    name: "COIL-20",
    images: 1_440,
    classes: 20,
    sides: &[],
    known: &[],
};

/// COIL-100 (Nene, Nayar and Murase 1996).
pub(super) static COIL100: Published = Published {
    name: "COIL-100",
    images: 7_200,
    classes: 100,
    sides: &[],
    known: &[],
};

impl Published {
    /// Compares a data set with the published counts and adds one note that says how they agree or why they differ.
    pub(super) fn note(&self, dataset: &mut Dataset) {
        let note = self.compare(dataset);
        dataset.notes.insert(0, note);
    }

    fn compare(&self, dataset: &Dataset) -> String {
        let (images, classes) = (dataset.items.len(), dataset.classes.len());
        let found = format!("{} images of {} classes", thousands(images), thousands(classes));
        let published = format!(
            "{} images of {} classes",
            thousands(self.images),
            thousands(self.classes)
        );
        let sides: Vec<(usize, usize)> = self.sides.iter().map(|side| count(dataset, side.holds)).collect();
        if images == self.images && classes == self.classes {
            let wrong = self
                .sides
                .iter()
                .zip(&sides)
                .find(|(side, found)| (side.images, side.classes) != **found);
            if let Some((side, (found_images, found_classes))) = wrong {
                return format!(
                    "The total ({found}) is the published one of {}, but {} holds {} images of {} classes instead of {} of \
                     {}: the classes are numbered or listed differently, so results are not comparable with published ones.",
                    self.name,
                    side.name,
                    thousands(*found_images),
                    thousands(*found_classes),
                    thousands(side.images),
                    thousands(side.classes)
                );
            }
            let listed: Vec<String> = self
                .sides
                .iter()
                .map(|side| {
                    format!(
                        "{} images of {} classes in {}",
                        thousands(side.images),
                        thousands(side.classes),
                        side.name
                    )
                })
                .collect();
            let listed = if listed.is_empty() {
                String::new()
            } else {
                format!(" ({})", listed.join(", "))
            };
            return format!("The counts match the published ones of {}: {found}{listed}.", self.name);
        }
        if let Some((_, _, words)) = self.known.iter().find(|(i, c, _)| (*i, *c) == (images, classes)) {
            return format!("{found}: {words}. The whole of {} has {published}.", self.name);
        }
        if images > self.images || classes > self.classes {
            return format!(
                "{found}, more than the published {published} of {}: this is another version, or other data in the same \
                 file format.",
                self.name
            );
        }
        let share = if classes < self.classes {
            format!("{} of its {} classes", thousands(classes), thousands(self.classes))
        } else {
            format!("all {} classes, but only some of the images", thousands(classes))
        };
        format!(
            "{found}: a subset of {} ({share}), which has {published}, or other data in the same file format; results are \
             not comparable with published ones.",
            self.name
        )
    }
}

/// Images and classes of the items one side holds.
fn count(dataset: &Dataset, holds: fn(u32, Part) -> bool) -> (usize, usize) {
    let mut seen = vec![false; dataset.classes.len()];
    let mut images = 0;
    for item in &dataset.items {
        if holds(dataset.classes[item.class as usize].number, item.part) {
            images += 1;
            seen[item.class as usize] = true;
        }
    }
    (images, seen.into_iter().filter(|seen| *seen).count())
}

/// A count with commas between groups of three digits.
pub(in crate::data) fn thousands(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
