//! Random masks, one bit for each element, in the order of the elements: 64 of them to a word.

use multiversion::multiversion;

use crate::kernels::draw::{below, below_each};
use crate::number::philox::{self, Stream, GROUP, ROWS};

/// Masks are made and applied from multiples of this many elements on.
pub(crate) const LANES: usize = philox::LANES;

/// A probability as a limit on 32-bit words: an element is kept where its word is below the limit.
/// The limit is 64 bits wide because probability 1 keeps every word.
pub(crate) fn limit(probability: f32) -> u64 {
    (f64::from(probability) * 4_294_967_296.0).round() as u64
}

/// Bounds of a limit, as good as their upper halves: that of the most, then that of the least.
pub(crate) fn bounds(least: u32, most: u32) -> u32 {
    most & 0xffff_0000 | least >> 16
}

/// Which elements of a run are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mask {
    rows: Vec<u64>,
}

impl Mask {
    /// Bytes of a mask over `len` elements.
    pub(crate) fn bytes(len: usize) -> usize {
        len.div_ceil(GROUP) * ROWS * 8
    }

    /// Keeps none of `len` elements.
    pub(crate) fn new(len: usize) -> Self {
        Self { rows: vec![0; len.div_ceil(GROUP) * ROWS] }
    }

    /// Keeps those of `len` elements, from element `start` on, whose word is below `limit`. `start` is a
    /// multiple of a [block](crate::work::BLOCK).
    pub(crate) fn drawn(len: usize, stream: Stream, start: usize, limit: u64) -> Self {
        let mut mask = Self::new(len);
        let (groups, _) = mask.rows.as_chunks_mut();
        for (number, rows) in groups.iter_mut().enumerate() {
            *rows = draw(stream, start + number * GROUP, limit);
        }
        mask
    }

    /// Draw the elements from `start` on, a multiple of [`GROUP`], each with a limit of its own that
    /// lies within [`bounds`]; `exact` gives the limits of those few that these leave open, by place. The
    /// run's first element is the tensor's element `first`.
    pub(crate) fn draw_each(
        &mut self,
        start: usize,
        stream: Stream,
        first: usize,
        bounds: &[u32],
        exact: impl Fn(usize) -> u32,
    ) {
        let (groups, _) = self.rows[start / LANES..].as_chunks_mut();
        for (number, (rows, some)) in groups.iter_mut().zip(bounds.chunks(GROUP)).enumerate() {
            let element = first + start + number * GROUP;
            let exact = |place| exact(number * GROUP + place);
            *rows = match some.try_into() {
                Ok(whole) => draw_each(stream, element, whole, GROUP, exact),
                Err(_) => {
                    let mut whole = [0; GROUP];
                    whole[..some.len()].copy_from_slice(some);
                    draw_each(stream, element, &whole, some.len(), exact)
                }
            };
        }
    }

    /// The bits of the 64 elements from `start` on, a multiple of [`LANES`].
    pub(crate) fn row(&self, start: usize) -> u64 {
        self.rows[start / LANES]
    }

    /// The bits of the elements from `start` on, a multiple of [`LANES`].
    pub(crate) fn rows(&self, start: usize) -> &[u64] {
        &self.rows[start / LANES..]
    }

    /// Zero the elements of `deltas` that are not kept; the first of them is element `start`, a
    /// multiple of [`LANES`].
    pub(crate) fn apply(&self, start: usize, deltas: &mut [f32]) {
        debug_assert_eq!(start % LANES, 0);
        apply(&self.rows[start / LANES..], deltas);
    }
}

/// Which elements of a group have a word below the limit.
fn draw(stream: Stream, start: usize, limit: u64) -> [u64; ROWS] {
    let lower = limit as u32 & 0xffff;
    let Ok(upper) = u16::try_from(limit >> 16) else { return [u64::MAX; ROWS] };
    let (mut rows, any_equal) = below(stream, (start / ROWS) as u64, upper);
    // A limit of 16 bits, as every bfloat16 from 2^-8 up is, leaves nothing more to decide.
    if any_equal && lower != 0 {
        let mut halves = [0; GROUP];
        stream.upper(start as u64, &mut halves);
        for (element, _) in halves.iter().enumerate().filter(|(_, half)| **half == upper) {
            let kept = stream.lower((start + element) as u64) < lower;
            rows[element / LANES] |= u64::from(kept) << (element % LANES);
        }
    }
    rows
}

fn draw_each(
    stream: Stream,
    start: usize,
    bounds: &[u32; GROUP],
    len: usize,
    exact: impl Fn(usize) -> u32,
) -> [u64; ROWS] {
    let (mut rows, open) = below_each(stream, (start / ROWS) as u64, bounds);
    for (row, (bits, mut open)) in rows.iter_mut().zip(open).enumerate() {
        while open != 0 {
            let lane = open.trailing_zeros() as usize;
            open &= open - 1;
            let place = row * LANES + lane;
            if place < len {
                let kept = stream.is_below((start + place) as u64, exact(place));
                *bits |= u64::from(kept) << lane;
            }
        }
    }
    rows
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn apply(rows: &[u64], deltas: &mut [f32]) {
    for (bits, deltas) in rows.iter().zip(deltas.chunks_mut(LANES)) {
        for (lane, delta) in deltas.iter_mut().enumerate() {
            // All bits of an element that is kept, none of the others.
            let kept = 0_u32.wrapping_sub((bits >> lane) as u32 & 1);
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
                    assert_eq!(mask.rows.len() * 8, Mask::bytes(n));
                    assert_eq!(kept(&mask, n), expected(stream, start, &vec![limit; n]));
                }
                let limits: Vec<u32> = upper[..n]
                    .iter()
                    .enumerate()
                    .map(|(i, half)| (u32::from(*half) << 16).wrapping_add(0x6000 * (i as u32 % 7)))
                    .collect();
                for spread in [0, 1, 0x4000_0000] {
                    let within = |limit: &u32| {
                        bounds(limit.saturating_sub(spread), limit.saturating_add(spread / 3))
                    };
                    let bounds: Vec<u32> = limits.iter().map(within).collect();
                    let mut mask = Mask::new(n);
                    for (piece, bounds) in bounds.chunks(1024).enumerate() {
                        let exact = |place| limits[1024 * piece + place];
                        mask.draw_each(1024 * piece, stream, start, bounds, exact);
                    }
                    let wide: Vec<u64> = limits.iter().map(|limit| u64::from(*limit)).collect();
                    assert_eq!(kept(&mask, n), expected(stream, start, &wide));
                }
            }
        }
    }
}
