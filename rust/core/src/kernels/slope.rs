//! How a merge moves with the weight of one expert, its masks and elected signs held as they are.
//!
//! ```text
//! without consensus     slope = lambda · d                      of base + lambda · Σ α d
//! with consensus        slope = lambda · d                      where α d has the elected sign, else 0
//!   and normalize       slope = lambda · (d − mixed) / divisor  there
//! along lambda          slope = mixed                           whatever the method
//! ```
//! Without consensus α is the weight after normalisation: a merge is linear in these, and the slope is
//! the same at all of them. With consensus it is the weight itself; at a weight of zero an expert has no
//! vote, and the slope is that of more weight, of less it is another. The signs that experts elect change
//! at single points of the weights only, but at each of them an element jumps: there the slope is an
//! approximation, and what it leaves out has to be measured.

use multiversion::multiversion;

use crate::kernels::combine::{add_agreeing, elect, Mix, TILE};
use crate::kernels::elementwise::add;
use crate::number::Precision;

/// Put into `out` the slope along the weight of the expert whose delta and weight are `own`.
///
/// `deltas` are those of the mix, each multiplied by its weight already; the one of `own` is not.
pub(crate) fn slope_of<P: Precision>(
    mix: &Mix,
    deltas: &[&[f32]],
    (own, weight): (&[f32], f32),
    out: &mut [f32],
) {
    if !mix.consensus {
        out.copy_from_slice(own);
        return times::<P>(out, mix.lambda);
    }
    for (tile, out) in out.chunks_mut(TILE).enumerate() {
        let some = tile * TILE..tile * TILE + out.len();
        let (mut vote, mut mixed, mut divisor) = ([0.0; TILE], [0.0; TILE], [0.0; TILE]);
        for delta in deltas {
            add(&mut vote, &delta[some.clone()]);
        }
        let minus = elect::<P>(&vote);
        let turned = if weight < 0.0 { 1 << 31 } else { 0 };
        for (delta, weight) in deltas.iter().zip(&mix.weights) {
            add_agreeing(&mut mixed, &mut divisor, &minus, &delta[some.clone()], *weight);
        }
        agreeing::<P>(&own[some], &minus, turned, out);
        if mix.normalize {
            move_quotient::<P>(&mixed, &divisor, out);
        }
        times::<P>(out, mix.lambda);
    }
}

/// The values that have the elected sign, those of a negative weight the other, else zero.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn agreeing<P: Precision>(values: &[f32], minus: &[u32], turned: u32, out: &mut [f32]) {
    for ((out, minus), value) in out.iter_mut().zip(minus).zip(values) {
        let agrees = f32::from_bits(value.to_bits() ^ minus ^ turned) > 0.0;
        *out = if agrees { *value } else { 0.0 };
    }
}

/// From values, zero where they take no part, to what each more of them adds to the quotient. Where
/// nothing takes part, a quotient has no slope.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn move_quotient<P: Precision>(mixed: &[f32], divisor: &[f32], values: &mut [f32]) {
    for ((value, mixed), divisor) in values.iter_mut().zip(mixed).zip(divisor) {
        let away = P::round(*value - P::round(*mixed / *divisor)) / *divisor;
        let takes_part = *value != 0.0 && *divisor != 0.0;
        *value = if takes_part { P::round(away) } else { 0.0 };
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn times<P: Precision>(values: &mut [f32], factor: f32) {
    for value in values {
        *value = P::round(*value * factor);
    }
}
