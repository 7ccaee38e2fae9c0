//! Host batches from worker threads, in sampler order.
//!
//! Workers take single images, not batches, from a shared cursor, so that the first batch is ready as soon as possible
//! and one slow image holds up one thread. Each view is a pure function of (seed, epoch, item, view), so the number of
//! threads changes nothing but the time. Workers stop `prefetch` batches ahead of the consumer, which bounds memory.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;

use image::RgbImage;

use super::dataset::{Item, Source};
use super::image::{DEFAULT_PIXEL_LIMIT, ImageError, decode_within};
use super::transform::Transform;
use crate::random::{derive, purpose};

/// Bytes of decoded images kept in memory unless told otherwise: 1 GiB.
pub const DEFAULT_CACHE_LIMIT: u64 = 1 << 30;

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
    /// The most pixels an image may have (default [`DEFAULT_PIXEL_LIMIT`]).
    pub pixel_limit: u64,
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
            pixel_limit: DEFAULT_PIXEL_LIMIT,
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

/// Keeps decoded images in memory up to a limit, so that later epochs do not decode them again.
///
/// What is kept depends on the order in which threads decode; what is loaded does not.
#[derive(Debug)]
pub struct DecodedCache {
    slots: Vec<OnceLock<Arc<RgbImage>>>,
    limit: u64,
    used: AtomicU64,
}

impl DecodedCache {
    /// An empty cache for `count` items, keeping at most `limit` bytes of pixels.
    #[must_use]
    pub fn new(count: usize, limit: u64) -> Self {
        Self {
            slots: std::iter::repeat_with(OnceLock::new).take(count).collect(),
            limit,
            used: AtomicU64::new(0),
        }
    }

    /// Bytes of pixels kept.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The kept pixels of item `index`, or those of `source`, which are kept if there is room.
    ///
    /// # Errors
    /// [`ImageError`] when the image cannot be decoded.
    pub fn get(&self, index: usize, source: &Source, pixel_limit: u64) -> Result<Arc<RgbImage>, ImageError> {
        let slot = self.slots.get(index);
        if let Some(pixels) = slot.and_then(OnceLock::get) {
            return Ok(Arc::clone(pixels));
        }
        let pixels = decode_within(source, pixel_limit)?;
        // Drawn images are in memory already.
        if let (Some(slot), false) = (slot, matches!(source, Source::Drawn { .. })) {
            let bytes = pixels.as_raw().len() as u64;
            let fits = |used: u64| used.checked_add(bytes).filter(|&total| total <= self.limit);
            if self
                .used
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
                .is_ok()
                && slot.set(Arc::clone(&pixels)).is_err()
            {
                // Another thread kept the same image meanwhile.
                self.used.fetch_sub(bytes, Ordering::Relaxed);
            }
        }
        Ok(pixels)
    }
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
    workers: Vec<JoinHandle<()>>,
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
    state: Mutex<State>,
    /// Signals a change of the state to the consumer and to waiting workers.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// The next place to be worked on: (batch, place in it).
    next: (usize, usize),
    /// Batches handed out.
    delivered: usize,
    /// Batches begun but not handed out; the first is number `delivered`.
    begun: VecDeque<Progress>,
    stopped: bool,
}

/// A batch being made.
#[derive(Debug)]
struct Progress {
    views: Vec<Option<Result<Views, LoaderError>>>,
    missing: usize,
    /// The finished batch.
    done: Option<Result<HostBatch, LoaderError>>,
}

