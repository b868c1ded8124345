//! `nearswap`: interpolate from the base to the input, fully where they are within `t`.
//!
//! ```text
//! w   = clamp(t / max(|base − input|, 1e-6), 0, 1)
//! out = w · input + (1 − w) · base
//! ```
//! torch divides a number by a tensor as reciprocal, then product. In float16 the reciprocal of a
//! small difference is infinite; with `t` = 0 mergekit then gets NaN, and we the weight 0 it meant.

use multiversion::multiversion;

use crate::error::Result;
use crate::execute::group::method::Method;
use crate::execute::group::sweep::{Buffers, Inputs, Sweep};
use crate::number::Precision;

pub(super) struct Nearswap {
    pub t: f32,
}

impl<P: Precision> Method<P> for Nearswap {
    type State = ();

    fn sweeps(&self, _inputs: &Inputs) -> u64 {
        0
    }

    fn statistics(&self, _sweep: &Sweep) -> Result<()> {
        Ok(())
    }

    fn apply(&self, _state: &(), _start: usize, buffers: &mut Buffers, out: &mut [f32]) {
        swap::<P>(&buffers.base, &buffers.inputs[0], self.t, out);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn swap<P: Precision>(a: &[f32], b: &[f32], t: f32, out: &mut [f32]) {
    let smallest = P::round(1e-6);
    for ((a, b), out) in a.iter().zip(b).zip(out) {
        let distance = P::round(a - b).abs().max(smallest);
        let weight = P::round(P::round(1.0 / distance) * t).clamp(0.0, 1.0);
        let weight = if weight.is_nan() { 0.0 } else { weight };
        *out = P::round(P::round(weight * b) + P::round(P::round(1.0 - weight) * a));
    }
}
