//! Vectors of floats for the instruction sets that are chosen at run time.
//!
//! A kernel is written once, generic over [`Lanes`], and `multiversion!` compiles it for AVX-512, for AVX2 with FMA,
//! and for the target's baseline, picking the best that the processor has.

/// A vector of `WIDTH` floats.
///
/// # Safety
/// All methods require that the processor has the implementing type's instruction set; those that take pointers, that
/// `WIDTH` floats lie there.
pub(crate) trait Lanes: Copy {
    const WIDTH: usize;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(source: *const f32) -> Self;
    unsafe fn store(self, target: *mut f32);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// `self * factor + term`.
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self;
    /// Clamped to the bounds; not-a-number stays what it is.
    unsafe fn clamp(self, low: Self, high: Self) -> Self;
    /// `self` where `probe` lies strictly between the bounds or is not a number, 0 elsewhere.
    unsafe fn where_between(self, probe: Self, low: Self, high: Self) -> Self;
    /// Sum of the lanes.
    unsafe fn sum(self) -> f32;
    /// Transposes a block of `WIDTH` rows of `WIDTH` floats; the steps are between rows.
    unsafe fn transpose(source: *const f32, source_step: usize, target: *mut f32, target_step: usize) {
        for i in 0..Self::WIDTH {
            for j in 0..Self::WIDTH {
                // SAFETY: the caller vouches for both blocks, which do not overlap.
                unsafe { *target.add(j * target_step + i) = *source.add(i * source_step + j) };
            }
        }
    }
}

/// A single float, for what is left over behind the last vector.
impl Lanes for f32 {
    const WIDTH: usize = 1;
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        value
    }
    #[inline(always)]
    unsafe fn load(source: *const f32) -> Self {
        // SAFETY: the caller vouches for the pointer.
        unsafe { source.read() }
    }
    #[inline(always)]
    unsafe fn store(self, target: *mut f32) {
        // SAFETY: the caller vouches for the pointer.
        unsafe { target.write(self) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self + other
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self - other
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self * other
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        // Not `f32::mul_add`, which is a library call where the target's baseline has no such instruction.
        self * factor + term
    }
    #[inline(always)]
    unsafe fn clamp(self, low: Self, high: Self) -> Self {
        let raised = if self < low { low } else { self };
        if raised > high { high } else { raised }
    }
    #[inline(always)]
    unsafe fn where_between(self, probe: Self, low: Self, high: Self) -> Self {
        if probe <= low || probe >= high { 0.0 } else { self }
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        self
    }
}

/// Eight floats in the target's baseline instructions.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; 8]);

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, function: impl Fn(f32, f32) -> f32) -> Self {
        let mut result = self.0;
        for (value, other) in result.iter_mut().zip(other.0) {
            *value = function(*value, other);
        }
        Self(result)
    }
}

