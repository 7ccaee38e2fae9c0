//! Planes of images as sliding windows read them: dealt to phases of the stride, with rows of one width.
//!
//! A plane is copied, with its padding, into scratch memory that stays in the first-level cache. With a stride `s` its
//! rows and columns are dealt to `s x s` phases, so that a tap of a window reads consecutive floats of one phase for
//! consecutive outputs. All phases have rows of the same width, to which the outputs are widened too; then tap `t` of
//! output `i` of the whole plane, seen as one line, lies at `shifts[t] + i`, and even planes of three by three pixels
//! fill vectors. What a line holds between its rows is computed in excess and dropped.

use crate::geometry::Geometry;
use crate::simd::{Lanes, Portable, multiversion};

/// Floats that the vector loops may touch behind the end of a line: two of the widest vectors.
pub(crate) const SLACK: usize = 32;

/// How planes lie in scratch memory.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Width of a row of every phase.
    pub(crate) width: usize,
    /// Floats of one phase, slack included.
    pub(crate) phase: usize,
    /// Floats of one phase that hold pixels.
    pub(crate) pixels: usize,
    /// Length of the line of outputs, from the first to the last.
    pub(crate) line: usize,
    /// For each tap, where its phase begins plus where in the phase the first output's pixel lies.
    pub(crate) shifts: Vec<usize>,
    /// The largest shift within a phase.
    pub(crate) reach: usize,
    /// Taps of each phase with their shift within it; for the input gradient.
    pub(crate) phases: Vec<Vec<(usize, usize)>>,
}

impl Layout {
    pub(crate) fn new(geometry: &Geometry) -> Self {
        let [vertical_stride, horizontal_stride] = geometry.stride;
        // The padding that the kernel reads, and all of the image (of which the last rows may go unread).
        let padded = |axis: usize| {
            let read = (geometry.output[axis] - 1) * geometry.stride[axis]
                + (geometry.kernel[axis] - 1) * geometry.dilation[axis]
                + 1;
            read.max(geometry.input[axis] + geometry.before[axis])
        };
        let height = padded(0).div_ceil(vertical_stride);
        let width = padded(1).div_ceil(horizontal_stride);
        let pixels = height * width;
        let phase = pixels + SLACK;
        let mut phases = vec![Vec::new(); vertical_stride * horizontal_stride];
        let mut shifts = Vec::with_capacity(geometry.taps());
        let mut reach = 0;
        for tap in 0..geometry.taps() {
            let vertical = tap / geometry.kernel[1] * geometry.dilation[0];
            let horizontal = tap % geometry.kernel[1] * geometry.dilation[1];
            let index = vertical % vertical_stride * horizontal_stride + horizontal % horizontal_stride;
            let shift = vertical / vertical_stride * width + horizontal / horizontal_stride;
            phases[index].push((tap, shift));
            shifts.push(index * phase + shift);
            reach = reach.max(shift);
        }
        let line = (geometry.output[0] - 1) * width + geometry.output[1];
        Self {
            width,
            phase,
            pixels,
            line,
            shifts,
            reach,
            phases,
        }
    }

    /// The rows of the image that lie in the phases of one vertical remainder: the first, how many (every
    /// `stride`-th), and the phases' row that the first lies in.
    fn rows(&self, geometry: &Geometry, remainder: usize) -> (usize, usize, usize) {
        let (stride, before) = (geometry.stride[0], geometry.before[0]);
        let first = (remainder + stride - before % stride) % stride;
        let rows = geometry.input[0].saturating_sub(first).div_ceil(stride);
        (first, rows, (first + before) / stride)
    }

    /// Where in the phases a column of the image lies, in the phases' row `top` of a vertical remainder.
    fn position(&self, geometry: &Geometry, remainder: usize, top: usize, column: usize) -> usize {
        let (stride, column) = (geometry.stride[1], column + geometry.before[1]);
        (remainder * stride + column % stride) * self.phase + top * self.width + column / stride
    }

