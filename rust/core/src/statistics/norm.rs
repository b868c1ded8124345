//! L1 norms of a delta before and after selection, in float64, in one fixed order of additions:
//! sixteen accumulators for each block, folded in order, then the blocks in order.

use crate::dtype::Float;
use crate::error::Result;
use crate::kernels::elementwise::{add_magnitudes, SUM_LANES};
use crate::parallel::Parallel;
use crate::rounding::{round_bf16, round_f16};
use crate::segments::{Segment, BLOCK};
use crate::statistics::{DeltaWalk, Selection};

/// Norms below this are left alone, as in mergekit.
const SMALLEST_NORM: f64 = 1e-7;

/// The factor that gives the selected elements the L1 norm of the whole delta, rounded as `rounding`
/// says (mergekit computes it in the dtype of the delta).
///
/// # Errors
/// Whatever reading gives.
pub fn l1_scale(
    deltas: &dyn DeltaWalk,
    segments: &[Segment],
    selection: &Selection,
    rounding: Float,
    parallel: &Parallel,
) -> Result<f32> {
    let sums = parallel.map(segments.len(), |number| {
        let segment = &segments[number];
        let mut cursor = selection.cursor(segment);
        let mut words = Vec::new();
        let mut leaves = vec![[[0.0; SUM_LANES]; 2]; segment.range.len().div_ceil(BLOCK)];
        deltas.walk(segment, &mut |start, chunk| {
            let [before, after] = &mut leaves[(start - segment.range.start) / BLOCK];
            add_magnitudes(chunk, before);
            selection.apply(&mut cursor, start, chunk, &mut words);
            add_magnitudes(chunk, after);
            Ok(())
        })?;
        Ok(leaves)
    })?;
    let total = |which: usize| -> f64 {
        sums.iter().flatten().map(|leaf| leaf[which].iter().sum::<f64>()).sum()
    };
    Ok(ratio(total(0), total(1), rounding))
}

fn ratio(before: f64, after: f64, rounding: Float) -> f32 {
    if before < SMALLEST_NORM || after < SMALLEST_NORM {
        return 1.0;
    }
    let exact = (before / after) as f32;
    let round = match rounding {
        Float::F32 => return before as f32 / after as f32,
        Float::Bf16 => round_bf16,
        Float::F16 => round_f16,
    };
    let rounded = round(round(before as f32) / round(after as f32));
    // A float16 sum overflows at 65,504; there mergekit gets NaN, and we the factor it meant.
    if rounded.is_finite() && rounded > 0.0 {
        rounded
    } else {
        exact
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_is_rounded_as_the_delta_is() {
        assert_eq!(ratio(3.0, 0.0, Float::F32), 1.0);
        assert_eq!(ratio(10.0, 3.0, Float::F32), 10.0_f32 / 3.0);
        assert_eq!(ratio(10.0, 3.0, Float::Bf16), round_bf16(10.0 / 3.0));
        assert_eq!(ratio(1e6, 5e5, Float::F16), 2.0);
    }
}
