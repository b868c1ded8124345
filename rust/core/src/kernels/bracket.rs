//! Count the magnitudes above a bracket, and set those inside it aside.
//!
//! ```text
//! above  = how many are at or above the bracket's end
//! lumps  = how many are equal to each of two magnitudes inside it
//! aside  = all others inside it, in order
//! ```
//! 1. Comparisons go sixteen at a time, into one counter for each lane. Nanoseconds for an element of
//!    normal deltas of which one in fifty is set aside, data in the second-level cache: 0.09, by
//!    itself in a loop. Counting in tables takes about 0.26: that is no such measurement, but its share
//!    of a profile of whole merges.
//! 2. Which are set aside is noted in one bit of a word for each lane, and the bits are gone over
//!    once a tile is done: so nothing branches but on those. Their order does not matter.
//! 3. What many elements share, as the differences of bfloat16 weights do, is counted instead: a
//!    quarter of an expert may lie on one magnitude. That takes 0.12 ns.
//!
//! Lost: to find groups of sixteen that hold any, and to go over those element by element, 0.37 ns.

use multiversion::multiversion;

use crate::kernels::trim::magnitude;

/// Magnitudes of a bracket that are counted rather than set aside.
pub(crate) const LUMPS: usize = 2;
/// No magnitude: a bracket has fewer lumps than there is room for.
pub(crate) const NO_LUMP: u32 = u32::MAX;

const LANES: usize = 16;
const TILE: usize = 32 * LANES;

/// Magnitudes among which one is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bracket {
    /// The least.
    pub low: u32,
    /// What follows the largest.
    pub end: u32,
    /// Those inside it that are expected to be many, or [`NO_LUMP`].
    pub lumps: [u32; LUMPS],
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Found {
    /// How many lie above the bracket.
    pub above: u64,
    /// How many are equal to each lump.
    pub lumps: [u64; LUMPS],
    /// The others inside it.
    pub aside: Vec<u32>,
}

impl Found {
    /// Nothing yet, with room for all that may be set aside: a vector that grows as it is filled ends
    /// with up to twice the room that the budget counts, and holds one and a half at a time as it moves.
    pub(crate) fn with_room(room: usize) -> Self {
        Self { above: 0, lumps: [0; LUMPS], aside: Vec::with_capacity(room) }
    }
}

/// Add what `deltas` hold to `found`, of which no more than `room` are set aside; false where there
/// were more: then `found` is of no use.
pub(crate) fn count_around(
    deltas: &[f32],
    bracket: &Bracket,
    room: usize,
    found: &mut Found,
) -> bool {
    match bracket.lumps {
        [NO_LUMP, NO_LUMP] => count::<0>(deltas, bracket, room, found),
        _ => count::<LUMPS>(deltas, bracket, room, found),
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn count<const N: usize>(
    deltas: &[f32],
    bracket: &Bracket,
    room: usize,
    found: &mut Found,
) -> bool {
    let Bracket { low, end, lumps } = *bracket;
    let width = end - low;
    for tile in deltas.chunks(TILE) {
        let mut above = [0_u32; LANES];
        let mut equal = [[0_u32; LANES]; N];
        let mut open = [0_u32; LANES];
        let mut count = |number: usize, group: &[f32; LANES]| {
            for lane in 0..LANES {
                let bits = magnitude(group[lane]);
                above[lane] += u32::from(bits >= end);
                let mut inside = u32::from(bits.wrapping_sub(low) < width);
                for i in 0..N {
                    let is_lump = u32::from(bits == lumps[i]);
                    equal[i][lane] += is_lump;
                    inside &= !is_lump;
                }
                open[lane] |= inside << number;
            }
        };
        let (whole, rest) = tile.as_chunks::<LANES>();
        for (number, group) in whole.iter().enumerate() {
            count(number, group);
        }
        for (delta, lane) in rest.iter().zip(0..) {
            let bits = magnitude(*delta);
            let is_lump = |i: usize| bits == lumps[i];
            above[lane] += u32::from(bits >= end);
            (0..N).for_each(|i| equal[i][lane] += u32::from(is_lump(i)));
            let inside = bits.wrapping_sub(low) < width && !(0..N).any(is_lump);
            open[lane] |= u32::from(inside) << whole.len();
        }
        found.above += u64::from(above.iter().sum::<u32>());
        for (total, lanes) in found.lumps.iter_mut().zip(equal) {
            *total += u64::from(lanes.iter().sum::<u32>());
        }
        let n_open: u32 = open.iter().map(|word| word.count_ones()).sum();
        if found.aside.len() + n_open as usize > room {
            return false;
        }
        for (lane, mut word) in open.into_iter().enumerate() {
            while word != 0 {
                let number = word.trailing_zeros() as usize;
                found.aside.push(magnitude(tile[number * LANES + lane]));
                word &= word - 1;
            }
        }
    }
    true
}
