//! The exact n-th largest magnitude of a delta, without sorting it.
//!
//! ```text
//! look around a guess                              -> the n-th largest, and how many tie; or nothing
//! count the upper 15 bits of every magnitude       -> the bucket that holds the n-th largest
//! count the lower 16 bits inside that bucket       -> the n-th largest itself, and how many tie
//! ```
//! 1. The guess is [`around`](super::around)'s work. The tables below are for what it leaves: tensors
//!    that are not worth a sample, and guesses that fail.
//! 2. A bfloat16 has no lower 16 bits: one pass of counting is enough.
//! 3. The counts are kept apart for each segment until the threshold is known. So the number of ties
//!    before each segment is known too, and ties break by index without a further pass.
//! 4. Four tables are filled in turn: a delta often repeats the magnitude before it, and an increment
//!    of the same counter must wait for the last one.

use crate::error::Result;
use crate::kernels::trim::magnitude;
use crate::statistics::{around, DeltaWalk};
use crate::work::{Parallel, Segment};

pub(super) const HIGH: usize = 1 << 15;
const LOW: usize = 1 << 16;
const TABLES: usize = 4;

/// The `rank`-th largest magnitude of a stream is wanted, `0 < rank ≤` its number of elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Which of the walk's streams.
    pub stream: usize,
    /// How many elements belong to the largest.
    pub rank: u64,
}

/// Which elements belong to the largest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Threshold {
    /// Magnitude bits of the smallest element that is kept.
    pub bits: u32,
    /// For each segment, how many elements equal to it are kept: the first ones.
    pub ties: Vec<u64>,
}

/// Bytes that [`thresholds`] holds for the counts of one stream.
pub(crate) fn high_bytes(segments: usize, threads: usize) -> usize {
    4 * HIGH * (segments + TABLES * threads.min(segments))
}

/// Bytes that it holds for one wanted rank where the lower bits take a second pass.
pub(crate) fn low_bytes(segments: usize) -> usize {
    4 * LOW * segments
}

/// The thresholds that keep exactly the wanted numbers of elements. `has_low_bits` is false where
/// magnitudes are bfloat16; no more than `aside` bytes are set aside for a rank.
///
/// # Errors
/// Whatever reading gives.
pub(crate) fn thresholds(
    deltas: &dyn DeltaWalk,
    segments: &[Segment],
    wanted: &[Wanted],
    has_low_bits: bool,
    aside: usize,
    parallel: &Parallel,
) -> Result<Vec<Threshold>> {
    let found = around::thresholds(deltas, segments, wanted, aside, parallel)?;
    let missing: Vec<Wanted> =
        wanted.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(w, _)| *w).collect();
    let mut counted = by_tables(deltas, segments, &missing, has_low_bits, parallel)?.into_iter();
    Ok(found.into_iter().filter_map(|found| found.or_else(|| counted.next())).collect())
}

/// The same for what is left, from counts of all magnitudes.
fn by_tables(
    deltas: &dyn DeltaWalk,
    segments: &[Segment],
    wanted: &[Wanted],
    has_low_bits: bool,
    parallel: &Parallel,
) -> Result<Vec<Threshold>> {
    let mut streams: Vec<usize> = wanted.iter().map(|want| want.stream).collect();
    streams.dedup();
    if streams.is_empty() {
        return Ok(vec![]);
    }
    deltas.counted_in_tables(streams.len());
    let place = |stream: usize| streams.iter().position(|&s| s == stream).unwrap_or_default();
    let counted = parallel.map(segments.len(), |number| {
        let mut tables: Vec<Tables> = streams.iter().map(|_| new_tables()).collect();
        deltas.walk(&segments[number], &streams, &mut |stream, _, chunk| {
            count_high(chunk, &mut tables[place(stream)]);
            Ok(())
        })?;
        Ok(tables.into_iter().map(sum).collect::<Vec<Table>>())
    })?;
    let bucket = |want: &Wanted| {
        let counts = counted.iter().map(|tables| &tables[place(want.stream)][..]);
        let (bucket, above) = largest(HIGH, counts.clone(), want.rank);
        let equal = counts.map(|counts| u64::from(counts[bucket])).collect::<Vec<_>>();
        (bucket as u32, want.rank - above, equal)
    };
    let buckets: Vec<_> = wanted.iter().map(bucket).collect();
    drop(counted);
    if !has_low_bits {
        let one = |(bucket, rest, equal): (u32, u64, Vec<u64>)| Threshold {
            bits: bucket << 16,
            ties: first(equal.into_iter(), rest),
        };
        return Ok(buckets.into_iter().map(one).collect());
    }
    let low = parallel.map(segments.len(), |number| {
        let mut tables = vec![vec![0_u32; LOW]; wanted.len()];
        deltas.walk(&segments[number], &streams, &mut |stream, _, chunk| {
            for ((table, want), (bucket, ..)) in tables.iter_mut().zip(wanted).zip(&buckets) {
                if want.stream == stream {
                    count_low(chunk, *bucket, table);
                }
            }
            Ok(())
        })?;
        Ok(tables)
    })?;
    let one = |(number, (bucket, rest, _)): (usize, &(u32, u64, Vec<u64>))| {
        let (bits, above) = largest(LOW, low.iter().map(|tables| &tables[number][..]), *rest);
        let equal = low.iter().map(|tables| u64::from(tables[number][bits]));
        Threshold { bits: bucket << 16 | bits as u32, ties: first(equal, rest - above) }
    };
    Ok(buckets.iter().enumerate().map(one).collect())
}

/// Counters of the upper bits. Their number is known to the compiler, so that no index is checked.
type Table = Box<[u32; HIGH]>;
/// Counters that are filled in turn.
type Tables = [Table; TABLES];

fn new_tables() -> Tables {
    std::array::from_fn(|_| Box::new([0; HIGH]))
}

fn sum([mut counts, others @ ..]: Tables) -> Table {
    for other in others {
        counts.iter_mut().zip(other.iter()).for_each(|(a, b)| *a += b);
    }
    counts
}

fn count_high(deltas: &[f32], tables: &mut Tables) {
    let bin = |delta: f32| (magnitude(delta) >> 16) as usize;
    // One reference to each table, so that none is looked up again.
    let [a, b, c, d] = tables.each_mut().map(|table| &mut **table);
    let mut groups = deltas.chunks_exact(TABLES);
    for group in &mut groups {
        a[bin(group[0])] += 1;
        b[bin(group[1])] += 1;
        c[bin(group[2])] += 1;
        d[bin(group[3])] += 1;
    }
    for delta in groups.remainder() {
        a[bin(*delta)] += 1;
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
pub(super) fn largest<'a>(
    bins: usize,
    counts: impl Iterator<Item = &'a [u32]> + Clone,
    n: u64,
) -> (usize, u64) {
    let mut above = 0;
    for bin in (0..bins).rev() {
        let here: u64 = counts.clone().map(|counts| u64::from(counts[bin])).sum();
        if above + here >= n {
            return (bin, above);
        }
        above += here;
    }
    (0, above)
}

/// Share `n` out in order, to each no more than it has.
pub(super) fn first(available: impl Iterator<Item = u64>, mut n: u64) -> Vec<u64> {
    available
        .map(|have| {
            let take = have.min(n);
            n -= take;
            take
        })
        .collect()
}
