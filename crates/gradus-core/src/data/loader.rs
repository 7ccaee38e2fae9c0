//! Host batches from worker threads, in sampler order.
//!
//! Workers share the images of a batch, so that one slow image holds up one thread, and write each view straight to its
//! place in the batch: a view of 224 pixels is 600 KB, and writing it twice costs as much as decoding a photograph. Each
//! view is a pure function of (seed, epoch, item, view), so the number of threads changes nothing but the time. Workers
//! stop `prefetch` batches ahead of the consumer, which bounds memory.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

pub use super::cache::{DEFAULT_CACHE_LIMIT, DecodedCache};
use super::dataset::Item;
use super::image::{Decoding, ImageError, decode_as};
use super::transform::Transform;
use crate::random::{derive, purpose};

/// Which views of the items are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Random views, different in every epoch.
    Train {
        /// The epoch, counted from 0.
        epoch: u64,
        /// With `Some(n)`, also the graded views of levels 1 to `n` ([`Transform::graded`]).
        graded_levels: Option<usize>,
    },
    /// The one evaluation view.
    Evaluate,
}

/// Settings of a [`Loader`].
#[derive(Debug, Clone)]
pub struct LoaderOptions {
    /// Worker threads; 0 makes every batch in the caller's thread when it is asked for (default: all cores).
    pub threads: usize,
    /// Batches made ahead of the one being used (default 2).
    pub prefetch: usize,
    /// Batches at the start that were used before and are not made again (default 0): a resumed epoch hands in all of its
    /// batches, so that the views of repeated items are those of an epoch that was not interrupted.
    pub skip: usize,
    /// Seed of all views (default 0).
    pub seed: u64,
    /// Which views are made (default: evaluation).
    pub mode: Mode,
    /// How files become pixels where there is no `cache`, which knows its own way.
    pub decoding: Decoding,
    /// Decoded images kept between epochs (default: none kept). It must belong to the same items.
    pub cache: Option<Arc<DecodedCache>>,
}

impl Default for LoaderOptions {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            prefetch: 2,
            skip: 0,
            seed: 0,
            mode: Mode::Evaluate,
            decoding: Decoding::default(),
            cache: None,
        }
    }
}

/// A batch of views in host memory.
#[derive(Debug, Clone, PartialEq)]
pub struct HostBatch {
    /// `[batch, 3, size, size]`, normalised.
    pub images: Vec<f32>,
    /// `[batch, levels, 3, size, size]`, normalised; only when graded levels are asked for.
    pub graded: Option<Vec<f32>>,
    /// Which item each view shows, in sampler order.
    pub items: Vec<usize>,
    /// Edge of the views in pixels.
    pub size: usize,
}

/// Why a batch could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoaderError {
    /// An image could not be decoded.
    #[error("an image of the batch cannot be used: {0}")]
    Image(#[from] ImageError),
    /// A batch names an item that does not exist.
    #[error("a batch asks for item {item}, but there are only {count} items")]
    NoSuchItem {
        /// The position asked for.
        item: usize,
        /// Number of items.
        count: usize,
    },
    /// Making a view failed in a way that is a mistake in gradus.
    #[error("{name}: making a view of this image failed; please report it with the image")]
    View {
        /// Which image.
        name: String,
    },
}

/// The seed of a view: of item `item` in an epoch, the `view`-th time it occurs in that epoch, counted from 0.
#[must_use]
pub fn view_seed(seed: u64, epoch: u64, item: usize, view: u64) -> u64 {
    derive(seed, &[purpose::AUGMENT, epoch, item as u64, view])
}

/// Iterates over the batches of an epoch, made by worker threads; ends after the first error.
///
/// Dropping it early stops the workers.
#[derive(Debug)]
pub struct Loader {
    shared: Arc<Shared>,
    /// `None`: the consumer makes the batches itself.
    pool: Option<ThreadPool>,
    /// Batches being made or waiting to be taken, in order.
    begun: VecDeque<Receiver<Result<HostBatch, LoaderError>>>,
    /// Batches handed out.
    delivered: usize,
}

