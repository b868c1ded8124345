//! Steps that begin at the bytes of a file, fused so that a value passes through memory once.
//!
//! Only dtypes whose loads vectorise stand here; callers take the plain steps for the others.

use multiversion::multiversion;

use crate::kernels::drop::LANES;
use crate::number::{Bf16, Float, Precision, F32};

pub(super) const EXPONENT: u32 = 0x7f80_0000;

/// Ask for the bytes that come after a row: vector units outrun what the processor fetches by itself,
/// which stops at the end of each page and of each chunk.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn prefetch(row: &[u8]) {
    const AHEAD: usize = 2048;
    for line in (0..row.len()).step_by(64) {
        use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
        // SAFETY: a prefetch is advice, and does nothing at an address that cannot be read.
        unsafe { _mm_prefetch(row.as_ptr().wrapping_add(AHEAD + line).cast(), _MM_HINT_T0) }
    }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(crate) fn prefetch(_row: &[u8]) {}

/// An element as it stands in a file.
pub(super) trait Stored {
    const BYTES: usize;
    fn load(bytes: &[u8]) -> f32;
}

pub(super) struct StoredF32;
pub(super) struct StoredBf16;

impl Stored for StoredF32 {
    const BYTES: usize = 4;
    #[inline(always)]
    fn load(b: &[u8]) -> f32 {
        f32::from_le_bytes([b[0], b[1], b[2], b[3]])
    }
}

impl Stored for StoredBf16 {
    const BYTES: usize = 2;
    #[inline(always)]
    fn load(b: &[u8]) -> f32 {
        f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16)
    }
}

/// `out := round(stored − base)` and whether all of it is finite; `None` where these dtypes are not
/// fused. Stored values must be values of the working dtype.
pub(crate) fn subtract(
    stored: Float,
    working: Float,
    bytes: &[u8],
    base: &[f32],
    out: &mut [f32],
) -> Option<bool> {
    Some(match (stored, working) {
        (Float::Bf16, Float::Bf16) => subtract_from::<StoredBf16, Bf16>(bytes, base, out),
        (Float::Bf16, Float::F32) => subtract_from::<StoredBf16, F32>(bytes, base, out),
        (Float::F32, Float::F32) => subtract_from::<StoredF32, F32>(bytes, base, out),
        _ => return None,
    })
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn subtract_from<S: Stored, P: Precision>(bytes: &[u8], base: &[f32], out: &mut [f32]) -> bool {
    // One for each lane: to fold the lanes of each row took 0.08 of 0.13 ns an element.
    let mut largest = [0; LANES];
    let (rows, rest) = out.as_chunks_mut::<LANES>();
    let (base_rows, base_rest) = base.as_chunks::<LANES>();
    let (row_bytes, rest_bytes) = bytes.split_at(rows.len() * LANES * S::BYTES);
    let bytes_of = row_bytes.chunks_exact(LANES * S::BYTES);
    for ((out, base), bytes) in rows.iter_mut().zip(base_rows).zip(bytes_of) {
        prefetch(bytes);
        subtract_row::<S, P>(bytes, base, out, &mut largest);
    }
    subtract_row::<S, P>(rest_bytes, base_rest, rest, &mut largest);
    largest.iter().all(|largest| *largest < EXPONENT)
}

#[inline(always)]
fn subtract_row<S: Stored, P: Precision>(
    bytes: &[u8],
    base: &[f32],
    out: &mut [f32],
    largest: &mut [u32; LANES],
) {
    let inputs = base.iter().zip(bytes.chunks_exact(S::BYTES));
    for ((out, largest), (base, b)) in out.iter_mut().zip(largest).zip(inputs) {
        let delta = P::round(S::load(b) - *base);
        *largest = (*largest).max(delta.to_bits() & EXPONENT);
        *out = delta;
    }
}

/// `sums := fma(weight, stored, sums)` and whether all that was loaded is finite; `None` where these
/// dtypes are not fused.
pub(crate) fn accumulate(
    stored: Float,
    working: Float,
    bytes: &[u8],
    weight: f32,
    sums: &mut [f32],
) -> Option<bool> {
    Some(match (stored, working) {
        (Float::Bf16, Float::Bf16 | Float::F32) => {
            accumulate_from::<StoredBf16>(bytes, weight, sums)
        }
        (Float::F32, Float::F32) => accumulate_from::<StoredF32>(bytes, weight, sums),
        _ => return None,
    })
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn accumulate_from<S: Stored>(bytes: &[u8], weight: f32, sums: &mut [f32]) -> bool {
    let mut largest = 0;
    for (sum, b) in sums.iter_mut().zip(bytes.chunks_exact(S::BYTES)) {
        let value = S::load(b);
        largest = largest.max(value.to_bits() & EXPONENT);
        *sum = value.mul_add(weight, *sum);
    }
    largest < EXPONENT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delta_that_is_not_finite_is_told_wherever_it_stands() {
        for length in [1, LANES - 1, LANES, LANES + 1, 2 * LANES + 3] {
            let base: Vec<f32> = (0..length).map(|i| i as f32).collect();
            for at in 0..=length {
                let stored = (0..length).map(|i| if i == at { f32::INFINITY } else { 2.0 });
                let stored: Vec<f32> = stored.collect();
                let bytes: Vec<u8> = stored.iter().flat_map(|value| value.to_le_bytes()).collect();
                let mut out = vec![0.0; length];
                let finite = subtract(Float::F32, Float::F32, &bytes, &base, &mut out);
                assert_eq!(finite, Some(at == length), "{at} of {length}");
                let expected: Vec<f32> = stored.iter().zip(&base).map(|(a, b)| a - b).collect();
                assert_eq!(out, expected);
            }
        }
    }
}
