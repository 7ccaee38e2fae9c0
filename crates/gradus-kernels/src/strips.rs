//! Channel planes to strips, in which the channels of one vector lie next to each other for every pixel, and back.

use crate::simd::{Lanes, multiversion};

/// `target[column][lane] = source[lane][column]` for `lanes` rows of `source`; the lanes from there on become 0.
///
/// # Safety
/// `source` has `lanes <= WIDTH` rows of `columns` floats, `target` has `columns` rows of `WIDTH`, at the given steps.
#[inline(always)]
pub(crate) unsafe fn gather<L: Lanes>(
    source: *const f32,
    source_step: usize,
    lanes: usize,
    columns: usize,
    target: *mut f32,
    target_step: usize,
) {
    // SAFETY: every block lies within the rows and columns of the caller's contract.
    unsafe {
        if lanes == L::WIDTH && columns >= L::WIDTH {
            let mut column = 0;
            while column < columns {
                // The last block overlaps the one before.
                let start = column.min(columns - L::WIDTH);
                L::transpose(
                    source.add(start),
                    source_step,
                    target.add(start * target_step),
                    target_step,
                );
                column += L::WIDTH;
            }
            return;
        }
        for column in 0..columns {
            for lane in 0..L::WIDTH {
                let value = if lane < lanes {
                    *source.add(lane * source_step + column)
                } else {
                    0.0
                };
                *target.add(column * target_step + lane) = value;
            }
        }
    }
}

/// `target[lane][column] = source[column][lane]` for the first `lanes` lanes.
///
/// # Safety
/// `source` has `columns` rows of `WIDTH` floats, `target` has `lanes <= WIDTH` rows of `columns`, at the given steps.
#[inline(always)]
pub(crate) unsafe fn scatter<L: Lanes>(
    source: *const f32,
    source_step: usize,
    columns: usize,
    target: *mut f32,
    target_step: usize,
    lanes: usize,
) {
    // SAFETY: every block lies within the rows and columns of the caller's contract.
    unsafe {
        if lanes == L::WIDTH && columns >= L::WIDTH {
            let mut column = 0;
            while column < columns {
                let start = column.min(columns - L::WIDTH);
                L::transpose(
                    source.add(start * source_step),
                    source_step,
                    target.add(start),
                    target_step,
                );
                column += L::WIDTH;
            }
            return;
        }
        for lane in 0..lanes {
            for column in 0..columns {
                *target.add(lane * target_step + column) = *source.add(column * source_step + lane);
            }
        }
    }
}

/// Rows of an image on their way to channels-last order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interleave {
    /// First row of the plane of the first channel; floats from plane to plane.
    pub(crate) source: *const f32,
    pub(crate) plane: usize,
    pub(crate) channels: usize,
    /// Rows, floats per row, and how many of them are wanted.
    pub(crate) rows: usize,
    pub(crate) width: usize,
    pub(crate) columns: usize,
    /// [`Interleave::scratch`] floats.
    pub(crate) scratch: *mut f32,
    /// The first pixel's channels. Behind each pixel's last channel, up to a vector of zeros may be written before the
    /// next pixel's channels are.
    pub(crate) target: *mut f32,
    /// Floats from row to row, from pixel to pixel, and from one panel of two vectors of channels to the next.
    pub(crate) row: usize,
    pub(crate) pixel: usize,
    pub(crate) panel: usize,
    /// Panels that are written in whole, zeros where there are no more channels; 0 for the channels alone.
    pub(crate) panels: usize,
}

impl Interleave {
    /// Pixels transposed at a time, at least: enough for blocks of full vectors.
    const PIXELS: usize = 64;

    fn rows_at_a_time(&self) -> usize {
        Self::PIXELS.div_ceil(self.width.max(1))
    }

    /// Floats of scratch.
    pub(crate) fn scratch(width: usize, vector: usize) -> usize {
        (Self::PIXELS + width) * vector
    }
}

multiversion! {
    /// Puts the channels of each pixel next to each other.
    ///
    /// # Safety
    /// The pointers have room for what the sizes say (the target for a vector more), and no other thread touches scratch
    /// or target.
    pub(crate) unsafe fn interleave = interleave_with(job: Interleave)
}

#[inline(always)]
unsafe fn interleave_with<L: Lanes>(job: Interleave) {
    if job.panels == 0 && job.channels < L::WIDTH {
        for channel in 0..job.channels {
            for y in 0..job.rows {
                for x in 0..job.columns {
                    // SAFETY: the caller's contract.
                    unsafe {
                        *job.target.add(y * job.row + x * job.pixel + channel) =
                            *job.source.add(channel * job.plane + y * job.width + x);
                    }
                }
            }
        }
        return;
    }
    let vectors = job.channels.div_ceil(L::WIDTH).max(2 * job.panels);
    // Backwards, so that the zeros behind the last channel are overwritten by the next pixel's first ones.
    for vector in (0..vectors).rev() {
        let channel = vector * L::WIDTH;
        let lanes = job.channels.saturating_sub(channel).min(L::WIDTH);
        if lanes > 0 && job.columns == job.width && job.row == job.width * job.pixel {
            // SAFETY: the caller's contract.
            unsafe {
                gather::<L>(
                    job.source.add(channel * job.plane),
                    job.plane,
                    lanes,
                    job.rows * job.width,
                    job.target.add(vector / 2 * job.panel + vector % 2 * L::WIDTH),
                    job.pixel,
                );
            }
            continue;
        }
        for first in (0..job.rows).step_by(job.rows_at_a_time()) {
            let rows = job.rows_at_a_time().min(job.rows - first);
            // SAFETY: the caller's contract; without lanes nothing is read.
            unsafe {
                let source = if lanes == 0 {
                    job.source
                } else {
                    job.source.add(channel * job.plane + first * job.width)
                };
                gather::<L>(source, job.plane, lanes, rows * job.width, job.scratch, L::WIDTH);
                let target = job.target.add(vector / 2 * job.panel + vector % 2 * L::WIDTH);
                for y in 0..rows {
                    for x in 0..job.columns {
                        L::load(job.scratch.add((y * job.width + x) * L::WIDTH))
                            .store(target.add((first + y) * job.row + x * job.pixel));
                    }
                }
            }
        }
    }
}

