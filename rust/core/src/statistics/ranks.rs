//! DELLA's probabilities: the larger a magnitude is among those of its row, the likelier it is kept.
//!
//! ```text
//! p(rank) = (density − epsilon) + (rank − 1) / (columns − 1) · 2 · epsilon      rank = 1 .. columns
//! ```
//! 1. mergekit computes `p` in the dtype of the delta, with a rounding after each step: so does the
//!    table here, and the rank itself is rounded too (a bfloat16 counts exactly to 256 only).
//! 2. Tied magnitudes have no order of their own; each gets the mean of `p` over their ranks.
//! 3. No row needs to be sorted. A random word decides nearly always if it is known roughly where the
//!    limit lies, and the upper bits of the magnitudes tell that: [`row_counts`](super::row_counts)
//!    counts them. For the few elements that stay open the exact limit comes from comparing with the
//!    whole row.
//! 4. Rows that are too short for that are sorted by comparison, and those that are too long, or that
//!    would leave too much open, by radix, eight bits at a time, with the index in the key's lower half.
//!
//! Four experts of the 0.5B shape in float32 from bfloat16 files take 5.0 CPU seconds, bfloat16 4.5,
//! where with a radix sort of every row float32 took 22.
//! Tried and dropped: to mark a counter itself where lower bits were counted (5.6 CPU seconds: one more
//! step in a chain of additions that wait for each other), with a branch for each counter found.

use multiversion::multiversion;

use crate::kernels::drop::bounds;
use crate::number::{Magnitude, Precision};
use crate::statistics::row_counts::{RowCounter, LONGEST};

/// Rows up to this length are sorted: the counters may lie far apart.
const SHORT: usize = 32;
/// Rows up to this length are sorted by comparison: the tables of a radix sort cost more.
const COMPARED: usize = 128;
const DIGIT: u32 = 8;

/// Limits on 32-bit words by rank; see [`crate::kernels::drop::limit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RankLimits {
    /// Sum of the limits of all ranks below, so that the mean over any run is one subtraction.
    below: Vec<u64>,
}

impl RankLimits {
    /// The table for rows of `columns` elements.
    pub(crate) fn new<P: Precision>(columns: usize, density: f64, epsilon: f64) -> Self {
        let (low, epsilon) = (P::round((density - epsilon) as f32), epsilon as f32);
        let rank = |index: usize| P::round(P::round(index as f32) + 1.0);
        let span = P::round(rank(columns.saturating_sub(1)) - 1.0);
        let mut below = Vec::with_capacity(columns + 1);
        let mut sum = 0;
        below.push(sum);
        for index in 0..columns {
            let probability = if columns == 1 {
                P::round(density as f32)
            } else {
                let share = P::round(P::round(rank(index) - 1.0) / span).clamp(0.0, 1.0);
                P::round(P::round(P::round(share * 2.0) * epsilon) + low)
            };
            sum += crate::kernels::drop::limit(probability.clamp(0.0, 1.0));
            below.push(sum);
        }
        Self { below }
    }

    /// Bytes of the table.
    pub(crate) fn bytes(columns: usize) -> usize {
        8 * (columns + 1)
    }

    /// The limit of `magnitude` in its row, whose elements lie `stride` apart.
    pub(crate) fn limit<M: Magnitude>(&self, row: &[M], stride: usize, magnitude: M) -> u32 {
        let (less, equal) = match stride {
            1 => rank(row.iter(), magnitude),
            _ => rank(row.iter().step_by(stride), magnitude),
        };
        self.mean(less..less + equal)
    }

    /// The sum of the limits of all ranks below each rank, and of all.
    pub(super) fn below(&self) -> &[u64] {
        &self.below
    }

    fn mean(&self, ranks: std::ops::Range<usize>) -> u32 {
        let sum = self.below[ranks.end] - self.below[ranks.start];
        // Most ranks stand alone, and a division is slow.
        let mean = if ranks.len() == 1 { sum } else { sum / ranks.len() as u64 };
        u32::try_from(mean).unwrap_or(u32::MAX)
    }
}