/// The views of one place of a batch.
#[derive(Debug)]
struct Views {
    image: Vec<f32>,
    graded: Option<Vec<f32>>,
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
        let state = State {
            next: (0, 0),
            delivered: 0,
            begun: VecDeque::new(),
            stopped: false,
        };
        let shared = Arc::new(Shared {
            items,
            batches,
            occurrences,
            transform,
            options,
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        // A thread that cannot be started is done without; with none at all the consumer does the work.
        let workers = (0..threads)
            .map_while(|number| {
                let shared = Arc::clone(&shared);
                let name = format!("gradus-loader-{number}");
                std::thread::Builder::new().name(name).spawn(move || shared.work()).ok()
            })
            .collect();
        Self { shared, workers }
    }

    /// Number of batches not yet handed out.
    #[must_use]
    pub fn remaining(&self) -> usize {
        let state = self.shared.lock();
        if state.stopped {
            0
        } else {
            self.shared.batches.len() - state.delivered
        }
    }
}

impl Iterator for Loader {
    type Item = Result<HostBatch, LoaderError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut state = self.shared.lock();
        loop {
            if state.stopped || state.delivered == self.shared.batches.len() {
                return None;
            }
            if state.begun.front().is_some_and(|progress| progress.done.is_some()) {
                break;
            }
            state = if self.workers.is_empty() {
                match self.shared.take(&mut state) {
                    Some(place) => {
                        drop(state);
                        self.shared.make(place);
                        self.shared.lock()
                    }
                    None => state,
                }
            } else {
                self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
            };
        }
        let batch = state.begun.pop_front().and_then(|progress| progress.done);
        state.delivered += 1;
        state.stopped |= matches!(batch, Some(Err(_)));
        drop(state);
        self.shared.changed.notify_all();
        batch
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
        for worker in self.workers.drain(..) {
            // Views are made behind `catch_unwind`: there is nothing to report from a worker that ended.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock, and the state would be whole even then.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a worker does until there is nothing left.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if state.stopped || state.next.0 == self.batches.len() {
                return;
            }
            state = match self.take(&mut state) {
                Some(place) => {
                    drop(state);
                    self.make(place);
                    self.lock()
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Takes the next place to work on, unless that would run too far ahead of the consumer.
    fn take(&self, state: &mut State) -> Option<(usize, usize)> {
        let (batch, place) = state.next;
        if batch >= self.batches.len() || batch > state.delivered.saturating_add(self.options.prefetch) {
            return None;
        }
        let length = self.batches[batch].len();
        if place == 0 {
            let views = std::iter::repeat_with(|| None).take(length).collect();
            state.begun.push_back(Progress {
                views,
                missing: length,
                done: None,
            });
        }
        if length == 0 {
            // Nobody will ever finish a batch without places, so it is finished here.
            if let Some(progress) = state.begun.back_mut() {
                progress.done = Some(self.assemble(batch, Vec::new()));
            }
            state.next = (batch + 1, 0);
            self.changed.notify_all();
            return self.take(state);
        }
        state.next = if place + 1 == length {
            (batch + 1, 0)
        } else {
            (batch, place + 1)
        };
        Some((batch, place))
    }

    /// Makes the views of a place; whoever makes the last of a batch puts it together.
    fn make(&self, (batch, place): (usize, usize)) {
        let views = self.views(self.batches[batch][place], self.occurrences[batch][place]);
        let mut state = self.lock();
        let Some(progress) = state.progress(batch) else {
            return;
        };
        progress.views[place] = Some(views);
        progress.missing -= 1;
        if progress.missing > 0 {
            return;
        }
        let views = std::mem::take(&mut progress.views);
        drop(state);
        let done = self.assemble(batch, views);
        let mut state = self.lock();
        if let Some(progress) = state.progress(batch) {
            progress.done = Some(done);
        }
        drop(state);
        self.changed.notify_all();
    }

    fn views(&self, item: usize, occurrence: u64) -> Result<Views, LoaderError> {
        let count = self.items.len();
        let source = &self
            .items
            .get(item)
            .ok_or(LoaderError::NoSuchItem { item, count })?
            .source;
        let pixels = match &self.options.cache {
            Some(cache) => cache.get(item, source, self.options.pixel_limit)?,
            None => decode_within(source, self.options.pixel_limit)?,
        };
        // A panic here would otherwise leave the consumer waiting for ever.
        let made = catch_unwind(AssertUnwindSafe(|| match self.options.mode {
            Mode::Evaluate => Views {
                image: self.transform.evaluate(&pixels),
                graded: None,
            },
            Mode::Train { epoch, graded_levels } => {
                let seed = view_seed(self.options.seed, epoch, item, occurrence);
                let graded = graded_levels.map(|levels| self.transform.graded_levels(&pixels, levels, seed));
                Views {
                    image: self.transform.train(&pixels, seed),
                    graded,
                }
            }
        }));
        made.map_err(|_| LoaderError::View { name: source.name() })
    }

    /// Puts the views of a batch behind one another; the first failed place decides the error.
    fn assemble(&self, batch: usize, views: Vec<Option<Result<Views, LoaderError>>>) -> Result<HostBatch, LoaderError> {
        let items = self.batches[batch].clone();
        let view = self.transform.view_len();
        let mut images = Vec::with_capacity(items.len() * view);
        let mut graded = match self.options.mode {
            Mode::Train {
                graded_levels: Some(levels),
                ..
            } => Some(Vec::with_capacity(items.len() * levels * view)),
            Mode::Train {
                graded_levels: None, ..
            }
            | Mode::Evaluate => None,
        };
        for views in views.into_iter().flatten() {
            let views = views?;
            images.extend(views.image);
            if let (Some(all), Some(own)) = (&mut graded, views.graded) {
                all.extend(own);
            }
        }
        Ok(HostBatch {
            images,
            graded,
            items,
            size: self.transform.size(),
        })
    }
}

impl State {
    /// The batch of a number, if it has not been handed out.
    fn progress(&mut self, batch: usize) -> Option<&mut Progress> {
        let position = batch.checked_sub(self.delivered)?;
        self.begun.get_mut(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Part;
    use crate::data::transform::TransformConfig;
    use crate::samplers::{BatchSampler, MPerClassConfig, SamplerInput};
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
        let cache = Arc::new(DecodedCache::new(40, u64::MAX));
        assert_eq!(one, run(4, 2, Some(Arc::clone(&cache))));
        assert_eq!(one, run(4, 2, Some(cache)));
        let small = Arc::new(DecodedCache::new(40, 3 * 24 * 20 * 3));
        assert_eq!(one, run(3, 2, Some(Arc::clone(&small))));
        assert!(small.used() > 0 && small.used() <= 3 * 24 * 20 * 3);
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
        assert!(loader.next().is_some());
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(5));
            let state = loader.shared.lock();
            assert!(state.begun.len() <= 2 && state.next <= (3, 0), "{:?}", state.next);
        }
        assert_eq!(loader.count(), 9);
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