/// What the workers and the consumer share.
#[derive(Debug)]
struct Shared {
    items: Arc<[Item]>,
    batches: Vec<Vec<usize>>,
    /// How often each place's item occurred in earlier places of the epoch: repeats get views of their own.
    occurrences: Vec<Vec<u64>>,
    transform: Transform,
    options: LoaderOptions,
    stopped: AtomicBool,
}

/// A place of a batch and its memory.
#[derive(Debug)]
struct Place<'a> {
    item: usize,
    occurrence: u64,
    image: &'a mut [f32],
    /// The levels behind one another; empty where none are asked for.
    graded: &'a mut [f32],
}

impl Loader {
    /// Starts making `batches` (positions in `items`) with the given transform.
    #[must_use]
    pub fn start(
        items: Arc<[Item]>,
        mut batches: Vec<Vec<usize>>,
        transform: Transform,
        options: LoaderOptions,
    ) -> Self {
        let mut times: HashMap<usize, u64> = HashMap::new();
        let mut occurrences: Vec<Vec<u64>> = batches
            .iter()
            .map(|batch| {
                let mut count = |item: &usize| {
                    let entry = times.entry(*item).or_insert(0);
                    *entry += 1;
                    *entry - 1
                };
                batch.iter().map(&mut count).collect()
            })
            .collect();
        let skip = options.skip.min(batches.len());
        batches.drain(..skip);
        occurrences.drain(..skip);
        let threads = options.threads.min(batches.iter().map(Vec::len).sum());
        // Where threads cannot be started, the consumer does the work.
        let pool = (threads > 0)
            .then(|| ThreadPoolBuilder::new().num_threads(threads))
            .and_then(|builder| {
                builder
                    .thread_name(|number| format!("gradus-loader-{number}"))
                    .build()
                    .ok()
            });
        let shared = Shared {
            items,
            batches,
            occurrences,
            transform,
            options,
            stopped: AtomicBool::new(false),
        };
        let mut loader = Self {
            shared: Arc::new(shared),
            pool,
            begun: VecDeque::new(),
            delivered: 0,
        };
        loader.begin(loader.shared.options.prefetch);
        loader
    }

    /// Number of batches not yet handed out.
    #[must_use]
    pub fn remaining(&self) -> usize {
        if self.shared.is_stopped() {
            0
        } else {
            self.shared.batches.len() - self.delivered
        }
    }

    /// Lets the workers begin batches until `ahead` of them are not handed out yet.
    fn begin(&mut self, ahead: usize) {
        let Some(pool) = &self.pool else { return };
        while self.begun.len() < ahead && self.delivered + self.begun.len() < self.shared.batches.len() {
            let (sender, receiver) = sync_channel(1);
            let (shared, number) = (Arc::clone(&self.shared), self.delivered + self.begun.len());
            pool.spawn(move || {
                // The consumer may have gone.
                let _ = sender.send(shared.make(number, true));
            });
            self.begun.push_back(receiver);
        }
    }
}

impl Iterator for Loader {
    type Item = Result<HostBatch, LoaderError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.remaining() == 0 {
            return None;
        }
        self.begin(self.shared.options.prefetch.saturating_add(1));
        let batch = match self.begun.pop_front() {
            // A batch is always sent: nothing that can panic is outside of `catch_unwind`.
            Some(batch) => batch.recv().ok()?,
            None => self.shared.make(self.delivered, false),
        };
        self.delivered += 1;
        if batch.is_err() {
            self.shared.stopped.store(true, Ordering::Relaxed);
        }
        Some(batch)
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        for batch in self.begun.drain(..) {
            // Ends with the images that are being decoded.
            let _ = batch.recv();
        }
    }
}

