//! Where the limits of a row's elements lie, by counting the upper bits of its magnitudes.
//!
//! ```text
//! count[m] += 1                            for every magnitude's upper bits m, one of 32,768
//! bounds[m] = mean of the ranks' limits    for every m that occurs, in ascending order, if all are equal
//!           = those of the first and the last of the ranks              if there are lower bits too
//! out[i] = bounds[m[i]]
//! ```
//! 1. Two tables are counted in by turns: where a magnitude repeats, an increment of the same counter
//!    must wait for the last one.
//! 2. The counters that are not zero are listed, and cleared, without a branch on each: AVX-512 compacts
//!    thirty-two at a time. The loops with such a branch took half of DELLA's time.
//! 3. A mean is one float64 division, which is exact: a sum of limits is below 2^53, and a quotient that
//!    is no integer lies further below the next one than it is rounded by.
//! 4. Magnitudes with lower bits are counted apart, by a bit of the index that is made for sixteen of
//!    them at once. Where none are, as in most counters when bfloat16 models are merged in float32,
//!    all are equal and nothing is left open.
//! 5. Where too much would stay open, the row is left to a sort: one whose magnitudes share their upper
//!    bits, say.
//!
//! On one core of a Zen 5, rows of 896 deltas of bfloat16 take 0.9 ns an element, where the counting
//! before took 2 to 3.4 and a sort 6.3; 0.4 of it are counting and looking up, one memory access each.
//! Tried and dropped: counters of 32 bits, which alone made no difference; gathers for the limits (0.28
//! ns for 0.21).

use multiversion::multiversion;

use crate::kernels::drop::bounds;
use crate::number::Magnitude;
use crate::statistics::ranks::RankLimits;

/// Upper bits of a magnitude: those of a bfloat16.
const BINS: usize = 1 << 15;
/// Bit of a key: the magnitude has lower bits too.
const MIXED: u16 = 1 << 15;
/// Longest row that is counted.
pub(super) const LONGEST: usize = u16::MAX as usize;
/// Counters that are looked at together.
const LANES: usize = 32;
/// Elements of a row that may stay open, by expectation; each costs a look at the whole row.
const OPEN: u64 = 256;

/// By key.
type Counters = Box<[u16; 2 * BINS]>;

/// Counters and buffers for one row.
#[derive(Debug)]
pub(super) struct RowCounter {
    /// Zero between rows.
    counters: [Counters; 2],
    /// Bounds for the bins that occur; what the others have is left from earlier rows.
    bounds: Box<[u32; BINS]>,
    /// Of the row, where its magnitudes have lower bits.
    keys: Vec<u16>,
    /// Bins that occur, with [`MIXED`], and how often.
    found: Vec<u16>,
    counts: Vec<u16>,
    sums: Vec<f64>,
    found_bounds: Vec<u32>,
}

impl Default for RowCounter {
    fn default() -> Self {
        Self {
            counters: [zeros(), zeros()],
            bounds: zeros(),
            keys: vec![],
            found: vec![],
            counts: vec![],
            sums: vec![],
            found_bounds: vec![],
        }
    }
}

/// Zeros that never lie on the stack.
fn zeros<T: Copy + Default + std::fmt::Debug, const N: usize>() -> Box<[T; N]> {
    match vec![T::default(); N].try_into() {
        Ok(table) => table,
        Err(_) => unreachable!("a vector of that length"),
    }
}

impl RowCounter {
    /// Bytes of the tables and of the buffers for a row.
    pub(super) fn bytes(columns: usize) -> usize {
        let row = if columns > LONGEST { 0 } else { 2 * columns };
        BINS * (2 * 2 * 2 + 4) + row + (2 + 2 + 4 + 8) * (columns.min(BINS) + 2 * LANES)
    }

    /// As for [`RowRanks`](super::ranks::RowRanks); false where too much would stay open.
    pub(super) fn bounds<M: Magnitude>(
        &mut self,
        table: &RankLimits,
        magnitudes: &[M],
        out: &mut [u32],
    ) -> bool {
        if M::LOW_BITS {
            let mut keys = std::mem::take(&mut self.keys);
            keys.resize(magnitudes.len(), 0);
            keys_of(magnitudes, &mut keys);
            let found = self.bounds_by_key::<true>(table, &keys, out);
            self.keys = keys;
            return found;
        }
        self.bounds_by_key::<false>(table, M::halves(magnitudes), out)
    }

