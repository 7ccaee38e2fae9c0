//! How work on `[images, channels, ...]` is cut into tasks.

use std::ops::Range;

use rayon::prelude::*;

/// Tasks an operation is cut into, whatever the number of threads, so that sums come out the same on any machine.
const TASKS: usize = 16;

/// Chunks of images, and, where there are few images, of channels too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Partition {
    images: usize,
    channels: usize,
    images_per_chunk: usize,
    channels_per_chunk: usize,
}

impl Partition {
    pub(crate) fn new(images: usize, channels: usize) -> Self {
        let images_per_chunk = images.div_ceil(TASKS).max(1);
        let image_chunks = images.div_ceil(images_per_chunk).max(1);
        let channels_per_chunk = channels.div_ceil(TASKS.div_ceil(image_chunks)).max(1);
        Self {
            images,
            channels,
            images_per_chunk,
            channels_per_chunk,
        }
    }

    /// Number of chunks of images.
    pub(crate) fn image_chunks(&self) -> usize {
        self.images.div_ceil(self.images_per_chunk)
    }

    /// Most channels that one task gets.
    pub(crate) fn channels_per_chunk(&self) -> usize {
        self.channels_per_chunk
    }

    /// Runs `work(index of the chunk of images, images, channels)` in parallel over all chunks, which are disjoint.
    pub(crate) fn for_each(&self, work: impl Fn(usize, Range<usize>, Range<usize>) + Sync) {
        let channel_chunks = self.channels.div_ceil(self.channels_per_chunk);
        (0..self.image_chunks() * channel_chunks)
            .into_par_iter()
            .for_each(|task| {
                let (chunk, part) = (task / channel_chunks, task % channel_chunks);
                let first_image = chunk * self.images_per_chunk;
                let first_channel = part * self.channels_per_chunk;
                work(
                    chunk,
                    first_image..(first_image + self.images_per_chunk).min(self.images),
                    first_channel..(first_channel + self.channels_per_chunk).min(self.channels),
                );
            });
    }
}
