//! `karcher`: the Fréchet mean of the inputs' directions on the sphere, times their mean norm.
//!
//! ```text
//! uᵢ = xᵢ/|xᵢ|,  m = Σ αᵢuᵢ, normalised
//! repeat: v = Σ αᵢ · θᵢ/sin θᵢ · (uᵢ − ⟨m, uᵢ⟩m),  θᵢ = acos⟨m, uᵢ⟩;  stop where |v| is small
//!         m = cos|v| · m + sin|v| · v/|v|, normalised
//! out = mean of |xᵢ| · m
//! ```
//! The mean is never stored: every element's is a recursion on the scalars that earlier passes
//! found, and each pass runs it from the start.

use multiversion::multiversion;

use crate::error::Result;
use crate::execute::group::lanes::{add_products, add_squares, divide, scalar};
use crate::execute::group::method::Method;
use crate::execute::group::sweep::{Buffers, Inputs, Sweep};
use crate::number::Precision;

pub(super) struct Karcher {
    pub max_iter: u32,
    pub tol: f64,
}

/// The scalars of one iteration.
struct Step {
    /// For each input: `⟨m, u⟩`, and the factor on its tangent vector; none where it is skipped.
    terms: Vec<Option<[f32; 2]>>,
    tangent_norm: f32,
    /// Divisor that makes the next mean a unit vector; 1 where there is none.
    mean_norm: f32,
}

/// How the mean begins.
#[derive(Clone, Copy)]
enum Start {
    /// The first valid unit vector.
    First,
    /// `Σ αᵢuᵢ` over this.
    Mean(f32),
}

pub(super) struct State {
    norms: Vec<f32>,
    /// Inputs that are no zero vectors.
    valid: Vec<usize>,
    /// `1 / valid.len()`.
    share: f32,
    start: Start,
    steps: Vec<Step>,
    /// Norm of the result.
    scale: f32,
}

impl State {
    /// Turn the inputs into unit vectors and run the recursion through all known steps: the mean is
    /// then in the first scratch.
    fn mean<P: Precision>(&self, buffers: &mut Buffers) {
        for (input, norm) in buffers.inputs.iter_mut().zip(&self.norms) {
            if *norm != 0.0 {
                divide::<P>(input, *norm);
            }
        }
        let n = buffers.inputs[0].len();
        let mut mean = std::mem::take(&mut buffers.scratch[0]);
        mean.clear();
        match self.start {
            Start::First => mean.extend_from_slice(&buffers.inputs[self.valid[0]]),
            Start::Mean(norm) => {
                mean.resize(n, 0.0);
                for &i in &self.valid {
                    add_share::<P>(&mut mean, &buffers.inputs[i], self.share);
                }
                divide::<P>(&mut mean, norm);
            }
        }
        for step in &self.steps {
            self.tangent::<P>(&step.terms, &mean, buffers);
            let (sin, cos) = f64::from(step.tangent_norm).sin_cos();
            let factors = [scalar::<P>(cos), scalar::<P>(sin)];
            turn::<P>(&mut mean, &buffers.scratch[1], step.tangent_norm, factors);
            divide::<P>(&mut mean, step.mean_norm);
        }
        buffers.scratch[0] = mean;
    }

    /// Compute the tangent vector at `mean` into the second scratch.
    fn tangent<P: Precision>(
        &self,
        terms: &[Option<[f32; 2]>],
        mean: &[f32],
        buffers: &mut Buffers,
    ) {
        let tangent = &mut buffers.scratch[1];
        tangent.clear();
        tangent.resize(mean.len(), 0.0);
        for (&i, term) in self.valid.iter().zip(terms) {
            if let Some(term) = term {
                add_tangent::<P>(tangent, &buffers.inputs[i], mean, *term);
            }
        }
    }
}