/// How many magnitudes are less, and how many equal.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn rank<'a, M: Magnitude>(row: impl Iterator<Item = &'a M>, magnitude: M) -> (usize, usize) {
    let (mut less, mut equal) = (0_u32, 0_u32);
    for other in row {
        less += u32::from(other.bits() < magnitude.bits());
        equal += u32::from(other.bits() == magnitude.bits());
    }
    (less as usize, equal as usize)
}

/// Finds bounds of the limits of rows.
#[derive(Debug, Default)]
pub(crate) struct RowRanks {
    counter: RowCounter,
    sorter: RowSorter,
}

impl RowRanks {
    /// Bytes of the tables and of the buffers for a row.
    pub(crate) fn bytes(columns: usize) -> usize {
        RowCounter::bytes(columns) + RowSorter::bytes(columns)
    }

    /// [`bounds`] of the limit of each of a row's elements; the row is as long as the table says.
    pub(crate) fn bounds<M: Magnitude>(
        &mut self,
        table: &RankLimits,
        magnitudes: &[M],
        bounds: &mut [u32],
    ) {
        let counts = (SHORT + 1..=LONGEST).contains(&magnitudes.len());
        if !counts || !self.counter.bounds(table, magnitudes, bounds) {
            self.sorter.bounds(table, magnitudes, bounds);
        }
    }
}

/// Sorts a row.
#[derive(Debug, Default)]
pub(super) struct RowSorter {
    keys: Vec<u64>,
    other: Vec<u64>,
}

impl RowSorter {
    /// Bytes of the buffers for a row.
    fn bytes(columns: usize) -> usize {
        16 * columns
    }

    /// As for [`RowRanks`]. Both bounds are the limit itself.
    pub(super) fn bounds<M: Magnitude>(
        &mut self,
        table: &RankLimits,
        magnitudes: &[M],
        out: &mut [u32],
    ) {
        let columns = magnitudes.len();
        self.keys.clear();
        let indexed = magnitudes.iter().enumerate();
        self.keys.extend(indexed.map(|(i, m)| u64::from(m.bits()) << 32 | i as u64));
        if columns <= COMPARED {
            self.keys.sort_unstable();
        } else {
            self.sort();
        }
        let mut begin = 0;
        while begin < columns {
            let bits = self.keys[begin] >> 32;
            let mut end = begin + 1;
            while end < columns && self.keys[end] >> 32 == bits {
                end += 1;
            }
            let limit = table.mean(begin..end);
            for key in &self.keys[begin..end] {
                out[*key as u32 as usize] = bounds(limit, limit);
            }
            begin = end;
        }
    }

