//! `ram` and `ramplus_tl`: average the changes that several inputs make to an element, keep whole
//! those that one makes alone.
//!
//! ```text
//! dᵢ  = input − base where above epsilon, else 0;  n = number of inputs that change the element
//! out = base + (n = 1: Σ dᵢ · λᵢ;  n > 1: Σ dᵢ / n)
//! λᵢ  = 1 + r · min(shared changes of i / own changes of i, alpha)          ramplus_tl; else 1
//! ```
//! In mergekit λ is a float32 tensor, so that `ramplus_tl` is not rounded to 16 bit from there on.

use multiversion::multiversion;

use crate::error::Result;
use crate::execute::group::method::Method;
use crate::execute::group::sweep::{Buffers, Inputs, Sweep};
use crate::number::Precision;

pub(super) struct Ram {
    pub epsilon: f32,
    /// Whether it is `ramplus_tl`.
    pub plus: Option<Plus>,
}

pub(super) struct Plus {
    pub r: f32,
    pub alpha: f32,
}

impl Ram {
    /// Turn the inputs into changes, and count those of each element into the first scratch.
    fn changes<P: Precision>(&self, buffers: &mut Buffers) {
        buffers.subtract_base::<P>();
        let counts = &mut buffers.scratch[0];
        counts.clear();
        counts.resize(buffers.base.len(), 0.0);
        for input in &mut buffers.inputs {
            count_changes(input, counts, P::round(self.epsilon));
        }
    }

    fn lambda(&self, plus: &Plus, shared: f64, own: f64) -> f32 {
        let ratio = shared as f32 / (own as f32).max(self.epsilon);
        1.0 + ratio.max(0.0).min(plus.alpha) * plus.r
    }
}

impl<P: Precision> Method<P> for Ram {
    /// λ of every input; empty for `ram`.
    type State = Vec<f32>;

    fn sweeps(&self, _inputs: &Inputs) -> u64 {
        u64::from(self.plus.is_some())
    }

    fn statistics(&self, sweep: &Sweep) -> Result<Vec<f32>> {
        let Some(plus) = &self.plus else { return Ok(vec![]) };
        let totals = sweep.sums(2 * sweep.inputs.tensors.len(), |buffers, sums| {
            self.changes::<P>(buffers);
            for (input, sums) in buffers.inputs.iter().zip(sums.chunks_mut(2)) {
                let [shared, own] = count_kinds(input, &buffers.scratch[0]);
                // Counts are exact: one lane is as good as sixteen.
                sums[0][0] += f64::from(shared);
                sums[1][0] += f64::from(own);
            }
        })?;
        Ok(totals.chunks(2).map(|counts| self.lambda(plus, counts[0], counts[1])).collect())
    }

    fn apply(&self, lambdas: &Vec<f32>, _start: usize, buffers: &mut Buffers, out: &mut [f32]) {
        self.changes::<P>(buffers);
        out.fill(0.0);
        for (number, input) in buffers.inputs.iter().enumerate() {
            let lambda = lambdas.get(number).copied().unwrap_or(1.0);
            add_changes::<P>(out, input, &buffers.scratch[0], lambda);
        }
        for (out, base) in out.iter_mut().zip(&buffers.base) {
            *out = match self.plus {
                None => P::round(base + P::round(*out)),
                Some(_) => base + *out,
            };
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn count_changes(deltas: &mut [f32], counts: &mut [f32], epsilon: f32) {
    for (delta, count) in deltas.iter_mut().zip(counts) {
        let changes = delta.abs() > epsilon;
        *count += if changes { 1.0 } else { 0.0 };
        *delta = if changes { *delta } else { 0.0 };
    }
}

/// How many changes are shared, and how many are this input's own. In a change of zero nothing is
/// above epsilon.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn count_kinds(deltas: &[f32], counts: &[f32]) -> [u32; 2] {
    let mut kinds = [0, 0];
    for (delta, count) in deltas.iter().zip(counts) {
        kinds[0] += u32::from(*delta != 0.0 && *count > 1.0);
        kinds[1] += u32::from(*delta != 0.0 && *count == 1.0);
    }
    kinds
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn add_changes<P: Precision>(sums: &mut [f32], deltas: &[f32], counts: &[f32], lambda: f32) {
    for ((sum, delta), count) in sums.iter_mut().zip(deltas).zip(counts) {
        let own = *delta * lambda;
        let shared = P::round(*delta / count.max(1.0));
        *sum += if *count > 1.0 { shared } else { own };
    }
}
