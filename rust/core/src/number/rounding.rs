//! Rounding of `f32` values to 16 bits, to nearest, ties to even, in registers.

/// Round to bfloat16, branch-free so that loops over it vectorise.
#[inline(always)]
pub(crate) fn round_bf16(value: f32) -> f32 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) & 0xffff_0000;
    // Rounding up the mantissa of a NaN would run into the sign: keep it a quiet NaN instead.
    let nan = (bits | 0x0040_0000) & 0xffff_0000;
    f32::from_bits(if value.is_nan() { nan } else { rounded })
}

/// [`round_bf16`] for a value that, if it is a NaN, has a lower half of zeros, so that rounding cannot
/// run into the sign: a result of arithmetic on bfloat16 values, for one. Half the steps.
#[inline(always)]
pub(crate) fn round_bf16_result(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits(bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) & 0xffff_0000)
}

/// Round to float16, branch-free: adding and subtracting a power of two whose last place is the
/// float16 last place of `value` lets the `f32` adder do the rounding.
#[inline(always)]
pub(crate) fn round_f16(value: f32) -> f32 {
    const SMALLEST_NORMAL: u32 = 113 << 23; // 2^-14
    let magnitude = value.abs();
    let exponent = magnitude.to_bits() & 0x7f80_0000;
    let clamped = if exponent < SMALLEST_NORMAL { SMALLEST_NORMAL } else { exponent };
    let magic = f32::from_bits(clamped.wrapping_add(13 << 23));
    let rounded = (magnitude + magic) - magic;
    let overflowed = if rounded > 65_504.0 { f32::INFINITY } else { rounded };
    // Above 2^16 `magic` itself can overflow, and a NaN or infinity must stay what it is.
    let large = if magnitude >= 65_536.0 { f32::INFINITY } else { overflowed };
    let result = if value.is_nan() { value } else { large };
    result.copysign(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};
    use proptest::prelude::*;

    fn same(a: f32, b: f32) -> bool {
        a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
    }

    #[test]
    fn rounding_is_exact_on_and_around_every_16_bit_value() {
        for pattern in 0..=u16::MAX {
            for value in [bf16::from_bits(pattern).to_f32(), f16::from_bits(pattern).to_f32()] {
                for step in
                    [-0x8001_i32, -0x8000, -0x1001, -0x1000, -1, 0, 1, 0x1000, 0x1001, 0x8000]
                {
                    let near = f32::from_bits(value.to_bits().wrapping_add_signed(step));
                    let rounded = bf16::from_f32(near).to_f32();
                    assert!(same(round_bf16(near), rounded), "{near:e}");
                    assert!(near.is_nan() || same(round_bf16_result(near), rounded), "{near:e}");
                    assert!(same(round_f16(near), f16::from_f32(near).to_f32()), "{near:e}");
                }
            }
        }
    }

    #[test]
    fn every_nan_of_bfloat16_stays_one() {
        for pattern in 0..=u16::MAX {
            let value = bf16::from_bits(pattern).to_f32();
            assert_eq!(round_bf16_result(value).is_nan(), value.is_nan());
        }
    }

    proptest! {
        #[test]
        fn rounding_agrees_with_half(bits: u32) {
            let value = f32::from_bits(bits);
            prop_assert!(same(round_bf16(value), bf16::from_f32(value).to_f32()));
            prop_assert!(same(round_f16(value), f16::from_f32(value).to_f32()));
        }
    }
}
