//! Exact order statistics of a quantity computed from the inputs, without storing or sorting it.
//!
//! ```text
//! count the upper 16 bits of every key     -> the bucket of each wanted rank
//! count the lower 16 bits in those buckets -> the values themselves, and how many tie
//! ```
//! A key is a float's bits, turned so that integers sort as the floats do. A bfloat16 has no lower
//! 16 bits: one pass is enough. Counts are kept for each segment, so that ties can break by index.

use crate::error::Result;
use crate::execute::group::sweep::{Buffers, Sweep};
use crate::work::Segment;

const BINS: usize = 1 << 16;
const SIGN: u32 = 0x8000_0000;

/// Bits that sort as the value does, NaN last.
#[inline(always)]
pub(super) fn key(value: f32) -> u32 {
    let bits = value.to_bits();
    if value.is_nan() || bits & SIGN == 0 {
        bits | SIGN
    } else {
        !bits
    }
}

fn value(key: u32) -> f32 {
    f32::from_bits(if key & SIGN == 0 { !key } else { key & !SIGN })
}

/// The value of a key without its lower 16 bits, which are zeros in the float.
fn bfloat16(key: u32) -> f32 {
    value(if key & SIGN == 0 { key | 0xffff } else { key })
}

/// The element of one rank.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Statistic {
    pub value: f32,
    /// Elements that are smaller.
    pub below: u64,
    /// Elements that equal it, in each segment.
    pub equal: Vec<u64>,
}

/// Bytes of the counts for one wanted rank.
pub(super) fn bytes(segments: usize) -> usize {
    4 * (BINS + 1) * segments
}

/// Computes the quantity for a chunk that starts at an index, into the first scratch.
pub(super) trait Quantity: Fn(usize, &mut Buffers) + Sync {}
impl<F: Fn(usize, &mut Buffers) + Sync> Quantity for F {}

/// The elements of the ranks that `pick` wants (0 is the smallest), given how many are not zero.
/// `has_low_bits` is false where the quantity is bfloat16.
pub(super) fn order_statistics(
    sweep: &Sweep,
    has_low_bits: bool,
    quantity: impl Quantity,
    pick: impl FnOnce(u64) -> Vec<u64>,
) -> Result<Vec<Statistic>> {
    // The last counter is that of the elements that are not zero.
    let high = count(sweep, BINS + 1, &quantity, |values, counts| {
        for value in values {
            counts[(key(*value) >> 16) as usize] += 1;
            counts[BINS] += u32::from(*value != 0.0);
        }
    })?;
    let nonzero = high.iter().map(|counts| u64::from(counts[BINS])).sum();
    let ranks = pick(nonzero);
    let found: Vec<(usize, u64)> = ranks.iter().map(|rank| bin(&high, 0, *rank)).collect();
    if !has_low_bits || ranks.is_empty() {
        let statistic = |(bucket, below): (usize, u64)| Statistic {
            value: bfloat16((bucket as u32) << 16),
            below,
            equal: high.iter().map(|counts| u64::from(counts[bucket])).collect(),
        };
        return Ok(found.into_iter().map(statistic).collect());
    }
    drop(high);
    let mut buckets: Vec<usize> = found.iter().map(|(bucket, _)| *bucket).collect();
    buckets.dedup();
    let low = count(sweep, BINS * buckets.len(), &quantity, |values, counts| {
        for value in values {
            let key = key(*value);
            for (number, bucket) in buckets.iter().enumerate() {
                if key >> 16 == *bucket as u32 {
                    counts[number * BINS + (key & 0xffff) as usize] += 1;
                }
            }
        }
    })?;
    let statistic = |((bucket, below), rank): ((usize, u64), u64)| {
        let table = buckets.iter().position(|other| *other == bucket).unwrap_or(0) * BINS;
        let (rest, below_in_bucket) = bin(&low, table, rank - below);
        Statistic {
            value: value((bucket as u32) << 16 | rest as u32),
            below: below + below_in_bucket,
            equal: low.iter().map(|counts| u64::from(counts[table + rest])).collect(),
        }
    };
    Ok(found.into_iter().zip(ranks).map(statistic).collect())
}

fn count(
    sweep: &Sweep,
    bins: usize,
    quantity: &impl Quantity,
    add: impl Fn(&[f32], &mut [u32]) + Sync,
) -> Result<Vec<Vec<u32>>> {
    sweep.each_segment(|segment: &Segment| {
        let mut counts = vec![0_u32; bins];
        sweep.walk(segment, &mut Buffers::default(), |start, buffers| {
            quantity(start, buffers);
            add(&buffers.scratch[0], &mut counts);
        })?;
        Ok(counts)
    })
}

/// The bin, of those from `table` on, that holds the element of a rank, and how many elements lie in
/// the bins before it.
fn bin(counts: &[Vec<u32>], table: usize, rank: u64) -> (usize, u64) {
    let mut below = 0;
    for bin in 0..BINS {
        let here: u64 = counts.iter().map(|counts| u64::from(counts[table + bin])).sum();
        if rank < below + here {
            return (bin, below);
        }
        below += here;
    }
    (BINS - 1, below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_floats_do_and_turn_back() {
        let mut values = [3.5, -0.0, 0.0, -2.0, f32::INFINITY, f32::NEG_INFINITY, 1e-42, -1e-42];
        values.sort_by(f32::total_cmp);
        assert!(values.windows(2).all(|pair| key(pair[0]) < key(pair[1])));
        assert!(values.iter().all(|v| value(key(*v)).to_bits() == v.to_bits()));
        for short in [-2.0, -0.0, 0.0, 3.5, -1.5e-20] {
            let short = crate::number::round_bf16(short);
            assert_eq!(bfloat16(key(short) >> 16 << 16).to_bits(), short.to_bits());
        }
        assert!(key(-f32::NAN) > key(f32::INFINITY));
    }
}
