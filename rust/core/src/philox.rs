//! Philox4x32-10, the counter-based generator of Salmon et al., "Parallel Random Numbers: As Easy
//! as 1, 2, 3" (SC 2011): word `i` of a stream is a pure function of seed, stream and `i`, so that
//! masks do not depend on threads, chunks or the order of work.

// Loops over lanes by number read like the definition and vectorise as they stand.
#![allow(clippy::needless_range_loop)]

use multiversion::multiversion;
use xxhash_rust::xxh3::xxh3_64;

const MULTIPLIERS: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;
/// Blocks of four words that are computed side by side.
const LANES: usize = 32;
const LOW: u64 = 0xffff_ffff;

/// One block: four words from a 128-bit counter and a 64-bit key.
pub fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let mut c = counter.map(|word| [u64::from(word); 1]);
    rounds(&mut c, key);
    c.map(|[word]| word as u32)
}

/// A stream of random words, one for each element of a tensor of one expert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    seed: u64,
    id: u64,
}

impl Stream {
    /// The stream for a tensor: key = seed, upper half of the counter = xxh3 of the tensor's name,
    /// a zero byte and the hash of the expert's content.
    pub fn new(seed: u64, tensor: &str, content: u64) -> Self {
        let mut text = tensor.as_bytes().to_vec();
        text.push(0);
        text.extend_from_slice(&content.to_le_bytes());
        Self { seed, id: xxh3_64(&text) }
    }

    /// A stream with a given id, for tests against other implementations.
    pub fn from_id(seed: u64, id: u64) -> Self {
        Self { seed, id }
    }

    /// Which stream of its seed this is.
    pub fn id(self) -> u64 {
        self.id
    }

    /// Words `start .. start + words.len()`; `start` is a multiple of four. Word `i` is word `i % 4`
    /// of the block with counter `i / 4`.
    pub fn fill(self, start: u64, words: &mut [u32]) {
        debug_assert_eq!(start % 4, 0);
        fill(self.seed, self.id, start / 4, words);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn fill(seed: u64, id: u64, first_block: u64, words: &mut [u32]) {
    let key = [seed as u32, (seed >> 32) as u32];
    for (group, words) in words.chunks_mut(4 * LANES).enumerate() {
        let first = first_block + (group * LANES) as u64;
        let mut c = [[0; LANES], [0; LANES], [id & LOW; LANES], [id >> 32; LANES]];
        for lane in 0..LANES {
            let block = first + lane as u64;
            c[0][lane] = block & LOW;
            c[1][lane] = block >> 32;
        }
        rounds(&mut c, key);
        let mut interleaved = [0; 4 * LANES];
        for (lane, block) in interleaved.chunks_exact_mut(4).enumerate() {
            for word in 0..4 {
                block[word] = c[word][lane] as u32;
            }
        }
        words.copy_from_slice(&interleaved[..words.len()]);
    }
}

/// Words stand in 64-bit lanes with anything in their upper halves: the multiplier of vector units
/// takes 32-bit factors from 64-bit lanes and ignores what is above them, so nothing has to be
/// packed between rounds.
#[inline(always)]
fn rounds<const N: usize>(c: &mut [[u64; N]; 4], mut key: [u32; 2]) {
    for _ in 0..ROUNDS {
        for lane in 0..N {
            let a = (c[0][lane] & LOW) * MULTIPLIERS[0];
            let b = (c[2][lane] & LOW) * MULTIPLIERS[1];
            c[0][lane] = (b >> 32) ^ c[1][lane] ^ u64::from(key[0]);
            c[1][lane] = b;
            c[2][lane] = (a >> 32) ^ c[3][lane] ^ u64::from(key[1]);
            c[3][lane] = a;
        }
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
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
    fn a_stream_is_the_same_wherever_it_is_entered() {
        let stream = Stream::from_id(7, 0x0123_4567_89ab_cdef);
        let mut whole = vec![0; 1000];
        stream.fill(0, &mut whole);
        for start in [0, 4, 64, 500] {
            let mut part = vec![0; 333];
            stream.fill(start as u64, &mut part);
            assert_eq!(part, whole[start..start + 333]);
        }
        let block = philox4x32_10([3, 0, 0x89ab_cdef, 0x0123_4567], [7, 0]);
        assert_eq!(block, whole[12..16]);
        let mut far = [0; 4];
        stream.fill(4 << 33, &mut far);
        assert_eq!(far, philox4x32_10([0, 2, 0x89ab_cdef, 0x0123_4567], [7, 0]));
    }

    #[test]
    fn name_content_and_seed_each_change_the_stream() {
        let one = Stream::new(0, "a", 1);
        assert_ne!(one, Stream::new(0, "b", 1));
        assert_ne!(one, Stream::new(0, "a", 2));
        assert_ne!(one, Stream::new(1, "a", 1));
    }
}
