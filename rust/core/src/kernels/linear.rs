//! `linear`: Σ wᵢxᵢ, divided by Σ wᵢ where `normalize` is set.
//!
//! mergekit 0.1.5 accumulates with torch's `addcmul` in float32, which is a fused multiply-add on
//! every CPU that has one: `mul_add` is written out, since the compiler never fuses by itself.

use multiversion::multiversion;

use crate::number::Precision;

/// `sums := fma(weight, values, sums)`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
pub(crate) fn accumulate(sums: &mut [f32], values: &[f32], weight: f32) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum = value.mul_add(weight, *sum);
    }
}

/// `sums := round(sums / divisor)`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
pub(crate) fn divide<P: Precision>(sums: &mut [f32], divisor: f32) {
    for sum in sums {
        *sum = P::round(*sum / divisor);
    }
}
