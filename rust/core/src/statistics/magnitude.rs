//! The exact n-th largest magnitude of a delta, without sorting it.
//!
//! ```text
//! count the upper 15 bits of every magnitude       -> the bucket that holds the n-th largest
//! count the lower 16 bits inside that bucket       -> the n-th largest itself, and how many tie
//! ```
//! 1. A bfloat16 has no lower 16 bits: one pass is enough.
//! 2. For the others the bucket is guessed from the counts of a segment's first block, and what lies
//!    near the guess is set aside while the rest is counted. Where the guess holds, the lower bits
//!    are counted from there; where it does not, or too much lies there, a second pass counts them.
//!    Either way the result is exact.
//! 3. The counts are kept apart for each segment until the threshold is known. So the number of ties
//!    before each segment is known too, and ties break by index without a further pass.
//! 4. Four tables are filled in turn: a delta often repeats the magnitude before it, and an increment
//!    of the same counter must wait for the last one. Two tables, looked up for each element, took
//!    20 % of a bfloat16 TIES merge, these 13 %.

use std::ops::Range;

use multiversion::multiversion;

use crate::error::Result;
use crate::kernels::trim::magnitude;
use crate::statistics::DeltaWalk;
use crate::work::{Parallel, Segment, BLOCK};

const HIGH: usize = 1 << 15;
const LOW: usize = 1 << 16;
const TABLES: usize = 4;
/// Buckets on either side of a guess that are set aside. A bucket is 1/128 of a magnitude wide at
/// most, which moves the rank of a normal delta's quantile by 0.4 % at most.
const RADIUS: u32 = 4;
/// Of a segment's elements, no more than one in this many is set aside.
const ASIDE_SHARE: usize = 20;

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

/// Bytes that it likes to set aside for one wanted rank, so that they do not.
pub(crate) fn aside_bytes(len: usize) -> usize {
    4 * (len / ASIDE_SHARE)
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
    let len = segments.last().map_or(0, |last| last.range.end);
    // In shares of the segments' lengths.
    let share = (aside / 4) as f64 / len as f64;
    let counted = parallel.map(segments.len(), |number| {
        let room = (share * segments[number].range.len() as f64) as usize;
        count(deltas, &segments[number], len, wanted, room * usize::from(has_low_bits))
    })?;
    let mut found = Vec::with_capacity(wanted.len());
    let mut missed = Vec::new();
    for (number, want) in wanted.iter().enumerate() {
        let (bucket, above) =
            largest(HIGH, counted.iter().map(|c| &c.high[want.stream][..]), want.rank);
        let rest = want.rank - above;
        if !has_low_bits {
            let equal = counted.iter().map(|c| u64::from(c.high[want.stream][bucket]));
            found.push(Threshold { bits: (bucket as u32) << 16, ties: first(equal, rest) });
            continue;
        }
        let aside: Vec<&Aside> = counted.iter().map(|c| &c.aside[number]).collect();
        if aside.iter().all(|aside| aside.holds(bucket as u32)) {
            found.push(from_aside(&aside, bucket as u32, rest));
        } else {
            missed.push((number, *want, bucket as u32, rest));
            found.push(Threshold { bits: 0, ties: vec![] });
        }
    }
    drop(counted);
    if !missed.is_empty() {
        let low = parallel.map(segments.len(), |number| {
            let mut tables = vec![vec![0_u32; LOW]; missed.len()];
            deltas.walk(&segments[number], &mut |stream, _, chunk| {
                for (table, (_, want, bucket, _)) in tables.iter_mut().zip(&missed) {
                    if want.stream == stream {
                        count_low(chunk, *bucket, table);
                    }
                }
                Ok(())
            })?;
            Ok(tables)
        })?;
        for (i, (number, _, bucket, rest)) in missed.iter().enumerate() {
            let (bits, above) = largest(LOW, low.iter().map(|tables| &tables[i][..]), *rest);
            let equal = low.iter().map(|tables| u64::from(tables[i][bits]));
            found[*number] =
                Threshold { bits: bucket << 16 | bits as u32, ties: first(equal, rest - above) };
        }
    }
    Ok(found)
}

/// Counters of the upper bits. Their number is known to the compiler, so that no index is checked.
type Table = Box<[u32; HIGH]>;
/// Counters that are filled in turn.
type Tables = [Table; TABLES];

fn new_tables() -> Tables {
    std::array::from_fn(|_| Box::new([0; HIGH]))
}

/// One segment's counts.
struct Counted {
    /// For each stream, elements by the upper bits of their magnitude.
    high: Vec<Table>,
    /// For each wanted rank, what was set aside.
    aside: Vec<Aside>,
}

/// Magnitudes in some buckets around a guess.
#[derive(Default)]
struct Aside {
    buckets: Range<u32>,
    magnitudes: Vec<u32>,
    room: usize,
    overflowed: bool,
}

impl Aside {
    /// Whether all of a bucket's elements are here.
    fn holds(&self, bucket: u32) -> bool {
        !self.overflowed && self.buckets.contains(&bucket)
    }

