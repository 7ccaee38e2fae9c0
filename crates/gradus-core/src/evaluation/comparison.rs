//! Comparisons of many numbers with one, whose outcomes become the bits of a word.

/// As many numbers as a word has bits.
pub(super) const WORD: usize = 32;

/// Compares with the instructions that this processor has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Comparison {
    #[cfg(target_arch = "x86_64")]
    simd: Option<pulp::x86::V3>,
}

impl Comparison {
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self {
            #[cfg(target_arch = "x86_64")]
            simd: pulp::x86::V3::try_new(),
        }
    }

    /// A bit for each number that is not below the bound. Numbers and bound are not NaN.
    #[inline(always)]
    pub(super) fn at_least(self, numbers: &[f32; WORD], bound: f32) -> u32 {
        self.bits::<{ operation::AT_LEAST }>(numbers, bound, |number| number >= bound)
    }

    /// A bit for each number that is not above the bound. Numbers and bound are not NaN.
    #[inline(always)]
    pub(super) fn at_most(self, numbers: &[f32; WORD], bound: f32) -> u32 {
        self.bits::<{ operation::AT_MOST }>(numbers, bound, |number| number <= bound)
    }

    /// A bit for each number that is not below its own bound. Numbers and bounds are not NaN.
    #[inline(always)]
    pub(super) fn at_least_each(self, numbers: &[f32; WORD], bounds: &[f32; WORD]) -> u32 {
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = self.simd {
            let mut bits = 0;
            let eights = numbers.as_chunks::<8>().0.iter().zip(bounds.as_chunks::<8>().0);
            for (place, (numbers, bounds)) in eights.enumerate() {
                let outcome = simd
                    .avx
                    ._mm256_cmp_ps::<{ operation::AT_LEAST }>(pulp::cast(*numbers), pulp::cast(*bounds));
                bits |= (simd.avx._mm256_movemask_ps(outcome) as u32) << (8 * place);
            }
            return bits;
        }
        let mut bits = 0;
        for (place, (number, bound)) in numbers.iter().zip(bounds).enumerate() {
            bits |= u32::from(number >= bound) << place;
        }
        bits
    }

    #[inline(always)]
    fn bits<const OPERATION: i32>(self, numbers: &[f32; WORD], bound: f32, holds: impl Fn(f32) -> bool) -> u32 {
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = self.simd {
            let bound = simd.avx._mm256_set1_ps(bound);
            let mut bits = 0;
            for (place, eight) in numbers.as_chunks::<8>().0.iter().enumerate() {
                let outcome = simd.avx._mm256_cmp_ps::<OPERATION>(pulp::cast(*eight), bound);
                bits |= (simd.avx._mm256_movemask_ps(outcome) as u32) << (8 * place);
            }
            return bits;
        }
        let mut bits = 0;
        for (place, &number) in numbers.iter().enumerate() {
            bits |= u32::from(holds(number)) << place;
        }
        bits
    }
}

/// Where the bits of a word are set.
#[inline(always)]
pub(super) fn places(mut bits: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(
        #[inline(always)]
        move || {
            let place = bits.trailing_zeros() as usize;
            (bits != 0).then(|| {
                bits &= bits - 1;
                place
            })
        },
    )
}

#[cfg(target_arch = "x86_64")]
mod operation {
    pub(super) const AT_LEAST: i32 = std::arch::x86_64::_CMP_GE_OQ;
    pub(super) const AT_MOST: i32 = std::arch::x86_64::_CMP_LE_OQ;
}

#[cfg(not(target_arch = "x86_64"))]
mod operation {
    pub(super) const AT_LEAST: i32 = 0;
    pub(super) const AT_MOST: i32 = 1;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_bit_is_the_outcome_of_its_number(
            numbers in prop::array::uniform32(prop::sample::select(vec![f32::NEG_INFINITY, -1.0, -0.0, 0.0, 0.25, 1.0])),
            bound in prop::sample::select(vec![-1.0_f32, 0.0, 0.25, 0.5]),
            bounds in prop::array::uniform32(prop::sample::select(vec![-1.0_f32, 0.0, 0.25, f32::INFINITY])),
        ) {
            let mut all = vec![Comparison::new()];
            #[cfg(target_arch = "x86_64")]
            all.push(Comparison { simd: None });
            for compare in all {
                let (least, most) = (compare.at_least(&numbers, bound), compare.at_most(&numbers, bound));
                let each = compare.at_least_each(&numbers, &bounds);
                for (place, &number) in numbers.iter().enumerate() {
                    prop_assert_eq!(each >> place & 1 == 1, number >= bounds[place]);
                    prop_assert_eq!(least >> place & 1 == 1, number >= bound);
                    prop_assert_eq!(most >> place & 1 == 1, number <= bound);
                }
                let set = (0..WORD).filter(|place| least >> place & 1 == 1);
                prop_assert_eq!(places(least).collect::<Vec<_>>(), set.collect::<Vec<_>>());
            }
        }
    }
}
