//! `flora`: fine-grained plants drawn by gradus itself, with the truth about what varies inside each class.
//!
//! A class is a [`Species`]: number and form of petals, colours, pattern, centre, leaves. Inside a class four known
//! continuous [`Factors`] vary (rotation and direction of light, both circular; tilt; growth), and [`Nuisance`] that
//! means nothing: background, position, size, hue, brightness, neighbours, noise. Nothing is downloaded: a data set is a
//! pure function of its [`FloraConfig`], so order preservation can be measured against the truth on any machine.
//!
//! Species `s` and its image `i` are the same whatever the numbers of species and images.

mod background;
mod canvas;
mod colour;
mod draw;
mod factors;
mod leaf;
mod petal;
mod pose;
mod sheet;
mod species;
mod write;

use std::path::PathBuf;
use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use colour::Hsv;
pub use draw::render;
pub use factors::{Factors, MAX_TILT_DEG, Nuisance};
pub use sheet::{contact_sheet, factor_sheet};
pub use species::{Centre, LeafForm, Marking, Species};
pub use write::{FACTORS_FILE, write};

use super::{Class, DataError, Dataset, Item, Layout, Part, Source};

/// Smallest width and height of a picture.
pub const MIN_SIZE: u32 = 16;
/// Largest width and height of a picture.
pub const MAX_SIZE: u32 = 512;
/// All pictures are held in memory: this many bytes are accepted.
const MAX_BYTES: u64 = 4 << 30;

/// What to draw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct FloraConfig {
    /// Number of species (classes), at least 2; 60 by default.
    pub species: u32,
    /// Number of images of each species, at least 1; 30 by default.
    pub images: u32,
    /// Width and height of the images in pixels, 16 to 512; 64 by default.
    pub size: u32,
    /// Seed of everything; 0 by default.
    pub seed: u64,
}

impl Default for FloraConfig {
    fn default() -> Self {
        Self {
            species: 60,
            images: 30,
            size: 64,
            seed: 0,
        }
    }
}

impl FloraConfig {
    /// Checks the numbers.
    ///
    /// # Errors
    /// [`DataError::Unusable`] names the number that is out of its range.
    pub fn validate(&self) -> Result<(), DataError> {
        let refuse = |problem: String| Err(DataError::Unusable(problem));
        if self.species < 2 {
            return refuse(format!(
                "flora cannot be drawn with species = {}: telling species apart needs at least 2",
                self.species
            ));
        }
        if self.images < 1 {
            return refuse("flora cannot be drawn with images = 0: each species needs at least 1 image".to_owned());
        }
        if !(MIN_SIZE..=MAX_SIZE).contains(&self.size) {
            return refuse(format!(
                "flora cannot be drawn with size = {}: images are {MIN_SIZE} to {MAX_SIZE} pixels wide",
                self.size
            ));
        }
        let bytes = u128::from(self.species) * u128::from(self.images) * u128::from(self.size).pow(2) * 3;
        if bytes > u128::from(MAX_BYTES) {
            return refuse(format!(
                "flora with {} species, {} images each and size {} needs {:.1} GiB of memory, more than the {} GiB \
                 accepted: ask for fewer or smaller images",
                self.species,
                self.images,
                self.size,
                bytes as f64 / f64::from(1 << 30),
                MAX_BYTES >> 30
            ));
        }
        Ok(())
    }
}

/// Draws a data set, in parallel; the result does not depend on the number of threads.
///
/// Items are sorted by species, then by image, and belong to no part: a split by classes trains on the first half of the
/// species and tests on the others.
///
/// # Errors
/// Those of [`FloraConfig::validate`].
///
/// ```
/// use gradus_core::data::flora::{FloraConfig, generate};
/// let flora = generate(&FloraConfig { species: 2, images: 3, size: 16, seed: 7 })?;
/// assert_eq!((flora.classes.len(), flora.items.len()), (2, 6));
/// assert_eq!(flora.factors[0].name, "rotation_deg");
/// # Ok::<(), gradus_core::data::DataError>(())
/// ```
pub fn generate(config: &FloraConfig) -> Result<Dataset, DataError> {
    config.validate()?;
    let classes: Vec<Class> = (1..=config.species)
        .map(|number| Class {
            name: class_name(number, config.species),
            number,
            coarse: None,
        })
        .collect();
    let species: Vec<Species> = (1..=config.species)
        .map(|number| Species::draw(config.seed, number))
        .collect();
    let count = u64::from(config.species) * u64::from(config.images);
    let items = (0..count)
        .into_par_iter()
        .map(|index| {
            let class = (index / u64::from(config.images)) as u32;
            let image = (index % u64::from(config.images)) as u32 + 1;
            let factors = Factors::draw(config.seed, class + 1, image);
            let nuisance = Nuisance::draw(config.seed, class + 1, image);
            let pixels = render(&species[class as usize], &factors, &nuisance, config.size);
            let name = format!(
                "{}/{:0width$}.png",
                classes[class as usize].name,
                image,
                width = digits(config.images, 4)
            );
            Item {
                source: Source::Drawn {
                    name,
                    pixels: Arc::new(pixels),
                },
                class,
                part: Part::Unassigned,
                factors: factors.values(),
            }
        })
        .collect();
    Ok(Dataset {
        layout: Layout::Flora,
        root: PathBuf::from("flora"),
        items,
        classes,
        factors: Factors::described(),
        notes: Vec::new(),
    })
}

