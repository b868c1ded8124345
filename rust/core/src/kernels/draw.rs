//! Random masks: Philox words compared with a limit, 512 elements at a time.
//!
//! ```text
//! word[i] < limit        for each element i; see number::philox for which bits are whose
//! ```
//! 1. Upper halves decide all but one comparison in 65,536. Where one of a group's is equal to the
//!    limit's, the group's equal elements are looked at again. Where an element has a limit of its own,
//!    two bounds of it are enough for most; see statistics::ranks.
//! 2. AVX-512 takes eight blocks to a register, each word in a 64-bit lane of its own, where the
//!    multiplier wants it: ten rounds are sixty instructions. Two registers, of even and of odd lanes,
//!    then merge into one by a shuffle under a mask, so that thirty-two halves are compared at once;
//!    their bits alternate between two rows, which `pext` takes apart.
//! 3. The other processors collect a byte for each lane, a bit of it for each row, and transpose.

use crate::number::philox::{half, Stream, GROUP, LANES, ROWS};

/// Which elements of each row of a group have an upper half below `upper`, and whether any has an
/// equal one. `first` is the group's first block.
pub(crate) fn below(stream: Stream, first: u64, upper: u16) -> ([u64; ROWS], bool) {
    #[cfg(target_arch = "x86_64")]
    {
        if crate::kernels::avx512::available() {
            // SAFETY: the processor has what the function is compiled for.
            return unsafe { vector::below(stream, first, upper) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has what the function is compiled for.
            return unsafe { below_avx2(stream, first, upper) };
        }
    }
    below_plain(stream, first, upper)
}

/// Which elements of each row of a group have an upper half below the lower half of their bounds, and
/// which have one that lies between the bounds or is equal to one.
pub(crate) fn below_each(
    stream: Stream,
    first: u64,
    bounds: &[u32; GROUP],
) -> ([u64; ROWS], [u64; ROWS]) {
    #[cfg(target_arch = "x86_64")]
    if crate::kernels::avx512::available() {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { vector::below_each(stream, first, bounds) };
    }
    below_each_plain(stream, first, bounds)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn below_avx2(stream: Stream, first: u64, upper: u16) -> ([u64; ROWS], bool) {
    below_plain(stream, first, upper)
}

#[inline(always)]
fn below_plain(stream: Stream, first: u64, upper: u16) -> ([u64; ROWS], bool) {
    let (mut below, mut nearest) = ([0_u32; LANES], [u32::MAX; LANES]);
    let upper = u32::from(upper);
    for (lane, (below, nearest)) in below.iter_mut().zip(&mut nearest).enumerate() {
        let block = stream.block(first + lane as u64);
        for row in 0..ROWS {
            let half = half(block, row);
            // The sign of the difference: a comparison would leave the vector registers. Each row's
            // bit moves down as others come after it.
            *below = *below >> 1 | half.wrapping_sub(upper) & 1 << 31;
            *nearest = (half ^ upper).min(*nearest);
        }
    }
    (rows_of(below.map(|bits| (bits >> 24) as u8)), nearest.contains(&0))
}

fn below_each_plain(
    stream: Stream,
    first: u64,
    bounds: &[u32; GROUP],
) -> ([u64; ROWS], [u64; ROWS]) {
    let mut halves = [0; GROUP];
    stream.upper(first * ROWS as u64, &mut halves);
    let (mut below, mut open) = ([0; ROWS], [0; ROWS]);
    let rows = halves.chunks_exact(LANES).zip(bounds.chunks_exact(LANES));
    for ((halves, bounds), (below, open)) in rows.zip(below.iter_mut().zip(&mut open)) {
        for (lane, (half, bounds)) in halves.iter().zip(bounds).enumerate() {
            let (half, least, most) = (u32::from(*half), bounds & 0xffff, bounds >> 16);
            *below |= u64::from(half < least) << lane;
            *open |= u64::from(least <= half && half <= most) << lane;
        }
    }
    (below, open)
}

/// From a byte for each lane, a bit of it for each row, the bits of each row.
#[inline(always)]
fn rows_of(lanes: [u8; LANES]) -> [u64; ROWS] {
    let (eights, _) = lanes.as_chunks::<8>();
    // Each is a square of eight lanes by eight rows: swap its quarters, their quarters, theirs.
    let squares: [u64; 8] = std::array::from_fn(|i| {
        let mut x = u64::from_le_bytes(eights[i]);
        for (shift, mask) in
            [(7, 0x00aa_00aa_00aa_00aa), (14, 0x0000_cccc_0000_cccc), (28, 0xf0f0_f0f0)]
        {
            let swapped = (x ^ x >> shift) & mask;
            x ^= swapped ^ swapped << shift;
        }
        x
    });
    std::array::from_fn(|row| u64::from_le_bytes(squares.map(|x| (x >> (8 * row)) as u8)))
}

#[cfg(target_arch = "x86_64")]
#[allow(clippy::needless_range_loop)] // iterators of registers are not always inlined
mod vector {
    use std::arch::x86_64::*;

    use super::{Stream, GROUP, ROWS};
    use crate::kernels::avx512::load_u32;
    use crate::number::philox::{LANES, MULTIPLIERS, ROUNDS, WEYL};

    /// Bits of the lower halves of words.
    const LOWER: u64 = 0x5555_5555_5555_5555;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi2,bmi2,popcnt")]
    pub(super) fn below(stream: Stream, first: u64, upper: u16) -> ([u64; ROWS], bool) {
        let limit = _mm512_set1_epi16(upper as i16);
        let (mut below, mut equal) = ([[0_u64; 4]; 4], 0);
        each_word(stream, first, |part, word, lanes| {
            below[word][part] = u64::from(_mm512_cmplt_epu16_mask(lanes, limit));
            equal |= _mm512_cmpeq_epu16_mask(lanes, limit);
        });
        let mut rows = [0; ROWS];
        for (word, [a, b, c, d]) in below.into_iter().enumerate() {
            let (low, high) = (a | b << 32, c | d << 32);
            rows[word] = _pext_u64(low, LOWER) | _pext_u64(high, LOWER) << 32;
            rows[word + 4] = _pext_u64(low, !LOWER) | _pext_u64(high, !LOWER) << 32;
        }
        (rows, equal != 0)
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi2,bmi2,popcnt")]
    pub(super) fn below_each(
        stream: Stream,
        first: u64,
        bounds: &[u32; GROUP],
    ) -> ([u64; ROWS], [u64; ROWS]) {
        let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
        let (bounds, _) = bounds.as_chunks::<16>();
        let (mut below, mut open) = ([0; ROWS], [0; ROWS]);
        each_word(stream, first, |part, word, lanes| {
            let halves = [_mm512_slli_epi32::<16>(lanes), _mm512_and_si512(lanes, upper)];
            for i in 0..2 {
                let row = word + 4 * i;
                // The lower half of the most does not matter beside zeros.
                let most = load_u32(&bounds[row * LANES / 16 + part]);
                let least = _mm512_slli_epi32::<16>(most);
                let less = _mm512_cmplt_epu32_mask(halves[i], least);
                let within = _mm512_mask_cmple_epu32_mask(!less, halves[i], most);
                below[row] |= u64::from(less) << (16 * part);
                open[row] |= u64::from(within) << (16 * part);
            }
        });
        (below, open)
    }

    /// `visit(part, word, lanes)` for each quarter of a group's blocks and each of their words: sixteen
    /// lanes. A loop, so that each caller has the rounds inlined; results of a call would go through
    /// memory.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi2,bmi2,popcnt")]
    #[inline]
    fn each_word(stream: Stream, first: u64, mut visit: impl FnMut(usize, usize, __m512i)) {
        let splat = |word: u32| _mm512_set1_epi64(i64::from(word));
        let multipliers = [splat(MULTIPLIERS[0] as u32), splat(MULTIPLIERS[1] as u32)];
        let (high, id) = ((first >> 32) as u32, stream.id());
        let rest = [splat(high), splat(id as u32), splat((id >> 32) as u32)];
        let even = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
        let odd = _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15);
        for part in 0..4 {
            let at = splat(first as u32 + 16 * part as u32);
            let [high, low_id, high_id] = rest;
            let mut blocks = [
                [_mm512_add_epi64(at, even), high, low_id, high_id],
                [_mm512_add_epi64(at, odd), high, low_id, high_id],
            ];
            let mut key = stream.key();
            for _ in 0..ROUNDS {
                let keys = [splat(key[0]), splat(key[1])];
                for i in 0..2 {
                    let c = blocks[i];
                    let a = _mm512_mul_epu32(c[0], multipliers[0]);
                    let b = _mm512_mul_epu32(c[2], multipliers[1]);
                    let (high_a, high_b) = (_mm512_srli_epi64::<32>(a), _mm512_srli_epi64::<32>(b));
                    let x = _mm512_ternarylogic_epi64::<0x96>(high_b, c[1], keys[0]);
                    let y = _mm512_ternarylogic_epi64::<0x96>(high_a, c[3], keys[1]);
                    blocks[i] = [x, b, y, a];
                }
                key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
            }
            let [even, odd] = blocks;
            for word in 0..4 {
                // The lower words of the odd lanes' blocks take the places above those of the even
                // ones'.
                let both =
                    _mm512_mask_shuffle_epi32::<0b10_10_00_00>(even[word], 0xaaaa, odd[word]);
                visit(part, word, both);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One element after the other, as the generator is defined.
    fn halves(stream: Stream, first: u64) -> [u32; GROUP] {
        let block = |lane: usize| stream.block(first + lane as u64);
        std::array::from_fn(|i| half(block(i % LANES), i / LANES))
    }

    fn rows(halves: &[u32; GROUP], holds: impl Fn(usize, u32) -> bool) -> [u64; ROWS] {
        let mut rows = [0; ROWS];
        for (i, half) in halves.iter().enumerate() {
            rows[i / LANES] |= u64::from(holds(i, *half)) << (i % LANES);
        }
        rows
    }

    const FIRST: [u64; 4] = [0, 64, 0xffff_ffc0, 5 << 32 | 128];

    #[test]
    fn a_group_is_drawn_alike_on_every_processor() {
        for (seed, first) in FIRST.into_iter().enumerate() {
            let stream = Stream::from_id(seed as u64, 0x0123_4567_89ab_cdef);
            let halves = halves(stream, first);
            for upper in [0, 1, 0x7fff, 0x8000, 0xffff, halves[100] as u16, halves[511] as u16] {
                let limit = u32::from(upper);
                let expected = (rows(&halves, |_, half| half < limit), halves.contains(&limit));
                assert_eq!(below(stream, first, upper), expected);
                assert_eq!(below_plain(stream, first, upper), expected);
                #[cfg(target_arch = "x86_64")]
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has what the function is compiled for.
                    assert_eq!(unsafe { below_avx2(stream, first, upper) }, expected);
                }
            }
        }
    }

    #[test]
    fn a_group_with_bounds_of_its_own_is_drawn_alike_on_every_processor() {
        for (seed, first) in FIRST.into_iter().enumerate() {
            let stream = Stream::from_id(seed as u64, 99);
            let halves = halves(stream, first);
            let ends = |i: usize| match i % 6 {
                0 => [halves[i], halves[i]],
                1 => [halves[i].saturating_sub(2), halves[i].saturating_sub(1)],
                2 => [0xffff, 0xffff],
                3 => [0, 0xffff],
                4 => [(halves[i] + 1).min(0xffff), 0xffff],
                _ => {
                    let some = (i as u32).wrapping_mul(0x9e37_79b9);
                    [(some & 0xffff).min(some >> 16), (some & 0xffff).max(some >> 16)]
                }
            };
            let bounds = std::array::from_fn(|i| ends(i)[1] << 16 | ends(i)[0]);
            let below = rows(&halves, |i, half| half < ends(i)[0]);
            let open = rows(&halves, |i, half| ends(i)[0] <= half && half <= ends(i)[1]);
            assert_eq!(below_each(stream, first, &bounds), (below, open));
            assert_eq!(below_each_plain(stream, first, &bounds), (below, open));
        }
    }
}
