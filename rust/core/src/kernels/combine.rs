//! Mix weighted deltas and add them to the base.
//!
//! ```text
//! mixed   = Σ d            over all experts, or with consensus over those whose sign is that of Σ d
//! divisor = Σ w            over the same experts, for each element
//! out     = base + lambda · mixed / divisor
//! ```
//! Each step is rounded to the working dtype; sums over experts run in `f32`, in the order of the
//! config, and are rounded once, as torch sums 16-bit tensors. A sum of exactly zero votes for plus,
//! and a delta of zero agrees with nobody.

use multiversion::multiversion;

use crate::kernels::elementwise::add;
use crate::number::Precision;

/// Weights of fewer than this divide by one instead, in merges without consensus.
const SMALLEST_DIVISOR: f32 = 1e-8;

/// The options of a mix.
#[derive(Debug, Clone)]
pub(crate) struct Mix {
    /// Weights of the experts, already rounded to the working dtype.
    pub weights: Vec<f32>,
    /// Elect a sign for each element and mix only the deltas that have it.
    pub consensus: bool,
    /// Divide by the sum of weights.
    pub normalize: bool,
    /// Factor on the mixed delta; no step at all where it is 1.
    pub lambda: f32,
}

/// Elements that are mixed at a time: few enough for all buffers to stay in the first-level cache.
pub(super) const TILE: usize = 512;

/// Mix `deltas` (each multiplied by its weight already) and add the result to `out`, which holds the
/// base.
pub(crate) fn combine<P: Precision>(mix: &Mix, deltas: &[&[f32]], out: &mut [f32]) {
    for (tile, out) in out.chunks_mut(TILE).enumerate() {
        let start = tile * TILE;
        let deltas = || deltas.iter().map(|delta| &delta[start..start + out.len()]);
        let mut buffer = [0.0; TILE];
        let mixed = &mut buffer[..out.len()];
        if !mix.consensus {
            for delta in deltas() {
                add(mixed, delta);
            }
            add_sum::<P>(mix, mixed, out);
            continue;
        }
        let (mut vote, mut divisor) = ([0.0; TILE], [0.0; TILE]);
        for delta in deltas() {
            add(&mut vote, delta);
        }
        let minus = elect::<P>(&vote);
        for (delta, weight) in deltas().zip(&mix.weights) {
            add_agreeing(mixed, &mut divisor, &minus, delta, *weight);
        }
        finish_elected::<P>(mixed, &divisor, mix.normalize);
        add_to_base::<P>(out, mixed, mix.lambda);
    }
}

/// Add the sum of weighted deltas to `out`, which holds the base, for a mix without consensus.
pub(crate) fn add_sum<P: Precision>(mix: &Mix, mixed: &[f32], out: &mut [f32]) {
    let sum = P::round(mix.weights.iter().sum());
    let divide = mix.normalize && sum.abs() >= SMALLEST_DIVISOR;
    add_divided::<P>(out, mixed, if divide { sum } else { 1.0 }, mix.lambda);
}

/// The sign bit where the vote is for minus.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
pub(super) fn elect<P: Precision>(vote: &[f32; TILE]) -> [u32; TILE] {
    let mut minus = [0; TILE];
    for (minus, vote) in minus.iter_mut().zip(vote) {
        *minus = if P::round(*vote) >= 0.0 { 0 } else { 1 << 31 };
    }
    minus
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
pub(super) fn add_agreeing(
    mixed: &mut [f32],
    divisor: &mut [f32],
    minus: &[u32],
    delta: &[f32],
    weight: f32,
) {
    for (((mixed, divisor), minus), delta) in mixed.iter_mut().zip(divisor).zip(minus).zip(delta) {
        let agrees = f32::from_bits(delta.to_bits() ^ minus) > 0.0;
        *mixed += if agrees { *delta } else { 0.0 };
        *divisor += if agrees { weight } else { 0.0 };
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn finish_elected<P: Precision>(mixed: &mut [f32], divisor: &[f32], normalize: bool) {
    for (mixed, divisor) in mixed.iter_mut().zip(divisor) {
        let rounded = P::round(*divisor);
        let divisor = if rounded == 0.0 || !normalize { 1.0 } else { rounded };
        *mixed = P::round(P::round(*mixed) / divisor);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn add_divided<P: Precision>(out: &mut [f32], mixed: &[f32], divisor: f32, lambda: f32) {
    for (out, mixed) in out.iter_mut().zip(mixed) {
        let mixed = P::round(P::round(*mixed) / divisor);
        *out = P::round(*out + P::round(mixed * lambda));
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn add_to_base<P: Precision>(out: &mut [f32], mixed: &[f32], lambda: f32) {
    for (out, mixed) in out.iter_mut().zip(mixed) {
        // Multiplying by 1 changes nothing that is not NaN, so it needs no branch.
        *out = P::round(*out + P::round(*mixed * lambda));
    }
}