impl Karcher {
    /// One iteration: whether it moved the mean.
    fn step<P: Precision>(&self, sweep: &Sweep, state: &mut State) -> Result<bool> {
        let dots = sweep.sums(state.valid.len(), |buffers, sums| {
            state.mean::<P>(buffers);
            for (&i, sums) in state.valid.iter().zip(sums.chunks_mut(1)) {
                add_products(&buffers.scratch[0], &buffers.inputs[i], sums);
            }
        })?;
        let terms: Vec<_> =
            dots.iter().map(|dot| self.term::<P>(scalar::<P>(*dot), state.share)).collect();
        let square = sweep.sums(1, |buffers, sums| {
            state.mean::<P>(buffers);
            let mean = std::mem::take(&mut buffers.scratch[0]);
            state.tangent::<P>(&terms, &mean, buffers);
            buffers.scratch[0] = mean;
            add_squares(&buffers.scratch[1], sums);
        })?;
        let tangent_norm = square[0].sqrt() as f32;
        if tangent_norm == 0.0 || f64::from(tangent_norm) < self.tol {
            return Ok(false);
        }
        state.steps.push(Step { terms, tangent_norm, mean_norm: 1.0 });
        let square = sweep.sums(1, |buffers, sums| {
            state.mean::<P>(buffers);
            add_squares(&buffers.scratch[0], sums);
        })?;
        let norm = square[0].sqrt() as f32;
        if let Some(step) = state.steps.last_mut() {
            step.mean_norm = if f64::from(norm) > self.tol { norm } else { 1.0 };
        }
        Ok(true)
    }

    /// `⟨m, u⟩` and the factor on `u − ⟨m, u⟩m`.
    fn term<P: Precision>(&self, dot: f32, share: f32) -> Option<[f32; 2]> {
        let dot = dot.clamp(-1.0, 1.0);
        let angle = scalar::<P>(f64::from(dot).acos());
        let sin = scalar::<P>(f64::from(angle).sin());
        let factor = P::round(P::round(angle / sin) * share);
        (angle > 0.0 && f64::from(angle) >= self.tol).then_some([dot, factor])
    }
}

impl<P: Precision> Method<P> for Karcher {
    type State = State;

    fn sweeps(&self, _inputs: &Inputs) -> u64 {
        2 + 3 * u64::from(self.max_iter)
    }

    fn statistics(&self, sweep: &Sweep) -> Result<State> {
        let count = sweep.inputs.tensors.len();
        let squares = sweep.sums(count, |buffers, sums| {
            for (input, sums) in buffers.inputs.iter().zip(sums.chunks_mut(1)) {
                add_squares(input, sums);
            }
        })?;
        let norms: Vec<f32> = squares.iter().map(|square| square.sqrt() as f32).collect();
        let valid: Vec<usize> = (0..count).filter(|&i| f64::from(norms[i]) > self.tol).collect();
        let all = 1.0 / count as f64;
        let mut sum = 0.0;
        valid.iter().for_each(|_| sum += all);
        let scale = norms.iter().map(|norm| all as f32 * norm).sum();
        let mut state = State {
            norms,
            share: (all / sum) as f32,
            start: Start::Mean(1.0),
            steps: Vec::new(),
            scale: P::round(scale),
            valid,
        };
        let all_sweeps = Method::<P>::sweeps(self, sweep.inputs);
        if state.valid.is_empty() {
            sweep.skip(all_sweeps - 1);
            return Ok(state);
        }
        let square = sweep.sums(1, |buffers, sums| {
            state.mean::<P>(buffers);
            add_squares(&buffers.scratch[0], sums);
        })?;
        let norm = square[0].sqrt() as f32;
        state.start = if f64::from(norm) < self.tol { Start::First } else { Start::Mean(norm) };
        let mut sweeps = 2;
        for _ in 0..self.max_iter {
            let moved = self.step::<P>(sweep, &mut state)?;
            sweeps += if moved { 3 } else { 2 };
            if !moved {
                break;
            }
        }
        sweep.skip(all_sweeps - sweeps);
        Ok(state)
    }

    fn apply(&self, state: &State, _start: usize, buffers: &mut Buffers, out: &mut [f32]) {
        if state.valid.is_empty() {
            out.fill(0.0);
            return;
        }
        state.mean::<P>(buffers);
        out.copy_from_slice(&buffers.scratch[0]);
        crate::kernels::elementwise::scale::<P>(out, state.scale);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn add_share<P: Precision>(sums: &mut [f32], values: &[f32], share: f32) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum = P::round(*sum + P::round(*value * share));
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn add_tangent<P: Precision>(sums: &mut [f32], units: &[f32], mean: &[f32], term: [f32; 2]) {
    let [dot, factor] = term;
    for ((sum, unit), mean) in sums.iter_mut().zip(units).zip(mean) {
        let tangent = P::round(*unit - P::round(dot * *mean));
        *sum = P::round(*sum + P::round(factor * tangent));
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn turn<P: Precision>(mean: &mut [f32], tangent: &[f32], norm: f32, factors: [f32; 2]) {
    let [cos, sin] = factors;
    for (mean, tangent) in mean.iter_mut().zip(tangent) {
        let direction = P::round(*tangent / norm);
        *mean = P::round(P::round(cos * *mean) + P::round(sin * direction));
    }
}
