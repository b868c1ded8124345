//! Philox4x32-10, the counter-based generator of Salmon et al., "Parallel Random Numbers: As Easy
//! as 1, 2, 3" (SC 2011): the word for element `i` is a pure function of seed, stream and `i`, so that
//! masks do not depend on threads, chunks or the order of work.
//!
//! # Which bits belong to an element
//! Elements stand in rows of 64, and eight rows take 64 blocks, one for each lane: row `r` of the
//! eight takes word `r % 4` of its lane's block, the lower half of it for `r < 4`, else the upper. So
//! one block serves eight elements, and vector units draw row by row without moving a word across
//! lanes.
//!
//! The 16 bits found there are the upper half of the element's 32-bit word. The lower half comes, in the same
//! place, from the block whose counter has its 64th bit set. Comparing a word with a limit needs it
//! only where the upper halves are equal, once in 65,536, so that it costs nothing and probabilities
//! are exact to 2^-32 all the same. A whole word for each element costs twice the time.

// Loops over lanes by number read like the definition and vectorise as they stand.
#![allow(clippy::needless_range_loop)]

use multiversion::multiversion;
use xxhash_rust::xxh3::xxh3_64;

pub(crate) const MULTIPLIERS: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
pub(crate) const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
pub(crate) const ROUNDS: usize = 10;
const LOW: u64 = 0xffff_ffff;

/// Elements of a row, and blocks that serve a [`GROUP`].
pub(crate) const LANES: usize = 64;
/// Rows that share blocks.
pub(crate) const ROWS: usize = 8;
/// Elements that share [`LANES`] blocks.
pub(crate) const GROUP: usize = LANES * ROWS;
/// Bit of a block's number that leads to the lower halves.
const LOWER: u64 = 1 << 63;

/// One block: four words from a 128-bit counter and a 64-bit key.
#[inline(always)]
pub fn philox4x32_10(counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    let mut c = counter.map(u64::from);
    // Words stand in 64-bit lanes with anything in their upper halves: the multiplier of vector units
    // takes 32-bit factors from 64-bit lanes and ignores what is above them, so nothing has to be
    // packed between rounds.
    for _ in 0..ROUNDS {
        let (a, b) = ((c[0] & LOW) * MULTIPLIERS[0], (c[2] & LOW) * MULTIPLIERS[1]);
        c = [(b >> 32) ^ c[1] ^ u64::from(key[0]), b, (a >> 32) ^ c[3] ^ u64::from(key[1]), a];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    c.map(|word| word as u32)
}

/// A stream of random words, one for each element of a tensor of one expert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    seed: u64,
    id: u64,
}

impl Stream {
    /// The stream for a tensor: key = seed, upper half of the counter = xxh3 of the tensor's name,
    /// a zero byte and the [fingerprint](crate::statistics::fingerprint) of the expert's tensor.
    pub fn new(seed: u64, tensor: &str, fingerprint: u64) -> Self {
        let mut text = tensor.as_bytes().to_vec();
        text.push(0);
        text.extend_from_slice(&fingerprint.to_le_bytes());
        Self { seed, id: xxh3_64(&text) }
    }

    /// A stream with a given id, for tests against other implementations.
    #[cfg(test)]
    pub(crate) fn from_id(seed: u64, id: u64) -> Self {
        Self { seed, id }
    }

    /// Which stream of its seed this is.
    pub fn id(self) -> u64 {
        self.id
    }

    /// Block `number`, which serves the elements of one lane of a group. A loop over lanes that calls it
    /// is vectorised across them, all ten rounds in registers.
    #[inline(always)]
    pub(crate) fn block(self, number: u64) -> [u32; 4] {
        let (low, high) = (number as u32, (number >> 32) as u32);
        philox4x32_10([low, high, self.id as u32, (self.id >> 32) as u32], self.key())
    }

    /// Upper halves of the words of elements `start .. start + halves.len()`; `start` is a multiple of
    /// [`GROUP`].
    pub(crate) fn upper(self, start: u64, halves: &mut [u16]) {
        debug_assert_eq!(start % GROUP as u64, 0);
        upper(self, start / ROWS as u64, halves);
    }

    /// The lower half of one element's word.
    pub(crate) fn lower(self, element: u64) -> u32 {
        self.half(element, LOWER)
    }

    /// Whether one element's word is below a limit. The lower half is seldom looked at.
    pub(crate) fn is_below(self, element: u64, limit: u32) -> bool {
        let (half, upper) = (self.half(element, 0), limit >> 16);
        half < upper || half == upper && self.lower(element) < limit & 0xffff
    }

    fn half(self, element: u64, which: u64) -> u32 {
        let (row, lane) = (element / LANES as u64, element % LANES as u64);
        let number = row / ROWS as u64 * LANES as u64 + lane;
        half(self.block(number | which), (row % ROWS as u64) as usize)
    }

    #[inline(always)]
    pub(crate) fn key(self) -> [u32; 2] {
        [self.seed as u32, (self.seed >> 32) as u32]
    }
}

/// The 16 bits of a block that belong to a row.
#[inline(always)]
pub(crate) fn half(block: [u32; 4], row: usize) -> u32 {
    block[row % 4] >> (16 * (row / 4)) & 0xffff
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn upper(stream: Stream, first_block: u64, halves: &mut [u16]) {
    for (group, halves) in halves.chunks_mut(GROUP).enumerate() {
        let mut all = [0; GROUP];
        for lane in 0..LANES {
            let block = stream.block(first_block + (group * LANES + lane) as u64);
            for row in 0..ROWS {
                all[row * LANES + lane] = half(block, row) as u16;
            }
        }
        halves.copy_from_slice(&all[..halves.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers published with the authors' Random123 library (`kat_vectors`).
    #[test]
    fn published_test_vectors() {
        let zeros = philox4x32_10([0; 4], [0; 2]);
        assert_eq!(zeros, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = philox4x32_10([u32::MAX; 4], [u32::MAX; 2]);
        assert_eq!(ones, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = philox4x32_10(
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0],
        );
        assert_eq!(pi, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn an_element_has_the_documented_bits_wherever_a_stream_is_entered() {
        let stream = Stream::from_id(7, 0x0123_4567_89ab_cdef);
        let mut whole = vec![0; 3000];
        stream.upper(0, &mut whole);
        for start in [0, 512, 2048] {
            let mut part = vec![0; 700];
            stream.upper(start as u64, &mut part);
            assert_eq!(part, whole[start..start + 700]);
        }
        let id = [0x89ab_cdef, 0x0123_4567];
        // Element 2048 + 5 · 64 + 3: block 4 · 64 + 3, row 5, so the upper half of word 1.
        let word = |upper| philox4x32_10([259, upper, id[0], id[1]], [7, 0])[1];
        assert_eq!(u32::from(whole[2371]), word(0) >> 16);
        assert_eq!(stream.lower(2371), word(1 << 31) >> 16);
        assert_eq!(stream.lower(64), philox4x32_10([0, 1 << 31, id[0], id[1]], [7, 0])[1] & 0xffff);
        let mut far = [0; 1];
        stream.upper(8 << 33, &mut far);
        assert_eq!(u32::from(far[0]), philox4x32_10([0, 2, id[0], id[1]], [7, 0])[0] & 0xffff);
    }

    #[test]
    fn name_fingerprint_and_seed_each_change_the_stream() {
        let one = Stream::new(0, "a", 1);
        assert_ne!(one, Stream::new(0, "b", 1));
        assert_ne!(one, Stream::new(0, "a", 2));
        assert_ne!(one, Stream::new(1, "a", 1));
    }
}