    /// Copies a plane of the input into the phases; the padding must be set already.
    ///
    /// # Panics
    /// If the plane or the phases are too short.
    pub(crate) fn deal(&self, geometry: &Geometry, plane: &[f32], phases: &mut [f32]) {
        assert!(plane.len() == geometry.input_pixels() && phases.len() >= self.phases.len() * self.phase);
        let (width, [step, stride]) = (geometry.input[1], geometry.stride);
        for remainder in 0..step {
            let (first, rows, top) = self.rows(geometry, remainder);
            if rows == 0 {
                continue;
            }
            let source = &plane[first * width..];
            let start = |column: usize| self.position(geometry, remainder, top, column);
            // SAFETY: rows and columns are those of the plane, and every pixel of the padded image has a place in the
            // phases; the width of 1 has no odd column, whose place is then not written.
            unsafe {
                let phases = phases.as_mut_ptr();
                match stride {
                    1 => copy_rows(
                        phases.add(start(0)),
                        self.width,
                        source.as_ptr(),
                        step * width,
                        rows,
                        width,
                    ),
                    2 => split_rows(
                        phases.add(start(0)),
                        phases.add(start(1)),
                        self.width,
                        source.as_ptr(),
                        step * width,
                        rows,
                        width,
                    ),
                    _ => {
                        for row in 0..rows {
                            for column in 0..width {
                                *phases.add(start(column) + row * self.width) = source[row * step * width + column];
                            }
                        }
                    }
                }
            }
        }
    }

