//! Random masks, one bit for each element, laid out for vector units.
//!
//! Elements stand in rows of 64 lanes, and 32 rows share 64 words: bit `row % 32` of word
//! `64 · (row / 32) + lane` says whether element `64 · row + lane` is kept. So every step works lane
//! by lane; bits in the order of the elements would have to be gathered across lanes.
//!
//! The loops over a row have no constant length on purpose: such a loop is unrolled first, and what
//! is left is then vectorised across rows, with gathers, at a tenth of the speed.

use std::ops::Range;

use multiversion::multiversion;

/// Masks are made and applied from multiples of this many elements on.
pub const LANES: usize = 64;
const ROWS: usize = 32;
/// Elements that share [`LANES`] words.
const GROUP: usize = LANES * ROWS;

/// A probability as a limit on 32-bit words: an element is kept where its word is below the limit.
/// The limit is 64 bits wide because probability 1 keeps every word.
pub fn limit(probability: f32) -> u64 {
    (f64::from(probability) * 4_294_967_296.0).round() as u64
}

/// Which elements of a run are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mask {
    words: Vec<u32>,
}

impl Mask {
    /// Bytes of a mask over `len` elements.
    pub fn bytes(len: usize) -> usize {
        len.div_ceil(GROUP) * LANES * 4
    }

    /// Keeps none of `len` elements.
    pub fn new(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(GROUP) * LANES] }
    }

    /// Keep the elements from `start` on whose word is below `limit`. `start` is a multiple of [`LANES`].
    pub fn keep_below(&mut self, start: usize, words: &[u32], limit: u64) {
        match u32::try_from(limit) {
            Ok(limit) => keep_below(&mut self.words, start, words, limit),
            Err(_) => self.keep_range(start..start + words.len()),
        }
    }

    /// Keep the elements from `start` on whose word is below their own limit. `start` is a
    /// multiple of [`LANES`].
    pub fn keep_below_each(&mut self, start: usize, words: &[u32], limits: &[u32]) {
        keep_below_each(&mut self.words, start, words, limits);
    }

    fn keep_range(&mut self, range: Range<usize>) {
        for element in range {
            let (row, lane) = (element / LANES, element % LANES);
            self.words[row / ROWS * LANES + lane] |= 1 << (row % ROWS);
        }
    }

    /// Zero the elements of `deltas` that are not kept; the first of them is element `start`, a
    /// multiple of [`LANES`].
    pub fn apply(&self, start: usize, deltas: &mut [f32]) {
        debug_assert_eq!(start % LANES, 0);
        apply(&self.words, start, deltas);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn keep_below(mask: &mut [u32], start: usize, words: &[u32], limit: u32) {
    for (row, words) in words.chunks(LANES).enumerate() {
        let row = start / LANES + row;
        let mask = &mut mask[row / ROWS * LANES..][..words.len()];
        for (mask, word) in mask.iter_mut().zip(words) {
            *mask |= u32::from(*word < limit) << (row % ROWS);
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn keep_below_each(mask: &mut [u32], start: usize, words: &[u32], limits: &[u32]) {
    for (row, (words, limits)) in words.chunks(LANES).zip(limits.chunks(LANES)).enumerate() {
        let row = start / LANES + row;
        let mask = &mut mask[row / ROWS * LANES..][..words.len()];
        for ((mask, word), limit) in mask.iter_mut().zip(words).zip(limits) {
            *mask |= u32::from(word < limit) << (row % ROWS);
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn apply(mask: &[u32], start: usize, deltas: &mut [f32]) {
    for (row, deltas) in deltas.chunks_mut(LANES).enumerate() {
        let row = start / LANES + row;
        let mask = &mask[row / ROWS * LANES..][..deltas.len()];
        for (delta, mask) in deltas.iter_mut().zip(mask) {
            // All bits of a lane that is kept, none of the others.
            let kept = 0_u32.wrapping_sub(mask >> (row % ROWS) & 1);
            *delta = f32::from_bits(delta.to_bits() & kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_keeps_what_is_below_its_limit_whatever_the_length() {
        for n in [0, 1, 63, 64, 65, 2047, 2048, 2049, 9000] {
            let words: Vec<u32> = (0..n).map(|i: u32| i.wrapping_mul(0x9e37_79b9)).collect();
            for limit in [0, 1 << 31, (1 << 32) - 1, 1 << 32] {
                let mut mask = Mask::new(words.len());
                for (piece, words) in words.chunks(192).enumerate() {
                    mask.keep_below(192 * piece, words, limit);
                }
                assert_eq!(mask.words.len() * 4, Mask::bytes(words.len()));
                let mut deltas: Vec<f32> = vec![1.0; words.len()];
                for (piece, deltas) in deltas.chunks_mut(128).enumerate() {
                    mask.apply(128 * piece, deltas);
                }
                for (delta, word) in deltas.iter().zip(&words) {
                    assert_eq!(*delta != 0.0, u64::from(*word) < limit);
                }
                let limits: Vec<u32> =
                    words.iter().map(|_| limit.min(u32::MAX.into()) as u32).collect();
                let mut each = Mask::new(words.len());
                each.keep_below_each(0, &words, &limits);
                assert!(limit > u32::MAX.into() || each == mask);
            }
        }
    }
}
