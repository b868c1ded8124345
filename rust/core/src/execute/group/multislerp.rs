//! `multislerp`: the weighted barycentre of several points on a sphere, by one step in the tangent
//! space at their normalised mean.
//!
//! ```text
//! uᵢ  = xᵢ / |xᵢ|                          xᵢ the inputs, or their deltas
//! m   = Σ wᵢuᵢ / |Σ wᵢuᵢ|
//! v   = Σ wᵢ(uᵢ − ⟨uᵢ, m⟩m)
//! out = (cos|v| · m + sin|v| / |v| · v) · Σ wᵢ|xᵢ|
//! ```
//! Each of |xᵢ|, |Σ wᵢuᵢ|, ⟨uᵢ, m⟩ and |v| takes a pass; what lies between is computed again.

use multiversion::multiversion;

use crate::error::{Error, Result};
use crate::execute::group::lanes::{
    add_base, add_rounded_products, add_scaled, add_squares, divide, scalar,
};
use crate::execute::group::method::Method;
use crate::execute::group::sweep::{Buffers, Inputs, Sweep};
use crate::kernels::elementwise::round_all;
use crate::number::Precision;

pub(super) struct Multislerp {
    weights: Vec<f32>,
    eps: f32,
}

/// What the passes have found so far.
#[derive(Default)]
pub(super) struct State {
    /// Of the inputs, with `eps` added.
    norms: Vec<f32>,
    mean_norm: f32,
    dots: Vec<f32>,
    /// Factors on `m` and `v`, and on their sum.
    factors: [f32; 3],
    /// The mean vanishes: interpolate without a sphere.
    linear: bool,
}

impl Multislerp {
    pub(super) fn new(inputs: &Inputs, weights: &[f64], normalize: bool, eps: f64) -> Result<Self> {
        let mut weights: Vec<f32> = weights.iter().map(|weight| *weight as f32).collect();
        round_all(inputs.dtype, &mut weights);
        let mut sum = [weights.iter().sum()];
        round_all(inputs.dtype, &mut sum);
        let refused = |reason: &str| Error::Options {
            tensor: inputs.name.to_owned(),
            reason: reason.to_owned(),
        };
        if normalize && sum[0] == 0.0 {
            return Err(refused("the weights sum to zero and cannot be normalised"));
        }
        if !sum[0].is_finite() {
            return Err(refused("the weights are too large"));
        }
        if normalize {
            weights.iter_mut().for_each(|weight| *weight /= sum[0]);
            round_all(inputs.dtype, &mut weights);
        }
        Ok(Self { weights, eps: eps as f32 })
    }

    /// `Σ wᵢxᵢ`, rounded as torch sums tensors.
    fn mix<P: Precision>(&self, inputs: &[Vec<f32>], sums: &mut Vec<f32>) {
        sums.clear();
        sums.resize(inputs[0].len(), 0.0);
        for (input, weight) in inputs.iter().zip(&self.weights) {
            add_scaled::<P>(sums, input, *weight);
        }
        round_all(P::DTYPE, sums);
    }

    /// Turn the inputs into unit vectors and compute their mean, not normalised.
    fn mean<P: Precision>(&self, state: &State, buffers: &mut Buffers) {
        buffers.subtract_base::<P>();
        for (input, norm) in buffers.inputs.iter_mut().zip(&state.norms) {
            // In float16 `eps` can be nothing, and then a zero vector would be 0/0.
            divide::<P>(input, if *norm == 0.0 { 1.0 } else { *norm });
        }
        self.mix::<P>(&buffers.inputs, &mut buffers.scratch[0]);
    }

    /// Turn the inputs into tangent vectors and mix them: `m` and `v` are then in the scratch.
    fn tangent<P: Precision>(&self, state: &State, buffers: &mut Buffers) {
        self.mean::<P>(state, buffers);
        let [mean, tangent, _] = &mut buffers.scratch;
        divide::<P>(mean, state.mean_norm);
        for (input, dot) in buffers.inputs.iter_mut().zip(&state.dots) {
            project::<P>(input, mean, *dot);
        }
        self.mix::<P>(&buffers.inputs, tangent);
    }
}

