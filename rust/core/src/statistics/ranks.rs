//! DELLA's probabilities: the larger a magnitude is among those of its row, the likelier it is kept.
//!
//! ```text
//! p(rank) = (density − epsilon) + (rank − 1) / (columns − 1) · 2 · epsilon      rank = 1 .. columns
//! ```
//! 1. mergekit computes `p` in the dtype of the delta, with a rounding after each step: so does the
//!    table here, and the rank itself is rounded too (a bfloat16 counts exactly to 256 only).
//! 2. Tied magnitudes have no order of their own; each gets the mean of `p` over their ranks.
//! 3. A row is sorted by radix, eight bits at a time, with the index in the lower half of the key.
//! 4. A bfloat16 row needs no sorting; see [`super::row_counts`].

use crate::number::Precision;

/// Rows up to this length are sorted by comparison: the tables of a radix sort cost more.
const SHORT: usize = 128;
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

    /// Sums of the limits of runs of ranks, one after the other, of so many each.
    pub(crate) fn sums(&self, counts: &[u16], sums: &mut [f64]) {
        let mut rank = 0;
        let mut before = self.below[0];
        for (count, sum) in counts.iter().zip(sums) {
            rank += *count as usize;
            let below = self.below[rank];
            *sum = (below - before) as f64;
            before = below;
        }
    }

    fn mean(&self, ranks: std::ops::Range<usize>) -> u32 {
        let sum = self.below[ranks.end] - self.below[ranks.start];
        // Most ranks stand alone, and a division is slow.
        let mean = if ranks.len() == 1 { sum } else { sum / ranks.len() as u64 };
        u32::try_from(mean).unwrap_or(u32::MAX)
    }
}

/// Finds the limits of rows.
pub(crate) trait RankRow<M>: Default {
    /// The limits of one row; `limits` is as long as the table says.
    fn limits(&mut self, table: &RankLimits, magnitudes: &[M], limits: &mut [u32]);
}

/// Sorts a row.
#[derive(Debug, Default)]
pub(crate) struct RowSorter {
    keys: Vec<u64>,
    other: Vec<u64>,
}

impl RankRow<u32> for RowSorter {
    fn limits(&mut self, table: &RankLimits, magnitudes: &[u32], limits: &mut [u32]) {
        let columns = magnitudes.len();
        self.keys.clear();
        let indexed = magnitudes.iter().enumerate();
        self.keys.extend(indexed.map(|(i, bits)| u64::from(*bits) << 32 | i as u64));
        if columns <= SHORT {
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
                limits[*key as u32 as usize] = limit;
            }
            begin = end;
        }
    }
}

impl RowSorter {
    /// Bytes of the buffers for a row.
    pub(crate) fn bytes(columns: usize) -> usize {
        16 * columns
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
    use crate::number::{round_bf16, Bf16, Magnitude, F32};
    use crate::statistics::row_counts::RowCounter;

    /// From the row's kernel for the kind of magnitudes.
    fn limits_of(deltas: &[f32], low_bits: bool) -> Vec<u32> {
        fn all<M: Magnitude, R: RankRow<M>>(table: &RankLimits, deltas: &[f32]) -> Vec<u32> {
            let magnitudes: Vec<M> = deltas.iter().map(|delta| M::of(*delta)).collect();
            let mut limits = vec![7; deltas.len()];
            R::default().limits(table, &magnitudes, &mut limits);
            limits
        }
        let table = RankLimits::new::<F32>(deltas.len(), 0.5, 0.2);
        if low_bits {
            all::<u32, RowSorter>(&table, deltas)
        } else {
            all::<u16, RowCounter>(&table, deltas)
        }
    }

    #[test]
    fn a_larger_magnitude_is_likelier_kept_and_ties_share() {
        for n in [2_usize, 3, 100, 129, 1000, 5000] {
            for low_bits in [false, true] {
                let value = |i: usize| ((i * 7919) % (n / 2 + 1)) as f32 - 3.0;
                let deltas: Vec<f32> = (0..n).map(|i| round_bf16(value(i))).collect();
                let limits = limits_of(&deltas, low_bits);
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
    }

    #[test]
    fn the_ends_of_a_row_have_density_minus_and_plus_epsilon() {
        let limits = limits_of(&[3.0, -1.0, 2.0], true);
        let share = |limit: &u32| (f64::from(*limit) / 2f64.powi(32) * 1e6).round() / 1e6;
        assert_eq!(limits.iter().map(share).collect::<Vec<_>>(), [0.7, 0.3, 0.5]);
        let one = RankLimits::new::<Bf16>(1, 0.5, 0.2);
        assert_eq!(one.mean(0..1), 1 << 31);
    }
}
