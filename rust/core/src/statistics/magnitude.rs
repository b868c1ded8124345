//! The exact k-th largest magnitude of a delta, without sorting it.
//!
//! ```text
//! count the upper 15 bits of every magnitude       -> the bucket that holds the k-th largest
//! count the lower 16 bits inside that bucket       -> the k-th largest itself, and how many tie
//! ```
//! 1. A bfloat16 has no lower 16 bits: one pass is enough.
//! 2. The counts are kept apart for each segment until the threshold is known. So the number of ties
//!    before each segment is known too, and ties break by index without a further pass.
//! 3. Two tables are filled in turn: a delta often repeats the magnitude before it, and an increment
//!    of the same counter must wait for the last one.

use crate::error::Result;
use crate::kernels::trim::magnitude;
use crate::parallel::Parallel;
use crate::segments::Segment;
use crate::statistics::DeltaWalk;

const HIGH: usize = 1 << 15;
const LOW: usize = 1 << 16;

/// Which elements belong to the largest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Threshold {
    /// Magnitude bits of the smallest element that is kept.
    pub bits: u32,
    /// For each segment, how many elements equal to it are kept: the first ones.
    pub ties: Vec<u64>,
}

/// The threshold that keeps exactly `n_kept` of the elements that `deltas` walks over, with
/// `0 < n_kept ≤` their number. `has_low_bits` is false where magnitudes are bfloat16.
///
/// # Errors
/// Whatever reading gives.
pub fn threshold(
    deltas: &dyn DeltaWalk,
    segments: &[Segment],
    n_kept: u64,
    has_low_bits: bool,
    parallel: &Parallel,
) -> Result<Threshold> {
    let high = parallel.map(segments.len(), |number| {
        let mut tables = [vec![0_u32; HIGH], vec![0_u32; HIGH]];
        deltas.walk(&segments[number], &mut |_, chunk| {
            count_high(chunk, &mut tables);
            Ok(())
        })?;
        let [mut counts, other] = tables;
        counts.iter_mut().zip(other).for_each(|(a, b)| *a += b);
        Ok(counts)
    })?;
    let (bucket, above) = largest(&high, n_kept);
    if !has_low_bits {
        let equal = high.iter().map(|counts| u64::from(counts[bucket]));
        return Ok(Threshold { bits: (bucket as u32) << 16, ties: first(equal, n_kept - above) });
    }
    drop(high);
    let low = parallel.map(segments.len(), |number| {
        let mut counts = vec![0_u32; LOW];
        deltas.walk(&segments[number], &mut |_, chunk| {
            count_low(chunk, bucket as u32, &mut counts);
            Ok(())
        })?;
        Ok(counts)
    })?;
    let (rest, above_in_bucket) = largest(&low, n_kept - above);
    let equal = low.iter().map(|counts| u64::from(counts[rest]));
    let ties = first(equal, n_kept - above - above_in_bucket);
    Ok(Threshold { bits: (bucket as u32) << 16 | rest as u32, ties })
}

fn count_high(deltas: &[f32], tables: &mut [Vec<u32>; 2]) {
    let [even, odd] = tables;
    let mut pairs = deltas.chunks_exact(2);
    for pair in &mut pairs {
        even[(magnitude(pair[0]) >> 16) as usize] += 1;
        odd[(magnitude(pair[1]) >> 16) as usize] += 1;
    }
    for delta in pairs.remainder() {
        even[(magnitude(*delta) >> 16) as usize] += 1;
    }
}

fn count_low(deltas: &[f32], bucket: u32, counts: &mut [u32]) {
    for delta in deltas {
        let bits = magnitude(*delta);
        if bits >> 16 == bucket {
            counts[(bits & 0xffff) as usize] += 1;
        }
    }
}

/// The counter that holds the `n`-th largest element, and how many elements are larger than all of
/// that counter's.
fn largest(counts: &[Vec<u32>], n: u64) -> (usize, u64) {
    let mut above = 0;
    let bins = counts.first().map_or(0, Vec::len);
    for bin in (0..bins).rev() {
        let here: u64 = counts.iter().map(|counts| u64::from(counts[bin])).sum();
        if above + here >= n {
            return (bin, above);
        }
        above += here;
    }
    (0, above)
}

/// Share `n` out in order, to each no more than it has.
fn first(available: impl Iterator<Item = u64>, mut n: u64) -> Vec<u64> {
    available
        .map(|have| {
            let take = have.min(n);
            n -= take;
            take
        })
        .collect()
}