    fn bounds_by_key<const LOW_BITS: bool>(
        &mut self,
        table: &RankLimits,
        keys: &[u16],
        out: &mut [u32],
    ) -> bool {
        if keys.is_empty() {
            return true;
        }
        let (least, most) = range(keys);
        let bins = least / LANES * LANES..most / LANES * LANES + LANES;
        self.count(keys);
        let room = keys.len().min(BINS) + 2 * LANES;
        self.found.resize(room, 0);
        self.counts.resize(room, 0);
        self.sums.resize(room, 0.0);
        self.found_bounds.resize(room, 0);
        let mut n = 0;
        let (found, counts) = (&mut self.found[..], &mut self.counts[..]);
        // Zeros lie far from all others.
        if bins.start > 0 {
            n = compact::<LOW_BITS>(&mut self.counters, 0..LANES, n, found, counts);
        }
        n = compact::<LOW_BITS>(&mut self.counters, bins, n, found, counts);
        let (found, counts) = (&found[..n], &counts[..n]);
        let (sums, bounds) = (&mut self.sums[..n], &mut self.found_bounds[..n]);
        if LOW_BITS {
            if table.ends(found, counts, sums, bounds) >> 32 > OPEN {
                return false;
            }
            divide_some(sums, counts, found, bounds);
        } else {
            table.sums(counts, sums);
            divide(sums, counts, bounds);
        }
        let of = &mut *self.bounds;
        for (bin, bounds) in found.iter().zip(bounds.iter()) {
            of[usize::from(*bin) % BINS] = *bounds;
        }
        for (out, key) in out.iter_mut().zip(keys) {
            *out = of[usize::from(*key) % BINS];
        }
        true
    }

    fn count(&mut self, keys: &[u16]) {
        let [a, b] = &mut self.counters;
        let mut pairs = keys.chunks_exact(2);
        for pair in &mut pairs {
            a[usize::from(pair[0])] += 1;
            b[usize::from(pair[1])] += 1;
        }
        for one in pairs.remainder() {
            a[usize::from(*one)] += 1;
        }
    }
}

impl RankLimits {
    /// Sums of the limits of runs of ranks, one after the other, of so many each.
    fn sums(&self, counts: &[u16], sums: &mut [f64]) {
        let below = self.below();
        let (mut rank, mut before) = (0, below[0]);
        for (count, sum) in counts.iter().zip(sums) {
            rank += usize::from(*count);
            *sum = (below[rank] - before) as f64;
            before = below[rank];
        }
    }

    /// As [`sums`](Self::sums), with bounds of all limits of a run. Returns by how much, in sum over the
    /// elements of mixed bins, their limits are unknown.
    fn ends(&self, found: &[u16], counts: &[u16], sums: &mut [f64], ends: &mut [u32]) -> u64 {
        let below = self.below();
        let (mut rank, mut before, mut open) = (0, below[0], 0);
        for (((count, found), sum), ends) in counts.iter().zip(found).zip(sums).zip(ends) {
            let first = below[rank + 1] - before;
            rank += usize::from(*count);
            let last = below[rank] - below[rank - 1];
            *sum = (below[rank] - before) as f64;
            before = below[rank];
            let (least, most) = (first.min(last), first.max(last));
            open += u64::from(found / MIXED) * u64::from(*count) * (most - least);
            let most = most.min(u32::MAX.into());
            *ends = bounds(least.min(most) as u32, most as u32);
        }
        open
    }
}