    /// Copies the phases back to a plane of the input (the inverse of [`Self::deal`]), of which it writes every pixel.
    ///
    /// # Safety
    /// The plane must have as many floats as an input plane.
    ///
    /// # Panics
    /// If the phases are too short.
    pub(crate) unsafe fn collect(&self, geometry: &Geometry, phases: &[f32], plane: *mut f32) {
        assert!(phases.len() >= self.phases.len() * self.phase);
        let (width, [step, stride]) = (geometry.input[1], geometry.stride);
        for remainder in 0..step {
            let (first, rows, top) = self.rows(geometry, remainder);
            if rows == 0 {
                continue;
            }
            let start = |column: usize| self.position(geometry, remainder, top, column);
            // SAFETY: as in `deal`.
            unsafe {
                let target = plane.add(first * width);
                let phases = phases.as_ptr();
                match stride {
                    1 => copy_rows(target, step * width, phases.add(start(0)), self.width, rows, width),
                    2 => merge_rows(
                        target,
                        step * width,
                        phases.add(start(0)),
                        phases.add(start(1)),
                        self.width,
                        rows,
                        width,
                    ),
                    _ => {
                        for row in 0..rows {
                            for column in 0..width {
                                *target.add(row * step * width + column) =
                                    *phases.add(start(column) + row * self.width);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Widens a plane of outputs to the phases' rows; the columns in between must be zero already.
    ///
    /// # Panics
    /// If the plane or the line is too short.
    pub(crate) fn widen(&self, geometry: &Geometry, plane: &[f32], line: &mut [f32]) {
        let [rows, width] = geometry.output;
        assert!(plane.len() == rows * width && line.len() >= self.line);
        // SAFETY: the rows are those of the plane, and end within the line.
        unsafe { copy_rows(line.as_mut_ptr(), self.width, plane.as_ptr(), width, rows, width) };
    }

    /// Copies the outputs out of a line of widened rows (the inverse of [`Self::widen`]).
    ///
    /// # Safety
    /// The plane must have as many floats as an output plane.
    ///
    /// # Panics
    /// If the line is too short.
    pub(crate) unsafe fn narrow(&self, geometry: &Geometry, line: &[f32], plane: *mut f32) {
        let [rows, width] = geometry.output;
        assert!(line.len() >= self.line);
        // SAFETY: the rows end within the line; the plane is the caller's contract.
        unsafe { copy_rows(plane, width, line.as_ptr(), self.width, rows, width) };
    }
}

/// Copies rows of the same width, each `step` floats behind the one before. Rows are short: a call of the C library for
/// each would cost more than the copy.
///
/// # Safety
/// Both sides must have the rows, and must not overlap.
#[inline(always)]
unsafe fn copy_rows_body<L: Lanes>(
    target: *mut f32,
    target_step: usize,
    source: *const f32,
    source_step: usize,
    rows: usize,
    width: usize,
) {
    /// The next `N` floats, if the row has as many left.
    #[inline(always)]
    unsafe fn piece<const N: usize>(i: &mut usize, width: usize, target: *mut f32, source: *const f32) {
        if *i + N <= width {
            // SAFETY: within the row; an array of floats has the alignment of a float.
            unsafe {
                let floats = source.add(*i).cast::<[f32; N]>().read();
                target.add(*i).cast::<[f32; N]>().write(floats);
            }
            *i += N;
        }
    }
    for row in 0..rows {
        // SAFETY: the caller's contract.
        unsafe {
            let (target, source) = (target.add(row * target_step), source.add(row * source_step));
            let mut i = 0;
            while i + L::WIDTH <= width {
                L::load(source.add(i)).store(target.add(i));
                i += L::WIDTH;
            }
            if i < width && width >= L::WIDTH {
                // The last vector again covers what is left.
                let last = width - L::WIDTH;
                L::load(source.add(last)).store(target.add(last));
            } else {
                piece::<8>(&mut i, width, target, source);
                piece::<4>(&mut i, width, target, source);
                piece::<2>(&mut i, width, target, source);
                piece::<1>(&mut i, width, target, source);
            }
        }
    }
}

multiversion! {
    /// See [`copy_rows_body`].
    unsafe fn copy_rows = copy_rows_body(
        target: *mut f32, target_step: usize, source: *const f32, source_step: usize, rows: usize, width: usize,
    )
}

/// Vectors that tell even places from odd ones.
trait Pairs: Lanes {
    /// `even[i] = source[2 i]` and `odd[i] = source[2 i + 1]` for one vector of each.
    ///
    /// # Safety
    /// As for [`Lanes`]; the source must have two vectors.
    unsafe fn split(source: *const f32, even: *mut f32, odd: *mut f32);

    /// The inverse of [`Self::split`].
    ///
    /// # Safety
    /// As for [`Lanes`]; the target must have two vectors.
    unsafe fn merge(target: *mut f32, even: *const f32, odd: *const f32);
}

impl Pairs for Portable {
    #[inline(always)]
    unsafe fn split(source: *const f32, even: *mut f32, odd: *mut f32) {
        for i in 0..Self::WIDTH {
            // SAFETY: the caller's contract.
            unsafe {
                *even.add(i) = *source.add(2 * i);
                *odd.add(i) = *source.add(2 * i + 1);
            }
        }
    }

    #[inline(always)]
    unsafe fn merge(target: *mut f32, even: *const f32, odd: *const f32) {
        for i in 0..Self::WIDTH {
            // SAFETY: the caller's contract.
            unsafe {
                *target.add(2 * i) = *even.add(i);
                *target.add(2 * i + 1) = *odd.add(i);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Pairs;
    use crate::simd::{Avx2, Avx512};

    impl Pairs for Avx2 {
        #[inline(always)]
        unsafe fn split(source: *const f32, even: *mut f32, odd: *mut f32) {
            // SAFETY: the caller has the instruction set and two vectors.
            unsafe {
                let (a, b) = (_mm256_loadu_ps(source), _mm256_loadu_ps(source.add(8)));
                // Halves in order first, since shuffles stay within them.
                let (low, high) = (
                    _mm256_permute2f128_ps::<0x20>(a, b),
                    _mm256_permute2f128_ps::<0x31>(a, b),
                );
                _mm256_storeu_ps(even, _mm256_shuffle_ps::<0b10_00_10_00>(low, high));
                _mm256_storeu_ps(odd, _mm256_shuffle_ps::<0b11_01_11_01>(low, high));
            }
        }

        #[inline(always)]
        unsafe fn merge(target: *mut f32, even: *const f32, odd: *const f32) {
            // SAFETY: as above.
            unsafe {
                let (even, odd) = (_mm256_loadu_ps(even), _mm256_loadu_ps(odd));
                let (low, high) = (_mm256_unpacklo_ps(even, odd), _mm256_unpackhi_ps(even, odd));
                _mm256_storeu_ps(target, _mm256_permute2f128_ps::<0x20>(low, high));
                _mm256_storeu_ps(target.add(8), _mm256_permute2f128_ps::<0x31>(low, high));
            }
        }
    }

    impl Pairs for Avx512 {
        #[inline(always)]
        unsafe fn split(source: *const f32, even: *mut f32, odd: *mut f32) {
            // SAFETY: the caller has the instruction set and two vectors.
            unsafe {
                let (a, b) = (_mm512_loadu_ps(source), _mm512_loadu_ps(source.add(16)));
                let places = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
                let next = _mm512_add_epi32(places, _mm512_set1_epi32(1));
                _mm512_storeu_ps(even, _mm512_permutex2var_ps(a, places, b));
                _mm512_storeu_ps(odd, _mm512_permutex2var_ps(a, next, b));
            }
        }

        #[inline(always)]
        unsafe fn merge(target: *mut f32, even: *const f32, odd: *const f32) {
            // SAFETY: as above.
            unsafe {
                let (even, odd) = (_mm512_loadu_ps(even), _mm512_loadu_ps(odd));
                let places = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
                let next = _mm512_add_epi32(places, _mm512_set1_epi32(8));
                _mm512_storeu_ps(target, _mm512_permutex2var_ps(even, places, odd));
                _mm512_storeu_ps(target.add(16), _mm512_permutex2var_ps(even, next, odd));
            }
        }
    }
}

/// Deals each row to even and odd columns.
///
/// # Safety
/// The source must have the rows, the targets half of each, rounded up and down; none may overlap another.
#[inline(always)]
unsafe fn split_rows_body<L: Pairs>(
    even: *mut f32,
    odd: *mut f32,
    target_step: usize,
    source: *const f32,
    source_step: usize,
    rows: usize,
    width: usize,
) {
    for row in 0..rows {
        // SAFETY: the caller's contract.
        unsafe {
            let source = source.add(row * source_step);
            let (even, odd) = (even.add(row * target_step), odd.add(row * target_step));
            let mut i = 0;
            while 2 * (i + L::WIDTH) <= width {
                L::split(source.add(2 * i), even.add(i), odd.add(i));
                i += L::WIDTH;
            }
            while 2 * i + 8 <= width {
                let [a, b, c, d, e, f, g, h] = source.add(2 * i).cast::<[f32; 8]>().read();
                even.add(i).cast::<[f32; 4]>().write([a, c, e, g]);
                odd.add(i).cast::<[f32; 4]>().write([b, d, f, h]);
                i += 4;
            }
            for column in 2 * i..width {
                *(if column % 2 == 0 { even } else { odd }).add(column / 2) = *source.add(column);
            }
        }
    }
}

multiversion! {
    /// See [`split_rows_body`].
    unsafe fn split_rows = split_rows_body(
        even: *mut f32, odd: *mut f32, target_step: usize, source: *const f32, source_step: usize, rows: usize,
        width: usize,
    )
}

/// The inverse of [`split_rows`].
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn merge_rows_body<L: Pairs>(
    target: *mut f32,
    target_step: usize,
    even: *const f32,
    odd: *const f32,
    source_step: usize,
    rows: usize,
    width: usize,
) {
    for row in 0..rows {
        // SAFETY: the caller's contract.
        unsafe {
            let target = target.add(row * target_step);
            let (even, odd) = (even.add(row * source_step), odd.add(row * source_step));
            let mut i = 0;
            while 2 * (i + L::WIDTH) <= width {
                L::merge(target.add(2 * i), even.add(i), odd.add(i));
                i += L::WIDTH;
            }
            while 2 * i + 8 <= width {
                let [a, c, e, g] = even.add(i).cast::<[f32; 4]>().read();
                let [b, d, f, h] = odd.add(i).cast::<[f32; 4]>().read();
                target.add(2 * i).cast::<[f32; 8]>().write([a, b, c, d, e, f, g, h]);
                i += 4;
            }
            for column in 2 * i..width {
                *target.add(column) = *(if column % 2 == 0 { even } else { odd }).add(column / 2);
            }
        }
    }
}

multiversion! {
    /// See [`merge_rows_body`].
    unsafe fn merge_rows = merge_rows_body(
        target: *mut f32, target_step: usize, even: *const f32, odd: *const f32, source_step: usize, rows: usize,
        width: usize,
    )
}
