//! Sums over one or two slices, in float64, lane by lane: one order of additions whatever the vector
//! width.

use multiversion::multiversion;

use crate::execute::group::sweep::Lanes;
use crate::kernels::elementwise::SUM_LANES;
use crate::number::Precision;

/// Add `terms(a, b)` for every pair of elements. Inlined into functions that are compiled for
/// several vector units.
#[inline(always)]
pub(super) fn add_pairs<const N: usize>(
    a: &[f32],
    b: &[f32],
    sums: &mut [Lanes],
    terms: impl Fn(f32, f32) -> [f64; N],
) {
    let mut local = [[0.0; SUM_LANES]; N];
    local.copy_from_slice(&sums[..N]);
    let (mut a, mut b) = (a.chunks_exact(SUM_LANES), b.chunks_exact(SUM_LANES));
    for (a, b) in (&mut a).zip(&mut b) {
        for lane in 0..SUM_LANES {
            let terms = terms(a[lane], b[lane]);
            for (sums, term) in local.iter_mut().zip(terms) {
                sums[lane] += term;
            }
        }
    }
    for (lane, (a, b)) in a.remainder().iter().zip(b.remainder()).enumerate() {
        for (sums, term) in local.iter_mut().zip(terms(*a, *b)) {
            sums[lane] += term;
        }
    }
    sums[..N].copy_from_slice(&local);
}

/// Add every `value²`, exactly.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
pub(crate) fn add_squares(values: &[f32], sums: &mut [Lanes]) {
    add_pairs(values, values, sums, |a, _| [f64::from(a) * f64::from(a)]);
}

/// Add every `round(value²)`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
pub(crate) fn add_rounded_squares<P: Precision>(values: &[f32], sums: &mut [Lanes]) {
    add_pairs(values, values, sums, |a, _| [f64::from(P::round(a * a))]);
}

/// Add every `a · b`, exactly.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
pub(crate) fn add_products(a: &[f32], b: &[f32], sums: &mut [Lanes]) {
    add_pairs(a, b, sums, |a, b| [f64::from(a) * f64::from(b)]);
}

/// Add every `round(a · b)`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
pub(crate) fn add_rounded_products<P: Precision>(a: &[f32], b: &[f32], sums: &mut [Lanes]) {
    add_pairs(a, b, sums, |a, b| [f64::from(P::round(a * b))]);
}

/// `a²`, `b²` and `a · b`, exactly.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
pub(crate) fn add_gram(a: &[f32], b: &[f32], sums: &mut [Lanes]) {
    add_pairs(a, b, sums, |a, b| {
        let (a, b) = (f64::from(a), f64::from(b));
        [a * a, b * b, a * b]
    });
}

/// A scalar as torch has it: computed exactly, rounded to float32, then to the dtype.
pub(super) fn scalar<P: Precision>(value: f64) -> f32 {
    P::round(value as f32)
}

/// `values := round(values + base)`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
pub(crate) fn add_base<P: Precision>(values: &mut [f32], base: &[f32]) {
    for (value, base) in values.iter_mut().zip(base) {
        *value = P::round(*value + *base);
    }
}

/// `values := round(values / divisor)`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
pub(crate) fn divide<P: Precision>(values: &mut [f32], divisor: f32) {
    for value in values {
        *value = P::round(*value / divisor);
    }
}

/// `sums := sums + round(factor · values)`, not rounded: torch rounds sums over tensors once.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
pub(crate) fn add_scaled<P: Precision>(sums: &mut [f32], values: &[f32], factor: f32) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += P::round(*value * factor);
    }
}
