//! How a merge moves with the weight of one expert, its masks held as they are.
//!
//! ```text
//! without consensus     slope = lambda · d                      of base + lambda · Σ α d
//! with consensus        slope = lambda · d                      where α d has the elected sign, else 0
//!   and normalize       slope = lambda · (d − mixed) / divisor  there
//!   and signs change    slope += lambda · d · jump / (2 · WIDTH · size)   where |vote| < WIDTH · size
//! along lambda          slope = mixed                           whatever the method
//!
//! vote = Σ α d, size = Σ |α d|, jump = from what minus would have to what plus would
//! ```
//! Without consensus α is the weight after normalisation: a merge is linear in these, and the slope is
//! the same at all of them. With consensus it is the weight itself; at a weight of zero an expert has no
//! vote, and the slope is that of more weight, of less it is another.
//!
//! 1. The signs that experts elect change at single points of the weights only, but at each of them an
//!    element jumps, and over a tensor the jumps add up to a slope: as many votes as d moves pass zero.
//!    They are counted as a density is, by the votes within `WIDTH` of their size. This is an
//!    approximation, and what it leaves out has to be measured.
//! 2. Tried: signs held as they are. Of differences of the loss over a tenth of a weight (TIES of nine
//!    experts, 80k parameters, all domains) that explains a share of 0.28 with the quotient of
//!    `normalize` and 0.72 without, at density 0.2 0.03 and 0.82; with the jumps 0.95, 0.98, 0.96, 0.99.
//!    At three and eight times the width 0.93 and 0.91, at density 0.2 0.81 and 0.72.

use multiversion::multiversion;

use crate::kernels::combine::{add_agreeing, elect, Mix, TILE};
use crate::kernels::elementwise::add;
use crate::number::Precision;

/// Of the size of a vote, within which it counts as one that changes.
const WIDTH: f32 = 0.05;
const SIGN: u32 = 1 << 31;
/// What the deltas of one sign come to, and the divisor of `normalize`.
type Side = ([f32; TILE], [f32; TILE]);

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
        let mut vote = [0.0; TILE];
        for delta in deltas {
            add(&mut vote, &delta[some.clone()]);
        }
        let minus = elect::<P>(&vote);
        let other = minus.map(|sign| sign ^ SIGN);
        let sides = [&minus, &other].map(|minus| {
            let (mut mixed, mut divisor) = ([0.0; TILE], [0.0; TILE]);
            for (delta, weight) in deltas.iter().zip(&mix.weights) {
                add_agreeing(&mut mixed, &mut divisor, minus, &delta[some.clone()], *weight);
            }
            if !mix.normalize {
                divisor = [1.0; TILE];
            }
            (mixed, divisor)
        });
        let own = &own[some];
        agreeing::<P>(own, &minus, if weight < 0.0 { SIGN } else { 0 }, out);
        if mix.normalize {
            move_quotient::<P>(&sides[0].0, &sides[0].1, out);
        }
        add_jumps(&sides, &minus, own, out);
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

/// Add what a changing sign adds, from what both have: that of the elected one first.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn add_jumps(sides: &[Side; 2], minus: &[u32], own: &[f32], out: &mut [f32]) {
    let [(elected, divisor), (against, divisor_against)] = sides;
    for (place, (out, own)) in out.iter_mut().zip(own).enumerate() {
        let (here, there) = (elected[place], against[place]);
        let size = here.abs() + there.abs();
        let quotient =
            |mixed: f32, divisor: f32| if divisor == 0.0 { 0.0 } else { mixed / divisor };
        let jump = quotient(here, divisor[place]) - quotient(there, divisor_against[place]);
        let jump = f32::from_bits(jump.to_bits() ^ minus[place]);
        let near = (here + there).abs() < WIDTH * size;
        *out += if near { own * jump / (2.0 * WIDTH * size) } else { 0.0 };
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn times<P: Precision>(values: &mut [f32], factor: f32) {
    for value in values {
        *value = P::round(*value * factor);
    }
}