/// The least bin of a magnitude that is not zero, and the most.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn range(keys: &[u16]) -> (usize, usize) {
    let (mut least, mut most) = (u16::MAX, 0);
    for key in keys {
        let bin = key & !MIXED;
        least = least.min(bin.wrapping_sub(1));
        most = most.max(bin);
    }
    (least.wrapping_add(1).min(most).into(), most.into())
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn keys_of<M: Magnitude>(magnitudes: &[M], keys: &mut [u16]) {
    for (key, magnitude) in keys.iter_mut().zip(magnitudes) {
        let bits = magnitude.bits();
        *key = (bits >> 16) as u16 | if bits & 0xffff == 0 { 0 } else { MIXED };
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn divide(sums: &[f64], counts: &[u16], out: &mut [u32]) {
    for ((sum, count), out) in sums.iter().zip(counts).zip(out) {
        let mean = (*sum / f64::from(*count)) as u32;
        *out = bounds(mean, mean);
    }
}

/// Where a bin is not mixed.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn divide_some(sums: &[f64], counts: &[u16], found: &[u16], out: &mut [u32]) {
    for (((sum, count), found), out) in sums.iter().zip(counts).zip(found).zip(out) {
        let mean = (*sum / f64::from(*count)) as u32;
        *out = if found & MIXED == 0 { bounds(mean, mean) } else { *out };
    }
}

fn compact<const LOW_BITS: bool>(
    tables: &mut [Counters; 2],
    bins: std::ops::Range<usize>,
    n: usize,
    found: &mut [u16],
    counts: &mut [u16],
) -> usize {
    #[cfg(target_arch = "x86_64")]
    if crate::kernels::avx512::available() {
        // SAFETY: the processor has it.
        return unsafe { compact_avx512::<LOW_BITS>(tables, bins, n, found, counts) };
    }
    compact_plain::<LOW_BITS>(tables, bins, n, found, counts)
}

fn compact_plain<const LOW_BITS: bool>(
    [a, b]: &mut [Counters; 2],
    bins: std::ops::Range<usize>,
    mut n: usize,
    found: &mut [u16],
    counts: &mut [u16],
) -> usize {
    for bin in bins {
        let mut take = |bin: usize| std::mem::take(&mut a[bin]) + std::mem::take(&mut b[bin]);
        let (count, mixed) = (take(bin), if LOW_BITS { take(bin + BINS) } else { 0 });
        found[n] = bin as u16 | if mixed == 0 { 0 } else { MIXED };
        counts[n] = count + mixed;
        n += usize::from(count + mixed > 0);
    }
    n
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi2,bmi2,popcnt")]
fn compact_avx512<const LOW_BITS: bool>(
    [a, b]: &mut [Counters; 2],
    bins: std::ops::Range<usize>,
    mut n: usize,
    found: &mut [u16],
    counts: &mut [u16],
) -> usize {
    use crate::kernels::avx512::{load_u16, store_u16};
    use std::arch::x86_64::*;
    let mut at = bins.start as i16;
    let lanes: [u16; 32] = std::array::from_fn(|i| i as u16);
    let lanes = load_u16(&lanes);
    let zero = _mm512_setzero_si512();
    let ((a, mixed_a), (b, mixed_b)) = (a.split_at_mut(BINS), b.split_at_mut(BINS));
    let (a, b) = (a[bins.clone()].as_chunks_mut().0, b[bins.clone()].as_chunks_mut().0);
    let (mixed_a, _) = mixed_a[bins.clone()].as_chunks_mut();
    let (mixed_b, _) = mixed_b[bins].as_chunks_mut();
    for i in 0..a.len() {
        let mut count = _mm512_add_epi16(load_u16(&a[i]), load_u16(&b[i]));
        store_u16(&mut a[i], zero);
        store_u16(&mut b[i], zero);
        let mut index = _mm512_add_epi16(lanes, _mm512_set1_epi16(at));
        if LOW_BITS {
            let mixed = _mm512_add_epi16(load_u16(&mixed_a[i]), load_u16(&mixed_b[i]));
            store_u16(&mut mixed_a[i], zero);
            store_u16(&mut mixed_b[i], zero);
            count = _mm512_add_epi16(count, mixed);
            let any = _mm512_test_epi16_mask(mixed, mixed);
            index = _mm512_mask_add_epi16(index, any, index, _mm512_set1_epi16(MIXED as i16));
        }
        let some = _mm512_test_epi16_mask(count, count);
        if let (Some(found), Some(counts)) =
            (found[n..].first_chunk_mut(), counts[n..].first_chunk_mut())
        {
            store_u16(found, _mm512_maskz_compress_epi16(some, index));
            store_u16(counts, _mm512_maskz_compress_epi16(some, count));
        }
        n += some.count_ones() as usize;
        at = at.wrapping_add(LANES as i16);
    }
    n
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_listed_and_cleared_alike_on_every_processor() {
        both::<true>();
        both::<false>();
    }

    fn both<const LOW_BITS: bool>() {
        let mut some: [Counters; 2] = [zeros(), zeros()];
        for bin in [0, 5, 31, 40, 64, 65, 95, 32_767] {
            some[bin % 2][bin] = bin as u16 + 1;
            if LOW_BITS {
                some[1 - bin % 2][BINS + bin / 2 * 2] = 3;
            }
        }
        some[0][65] = 7;
        for bins in [0..32, 32..96, 32_736..32_768] {
            let mut found = [[0; 200]; 4];
            let (mut a, mut b) = (some.clone(), some.clone());
            let [found_a, counts_a, found_b, counts_b] = &mut found;
            let n = compact::<LOW_BITS>(&mut a, bins.clone(), 3, found_a, counts_a);
            let m = compact_plain::<LOW_BITS>(&mut b, bins.clone(), 3, found_b, counts_b);
            assert_eq!((&found_a[3..n], &counts_a[3..n]), (&found_b[3..m], &counts_b[3..m]));
            let upper = bins.start + BINS..bins.end + BINS;
            let zero = |of: &[u16]| of.iter().all(|count| *count == 0);
            let cleared = |a: &Counters| zero(&a[bins.clone()]) && zero(&a[upper.clone()]);
            assert!(n > 3 && a == b && a.iter().all(cleared));
        }
    }
}