    fn collect(&mut self, deltas: &[f32]) {
        if self.buckets.is_empty() || self.overflowed {
            return;
        }
        let room = self.room - self.magnitudes.len();
        let (low, width) =
            (self.buckets.start << 16, (self.buckets.end - self.buckets.start) << 16);
        self.overflowed = !set_aside(deltas, low, width, room, &mut self.magnitudes);
    }
}

fn count(
    deltas: &dyn DeltaWalk,
    segment: &Segment,
    len: usize,
    wanted: &[Wanted],
    room: usize,
) -> Result<Counted> {
    let mut tables: Vec<Tables> = (0..deltas.streams()).map(|_| new_tables()).collect();
    let mut aside: Vec<Aside> = wanted.iter().map(|_| Aside::default()).collect();
    let guess_at = segment.range.start + BLOCK;
    deltas.walk(segment, &mut |stream, start, chunk| {
        if room > 0 && start == guess_at {
            for (want, aside) in wanted.iter().zip(&mut aside) {
                if want.stream == stream {
                    aside.buckets = guess(&tables[stream], want.rank as f64 / len as f64);
                    aside.magnitudes = Vec::with_capacity(room);
                    aside.room = room;
                }
            }
        }
        count_high(chunk, &mut tables[stream]);
        for (want, aside) in wanted.iter().zip(&mut aside) {
            if want.stream == stream {
                aside.collect(chunk);
            }
        }
        Ok(())
    })?;
    if aside.iter().any(|aside| !aside.buckets.is_empty()) {
        // The block that the guess came from.
        let first = Segment { number: segment.number, range: segment.range.start..guess_at };
        deltas.walk(&first, &mut |stream, _, chunk| {
            for (want, aside) in wanted.iter().zip(&mut aside) {
                if want.stream == stream {
                    aside.collect(chunk);
                }
            }
            Ok(())
        })?;
    }
    let high = tables.into_iter().map(|[mut counts, others @ ..]| {
        for other in others {
            counts.iter_mut().zip(other.iter()).for_each(|(a, b)| *a += b);
        }
        counts
    });
    Ok(Counted { high: high.collect(), aside })
}

/// Buckets around the one that holds the largest `share` of what was counted so far.
fn guess(tables: &Tables, share: f64) -> Range<u32> {
    let (bucket, _) = largest(
        HIGH,
        tables.iter().map(|counts| &counts[..]),
        ((share * BLOCK as f64) as u64).max(1),
    );
    let bucket = bucket as u32;
    bucket.saturating_sub(RADIUS)..(bucket + RADIUS + 1).min(HIGH as u32)
}

fn from_aside(aside: &[&Aside], bucket: u32, rank: u64) -> Threshold {
    let all = aside.iter().flat_map(|aside| &aside.magnitudes);
    let mut inside: Vec<u32> = all.filter(|bits| *bits >> 16 == bucket).copied().collect();
    let index = inside.len() - rank as usize; // of the bucket's elements, the `rank`-th from above
    let (_, bits, above) = inside.select_nth_unstable(index);
    let bits = *bits;
    let above = above.iter().filter(|found| **found > bits).count() as u64;
    let equal = aside
        .iter()
        .map(|aside| aside.magnitudes.iter().filter(|&&found| found == bits).count() as u64);
    Threshold { bits, ties: first(equal, rank - above) }
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

/// Append the magnitudes in `low .. low + width`; false where there are more than `room`.
///
/// Which groups hold any is found by vector units, and only those are gone over element by element.
/// Neither step branches: where one element in fifty is wanted, branches are guessed wrong so often that
/// they took 36 % of a float32 TIES merge. This takes 12 %, and 14 % with groups of 16.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn set_aside(deltas: &[f32], low: u32, width: u32, mut room: usize, out: &mut Vec<u32>) -> bool {
    const LANES: usize = 8;
    const TILE: usize = 128 * LANES;
    let inside = |delta: f32| magnitude(delta).wrapping_sub(low) < width;
    for tile in deltas.chunks(TILE) {
        let mut groups = [0_u8; TILE / LANES];
        let mut n_groups = 0;
        for (number, group) in tile.chunks(LANES).enumerate() {
            let any = group.iter().fold(0, |any, delta| any | u32::from(inside(*delta)));
            groups[n_groups % groups.len()] = number as u8;
            n_groups += any as usize;
        }
        let mut found = [0; TILE];
        let mut n_found = 0;
        for number in &groups[..n_groups] {
            let start = usize::from(*number) * LANES;
            for delta in &tile[start..(start + LANES).min(tile.len())] {
                found[n_found % TILE] = magnitude(*delta);
                n_found += usize::from(inside(*delta));
            }
        }
        if n_found > room {
            return false;
        }
        room -= n_found;
        out.extend_from_slice(&found[..n_found]);
    }
    true
}

/// The counter that holds the `n`-th largest element, and how many elements are larger than all of
/// that counter's.
fn largest<'a>(
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
fn first(available: impl Iterator<Item = u64>, mut n: u64) -> Vec<u64> {
    available
        .map(|have| {
            let take = have.min(n);
            n -= take;
            take
        })
        .collect()
}
