//! Decoded images kept between epochs: in memory, or in one file on the disk.
//!
//! What is kept depends on limits and on the order in which threads decode; what is loaded does not.

mod disk;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use image::RgbImage;

use self::disk::DiskCache;
use super::dataset::Source;
use super::image::{Decoding, ImageError, decode_as};

/// Bytes of decoded images kept in memory unless told otherwise: 1 GiB.
pub const DEFAULT_CACHE_LIMIT: u64 = 1 << 30;

/// Keeps decoded images up to a limit, so that later epochs do not decode them again.
#[derive(Debug)]
pub struct DecodedCache {
    kind: Kind,
    decoding: Decoding,
}

#[derive(Debug)]
enum Kind {
    Memory(MemoryCache),
    Disk(DiskCache),
}

impl DecodedCache {
    /// An empty cache in memory for `count` items, keeping at most `limit` bytes of pixels.
    #[must_use]
    pub fn new(count: usize, limit: u64, decoding: Decoding) -> Self {
        let slots = std::iter::repeat_with(OnceLock::new).take(count).collect();
        let used = AtomicU64::new(0);
        Self {
            kind: Kind::Memory(MemoryCache { slots, limit, used }),
            decoding,
        }
    }

    /// A cache in the file `path`, of at most `limit` bytes, which later runs find again.
    ///
    /// What it holds counts for images of the same path, size and modification time only, decoded in the same way: a changed
    /// file is decoded anew.
    /// The file is written under a temporary name and renamed by [`DecodedCache::finish`], so processes may share it: each
    /// reads a whole file, and the last to finish leaves its own. Whatever goes wrong with it (a damaged file, a full disk, a
    /// folder that cannot be made) costs the cache, never the run; [`DecodedCache::notes`] says so.
    #[must_use]
    pub fn on_disk(path: impl Into<PathBuf>, limit: u64, decoding: Decoding) -> Self {
        Self {
            kind: Kind::Disk(DiskCache::open(path.into(), limit, decoding)),
            decoding,
        }
    }

    /// Bytes of pixels kept.
    #[must_use]
    pub fn used(&self) -> u64 {
        match &self.kind {
            Kind::Memory(memory) => memory.used.load(Ordering::Relaxed),
            Kind::Disk(disk) => disk.used(),
        }
    }

    /// The kept pixels of item `index`, or those of `source`, which are kept if there is room.
    ///
    /// # Errors
    /// [`ImageError`] when the image cannot be decoded.
    pub fn get(&self, index: usize, source: &Source) -> Result<Arc<RgbImage>, ImageError> {
        match &self.kind {
            Kind::Memory(memory) => memory.get(index, source, self.decoding),
            Kind::Disk(disk) => disk.get(source),
        }
    }

    /// Whether an image can be used: one that the disk holds was decoded before, any other is decoded now, and written to the
    /// disk if that is where images are kept.
    ///
    /// # Errors
    /// [`ImageError`] when the image cannot be decoded.
    pub fn check(&self, source: &Source) -> Result<(), ImageError> {
        match &self.kind {
            Kind::Memory(_) => decode_as(source, self.decoding).map(drop),
            Kind::Disk(disk) => disk.check(source),
        }
    }

    /// Makes what was written to the disk a file that later runs find; nothing is written afterwards. Dropping does the same.
    pub fn finish(&self) {
        if let Kind::Disk(disk) = &self.kind {
            disk.finish();
        }
    }

    /// Sentences for the user about what went wrong since the last call.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        match &self.kind {
            Kind::Memory(_) => Vec::new(),
            Kind::Disk(disk) => disk.notes(),
        }
    }
}

/// Decoded images in memory, by the number of their item.
#[derive(Debug)]
struct MemoryCache {
    slots: Vec<OnceLock<Arc<RgbImage>>>,
    limit: u64,
    used: AtomicU64,
}

impl MemoryCache {
    fn get(&self, index: usize, source: &Source, decoding: Decoding) -> Result<Arc<RgbImage>, ImageError> {
        let slot = self.slots.get(index);
        if let Some(pixels) = slot.and_then(OnceLock::get) {
            return Ok(Arc::clone(pixels));
        }
        let pixels = decode_as(source, decoding)?;
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
