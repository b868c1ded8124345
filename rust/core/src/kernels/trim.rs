//! Keep the largest magnitudes of a delta.
//!
//! A magnitude is the float's bits without the sign: comparing the integers compares the values.
//! Finding the threshold is [`crate::statistics::magnitude`]'s work.

use multiversion::multiversion;

const MAGNITUDE: u32 = 0x7fff_ffff;

/// The bits of `|value|`.
#[inline(always)]
pub(crate) fn magnitude(value: f32) -> u32 {
    value.to_bits() & MAGNITUDE
}

/// Zero every element below `threshold`, and of those equal to it all but the first `*ties`; then
/// take the ties that were kept off `*ties`.
pub(crate) fn trim(deltas: &mut [f32], threshold: u32, ties: &mut u64) {
    let equal = zero_below(deltas, threshold);
    if equal <= *ties {
        *ties -= equal;
    } else if *ties == 0 {
        zero_below(deltas, threshold + 1);
    } else {
        for delta in deltas.iter_mut().filter(|delta| magnitude(**delta) == threshold) {
            match ties.checked_sub(1) {
                Some(left) => *ties = left,
                None => *delta = 0.0,
            }
        }
    }
}

/// Zero what [`trim`] would keep: every element above `threshold`, and of those equal to it the first
/// `*ties`; then take the ties that were dropped off `*ties`.
pub(crate) fn trim_top(deltas: &mut [f32], threshold: u32, ties: &mut u64) {
    let equal = count_equal(deltas, threshold);
    if equal <= *ties {
        zero_above(deltas, threshold.saturating_sub(1));
        // Zeros, which a threshold of zero would drop, are zero already.
        *ties -= equal;
    } else if *ties == 0 {
        zero_above(deltas, threshold);
    } else {
        for delta in deltas {
            let bits = magnitude(*delta);
            if bits > threshold || (bits == threshold && *ties > 0) {
                *ties -= u64::from(bits == threshold);
                *delta = 0.0;
            }
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn count_equal(deltas: &[f32], threshold: u32) -> u64 {
    let mut equal = 0;
    // Loops, because closures of iterators are built without the wide registers where they are not
    // inlined; counts in 32 bits vectorise to the width of the elements.
    for part in deltas.chunks(1 << 20) {
        let mut count = 0_u32;
        for delta in part {
            count += u32::from(magnitude(*delta) == threshold);
        }
        equal += u64::from(count);
    }
    equal
}

/// Zero every element below `threshold` and count those equal to it, in one pass.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn zero_below(deltas: &mut [f32], threshold: u32) -> u64 {
    let mut equal = 0;
    // Counts in 32 bits vectorise to the width of the elements.
    for part in deltas.chunks_mut(1 << 20) {
        let mut count = 0_u32;
        for delta in part {
            let bits = magnitude(*delta);
            count += u32::from(bits == threshold);
            *delta = if bits < threshold { 0.0 } else { *delta };
        }
        equal += u64::from(count);
    }
    equal
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn zero_above(deltas: &mut [f32], threshold: u32) {
    for delta in deltas {
        *delta = if magnitude(*delta) > threshold { 0.0 } else { *delta };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_are_kept_by_index_across_calls() {
        let values = [1.0_f32, -2.0, 0.5, 2.0, -2.0, 3.0, 2.0];
        for kept in 0..=4_u64 {
            let mut whole = values;
            let mut ties = kept;
            trim(&mut whole, magnitude(2.0), &mut ties);
            let mut parts = values;
            let mut left = kept;
            for part in parts.chunks_mut(3) {
                trim(part, magnitude(2.0), &mut left);
            }
            assert_eq!((whole, ties), (parts, left));
            let nonzero = whole.iter().filter(|value| **value != 0.0).count() as u64;
            assert_eq!(nonzero, 1 + kept);
            assert_eq!(whole[1] != 0.0, kept > 0);
            assert_eq!(whole[6] != 0.0, kept == 4);
        }
    }

    #[test]
    fn the_top_that_is_dropped_is_what_trimming_keeps() {
        let values = [1.0_f32, -2.0, 0.5, 2.0, -2.0, 3.0, 2.0, 0.0];
        for ties in 0..=4_u64 {
            let (mut kept, mut rest) = (values, values);
            trim(&mut kept, magnitude(2.0), &mut ties.clone());
            let mut left = ties;
            for part in rest.chunks_mut(3) {
                trim_top(part, magnitude(2.0), &mut left);
            }
            for i in 0..values.len() {
                assert_eq!(kept[i] + rest[i], values[i]);
                assert!(kept[i] == 0.0 || rest[i] == 0.0);
            }
        }
        let mut zeros = [0.0_f32; 4];
        trim_top(&mut zeros, 0, &mut 2);
    }
}
