//! Random masks, one bit for each element, laid out for vector units.
//!
//! Elements stand in rows of 64 lanes, and 32 rows share 64 words: bit `row % 32` of word
//! `64 · (row / 32) + lane` says whether element `64 · row + lane` is kept. So every step works lane
//! by lane; bits in the order of the elements would have to be gathered across lanes.
//!
//! The loops over a row have no constant length on purpose: such a loop is unrolled first, and what
//! is left is then vectorised across rows, with gathers, at a tenth of the speed.

use multiversion::multiversion;

use crate::number::philox::{self, half, Stream};

/// Masks are made and applied from multiples of this many elements on.
pub(crate) const LANES: usize = philox::LANES;
const ROWS: usize = 32;
/// Elements that share [`LANES`] words.
const GROUP: usize = LANES * ROWS;

/// A probability as a limit on 32-bit words: an element is kept where its word is below the limit.
/// The limit is 64 bits wide because probability 1 keeps every word.
pub(crate) fn limit(probability: f32) -> u64 {
    (f64::from(probability) * 4_294_967_296.0).round() as u64
}

/// Which elements of a run are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mask {
    words: Vec<u32>,
}

impl Mask {
    /// Bytes of a mask over `len` elements.
    pub(crate) fn bytes(len: usize) -> usize {
        len.div_ceil(GROUP) * LANES * 4
    }

    /// Keeps none of `len` elements.
    pub(crate) fn new(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(GROUP) * LANES] }
    }

    /// Keeps those of `len` elements, from element `start` on, whose word is below `limit`. `start` is a
    /// multiple of a [block](crate::work::BLOCK).
    pub(crate) fn drawn(len: usize, stream: Stream, start: usize, limit: u64) -> Self {
        let mut mask = Self::new(len);
        draw(&mut mask.words, stream, start, limit);
        mask
    }

    /// Keep the elements from `start` on whose word is below their own limit. `halves` are the upper
    /// halves of the words; `lower` gives the other one. `start` is a multiple of [`LANES`].
    pub(crate) fn keep_below_each(
        &mut self,
        start: usize,
        halves: &[u16],
        limits: &[u32],
        lower: impl Fn(usize) -> u32,
    ) {
        let rows = halves.chunks(LANES).zip(limits.chunks(LANES)).enumerate();
        for (row, (halves, limits)) in rows {
            let row = start / LANES + row;
            let words = &mut self.words[row / ROWS * LANES..][..halves.len()];
            if keep_below_each(words, row % ROWS, halves, limits) {
                for (lane, (word, half)) in words.iter_mut().zip(halves).enumerate() {
                    let (upper, rest) = (limits[lane] >> 16, limits[lane] & 0xffff);
                    let kept = upper == u32::from(*half) && lower(row * LANES + lane) < rest;
                    *word |= u32::from(kept) << (row % ROWS);
                }
            }
        }
    }

    /// The words of the row of element `start`, a multiple of [`LANES`], and the bit that is the row's.
    pub(crate) fn row(&self, start: usize) -> (&[u32], usize) {
        let row = start / LANES;
        (&self.words[row / ROWS * LANES..][..LANES], row % ROWS)
    }

    /// Zero the elements of `deltas` that are not kept; the first of them is element `start`, a
    /// multiple of [`LANES`].
    pub(crate) fn apply(&self, start: usize, deltas: &mut [f32]) {
        debug_assert_eq!(start % LANES, 0);
        apply(&self.words, start, deltas);
    }
}

fn draw(mask: &mut [u32], stream: Stream, start: usize, limit: u64) {
    let (upper, lower) = ((limit >> 16) as u32, limit as u32 & 0xffff);
    for (number, mask) in mask.chunks_exact_mut(LANES).enumerate() {
        let start = start + number * GROUP;
        let (below, any_equal) = draw_upper(stream, start, upper);
        mask.copy_from_slice(&below);
        // A limit of 16 bits, as every bfloat16 from 2^-8 up is, leaves nothing more to decide.
        if any_equal && lower != 0 {
            let mut halves = [0; GROUP];
            stream.upper(start as u64, &mut halves);
            let equal = halves.iter().enumerate().filter(|(_, half)| u32::from(**half) == upper);
            for (element, _) in equal {
                let kept = stream.lower((start + element) as u64) < lower;
                mask[element % LANES] |= u32::from(kept) << (element / LANES);
            }
        }
    }
}