impl<P: Precision> Method<P> for Multislerp {
    type State = State;

    fn sweeps(&self, _inputs: &Inputs) -> u64 {
        4
    }

    fn statistics(&self, sweep: &Sweep) -> Result<State> {
        let count = self.weights.len();
        let mut state = State::default();
        let squares = sweep.sums(count, |buffers, sums| {
            buffers.subtract_base::<P>();
            for (input, sums) in buffers.inputs.iter().zip(sums.chunks_mut(1)) {
                add_squares(input, sums);
            }
        })?;
        let norms: Vec<f32> = squares.iter().map(|square| scalar::<P>(square.sqrt())).collect();
        state.norms = norms.iter().map(|norm| P::round(norm + P::round(self.eps))).collect();

        let square = sweep.sums(1, |buffers, sums| {
            self.mean::<P>(&state, buffers);
            add_squares(&buffers.scratch[0], sums);
        })?;
        state.mean_norm = scalar::<P>(square[0].sqrt());
        if sweep.inputs.len() > 0 && state.mean_norm <= self.eps {
            // Inputs that are all zero, as copies of the base are, have no direction to lose.
            if count != 2 && norms.iter().any(|norm| *norm != 0.0) {
                return Err(Error::Options {
                    tensor: sweep.inputs.name.to_owned(),
                    reason: "the weighted sum of the normalised inputs is zero: opposite inputs \
                             whose weights balance out have no mean direction"
                        .to_owned(),
                });
            }
            state.linear = true;
            sweep.skip(2);
            return Ok(state);
        }
        state.dots = sweep
            .sums(count, |buffers, sums| {
                self.mean::<P>(&state, buffers);
                let mean = &mut buffers.scratch[0];
                divide::<P>(mean, state.mean_norm);
                for (input, sums) in buffers.inputs.iter().zip(sums.chunks_mut(1)) {
                    add_rounded_products::<P>(input, mean, sums);
                }
            })?
            .into_iter()
            .map(scalar::<P>)
            .collect();
        let square = sweep.sums(1, |buffers, sums| {
            self.tangent::<P>(&state, buffers);
            add_squares(&buffers.scratch[1], sums);
        })?;
        let angle = P::round(scalar::<P>(square[0].sqrt()) + self.eps);
        let products = norms.iter().zip(&self.weights).map(|(norm, w)| P::round(norm * w));
        state.factors = [
            scalar::<P>(f64::from(angle).cos()),
            if angle == 0.0 { 1.0 } else { P::round(scalar::<P>(f64::from(angle).sin()) / angle) },
            P::round(products.sum()),
        ];
        Ok(state)
    }

    fn apply(&self, state: &State, _start: usize, buffers: &mut Buffers, out: &mut [f32]) {
        if state.linear {
            buffers.subtract_base::<P>();
            self.mix::<P>(&buffers.inputs, &mut buffers.scratch[0]);
            out.copy_from_slice(&buffers.scratch[0]);
        } else {
            self.tangent::<P>(state, buffers);
            leave_tangent::<P>(&buffers.scratch[0], &buffers.scratch[1], state.factors, out);
        }
        if !buffers.base.is_empty() {
            add_base::<P>(out, &buffers.base);
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn project<P: Precision>(units: &mut [f32], mean: &[f32], dot: f32) {
    for (unit, mean) in units.iter_mut().zip(mean) {
        *unit = P::round(*unit - P::round(dot * *mean));
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn leave_tangent<P: Precision>(mean: &[f32], tangent: &[f32], f: [f32; 3], out: &mut [f32]) {
    for ((mean, tangent), out) in mean.iter().zip(tangent).zip(out) {
        let unit = P::round(P::round(*mean * f[0]) + P::round(*tangent * f[1]));
        *out = P::round(unit * f[2]);
    }
}
