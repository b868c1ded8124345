//! The 8-bit floats of quantised checkpoints, widened to `f32`; every value is exact.

use multiversion::multiversion;
use safetensors::Dtype;

/// An 8-bit floating-point element type. It has so little range that it means something only times a
/// scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Float8 {
    /// 4 bits of exponent, 3 of mantissa, no infinity: torch's `float8_e4m3fn`.
    E4m3,
    /// The upper half of a float16: torch's `float8_e5m2`.
    E5m2,
}

impl Float8 {
    /// The type of a tensor in a file, if it is one of these.
    pub(crate) fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F8_E4M3 => Some(Self::E4m3),
            Dtype::F8_E5M2 => Some(Self::E5m2),
            _ => None,
        }
    }

    /// Widen elements, one for each of `out`.
    pub(crate) fn widen(self, bytes: &[u8], out: &mut [f32]) {
        debug_assert_eq!(bytes.len(), out.len());
        match self {
            Self::E4m3 => widen_e4m3(bytes, out),
            Self::E5m2 => widen_e5m2(bytes, out),
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn widen_e4m3(bytes: &[u8], out: &mut [f32]) {
    for (value, byte) in out.iter_mut().zip(bytes) {
        *value = widen::<3>(*byte, |magnitude| magnitude == 0x7f);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn widen_e5m2(bytes: &[u8], out: &mut [f32]) {
    for (value, byte) in out.iter_mut().zip(bytes) {
        *value = widen::<2>(*byte, |magnitude| magnitude >= 0x7c);
    }
}

/// One value, branch-free, so that loops over it vectorise: a table of 256 took twice the time.
#[inline(always)]
fn widen<const MANTISSA: u32>(byte: u8, is_special: impl Fn(u32) -> bool) -> f32 {
    // The exponent's bias is half its range.
    let bias = (1 << (6 - MANTISSA)) - 1;
    let magnitude = u32::from(byte & 0x7f);
    let moved = magnitude << (23 - MANTISSA);
    let normal = f32::from_bits(moved + ((127 - bias) << 23));
    // Without the leading one the mantissa counts steps of the least exponent.
    let step = f32::from_bits((128 - bias - MANTISSA) << 23);
    let value = if magnitude >> MANTISSA == 0 { magnitude as f32 * step } else { normal };
    // All ones in the exponent: infinity where the mantissa is zero, as in float32.
    let special =
        if MANTISSA == 2 { f32::from_bits(0x7f80_0000 | moved & 0x7f_ffff) } else { f32::NAN };
    let value = if is_special(magnitude) { special } else { value };
    f32::from_bits(value.to_bits() | u32::from(byte & 0x80) << 24)
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;

    #[test]
    fn every_e5m2_is_the_upper_half_of_a_float16() {
        let bytes: Vec<u8> = (0..=u8::MAX).collect();
        let mut values = [0.0; 256];
        Float8::E5m2.widen(&bytes, &mut values);
        for (byte, value) in bytes.iter().zip(values) {
            let expected = f16::from_bits(u16::from(*byte) << 8).to_f32();
            assert!(value.to_bits() == expected.to_bits() || value.is_nan() && expected.is_nan());
        }
    }

    #[test]
    fn every_e4m3_is_what_its_bits_say() {
        let bytes: Vec<u8> = (0..=u8::MAX).collect();
        let mut values = [0.0; 256];
        Float8::E4m3.widen(&bytes, &mut values);
        for (byte, value) in bytes.iter().zip(values) {
            let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
            let sign = if byte & 0x80 == 0 { 1.0 } else { -1.0 };
            let expected = match (exponent, byte & 7) {
                (15, 7) => f32::NAN,
                (0, _) => sign * mantissa * 2.0_f32.powi(-9),
                _ => sign * (1.0 + mantissa / 8.0) * 2.0_f32.powi(exponent - 7),
            };
            assert!(value.to_bits() == expected.to_bits() || value.is_nan() && expected.is_nan());
        }
        assert_eq!(values[0x7e], 448.0);
    }
}