impl Shared {
    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Makes a batch, every view in its place of the batch's memory; the first failed place decides the error.
    fn make(&self, number: usize, in_parallel: bool) -> Result<HostBatch, LoaderError> {
        let items = self.batches[number].clone();
        let view = self.transform.view_len();
        let levels = match self.options.mode {
            Mode::Train { graded_levels, .. } => graded_levels,
            Mode::Evaluate => None,
        };
        let mut images = vec![0.0; items.len() * view];
        let mut graded = levels.map(|levels| vec![0.0; items.len() * levels * view]);
        let mut rest = graded.as_deref_mut().unwrap_or_default();
        let places: Vec<Place<'_>> = images
            .chunks_exact_mut(view)
            .zip(items.iter().zip(&self.occurrences[number]))
            .map(|(image, (&item, &occurrence))| {
                let (graded, behind) = std::mem::take(&mut rest).split_at_mut(levels.unwrap_or(0) * view);
                rest = behind;
                Place {
                    item,
                    occurrence,
                    image,
                    graded,
                }
            })
            .collect();
        let problem = if in_parallel {
            let places = places.into_par_iter().with_max_len(1);
            places.find_map_first(|place| self.fill(place).err())
        } else {
            places.into_iter().find_map(|place| self.fill(place).err())
        };
        match problem {
            Some(problem) => Err(problem),
            None => Ok(HostBatch {
                images,
                graded,
                items,
                size: self.transform.size(),
            }),
        }
    }

