//! Channel planes to strips, in which the channels of one vector lie next to each other for every pixel, and back.

use crate::simd::Lanes;

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
