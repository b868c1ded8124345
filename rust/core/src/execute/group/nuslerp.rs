//! `nuslerp`: spherical interpolation between two inputs, or between their deltas; one angle for the
//! tensor, for each row, or for each column.
//!
//! ```text
//! θ   = acos(⟨a/|a|, b/|b|⟩)
//! out = (sin((1 − t)θ) · a + sin(tθ) · b) / sin θ        linear where cos²θ = 1
//! ```
//! mergekit rounds the unit vectors and their products, so that the norms must be known first: two
//! passes. In float32 that rounding only shows in short vectors; long ones take one pass.

use multiversion::multiversion;

use crate::error::Result;
use crate::execute::group::lanes::{add_base, add_gram, add_pairs, scalar};
use crate::execute::group::method::Method;
use crate::execute::group::sweep::{Buffers, Fold, Inputs, Lanes, Sweep};
use crate::execute::group::vectors::{statistics, Chunk, Kept, Statistics, Vectors};
use crate::number::{Float, Precision};
use crate::plan::Along;

const SMALLEST_NORM: f32 = 1e-7;
/// Below this `1 − cos²θ` counts as zero.
const COLLINEAR: f32 = 1e-16;

pub(super) struct Nuslerp {
    pub t: f64,
    pub along: Along,
}

/// Factors on both inputs, and what their sum is divided by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Factors {
    a: f32,
    b: f32,
    divisor: f32,
}

#[derive(Default)]
pub(super) struct State {
    norms: [f32; 2],
    cos: f32,
}

impl Nuslerp {
    pub(super) fn vectors(&self, shape: &[usize]) -> Vectors {
        match self.along {
            Along::Tensor => Vectors::whole(shape),
            Along::Last => Vectors::last(shape),
            Along::First => Vectors::first(shape),
        }
    }

    fn factors<P: Precision>(&self, cos: f32) -> Factors {
        let cos = cos.clamp(-1.0, 1.0);
        let (rest, t) = ((1.0 - self.t) as f32, self.t as f32);
        if P::round(1.0 - P::round(cos * cos)) <= P::round(COLLINEAR) {
            return Factors { a: rest, b: t, divisor: 1.0 };
        }
        let angle = scalar::<P>(f64::from(cos).acos());
        let sin = |angle: f32| scalar::<P>(f64::from(angle).sin());
        let (a, b) = (sin(P::round(rest * angle)), sin(P::round(t * angle)));
        Factors { a, b, divisor: sin(angle) }
    }
}

impl<P: Precision> Statistics<P> for Nuslerp {
    type State = State;
    type Kept = Factors;

    fn deltas(&self) -> bool {
        true
    }

    /// In 16 bit the unit vectors are rounded, and so take a pass of their own.
    fn passes(&self, _vectors: Vectors) -> usize {
        if P::DTYPE == Float::F32 {
            1
        } else {
            2
        }
    }

    fn folds(&self, pass: usize) -> (Fold, usize) {
        (Fold::Sum, if pass == 0 { 3 } else { 1 })
    }

    fn add(&self, pass: usize, state: &State, chunk: &Chunk, sums: &mut [Lanes]) {
        let (a, b) = (chunk.input(0), chunk.input(1));
        if pass == 0 {
            add_gram(a, b, sums);
        } else {
            add_unit_products::<P>(a, b, state.norms, sums);
        }
    }

    fn advance(&self, pass: usize, state: &mut State, totals: &[f64]) {
        if pass == 1 {
            state.cos = scalar::<P>(totals[0]);
            return;
        }
        let smallest = P::round(SMALLEST_NORM);
        let norms = [totals[0].sqrt(), totals[1].sqrt()];
        state.norms = norms.map(|norm| scalar::<P>(norm).max(smallest));
        // With norms that are not rounded, parallel vectors have a cosine of one.
        let [a, b] = norms.map(|norm| norm.max(smallest.into()));
        state.cos = scalar::<P>(totals[2] / a / b);
    }

    fn keep(&self, state: State) -> Factors {
        self.factors::<P>(state.cos)
    }
}

impl<P: Precision> Method<P> for Nuslerp {
    type State = Kept<Factors>;

    fn sweeps(&self, inputs: &Inputs) -> u64 {
        let vectors = self.vectors(inputs.shape);
        vectors.sweeps(Statistics::<P>::passes(self, vectors))
    }

    fn statistics(&self, sweep: &Sweep) -> Result<Kept<Factors>> {
        statistics::<P, _>(self, sweep, self.vectors(sweep.inputs.shape))
    }

    fn apply(&self, kept: &Kept<Factors>, start: usize, buffers: &mut Buffers, out: &mut [f32]) {
        buffers.subtract_base::<P>();
        for (vector, part) in kept.vectors.split(start, out.len()) {
            let (a, b) = (&buffers.inputs[0][part.clone()], &buffers.inputs[1][part.clone()]);
            let out = &mut out[part];
            if matches!(kept.vectors, Vectors::Rows { .. }) {
                interpolate::<P>(a, b, kept.values[vector], out);
            } else {
                interpolate_each::<P>(a, b, &kept.values[vector..][..out.len()], out);
            }
        }
        if !buffers.base.is_empty() {
            add_base::<P>(out, &buffers.base);
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn add_unit_products<P: Precision>(a: &[f32], b: &[f32], norms: [f32; 2], sums: &mut [Lanes]) {
    add_pairs(a, b, sums, |a, b| {
        [f64::from(P::round(P::round(a / norms[0]) * P::round(b / norms[1])))]
    });
}

#[inline(always)]
fn between<P: Precision>(a: f32, b: f32, factors: Factors) -> f32 {
    let sum = P::round(P::round(factors.a * a) + P::round(factors.b * b));
    P::round(sum / factors.divisor)
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn interpolate<P: Precision>(a: &[f32], b: &[f32], factors: Factors, out: &mut [f32]) {
    for ((a, b), out) in a.iter().zip(b).zip(out) {
        *out = between::<P>(*a, *b, factors);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn interpolate_each<P: Precision>(a: &[f32], b: &[f32], factors: &[Factors], out: &mut [f32]) {
    for (((a, b), factors), out) in a.iter().zip(b).zip(factors).zip(out) {
        *out = between::<P>(*a, *b, *factors);
    }
}