    /// Makes the views of a place.
    fn fill(&self, place: Place<'_>) -> Result<(), LoaderError> {
        if self.is_stopped() {
            return Ok(());
        }
        let Place { item, occurrence, .. } = place;
        let count = self.items.len();
        let source = &self
            .items
            .get(item)
            .ok_or(LoaderError::NoSuchItem { item, count })?
            .source;
        let pixels = match &self.options.cache {
            Some(cache) => cache.get(item, source)?,
            None => decode_as(source, self.options.decoding)?,
        };
        // A panic here would otherwise leave the consumer without its batch.
        let made = catch_unwind(AssertUnwindSafe(|| match self.options.mode {
            Mode::Evaluate => self.transform.evaluate_into(&pixels, place.image),
            Mode::Train { epoch, .. } => {
                let seed = view_seed(self.options.seed, epoch, item, occurrence);
                self.transform.train_into(&pixels, seed, place.image);
                let levels = place.graded.chunks_exact_mut(self.transform.view_len());
                for (level, graded) in levels.enumerate() {
                    self.transform.graded_into(&pixels, level + 1, seed, graded);
                }
            }
        }));
        made.map_err(|_| LoaderError::View { name: source.name() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::transform::TransformConfig;
    use crate::data::{Part, Source};
    use crate::samplers::{BatchSampler, MPerClassConfig, SamplerInput};
    use image::RgbImage;
    use std::io::Cursor;
    use std::time::Duration;

    fn picture(number: usize) -> RgbImage {
        let shade = (number * 37 % 200) as u8;
        RgbImage::from_fn(24 + number as u32 % 5, 20, |x, y| {
            image::Rgb([shade, (x * 9) as u8, (y * 11) as u8])
        })
    }

    /// Images of all three kinds of source.
    fn items(count: usize) -> Arc<[Item]> {
        (0..count)
            .map(|number| {
                let name = format!("image{number}.png");
                let source = if number % 3 == 0 {
                    Source::Drawn {
                        name,
                        pixels: Arc::new(picture(number)),
                    }
                } else {
                    let mut bytes = Cursor::new(Vec::new());
                    picture(number).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
                    Source::Encoded {
                        name,
                        bytes: bytes.into_inner().into(),
                    }
                };
                Item {
                    source,
                    class: number as u32 / 4,
                    part: Part::Unassigned,
                    factors: Vec::new(),
                }
            })
            .collect()
    }

    fn transform() -> Transform {
        TransformConfig {
            size: 16,
            hue: 0.1,
            random_erasing: 0.5,
            ..TransformConfig::default()
        }
        .init()
        .unwrap()
    }

    fn batches(count: usize, size: usize) -> Vec<Vec<usize>> {
        (0..count)
            .collect::<Vec<_>>()
            .chunks(size)
            .map(<[usize]>::to_vec)
            .collect()
    }

    fn train(epoch: u64, threads: usize) -> LoaderOptions {
        let mode = Mode::Train {
            epoch,
            graded_levels: None,
        };
        LoaderOptions {
            threads,
            seed: 5,
            mode,
            ..LoaderOptions::default()
        }
    }

    fn all(items: &Arc<[Item]>, batches: Vec<Vec<usize>>, options: LoaderOptions) -> Vec<HostBatch> {
        Loader::start(Arc::clone(items), batches, transform(), options)
            .collect::<Result<_, _>>()
            .unwrap()
    }

    fn bits(batches: &[HostBatch]) -> Vec<u32> {
        batches
            .iter()
            .flat_map(|batch| batch.images.iter().chain(batch.graded.iter().flatten()))
            .map(|v| v.to_bits())
            .collect()
    }

    #[test]
    fn views_are_those_of_the_transform_in_sampler_order() {
        let items = items(7);
        let order = vec![vec![6, 0, 3], vec![], vec![1], vec![5, 4]];
        let made = all(&items, order.clone(), train(2, 3));
        assert_eq!(made.iter().map(|batch| batch.items.clone()).collect::<Vec<_>>(), order);
        for batch in &made {
            assert_eq!((batch.size, batch.images.len()), (16, batch.items.len() * 3 * 256));
            for (view, &item) in batch.images.chunks_exact(3 * 256).zip(&batch.items) {
                assert_eq!(view, transform().train(&picture(item), view_seed(5, 2, item, 0)));
            }
        }
        let evaluated = all(&items, vec![vec![4]], LoaderOptions::default());
        assert_eq!(evaluated[0].images, transform().evaluate(&picture(4)));
        assert_eq!(evaluated[0].graded, None);
    }

    #[test]
    fn the_number_of_threads_and_the_prefetch_change_nothing() {
        let items = items(40);
        let labels: Vec<u32> = items.iter().map(|item| item.class).collect();
        let order = MPerClassConfig { classes: 5, samples: 3 }
            .init(1)
            .batches(SamplerInput::new(&labels), 0);
        let run = |threads, prefetch, cache| {
            let mode = Mode::Train {
                epoch: 1,
                graded_levels: Some(2),
            };
            bits(&all(
                &items,
                order.clone(),
                LoaderOptions {
                    prefetch,
                    cache,
                    mode,
                    ..train(1, threads)
                },
            ))
        };
        let one = run(1, 2, None);
        assert_eq!(one, run(4, 2, None));
        assert_eq!(one, run(4, 0, None));
        assert_eq!(one, run(16, 100, None));
        assert_eq!(one, run(0, 1, None));
        // With a cache that holds everything, filled by the first of two runs, and with one that holds three images.
        let cache = Arc::new(DecodedCache::new(40, u64::MAX, Decoding::default()));
        assert_eq!(one, run(4, 2, Some(Arc::clone(&cache))));
        assert_eq!(one, run(4, 2, Some(cache)));
        let small = Arc::new(DecodedCache::new(40, 3 * 24 * 20 * 3, Decoding::default()));
        assert_eq!(one, run(3, 2, Some(Arc::clone(&small))));
        assert!(small.used() > 0 && small.used() <= 3 * 24 * 20 * 3);
        // On the disk: while it is written, when it is found again, and with room for three images.
        let folder = tempfile::tempdir().unwrap();
        let on_disk = |limit| {
            let path = folder.path().join("cache");
            Some(Arc::new(DecodedCache::on_disk(path, limit, Decoding::default())))
        };
        assert_eq!(one, run(4, 2, on_disk(3 * 24 * 20 * 3)));
        for _ in 0..2 {
            assert_eq!(one, run(4, 2, on_disk(u64::MAX)));
        }
        assert!(on_disk(0).unwrap().used() > 20 * 24 * 20 * 3);
    }

    #[test]
    fn views_differ_between_epochs_seeds_and_repeats() {
        let items = items(4);
        let first = all(&items, batches(4, 4), train(0, 2));
        assert_ne!(bits(&first), bits(&all(&items, batches(4, 4), train(1, 2))));
        assert_ne!(
            bits(&first),
            bits(&all(&items, batches(4, 4), LoaderOptions { seed: 6, ..train(0, 2) }))
        );
        let repeated = all(&items, vec![vec![1, 1], vec![1]], train(0, 2));
        let view = 3 * 256;
        assert_ne!(repeated[0].images[..view], repeated[0].images[view..]);
        assert_ne!(repeated[0].images[view..], repeated[1].images[..]);
        assert_eq!(repeated[0].images[..view], first[0].images[view..2 * view]);
        // An epoch that goes on after its first batch sees the third view of the item, not the first one again.
        let options = LoaderOptions { skip: 1, ..train(0, 2) };
        let rest = all(&items, vec![vec![1, 1], vec![1]], options);
        assert_eq!(bits(&rest), bits(&repeated[1..]));
    }

    #[test]
    fn graded_views_lie_behind_one_another() {
        let items = items(3);
        let mode = Mode::Train {
            epoch: 3,
            graded_levels: Some(4),
        };
        let made = all(&items, vec![vec![2, 1]], LoaderOptions { mode, ..train(3, 2) });
        let graded = made[0].graded.as_ref().unwrap();
        assert_eq!(graded.len(), 2 * 4 * 3 * 256);
        let expected = transform().graded(&picture(1), 3, view_seed(5, 3, 1, 0));
        assert_eq!(graded[(4 + 2) * 3 * 256..(4 + 3) * 3 * 256], expected[..]);
    }

    #[test]
    fn a_broken_image_is_named_and_ends_the_iteration() {
        let mut list = items(12).to_vec();
        list[7].source = Source::Encoded {
            name: "broken7.jpg".into(),
            bytes: vec![1, 2, 3].into(),
        };
        list[8].source = Source::Encoded {
            name: "broken8.jpg".into(),
            bytes: vec![].into(),
        };
        for threads in [0, 1, 4] {
            let mut loader = Loader::start(list.clone().into(), batches(12, 3), transform(), train(0, threads));
            assert!(loader.next().unwrap().is_ok());
            assert!(loader.next().unwrap().is_ok());
            assert_eq!(loader.remaining(), 2);
            let message = loader.next().unwrap().unwrap_err().to_string();
            assert!(message.contains("broken7.jpg"), "{message}");
            assert!(loader.next().is_none());
            assert_eq!(loader.remaining(), 0);
        }
        let beyond = Loader::start(items(2), vec![vec![9]], transform(), train(0, 1))
            .next()
            .unwrap()
            .unwrap_err();
        assert!(beyond.to_string().contains("item 9, but there are only 2"), "{beyond}");
    }

    #[test]
    fn it_can_be_dropped_at_any_time() {
        let items = items(30);
        let (sender, receiver) = std::sync::mpsc::channel();
        // In a thread of its own, so that a deadlock fails the test instead of hanging it.
        std::thread::spawn(move || {
            for taken in [0, 1, 3] {
                for threads in [0, 1, 4] {
                    for prefetch in [0, 2] {
                        let options = LoaderOptions {
                            prefetch,
                            ..train(0, threads)
                        };
                        let loader = Loader::start(Arc::clone(&items), batches(30, 4), transform(), options);
                        assert_eq!(loader.take(taken).count(), taken);
                    }
                }
            }
            sender.send(()).unwrap();
        });
        assert!(
            receiver.recv_timeout(Duration::from_secs(60)).is_ok(),
            "the loader did not stop"
        );
    }

    #[test]
    fn workers_do_not_run_further_ahead_than_asked() {
        let mut loader = Loader::start(
            items(30),
            batches(30, 3),
            transform(),
            LoaderOptions {
                prefetch: 1,
                ..train(0, 3)
            },
        );
        // One before the first is asked for; one beside the one in use.
        assert_eq!(loader.begun.len(), 1);
        for _ in 0..3 {
            assert!(loader.next().is_some());
            assert_eq!(loader.begun.len(), 1);
        }
        assert_eq!(loader.count(), 7);
    }

    #[test]
    fn nothing_to_do_is_no_batch() {
        assert_eq!(Loader::start(items(1), Vec::new(), transform(), train(0, 2)).count(), 0);
        assert_eq!(
            Loader::start(items(1), vec![vec![], vec![]], transform(), train(0, 2)).count(),
            2
        );
    }
}