impl Lanes for Portable {
    const WIDTH: usize = 8;
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 8])
    }
    #[inline(always)]
    unsafe fn load(source: *const f32) -> Self {
        // SAFETY: the caller vouches for eight floats; an array of floats has the alignment of a float.
        Self(unsafe { source.cast::<[f32; 8]>().read() })
    }
    #[inline(always)]
    unsafe fn store(self, target: *mut f32) {
        // SAFETY: as for `load`.
        unsafe { target.cast::<[f32; 8]>().write(self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        self.zip(factor, |a, b| a * b).zip(term, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn clamp(self, low: Self, high: Self) -> Self {
        self.zip(low, |value, low| if value < low { low } else { value })
            .zip(high, |value, high| if value > high { high } else { value })
    }
    #[inline(always)]
    unsafe fn where_between(self, probe: Self, low: Self, high: Self) -> Self {
        let outside = probe
            .zip(low, |p, low| f32::from(p <= low))
            .zip(probe.zip(high, |p, high| f32::from(p >= high)), |below, above| {
                below + above
            });
        self.zip(outside, |value, outside| if outside == 0.0 { value } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let v = self.0;
        ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Lanes;

    /// Eight floats in AVX2 with FMA.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(__m256);

    /// Sixteen floats in AVX-512F.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(__m512);

    impl Lanes for Avx2 {
        const WIDTH: usize = 8;
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: the caller has AVX2 and FMA; so in all methods of this type.
            Self(unsafe { _mm256_set1_ps(value) })
        }
        #[inline(always)]
        unsafe fn load(source: *const f32) -> Self {
            // SAFETY: the caller vouches for eight floats; unaligned.
            Self(unsafe { _mm256_loadu_ps(source) })
        }
        #[inline(always)]
        unsafe fn store(self, target: *mut f32) {
            // SAFETY: as for `load`.
            unsafe { _mm256_storeu_ps(target, self.0) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: see `splat`.
            Self(unsafe { _mm256_add_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            // SAFETY: see `splat`.
            Self(unsafe { _mm256_sub_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            // SAFETY: see `splat`.
            Self(unsafe { _mm256_mul_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
            // SAFETY: see `splat`.
            Self(unsafe { _mm256_fmadd_ps(self.0, factor.0, term.0) })
        }
        #[inline(always)]
        unsafe fn clamp(self, low: Self, high: Self) -> Self {
            // The instructions return their second operand when one is not a number.
            // SAFETY: see `splat`.
            Self(unsafe { _mm256_min_ps(high.0, _mm256_max_ps(low.0, self.0)) })
        }
        #[inline(always)]
        unsafe fn where_between(self, probe: Self, low: Self, high: Self) -> Self {
            // SAFETY: see `splat`.
            unsafe {
                let above = _mm256_cmp_ps::<_CMP_NLE_UQ>(probe.0, low.0);
                let below = _mm256_cmp_ps::<_CMP_NGE_UQ>(probe.0, high.0);
                Self(_mm256_and_ps(self.0, _mm256_and_ps(above, below)))
            }
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            // SAFETY: see `splat`.
            unsafe {
                let four = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
                let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
            }
        }
        #[inline(always)]
        unsafe fn transpose(source: *const f32, source_step: usize, target: *mut f32, target_step: usize) {
            // SAFETY: see `splat`; the caller vouches for both blocks.
            unsafe {
                let mut rows = [_mm256_setzero_ps(); 8];
                for (i, row) in rows.iter_mut().enumerate() {
                    *row = _mm256_loadu_ps(source.add(i * source_step));
                }
                // Pairs, then fours within each half, then the halves.
                let mut fours = rows;
                for i in [0, 4] {
                    let low = [
                        _mm256_unpacklo_ps(rows[i], rows[i + 1]),
                        _mm256_unpacklo_ps(rows[i + 2], rows[i + 3]),
                    ];
                    let high = [
                        _mm256_unpackhi_ps(rows[i], rows[i + 1]),
                        _mm256_unpackhi_ps(rows[i + 2], rows[i + 3]),
                    ];
                    fours[i] = _mm256_shuffle_ps::<0x44>(low[0], low[1]);
                    fours[i + 1] = _mm256_shuffle_ps::<0xEE>(low[0], low[1]);
                    fours[i + 2] = _mm256_shuffle_ps::<0x44>(high[0], high[1]);
                    fours[i + 3] = _mm256_shuffle_ps::<0xEE>(high[0], high[1]);
                }
                for i in 0..4 {
                    let low = _mm256_permute2f128_ps::<0x20>(fours[i], fours[i + 4]);
                    let high = _mm256_permute2f128_ps::<0x31>(fours[i], fours[i + 4]);
                    _mm256_storeu_ps(target.add(i * target_step), low);
                    _mm256_storeu_ps(target.add((i + 4) * target_step), high);
                }
            }
        }
    }

    impl Lanes for Avx512 {
        const WIDTH: usize = 16;
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: the caller has AVX-512F; so in all methods of this type.
            Self(unsafe { _mm512_set1_ps(value) })
        }
        #[inline(always)]
        unsafe fn load(source: *const f32) -> Self {
            // SAFETY: the caller vouches for sixteen floats; unaligned.
            Self(unsafe { _mm512_loadu_ps(source) })
        }
        #[inline(always)]
        unsafe fn store(self, target: *mut f32) {
            // SAFETY: as for `load`.
            unsafe { _mm512_storeu_ps(target, self.0) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: see `splat`.
            Self(unsafe { _mm512_add_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            // SAFETY: see `splat`.
            Self(unsafe { _mm512_sub_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            // SAFETY: see `splat`.
            Self(unsafe { _mm512_mul_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
            // SAFETY: see `splat`.
            Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, term.0) })
        }
        #[inline(always)]
        unsafe fn clamp(self, low: Self, high: Self) -> Self {
            // The instructions return their second operand when one is not a number.
            // SAFETY: see `splat`.
            Self(unsafe { _mm512_min_ps(high.0, _mm512_max_ps(low.0, self.0)) })
        }
        #[inline(always)]
        unsafe fn where_between(self, probe: Self, low: Self, high: Self) -> Self {
            // SAFETY: see `splat`.
            unsafe {
                let above = _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(probe.0, low.0);
                let inside = _mm512_mask_cmp_ps_mask::<_CMP_NGE_UQ>(above, probe.0, high.0);
                Self(_mm512_maskz_mov_ps(inside, self.0))
            }
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            // SAFETY: see `splat`.
            unsafe { _mm512_reduce_add_ps(self.0) }
        }
        #[inline(always)]
        unsafe fn transpose(source: *const f32, source_step: usize, target: *mut f32, target_step: usize) {
            // SAFETY: see `splat`; the caller vouches for both blocks.
            unsafe {
                let mut rows = [_mm512_setzero_ps(); 16];
                for (i, row) in rows.iter_mut().enumerate() {
                    *row = _mm512_loadu_ps(source.add(i * source_step));
                }
                // Pairs and fours within each quarter: `fours[4 g + j]` holds columns j, j + 4, j + 8, j + 12 of rows
                // 4 g to 4 g + 3.
                let mut fours = rows;
                for i in [0, 4, 8, 12] {
                    let low = [
                        _mm512_unpacklo_ps(rows[i], rows[i + 1]),
                        _mm512_unpacklo_ps(rows[i + 2], rows[i + 3]),
                    ];
                    let high = [
                        _mm512_unpackhi_ps(rows[i], rows[i + 1]),
                        _mm512_unpackhi_ps(rows[i + 2], rows[i + 3]),
                    ];
                    fours[i] = _mm512_shuffle_ps::<0x44>(low[0], low[1]);
                    fours[i + 1] = _mm512_shuffle_ps::<0xEE>(low[0], low[1]);
                    fours[i + 2] = _mm512_shuffle_ps::<0x44>(high[0], high[1]);
                    fours[i + 3] = _mm512_shuffle_ps::<0xEE>(high[0], high[1]);
                }
                // Then the quarters.
                for j in 0..4 {
                    let [a, b, c, d] = [fours[j], fours[4 + j], fours[8 + j], fours[12 + j]];
                    let low = [_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0x88>(c, d)];
                    let high = [_mm512_shuffle_f32x4::<0xDD>(a, b), _mm512_shuffle_f32x4::<0xDD>(c, d)];
                    let columns = [
                        _mm512_shuffle_f32x4::<0x88>(low[0], low[1]),
                        _mm512_shuffle_f32x4::<0x88>(high[0], high[1]),
                        _mm512_shuffle_f32x4::<0xDD>(low[0], low[1]),
                        _mm512_shuffle_f32x4::<0xDD>(high[0], high[1]),
                    ];
                    for (quarter, column) in columns.into_iter().enumerate() {
                        _mm512_storeu_ps(target.add((4 * quarter + j) * target_step), column);
                    }
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

/// Instruction sets that kernels are compiled for, least first.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Portable,
    Avx2,
    Avx512,
}

/// The best instruction set of this processor (the detection is cached by the standard library).
#[cfg(target_arch = "x86_64")]
pub(crate) fn level() -> Level {
    let detected = if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) {
        Level::Portable
    } else if is_x86_feature_detected!("avx512f") {
        Level::Avx512
    } else {
        Level::Avx2
    };
    #[cfg(test)]
    let detected = detected.min(tests::limit());
    detected
}

/// Lets tests run the code of lesser processors.
#[cfg(all(test, target_arch = "x86_64"))]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};
    use std::sync::{Mutex, RwLock, RwLockReadGuard};

    use super::Level;

    static LIMIT: AtomicU8 = AtomicU8::new(u8::MAX);

    /// Held by tests that set the limit, and by those that compare results bit by bit.
    pub(crate) static LOCK: Mutex<()> = Mutex::new(());

    /// Held for reading by operations in progress: the width of a vector must not change in the middle of one.
    static IN_PROGRESS: RwLock<()> = RwLock::new(());

    pub(crate) fn in_progress() -> RwLockReadGuard<'static, ()> {
        IN_PROGRESS.read().unwrap()
    }

    pub(super) fn limit() -> Level {
        [Level::Portable, Level::Avx2, Level::Avx512][usize::from(LIMIT.load(Ordering::Relaxed)).min(2)]
    }

    pub(crate) fn set_limit(level: Option<Level>) {
        let _nothing_runs = IN_PROGRESS.write().unwrap();
        LIMIT.store(level.map_or(u8::MAX, |level| level as u8), Ordering::Relaxed);
    }
}

/// Defines `fn $name(..)` that runs `$body::<L>(..)` with the widest [`Lanes`] of this processor.
///
/// `$body` is an `unsafe fn`, generic over `L: Lanes`, and must be `#[inline(always)]`, so that it is compiled within
/// a function that has the instruction set enabled. The safety contract of `$body` other than the instruction set
/// passes to the caller.
macro_rules! multiversion {
    ($(#[$attribute:meta])* $visibility:vis unsafe fn $name:ident = $body:ident($($argument:ident: $type:ty),* $(,)?)) => {
        $(#[$attribute])*
        #[allow(clippy::too_many_arguments)]
        $visibility unsafe fn $name($($argument: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                unsafe fn avx512($($argument: $type),*) {
                    // SAFETY: the instruction set is enabled here; the rest is the caller's contract.
                    unsafe { $body::<crate::simd::Avx512>($($argument),*) }
                }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                unsafe fn avx2($($argument: $type),*) {
                    // SAFETY: the instruction set is enabled here; the rest is the caller's contract.
                    unsafe { $body::<crate::simd::Avx2>($($argument),*) }
                }
                match crate::simd::level() {
                    // SAFETY: detected; the rest is the caller's contract.
                    crate::simd::Level::Avx512 => return unsafe { avx512($($argument),*) },
                    // SAFETY: detected; the rest is the caller's contract.
                    crate::simd::Level::Avx2 => return unsafe { avx2($($argument),*) },
                    crate::simd::Level::Portable => {}
                }
            }
            // SAFETY: needs no instruction set; the rest is the caller's contract.
            unsafe { $body::<crate::simd::Portable>($($argument),*) }
        }
    };
}

pub(crate) use multiversion;