/// Which of a group have an upper half below the limit's, and whether any has an equal one.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn draw_upper(stream: Stream, start: usize, upper: u32) -> ([u32; LANES], bool) {
    let (mut below, mut nearest) = ([0; LANES], [u32::MAX; LANES]);
    for part in 0..ROWS / philox::ROWS {
        let first = (start / philox::ROWS + part * LANES) as u64;
        for (lane, (below, nearest)) in below.iter_mut().zip(&mut nearest).enumerate() {
            let block = stream.block(first + lane as u64);
            for row in 0..philox::ROWS {
                let half = half(block, row);
                // The sign of the difference: a comparison would leave the vector registers. Each
                // row's bit moves down as others come after it.
                *below = *below >> 1 | half.wrapping_sub(upper) & 1 << 31;
                *nearest = (half ^ upper).min(*nearest);
            }
        }
    }
    (below, nearest.contains(&0))
}

/// Keep one row's elements whose half is below their limit's; whether any is equal to it.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn keep_below_each(mask: &mut [u32], row: usize, halves: &[u16], limits: &[u32]) -> bool {
    let mut equal = 0;
    for ((mask, half), limit) in mask.iter_mut().zip(halves).zip(limits) {
        let (half, limit) = (u32::from(*half), limit >> 16);
        *mask |= u32::from(half < limit) << row;
        equal |= u32::from(half == limit);
    }
    equal != 0
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

    /// One element after the other, as the definition says.
    fn expected(stream: Stream, start: usize, limits: &[u64]) -> Vec<bool> {
        let mut upper = vec![0; limits.len()];
        stream.upper(start as u64, &mut upper);
        let word =
            |i: usize| u64::from(upper[i]) << 16 | u64::from(stream.lower((start + i) as u64));
        (0..limits.len()).map(|i| word(i) < limits[i]).collect()
    }

    fn kept(mask: &Mask, n: usize) -> Vec<bool> {
        let mut deltas = vec![1.0; n];
        for (piece, deltas) in deltas.chunks_mut(128).enumerate() {
            mask.apply(128 * piece, deltas);
        }
        deltas.iter().map(|delta| *delta != 0.0).collect()
    }

    #[test]
    fn a_mask_keeps_what_is_below_its_limit_whatever_the_length() {
        let stream = Stream::from_id(3, 5);
        for n in [0, 1, 63, 64, 65, 2047, 2048, 2049, 9000] {
            for start in [0, crate::work::BLOCK] {
                // An upper half of the limit that a word has, so that some halves are equal.
                let mut upper = vec![0; n.max(1)];
                stream.upper(start as u64, &mut upper);
                let tied = u64::from(upper[n / 2]) << 16;
                for limit in [0, 1 << 31, tied + 1, tied + 0x8000, tied + 0xffff, 1 << 32] {
                    let mask = Mask::drawn(n, stream, start, limit);
                    assert_eq!(mask.words.len() * 4, Mask::bytes(n));
                    assert_eq!(kept(&mask, n), expected(stream, start, &vec![limit; n]));
                }
                let limits: Vec<u32> = upper[..n]
                    .iter()
                    .enumerate()
                    .map(|(i, half)| (u32::from(*half) << 16).wrapping_add(0x6000 * (i as u32 % 7)))
                    .collect();
                let mut mask = Mask::new(n);
                for (piece, limits) in limits.chunks(192).enumerate() {
                    let at = 192 * piece;
                    let lower = |i| stream.lower((start + i) as u64);
                    mask.keep_below_each(at, &upper[at..at + limits.len()], limits, lower);
                }
                let wide: Vec<u64> = limits.iter().map(|limit| u64::from(*limit)).collect();
                assert_eq!(kept(&mask, n), expected(stream, start, &wide));
            }
        }
    }
}