    /// Sort by the upper half, least significant digit first.
    fn sort(&mut self) {
        const BINS: usize = 1 << DIGIT;
        self.other.resize(self.keys.len(), 0);
        for shift in (32..64).step_by(DIGIT as usize) {
            let digit = |key: u64| (key >> shift) as usize & (BINS - 1);
            let mut places = [0_u32; BINS];
            for key in &self.keys {
                places[digit(*key)] += 1;
            }
            if places.contains(&(self.keys.len() as u32)) {
                continue; // all the same: nothing to move
            }
            let mut next = 0;
            for place in &mut places {
                next += std::mem::replace(place, next);
            }
            for key in &self.keys {
                let place = &mut places[digit(*key)];
                self.other[*place as usize] = *key;
                *place += 1;
            }
            std::mem::swap(&mut self.keys, &mut self.other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::number::{round_bf16, Bf16, F32};

    fn all_of<M: Magnitude>(deltas: &[f32]) -> Vec<M> {
        deltas.iter().map(|delta| M::of(*delta)).collect()
    }

    fn limits<M: Magnitude>(table: &RankLimits, row: &[M]) -> Vec<u32> {
        row.iter().map(|m| table.limit(row, 1, *m)).collect()
    }

    #[test]
    fn a_larger_magnitude_is_likelier_kept_and_ties_share() {
        for n in [2_usize, 3, 100, 129, 1000] {
            let table = RankLimits::new::<F32>(n, 0.5, 0.2);
            let value = |i: usize| ((i * 7919) % (n / 2 + 1)) as f32 - 3.0;
            let deltas: Vec<f32> = (0..n).map(|i| round_bf16(value(i))).collect();
            let limits = limits::<u32>(&table, &all_of(&deltas));
            for i in 0..n {
                for j in 0..n.min(50) {
                    let (a, b) = (deltas[i].abs(), deltas[j].abs());
                    assert_eq!(a.partial_cmp(&b), limits[i].partial_cmp(&limits[j]));
                }
            }
            let mean = limits.iter().map(|&l| f64::from(l)).sum::<f64>() / n as f64;
            assert!((mean / 2f64.powi(32) - 0.5).abs() < 1e-6, "{n}: {mean}");
        }
    }

    #[test]
    fn the_ends_of_a_row_have_density_minus_and_plus_epsilon() {
        let table = RankLimits::new::<F32>(3, 0.5, 0.2);
        let limits = limits::<u32>(&table, &all_of(&[3.0, -1.0, 2.0]));
        let share = |limit: &u32| (f64::from(*limit) / 2f64.powi(32) * 1e6).round() / 1e6;
        assert_eq!(limits.iter().map(share).collect::<Vec<_>>(), [0.7, 0.3, 0.5]);
        let one = RankLimits::new::<Bf16>(1, 0.5, 0.2);
        assert_eq!(one.mean(0..1), 1 << 31);
    }

    /// Sorted, or counted where that may be, every limit is within its bounds.
    fn check<M: Magnitude>(ranks: &mut RowRanks, table: &RankLimits, row: &[M]) {
        let (mut sorted, mut found) = (vec![7; row.len()], vec![7; row.len()]);
        ranks.sorter.bounds(table, row, &mut sorted);
        ranks.bounds(table, row, &mut found);
        let places = (0..row.len()).step_by(row.len() / 40 + 1);
        for i in places {
            let limit = table.limit(row, 1, row[i]);
            assert_eq!(sorted[i], bounds(limit, limit));
            let (least, most) = (found[i] & 0xffff, found[i] >> 16);
            assert!(least <= limit >> 16 && limit >> 16 <= most);
        }
    }

    #[test]
    fn bounds_hold_the_limit_whatever_the_row() {
        let mut ranks = RowRanks::default();
        let mut random = 1_u64;
        let mut next = move || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) as u32
        };
        for n in [0, 1, 2, 31, 32, 33, 34, 63, 64, 65, 130, 896, LONGEST, LONGEST + 1] {
            let tables = [
                RankLimits::new::<Bf16>(n, 0.5, 0.1),
                RankLimits::new::<F32>(n, 0.5, -0.1),
                RankLimits::new::<F32>(n, 1.0, 0.0),
                RankLimits::new::<F32>(n, 0.5, 0.5),
            ];
            // The longest take their time.
            for table in &tables[if n < 1000 { 0 } else { 3 }..] {
                // All of them, infinities and NaN among them; few upper bits; low bits alone, which
                // leave all open; zeros and one other; all alike.
                for spread in [0x7fff_ffff, 0x3f_0000, 0x3_ffff, 0xffff, 1, 0] {
                    let row: Vec<u32> = (0..n).map(|_| 0x3a80_0000 ^ next() & spread).collect();
                    check(&mut ranks, table, &row);
                    let zeros: Vec<u32> = row.iter().map(|m| m * (m & 1)).collect();
                    check(&mut ranks, table, &zeros);
                    let halves: Vec<u16> = row.iter().map(|m| (m >> 16) as u16).collect();
                    check(&mut ranks, table, &halves);
                }
            }
        }
    }
}
