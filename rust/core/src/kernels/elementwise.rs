//! Loops over one or two slices that every method needs.

use multiversion::multiversion;

use crate::number::{round_bf16, round_f16, Float, Precision};

/// Run `$body` with the type `$precision` that stands for a [`Float`].
macro_rules! with_precision {
    ($dtype:expr, $precision:ident => $body:expr) => {
        match $dtype {
            Float::F32 => {
                type $precision = F32;
                $body
            }
            Float::Bf16 => {
                type $precision = Bf16;
                $body
            }
            Float::F16 => {
                type $precision = F16;
                $body
            }
        }
    };
}
pub(crate) use with_precision;

/// Round every value to `working`.
pub(crate) fn round_all(working: Float, values: &mut [f32]) {
    match working {
        Float::F32 => {}
        Float::Bf16 => round_each(values, round_bf16),
        Float::F16 => round_each(values, round_f16),
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn round_each<R: Fn(f32) -> f32>(values: &mut [f32], round: R) {
    for value in values {
        *value = round(*value);
    }
}

/// `sums := sums + values`, not rounded.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
pub(crate) fn add(sums: &mut [f32], values: &[f32]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += *value;
    }
}

/// `values := round(values − base)`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
pub(crate) fn subtract<P: Precision>(values: &mut [f32], base: &[f32]) {
    for (value, base) in values.iter_mut().zip(base) {
        *value = P::round(*value - *base);
    }
}

/// `values := round(factor · values)`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
pub(crate) fn scale<P: Precision>(values: &mut [f32], factor: f32) {
    for value in values {
        *value = P::round(*value * factor);
    }
}

/// Index of the first NaN or infinity.
pub(crate) fn first_nonfinite(values: &[f32]) -> Option<usize> {
    if all_finite(values) {
        None
    } else {
        values.iter().position(|value| !value.is_finite())
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn all_finite(values: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    // A running maximum has no early exit, which lets the loop vectorise.
    values.iter().fold(0, |max, value| max.max(value.to_bits() & EXPONENT)) < EXPONENT
}

/// Lanes of [`add_magnitudes`]; chunks that are not the last one are a multiple of it.
pub(crate) const SUM_LANES: usize = 16;

/// Add every `|value|`, in float64, to the accumulator `index % 16`: one fixed order of additions,
/// whatever the vector width.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
pub(crate) fn add_magnitudes(values: &[f32], sums: &mut [f64; SUM_LANES]) {
    let mut chunks = values.chunks_exact(SUM_LANES);
    let mut local = *sums;
    for chunk in &mut chunks {
        for lane in 0..SUM_LANES {
            local[lane] += f64::from(chunk[lane].abs());
        }
    }
    for (sum, value) in local.iter_mut().zip(chunks.remainder()) {
        *sum += f64::from(value.abs());
    }
    *sums = local;
}
