//! L1 norms of a delta before and after selection, in float64, in one fixed order of additions:
//! sixteen accumulators for each block, folded in order, then the blocks in order.

use crate::error::Result;
use crate::kernels::elementwise::{add_magnitudes, SUM_LANES};
use crate::number::{round_bf16, round_f16, Float};
use crate::statistics::selection::Selection;
use crate::statistics::DeltaWalk;
use crate::work::{Parallel, Segment, BLOCK};

/// Norms below this are left alone, as in mergekit.
const SMALLEST_NORM: f64 = 1e-7;

/// Sums over the blocks of one segment, before and after selection.
#[derive(Debug, Clone)]
pub(crate) struct Leaves {
    start: usize,
    blocks: Vec<[[f64; SUM_LANES]; 2]>,
}

impl Leaves {
    /// Zero for every block of `segment`.
    pub(crate) fn new(segment: &Segment) -> Self {
        let blocks = vec![[[0.0; SUM_LANES]; 2]; segment.range.len().div_ceil(BLOCK)];
        Self { start: segment.range.start, blocks }
    }

    /// Bytes of the leaves of a tensor of `len` elements.
    pub(crate) fn bytes(len: usize) -> usize {
        len.div_ceil(BLOCK) * 2 * 8 * SUM_LANES
    }

    /// The sums, before and after selection, of the block that holds element `start` of the tensor.
    pub(crate) fn sums(&mut self, start: usize) -> &mut [[f64; SUM_LANES]; 2] {
        &mut self.blocks[(start - self.start) / BLOCK]
    }

    /// Add a chunk as it is before selection; its first element is element `start` of the tensor.
    pub(crate) fn before(&mut self, start: usize, chunk: &[f32]) {
        add_magnitudes(chunk, &mut self.sums(start)[0]);
    }

    /// Add a chunk as it is after selection.
    pub(crate) fn after(&mut self, start: usize, chunk: &[f32]) {
        add_magnitudes(chunk, &mut self.sums(start)[1]);
    }
}

/// The factor that gives the selected elements the L1 norm of the whole delta, from the leaves of all
/// segments in order; rounded as `rounding` says (mergekit computes it in the dtype of the delta).
pub(crate) fn scale_of<'a>(
    leaves: impl Iterator<Item = &'a Leaves> + Clone,
    rounding: Float,
) -> f32 {
    let total = |which: usize| -> f64 {
        leaves.clone().flat_map(|l| &l.blocks).map(|leaf| leaf[which].iter().sum::<f64>()).sum()
    };
    ratio(total(0), total(1), rounding)
}

/// The factors of streams whose selections are by magnitude.
///
/// # Errors
/// Whatever reading gives.
pub(crate) fn l1_scales(
    deltas: &dyn DeltaWalk,
    segments: &[Segment],
    selections: &[&Selection],
    rounding: Float,
    parallel: &Parallel,
) -> Result<Vec<f32>> {
    let streams: Vec<usize> = (0..selections.len()).collect();
    let sums = parallel.map(segments.len(), |number| {
        let segment = &segments[number];
        let mut cursors: Vec<_> = selections.iter().map(|s| s.cursor(segment, None)).collect();
        let mut leaves = vec![Leaves::new(segment); selections.len()];
        deltas.walk(segment, &streams, &mut |stream, start, chunk| {
            leaves[stream].before(start, chunk);
            cursors[stream].apply(start, chunk);
            leaves[stream].after(start, chunk);
            Ok(())
        })?;
        Ok(leaves)
    })?;
    let scale = |stream: usize| scale_of(sums.iter().map(|leaves| &leaves[stream]), rounding);
    Ok((0..selections.len()).map(scale).collect())
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
