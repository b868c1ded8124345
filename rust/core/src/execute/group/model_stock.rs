//! `model_stock`: the average of the inputs, drawn to the base by how little their deltas agree.
//!
//! ```text
//! c   = mean of cos(dᵢ, dⱼ) over all pairs of deltas
//! t   = k·c / (1 + (k − 1)·c)                             0 where the divisor vanishes
//! out = t · average + (1 − t) · base
//! ```

use multiversion::multiversion;

use crate::error::Result;
use crate::execute::group::lanes::{add_rounded_products, add_squares, scalar};
use crate::execute::group::method::Method;
use crate::execute::group::sweep::{Buffers, Fold, Inputs, Lanes, Sweep};
use crate::execute::group::vectors::{statistics, Chunk, Kept, Statistics, Vectors};
use crate::number::Precision;

/// Products of norms below this are replaced by it, and divisors below it count as zero.
const SMALLEST: f32 = 1e-6;

pub(super) struct ModelStock {
    pub filter_wise: bool,
    /// Number of inputs besides the base.
    pub count: usize,
}

impl ModelStock {
    pub(super) fn vectors(&self, shape: &[usize]) -> Vectors {
        if self.filter_wise {
            Vectors::last(shape)
        } else {
            Vectors::whole(shape)
        }
    }

    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        let count = self.count;
        (0..count).flat_map(move |i| (i + 1..count).map(move |j| (i, j)))
    }
}

impl<P: Precision> Statistics<P> for ModelStock {
    type State = f32;
    type Kept = f32;

    fn deltas(&self) -> bool {
        true
    }

    fn passes(&self, _vectors: Vectors) -> usize {
        1
    }

    /// The squares of every input, then the products of every pair.
    fn folds(&self, _pass: usize) -> (Fold, usize) {
        (Fold::Sum, self.count * (self.count + 1) / 2)
    }

    fn add(&self, _pass: usize, _state: &f32, chunk: &Chunk, sums: &mut [Lanes]) {
        let (squares, products) = sums.split_at_mut(self.count);
        for (i, sums) in squares.iter_mut().enumerate() {
            add_squares(chunk.input(i), std::slice::from_mut(sums));
        }
        for ((i, j), sums) in self.pairs().zip(products) {
            add_rounded_products::<P>(chunk.input(i), chunk.input(j), std::slice::from_mut(sums));
        }
    }

    fn advance(&self, _pass: usize, t: &mut f32, totals: &[f64]) {
        let (squares, products) = totals.split_at(self.count);
        let norm = |i: usize| scalar::<P>(squares[i].sqrt());
        let mut sum = 0.0_f32;
        for ((i, j), product) in self.pairs().zip(products) {
            let norms = P::round(norm(i) * norm(j)).max(P::round(SMALLEST));
            sum += P::round(scalar::<P>(*product) / norms).clamp(-1.0, 1.0);
        }
        let cos = P::round(sum / products.len() as f32);
        let count = self.count as f32;
        let divisor = P::round(1.0 + P::round((count - 1.0) * cos));
        *t = if divisor.abs() < P::round(SMALLEST) {
            0.0
        } else {
            P::round(P::round(count * cos) / divisor)
        };
    }

    fn keep(&self, t: f32) -> f32 {
        t
    }
}

impl<P: Precision> Method<P> for ModelStock {
    type State = Kept<f32>;

    fn sweeps(&self, inputs: &Inputs) -> u64 {
        self.vectors(inputs.shape).sweeps(1)
    }

    fn statistics(&self, sweep: &Sweep) -> Result<Kept<f32>> {
        statistics::<P, _>(self, sweep, self.vectors(sweep.inputs.shape))
    }

    fn apply(&self, kept: &Kept<f32>, start: usize, buffers: &mut Buffers, out: &mut [f32]) {
        out.copy_from_slice(&buffers.inputs[0]);
        for input in &buffers.inputs[1..] {
            add::<P>(out, input);
        }
        for (vector, part) in kept.vectors.split(start, out.len()) {
            let t = kept.values[vector];
            draw::<P>(&mut out[part.clone()], &buffers.base[part], t, self.count as f32);
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn add<P: Precision>(sums: &mut [f32], values: &[f32]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum = P::round(*sum + *value);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn draw<P: Precision>(sums: &mut [f32], base: &[f32], t: f32, count: f32) {
    let rest = P::round(1.0 - t);
    for (sum, base) in sums.iter_mut().zip(base) {
        let average = P::round(*sum / count);
        *sum = P::round(P::round(t * average) + P::round(rest * *base));
    }
}