/// Padded with zeros, so that sorting by name is sorting by number.
fn class_name(number: u32, largest: u32) -> String {
    format!("species_{number:0width$}", width = digits(largest, 3))
}

fn digits(largest: u32, at_least: usize) -> usize {
    largest.to_string().len().max(at_least)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(seed: u64) -> FloraConfig {
        FloraConfig {
            species: 4,
            images: 3,
            size: 32,
            seed,
        }
    }

    fn pixels(item: &Item) -> &image::RgbImage {
        match &item.source {
            Source::Drawn { pixels, .. } => pixels,
            other => panic!("{} is not drawn", other.name()),
        }
    }

    fn bytes(dataset: &Dataset) -> Vec<u8> {
        dataset
            .items
            .iter()
            .flat_map(|item| pixels(item).as_raw().clone())
            .collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
        let (first, again, other) = (generate(&small(1)), generate(&small(1)), generate(&small(2)));
        let (first, again, other) = (first.unwrap(), again.unwrap(), other.unwrap());
        assert_eq!(bytes(&first), bytes(&again));
        assert_ne!(bytes(&first), bytes(&other));
        for (a, b) in first.items.iter().zip(&other.items) {
            assert_ne!(pixels(a), pixels(b));
            assert_ne!(a.factors, b.factors);
        }
    }

    #[test]
    fn the_number_of_threads_does_not_matter() {
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| bytes(&generate(&small(5)).unwrap()))
        };
        assert_eq!(with(1), with(7));
    }

    #[test]
    fn a_larger_data_set_contains_the_smaller_one() {
        let (few, many) = (
            small(3),
            FloraConfig {
                species: 6,
                images: 5,
                ..small(3)
            },
        );
        let (few, many) = (generate(&few).unwrap(), generate(&many).unwrap());
        for item in &few.items {
            let name = item.source.name();
            let same = many.items.iter().find(|other| other.source.name() == name).unwrap();
            assert!(
                pixels(item) == pixels(same) && item.factors == same.factors,
                "{name} differs"
            );
        }
    }

    #[test]
    fn items_are_complete() {
        let flora = generate(&small(0)).unwrap();
        assert_eq!(flora.layout, Layout::Flora);
        assert_eq!(
            flora.classes.iter().map(|class| class.number).collect::<Vec<_>>(),
            [1, 2, 3, 4]
        );
        assert_eq!(flora.items[4].source.name(), "species_002/0002.png");
        assert_eq!(
            flora.items.iter().map(|item| item.class).collect::<Vec<_>>(),
            [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
        );
        assert!(
            flora
                .items
                .iter()
                .all(|item| item.part == Part::Unassigned && item.factors.len() == 4)
        );
        assert!(flora.items.iter().all(|item| pixels(item).dimensions() == (32, 32)));
        assert_eq!(
            flora.factors.iter().map(|factor| factor.period).collect::<Vec<_>>(),
            [Some(360.0), None, Some(360.0), None]
        );
    }

    #[test]
    fn impossible_numbers_are_refused_by_name() {
        let default = FloraConfig::default;
        for (config, word) in [
            (
                FloraConfig {
                    species: 1,
                    ..default()
                },
                "species = 1",
            ),
            (FloraConfig { images: 0, ..default() }, "images = 0"),
            (FloraConfig { size: 15, ..default() }, "size = 15"),
            (FloraConfig { size: 513, ..default() }, "size = 513"),
            (
                FloraConfig {
                    species: u32::MAX,
                    images: u32::MAX,
                    size: 512,
                    seed: 0,
                },
                "memory",
            ),
        ] {
            let message = generate(&config).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
        assert!(serde_json::from_str::<FloraConfig>(r#"{"specie": 3}"#).is_err());
        let read: FloraConfig = serde_json::from_str(r#"{"species": 3}"#).unwrap();
        assert_eq!(
            read,
            FloraConfig {
                species: 3,
                ..default()
            }
        );
    }

    #[test]
    fn names_sort_like_numbers() {
        assert_eq!(class_name(17, 60), "species_017");
        assert_eq!(class_name(17, 12_000), "species_00017");
    }

    /// Squared distances between all rows.
    fn distances(rows: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| (x - y).powi(2)).sum::<f32>();
        rows.par_iter()
            .map(|a| rows.iter().map(|b| distance(a, b)).collect())
            .collect()
    }

    fn recall_at_1(rows: &[Vec<f32>], classes: &[u32]) -> f32 {
        let distances = distances(rows);
        let hits = (0..rows.len()).filter(|&query| {
            let nearest = (0..rows.len())
                .filter(|&other| other != query)
                .min_by(|&a, &b| distances[query][a].total_cmp(&distances[query][b]));
            nearest.is_some_and(|nearest| classes[nearest] == classes[query])
        });
        hits.count() as f32 / rows.len() as f32
    }

    fn ranks(values: &[f32]) -> Vec<f32> {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
        let mut ranks = vec![0.0; values.len()];
        order
            .into_iter()
            .enumerate()
            .for_each(|(rank, index)| ranks[index] = rank as f32);
        ranks
    }

    fn spearman(a: &[f32], b: &[f32]) -> f32 {
        let (a, b) = (ranks(a), ranks(b));
        let mean = (a.len() as f32 - 1.0) / 2.0;
        let product = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| (x - mean) * (y - mean)).sum::<f32>();
        product(&a, &b) / (product(&a, &a) * product(&b, &b)).sqrt()
    }

    /// Averages each picture to 16 x 16 pixels.
    fn coarse(picture: &image::RgbImage) -> Vec<f32> {
        let cell = picture.width() / 16;
        let mut means = vec![0.0; 16 * 16 * 3];
        for (x, y, pixel) in picture.enumerate_pixels() {
            for (channel, value) in pixel.0.iter().enumerate() {
                let at = ((y / cell * 16 + x / cell) * 3) as usize + channel;
                means[at] += f32::from(*value) / (255 * cell * cell) as f32;
            }
        }
        means
    }

    /// Counts of coarse colours in the middle of the picture, square roots: blind to place, so to most of the nuisance.
    fn colours(picture: &image::RgbImage) -> Vec<f32> {
        let mut counts = vec![0.0f32; 216];
        for (x, y, pixel) in picture.enumerate_pixels() {
            if (8..56).contains(&x) && (8..56).contains(&y) {
                let [red, green, blue] = pixel.0.map(|value| usize::from(value) * 6 / 256);
                counts[red * 36 + green * 6 + blue] += 1.0;
            }
        }
        counts.into_iter().map(f32::sqrt).collect()
    }

    #[test]
    fn raw_pixels_fail_on_unseen_species_but_invariant_features_and_order_are_there() {
        let config = FloraConfig::default();
        let unseen: Vec<(u32, u32)> = (31..=60)
            .flat_map(|s| (1..=config.images).map(move |image| (s, image)))
            .collect();
        let pictures: Vec<image::RgbImage> = unseen
            .par_iter()
            .map(|&(number, image)| {
                let (factors, nuisance) = (Factors::draw(0, number, image), Nuisance::draw(0, number, image));
                render(&Species::draw(0, number), &factors, &nuisance, config.size)
            })
            .collect();
        let classes: Vec<u32> = unseen.iter().map(|pair| pair.0).collect();
        let pixels: Vec<Vec<f32>> = pictures.iter().map(coarse).collect();
        let raw = recall_at_1(&pixels, &classes);
        assert!(raw < 0.35, "16 x 16 pixels reach Recall@1 {raw}: too easy");
        assert!(raw > 0.10, "16 x 16 pixels reach only Recall@1 {raw}: chance is 0.03");
        let invariant = recall_at_1(&pictures.iter().map(colours).collect::<Vec<_>>(), &classes);
        assert!(
            invariant > 0.55,
            "colours reach only Recall@1 {invariant}: species cannot be told apart"
        );

        // Even raw pixels are nearer when a factor is nearer, for every factor.
        let mut order = [0.0f32; 4];
        for class in 31..=60 {
            let members: Vec<usize> = (0..unseen.len()).filter(|&index| classes[index] == class).collect();
            let rows: Vec<Vec<f32>> = members.iter().map(|&index| pixels[index].clone()).collect();
            let values: Vec<Vec<f32>> = members
                .iter()
                .map(|&index| Factors::draw(0, class, unseen[index].1).values())
                .collect();
            for (query, row) in distances(&rows).iter().enumerate() {
                let others = || (0..rows.len()).filter(move |&other| other != query);
                let apart: Vec<f32> = others().map(|other| row[other]).collect();
                for (factor, described) in Factors::described().iter().enumerate() {
                    let truth: Vec<f32> = others()
                        .map(|other| {
                            let plain = (values[other][factor] - values[query][factor]).abs();
                            described.period.map_or(plain, |period| plain.min(period - plain))
                        })
                        .collect();
                    order[factor] += spearman(&apart, &truth) / unseen.len() as f32;
                }
            }
        }
        assert!(
            order.iter().all(|&mean| mean > 0.02),
            "order preserved by pixels: {order:?}"
        );
    }
}
