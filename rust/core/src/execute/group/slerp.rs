//! `slerp`: from the base to the input on the great circle through both.
//!
//! ```text
//! θ   = acos(⟨a, b⟩ / |a||b|)
//! out = sin((1 − t)θ)/sin θ · a + sin(tθ)/sin θ · b       linear where |cos θ| > 0.9995
//! ```
//! In float32 whatever the dtype, rounded once, so that one pass finds both norms and the product.

use multiversion::multiversion;

use crate::error::Result;
use crate::execute::group::lanes::add_gram;
use crate::execute::group::method::Method;
use crate::execute::group::sweep::{Buffers, Inputs, Sweep};
use crate::number::Precision;

const LINEAR_ABOVE: f32 = 0.9995;
/// Norms up to this are replaced by one.
const SMALLEST_NORM: f32 = 1e-8;

pub(super) struct Slerp {
    pub t: f32,
}

impl<P: Precision> Method<P> for Slerp {
    type State = [f32; 2];

    fn sweeps(&self, _inputs: &Inputs) -> u64 {
        1
    }

    fn statistics(&self, sweep: &Sweep) -> Result<[f32; 2]> {
        let totals =
            sweep.sums(3, |buffers, sums| add_gram(&buffers.base, &buffers.inputs[0], sums))?;
        Ok(self.factors(totals[0], totals[1], totals[2]))
    }

    fn apply(&self, factors: &[f32; 2], _start: usize, buffers: &mut Buffers, out: &mut [f32]) {
        add_weighted::<P>(&buffers.base, &buffers.inputs[0], *factors, out);
    }
}

impl Slerp {
    /// Factors on base and input, from both squared norms and the product.
    fn factors(&self, aa: f64, bb: f64, ab: f64) -> [f32; 2] {
        let norm = |square: f64| match square.sqrt() as f32 {
            norm if norm > SMALLEST_NORM => f64::from(norm),
            _ => 1.0,
        };
        let cos = ((ab / norm(aa) / norm(bb)) as f32).clamp(-1.0, 1.0);
        if cos.abs() > LINEAR_ABOVE {
            return [1.0 - self.t, self.t];
        }
        let angle = f64::from(cos).acos() as f32;
        let sin = |angle: f32| f64::from(angle).sin() as f32;
        [sin((1.0 - self.t) * angle) / sin(angle), sin(self.t * angle) / sin(angle)]
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn add_weighted<P: Precision>(a: &[f32], b: &[f32], factors: [f32; 2], out: &mut [f32]) {
    for ((a, b), out) in a.iter().zip(b).zip(out) {
        *out = P::round(factors[0] * a + factors[1] * b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_those_of_the_angle() {
        let close = |found: [f32; 2], expected: [f32; 2]| {
            found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6)
        };
        let half = std::f32::consts::FRAC_1_SQRT_2;
        assert!(close(Slerp { t: 0.5 }.factors(1.0, 1.0, 0.0), [half, half]));
        assert!(close(Slerp { t: 0.0 }.factors(4.0, 9.0, 1.0), [1.0, 0.0]));
        assert!(close(Slerp { t: 1.0 }.factors(4.0, 9.0, 1.0), [0.0, 1.0]));
        // Parallel, antiparallel: linear. A zero vector: a right angle.
        assert_eq!(Slerp { t: 0.25 }.factors(4.0, 9.0, 6.0), [0.75, 0.25]);
        assert_eq!(Slerp { t: 0.25 }.factors(4.0, 9.0, -6.0), [0.75, 0.25]);
        assert!(close(Slerp { t: 0.5 }.factors(0.0, 1.0, 0.0), [half, half]));
    }
}
