//! The element types of arrays in files: what the bits of one element mean.

use safetensors::tensor::Dtype;

/// An element type; the byte order is the array's affair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    /// IEEE 754 of so many bytes.
    Float(usize),
    /// The upper half of an f32 (BF16).
    Brain,
    Integer {
        signed: bool,
        bytes: usize,
    },
    Bool,
}

impl Element {
    /// From NumPy's name without the byte order, such as `f4`.
    pub(super) fn of_numpy(kind: &str) -> Option<Self> {
        let (sign, bytes) = kind.split_at_checked(1)?;
        let bytes: usize = bytes.parse().ok()?;
        match (sign, bytes) {
            ("f", 2 | 4 | 8) => Some(Self::Float(bytes)),
            ("i" | "u", 1 | 2 | 4 | 8) => Some(Self::Integer {
                signed: sign == "i",
                bytes,
            }),
            ("b", 1) => Some(Self::Bool),
            _ => None,
        }
    }

    pub(super) fn of_tensor(dtype: Dtype) -> Option<Self> {
        let integer = |signed, bytes| Some(Self::Integer { signed, bytes });
        match dtype {
            Dtype::F16 => Some(Self::Float(2)),
            Dtype::BF16 => Some(Self::Brain),
            Dtype::F32 => Some(Self::Float(4)),
            Dtype::F64 => Some(Self::Float(8)),
            Dtype::I8 => integer(true, 1),
            Dtype::I16 => integer(true, 2),
            Dtype::I32 => integer(true, 4),
            Dtype::I64 => integer(true, 8),
            Dtype::U8 => integer(false, 1),
            Dtype::U16 => integer(false, 2),
            Dtype::U32 => integer(false, 4),
            Dtype::U64 => integer(false, 8),
            Dtype::BOOL => Some(Self::Bool),
            _ => None,
        }
    }

    pub(super) fn is_float(self) -> bool {
        matches!(self, Self::Float(_) | Self::Brain)
    }

    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Float(bytes) | Self::Integer { bytes, .. } => bytes,
            Self::Brain => 2,
            Self::Bool => 1,
        }
    }

    fn bits(bytes: &[u8], big_endian: bool) -> u64 {
        let mut raw = [0_u8; 8];
        for (at, &byte) in bytes.iter().enumerate() {
            raw[if big_endian { bytes.len() - 1 - at } else { at }] = byte;
        }
        u64::from_le_bytes(raw)
    }

    /// The number in these bytes; only integers beyond 2^53 are rounded.
    pub(super) fn number(self, bytes: &[u8], big_endian: bool) -> f64 {
        let bits = Self::bits(bytes, big_endian);
        match self {
            Self::Float(2) => f64::from(half(bits as u16)),
            Self::Float(4) => f64::from(f32::from_bits(bits as u32)),
            Self::Float(_) => f64::from_bits(bits),
            Self::Brain => f64::from(f32::from_bits((bits as u32) << 16)),
            Self::Integer { .. } | Self::Bool => self.integer(bytes, big_endian) as f64,
        }
    }

    /// Many at once, in single precision; the commonest kind without a detour.
    pub(super) fn singles(self, bytes: &[u8], big_endian: bool, values: &mut [f32]) {
        if self == Self::Float(4) && !big_endian {
            for (value, &bytes) in values.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *value = f32::from_le_bytes(bytes);
            }
        } else {
            for (value, bytes) in values.iter_mut().zip(bytes.chunks_exact(self.bytes())) {
                *value = self.number(bytes, big_endian) as f32;
            }
        }
    }

    /// The integer in these bytes; of a float its bits.
    pub(super) fn integer(self, bytes: &[u8], big_endian: bool) -> i128 {
        let bits = Self::bits(bytes, big_endian);
        match self {
            Self::Integer { signed: true, bytes } => {
                // Up to the sign bit and back, which fills with it.
                let unused = 64 - 8 * bytes as u32;
                i128::from((bits << unused).cast_signed() >> unused)
            }
            _ => i128::from(bits),
        }
    }
}

/// An IEEE 754 half-precision number; every one is an f32 exactly.
fn half(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from(bits >> 10 & 0x1f);
    let fraction = f32::from(bits & 0x3ff);
    sign * match exponent {
        0 => fraction * 2.0_f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (fraction + 1024.0) * 2.0_f32.powi(exponent - 25),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_what_ieee_says() {
        for (bits, value) in [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x3555, 0.333_251_95),
            (0x7bff, 65_504.0),
            (0x0001, 5.960_464_5e-8),
            (0x0400, 6.103_515_6e-5),
            (0xfc00, f32::NEG_INFINITY),
        ] {
            assert_eq!(half(bits), value);
        }
        assert!(half(0x7e00).is_nan());
    }
}
