//! Inner products of values with a vector, in float64.

use multiversion::multiversion;

use crate::kernels::elementwise::SUM_LANES;

/// `sums[i % SUM_LANES] += values[i] · vector[i]`: one order of additions whatever the processor's
/// vector unit. No fused operation: where `vector` is no float32, the product itself is rounded.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
pub(crate) fn add_products(values: &[f32], vector: &[f64], sums: &mut [f64; SUM_LANES]) {
    let mut local = *sums;
    let (mut a, mut b) = (values.chunks_exact(SUM_LANES), vector.chunks_exact(SUM_LANES));
    for (a, b) in (&mut a).zip(&mut b) {
        for lane in 0..SUM_LANES {
            local[lane] += f64::from(a[lane]) * b[lane];
        }
    }
    for ((sum, a), b) in local.iter_mut().zip(a.remainder()).zip(b.remainder()) {
        *sum += f64::from(*a) * b;
    }
    *sums = local;
}

/// Widen values.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
pub(crate) fn widen(values: &[f32], out: &mut [f64]) {
    for (out, value) in out.iter_mut().zip(values) {
        *out = f64::from(*value);
    }
}
