//! `arcee_fusion`: take the elements of outstanding importance from the input, the rest from the base.
//!
//! ```text
//! importance = |input − base| · KL(softmax(input) ‖ softmax(base))     softmax along the last dimension
//! threshold  = median + 1.5 · (upper quartile − lower quartile)       of all importances
//! out        = base + (input − base where importance ≥ threshold, else 0)
//! ```
//! The quartiles are exact; mergekit's are those of a random sample above 1,000,000 elements. Its mask
//! is float32, so that the last sum is not rounded to 16 bit.

use multiversion::multiversion;

use crate::error::Result;
use crate::execute::group::lanes::scalar;
use crate::execute::group::method::Method;
use crate::execute::group::order::order_statistics;
use crate::execute::group::sweep::{Buffers, Fold, Inputs, Lanes, Sweep};
use crate::execute::group::vectors::{statistics, Chunk, Kept, Statistics, Vectors};
use crate::kernels::elementwise::{subtract, SUM_LANES};
use crate::number::{Float, Precision};

pub(super) struct ArceeFusion;

/// Of the input and of the base: the largest element, and the sum of exponentials below it.
#[derive(Default)]
pub(super) struct Softmax {
    largest: [f64; 2],
    sums: [f64; 2],
    divergence: f32,
}

pub(super) struct State {
    /// Divergence of every row.
    rows: Kept<f32>,
    threshold: f32,
}

impl<P: Precision> Statistics<P> for ArceeFusion {
    type State = Softmax;
    type Kept = f32;

    fn deltas(&self) -> bool {
        false
    }

    fn passes(&self, _vectors: Vectors) -> usize {
        3
    }

    fn folds(&self, pass: usize) -> (Fold, usize) {
        match pass {
            0 => (Fold::Max, 2),
            1 => (Fold::Sum, 2),
            _ => (Fold::Sum, 1),
        }
    }

    fn add(&self, pass: usize, state: &Softmax, chunk: &Chunk, lanes: &mut [Lanes]) {
        let Softmax { largest, sums, .. } = state;
        let exponential = |value: f32, side: usize| (f64::from(value) - largest[side]).exp();
        let pairs = chunk.input(0).iter().zip(chunk.base()).enumerate();
        for (i, (p, q)) in pairs {
            let (lane, values) = (i % SUM_LANES, [*p, *q]);
            match pass {
                0 => {
                    for (lanes, value) in lanes.iter_mut().zip(values) {
                        lanes[lane] = lanes[lane].max(f64::from(value));
                    }
                }
                1 => {
                    for side in 0..2 {
                        lanes[side][lane] += exponential(values[side], side);
                    }
                }
                _ => {
                    let share = |side: usize| {
                        let share = exponential(values[side], side) / sums[side];
                        P::round(scalar::<P>(share) + P::round(1e-8))
                    };
                    let (p, q) = (share(0), share(1));
                    let log = scalar::<P>(f64::from(P::round(p / q)).ln());
                    lanes[0][lane] += f64::from(P::round(p * log));
                }
            }
        }
    }

    fn advance(&self, pass: usize, state: &mut Softmax, totals: &[f64]) {
        match pass {
            0 => state.largest = [totals[0], totals[1]],
            1 => state.sums = [totals[0], totals[1]],
            _ => state.divergence = scalar::<P>(totals[0]),
        }
    }

    fn keep(&self, state: Softmax) -> f32 {
        state.divergence
    }
}

/// Turn the input into its difference from the base; importances go into the first scratch.
fn importance<P: Precision>(rows: &Kept<f32>, start: usize, buffers: &mut Buffers) {
    let Buffers { base, inputs, scratch: [out, ..], .. } = buffers;
    let deltas = &mut inputs[0];
    subtract::<P>(deltas, base);
    out.resize(deltas.len(), 0.0);
    for (row, part) in rows.vectors.split(start, deltas.len()) {
        multiply::<P>(&deltas[part.clone()], rows.values[row], &mut out[part]);
    }
}

impl<P: Precision> Method<P> for ArceeFusion {
    type State = State;

    fn sweeps(&self, inputs: &Inputs) -> u64 {
        let rows = Vectors::last(inputs.shape);
        rows.sweeps(Statistics::<P>::passes(self, rows)) + 1 + u64::from(P::DTYPE != Float::Bf16)
    }

    fn statistics(&self, sweep: &Sweep) -> Result<State> {
        let rows = statistics::<P, _>(self, sweep, Vectors::last(sweep.inputs.shape))?;
        let len = sweep.inputs.len();
        if len == 0 {
            return Ok(State { rows, threshold: 0.0 });
        }
        // mergekit multiplies in float32.
        let rank = |share: f32| ((share * (len - 1) as f32) as u64).min(len as u64 - 1);
        let quantity = |start: usize, buffers: &mut Buffers| {
            importance::<P>(&rows, start, buffers);
        };
        let quartiles = order_statistics(sweep, P::DTYPE != Float::Bf16, quantity, |_| {
            [0.25, 0.5, 0.75].map(rank).to_vec()
        })?;
        let [lower, median, upper] = [0, 1, 2].map(|i: usize| quartiles[i].value);
        let threshold = P::round(median + P::round(1.5 * P::round(upper - lower)));
        Ok(State { rows, threshold })
    }

    fn apply(&self, state: &State, start: usize, buffers: &mut Buffers, out: &mut [f32]) {
        importance::<P>(&state.rows, start, buffers);
        let deltas = buffers.inputs[0].iter().zip(&buffers.scratch[0]);
        for ((out, base), (delta, importance)) in out.iter_mut().zip(&buffers.base).zip(deltas) {
            let taken = *importance >= state.threshold;
            *out = base + if taken { *delta } else { 0.0 };
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn multiply<P: Precision>(deltas: &[f32], factor: f32, out: &mut [f32]) {
    for (delta, out) in deltas.iter().zip(out) {
        *out = P::round(delta.abs() * factor);
    }
}