/// Pixels of one panel of channels on their way to planes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planes {
    /// `[pixels][panel]`.
    pub(crate) source: *mut f32,
    pub(crate) pixels: usize,
    /// Added to every pixel, a whole panel of it, or null.
    pub(crate) bias: *const f32,
    /// First pixel in the plane of the first channel; floats from plane to plane.
    pub(crate) target: *mut f32,
    pub(crate) plane: usize,
    /// Channels, at most a panel of them.
    pub(crate) channels: usize,
}

multiversion! {
    /// Puts the pixels of each channel next to each other.
    ///
    /// # Safety
    /// The pointers have room for what the sizes say, and no other thread touches source or target.
    pub(crate) unsafe fn separate = separate_with(job: Planes)
}

#[inline(always)]
unsafe fn separate_with<L: Lanes>(job: Planes) {
    let panel = 2 * L::WIDTH;
    // SAFETY: the caller's contract.
    unsafe {
        for vector in 0..job.channels.div_ceil(L::WIDTH) {
            let channel = vector * L::WIDTH;
            let source = job.source.add(channel);
            if !job.bias.is_null() {
                let bias = L::load(job.bias.add(channel));
                for pixel in 0..job.pixels {
                    let value = source.add(pixel * panel);
                    L::load(value).add(bias).store(value);
                }
            }
            scatter::<L>(
                source,
                panel,
                job.pixels,
                job.target.add(channel * job.plane),
                job.plane,
                L::WIDTH.min(job.channels - channel),
            );
        }
    }
}

/// Weights of one panel of outputs: `planes[output][channel][tap]` and `packed[tap][channel][output]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PanelWeights {
    /// Weights of the first output; floats from output to output.
    pub(crate) planes: *mut f32,
    pub(crate) step: usize,
    /// Outputs, at most a panel of them.
    pub(crate) outputs: usize,
    pub(crate) channels: usize,
    pub(crate) taps: usize,
    pub(crate) packed: *mut f32,
    /// [`PanelWeights::scratch`] floats.
    pub(crate) scratch: *mut f32,
}

impl PanelWeights {
    /// Channels taken at a time.
    const CHANNELS: usize = 32;

    /// Floats of scratch.
    pub(crate) fn scratch(taps: usize, vector: usize) -> usize {
        Self::CHANNELS * taps * vector
    }
}

multiversion! {
    /// `planes` to `packed`; outputs that the panel has too many become 0.
    ///
    /// # Safety
    /// The pointers have room for what the sizes say, and no other thread touches scratch or `packed`.
    pub(crate) unsafe fn pack_weights = pack_weights_with(job: PanelWeights)
}

multiversion! {
    /// `packed` to `planes`.
    ///
    /// # Safety
    /// The pointers have room for what the sizes say, and no other thread touches scratch or `planes`.
    pub(crate) unsafe fn unpack_weights = unpack_weights_with(job: PanelWeights)
}

#[inline(always)]
unsafe fn pack_weights_with<L: Lanes>(job: PanelWeights) {
    // SAFETY: the caller's contract.
    unsafe { move_weights::<L, true>(job) }
}

#[inline(always)]
unsafe fn unpack_weights_with<L: Lanes>(job: PanelWeights) {
    // SAFETY: the caller's contract.
    unsafe { move_weights::<L, false>(job) }
}

/// # Safety
/// As for [`pack_weights`] and [`unpack_weights`].
#[inline(always)]
unsafe fn move_weights<L: Lanes, const PACK: bool>(job: PanelWeights) {
    for vector in 0..2 {
        let output = vector * L::WIDTH;
        let lanes = job.outputs.saturating_sub(output).min(L::WIDTH);
        for first in (0..job.channels).step_by(PanelWeights::CHANNELS) {
            let count = PanelWeights::CHANNELS.min(job.channels - first);
            // SAFETY: the caller's contract; without lanes the planes are not touched.
            unsafe {
                let planes = if lanes == 0 {
                    job.planes
                } else {
                    job.planes.add(output * job.step + first * job.taps)
                };
                if PACK {
                    gather::<L>(planes, job.step, lanes, count * job.taps, job.scratch, L::WIDTH);
                }
                for channel in 0..count {
                    for tap in 0..job.taps {
                        let strip = job.scratch.add((channel * job.taps + tap) * L::WIDTH);
                        let packed = job
                            .packed
                            .add((tap * job.channels + first + channel) * 2 * L::WIDTH + output);
                        if PACK {
                            L::load(strip).store(packed);
                        } else {
                            L::load(packed).store(strip);
                        }
                    }
                }
                if !PACK {
                    scatter::<L>(job.scratch, L::WIDTH, count * job.taps, planes, job.step, lanes);
                }
            }
        }
    }
}
