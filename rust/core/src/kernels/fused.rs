//! Steps that begin at the bytes of a file, fused so that a value passes through memory once.
//!
//! Only dtypes whose loads vectorise stand here; callers take the plain steps for the others.

use multiversion::multiversion;

use crate::kernels::drop::{Mask, LANES};
use crate::kernels::elementwise::SUM_LANES;
use crate::number::{Bf16, Float, Precision, F32};

const EXPONENT: u32 = 0x7f80_0000;

/// Ask for the bytes that come after a row: vector units outrun what the processor fetches by itself,
/// which stops at the end of each page and of each chunk.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn prefetch(row: &[u8]) {
    const AHEAD: usize = 2048;
    for line in (0..row.len()).step_by(64) {
        use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
        // SAFETY: a prefetch is advice, and does nothing at an address that cannot be read.
        unsafe { _mm_prefetch(row.as_ptr().wrapping_add(AHEAD + line).cast(), _MM_HINT_T0) }
    }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn prefetch(_row: &[u8]) {}

/// An element as it stands in a file.
trait Stored {
    const BYTES: usize;
    fn load(bytes: &[u8]) -> f32;
}

struct StoredF32;
struct StoredBf16;

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
    let mut largest = 0;
    let rows = out.chunks_mut(LANES).zip(base.chunks(LANES)).zip(bytes.chunks(LANES * S::BYTES));
    for ((out, base), bytes) in rows {
        prefetch(bytes);
        for ((out, base), b) in out.iter_mut().zip(base).zip(bytes.chunks_exact(S::BYTES)) {
            let delta = P::round(S::load(b) - *base);
            largest = largest.max(delta.to_bits() & EXPONENT);
            *out = delta;
        }
    }
    largest < EXPONENT
}

/// Add `|delta|` of every element to `sums[0]`, and of those that the mask keeps to `sums[1]`, as
/// [`add_magnitudes`](crate::kernels::elementwise::add_magnitudes) does; whether all of it is finite,
/// and `None` where these dtypes are not fused. `masked` is a mask and the place in it where `bytes`
/// begin.
pub(crate) fn add_norms(
    stored: Float,
    working: Float,
    bytes: &[u8],
    base: &[f32],
    masked: (&Mask, usize),
    sums: &mut [[f64; SUM_LANES]; 2],
) -> Option<bool> {
    Some(match (stored, working) {
        (Float::Bf16, Float::Bf16) => add_norms_of::<StoredBf16, Bf16>(bytes, base, masked, sums),
        (Float::Bf16, Float::F32) => add_norms_of::<StoredBf16, F32>(bytes, base, masked, sums),
        (Float::F32, Float::F32) => add_norms_of::<StoredF32, F32>(bytes, base, masked, sums),
        _ => return None,
    })
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn add_norms_of<S: Stored, P: Precision>(
    bytes: &[u8],
    base: &[f32],
    (mask, start): (&Mask, usize),
    sums: &mut [[f64; SUM_LANES]; 2],
) -> bool {
    let [mut before, mut after] = *sums;
    // Lane by lane: to fold a maximum at the end of every row took a fifth of the time.
    let mut largest = [0; SUM_LANES];
    for (row, (base, bytes)) in base.chunks(LANES).zip(bytes.chunks(LANES * S::BYTES)).enumerate() {
        prefetch(bytes);
        let (mask, bit) = mask.row(start + row * LANES);
        // Where the last row is short, the rest adds nothing.
        let mut deltas = [0.0; LANES];
        for ((delta, base), b) in deltas.iter_mut().zip(base).zip(bytes.chunks_exact(S::BYTES)) {
            *delta = P::round(S::load(b) - *base).abs();
        }
        for (deltas, mask) in deltas.chunks_exact(SUM_LANES).zip(mask.chunks_exact(SUM_LANES)) {
            for lane in 0..SUM_LANES {
                let delta = deltas[lane];
                largest[lane] = largest[lane].max(delta.to_bits());
                before[lane] += f64::from(delta);
                after[lane] += f64::from(if mask[lane] >> bit & 1 == 1 { delta } else { 0.0 });
            }
        }
    }
    *sums = [before, after];
    largest.iter().all(|bits| *bits < EXPONENT)
}

/// `sums := sums + d`, where `d` is `round(stored − base)`, zero where the mask does not keep it, times
/// both factors, rounded each time; whether all of `round(stored − base)` is finite, and `None` where
/// these dtypes are not fused. `masked` is as in [`add_norms`]; without one, everything is kept.
pub(crate) fn add_delta(
    stored: Float,
    working: Float,
    bytes: &[u8],
    base: &[f32],
    masked: Option<(&Mask, usize)>,
    factors: [f32; 2],
    sums: &mut [f32],
) -> Option<bool> {
    let add = match (stored, working) {
        (Float::Bf16, Float::Bf16) => add_delta_as::<StoredBf16, Bf16>,
        (Float::Bf16, Float::F32) => add_delta_as::<StoredBf16, F32>,
        (Float::F32, Float::F32) => add_delta_as::<StoredF32, F32>,
        _ => return None,
    };
    Some(add(bytes, base, masked, factors, sums))
}

/// Leaves a factor of 1 out: rounding after it is not free.
fn add_delta_as<S: Stored, P: Precision>(
    bytes: &[u8],
    base: &[f32],
    masked: Option<(&Mask, usize)>,
    factors: [f32; 2],
    sums: &mut [f32],
) -> bool {
    match factors {
        [one, factor] | [factor, one] if one == 1.0 => {
            add_delta_times::<S, P, 1>(bytes, base, masked, [factor], sums)
        }
        _ => add_delta_times::<S, P, 2>(bytes, base, masked, factors, sums),
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn add_delta_times<S: Stored, P: Precision, const N: usize>(
    bytes: &[u8],
    base: &[f32],
    masked: Option<(&Mask, usize)>,
    factors: [f32; N],
    sums: &mut [f32],
) -> bool {
    let mut largest = [0; LANES];
    let rows = sums.chunks_mut(LANES).zip(base.chunks(LANES)).zip(bytes.chunks(LANES * S::BYTES));
    for (row, ((sums, base), bytes)) in rows.enumerate() {
        prefetch(bytes);
        let (mask, bit) = match masked {
            Some((mask, start)) => mask.row(start + row * LANES),
            None => (&[1; LANES][..], 0),
        };
        let inputs = base.iter().zip(bytes.chunks_exact(S::BYTES)).zip(mask);
        for ((sum, largest), ((base, b), mask)) in sums.iter_mut().zip(&mut largest).zip(inputs) {
            let delta = P::round(S::load(b) - *base);
            *largest = (delta.to_bits() & EXPONENT).max(*largest);
            let mut kept = f32::from_bits(delta.to_bits() & 0_u32.wrapping_sub(mask >> bit & 1));
            for factor in factors {
                kept = P::round(kept * factor);
            }
            *sum += kept;
        }
    }
    largest.iter().all(|bits| *bits < EXPONENT)
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
    use crate::kernels::elementwise::{add, scale, subtract};
    use crate::number::philox::Stream;
    use crate::number::round_bf16;

    fn add_in_steps<P: Precision>(
        values: &[f32],
        base: &[f32],
        masked: Option<(&Mask, usize)>,
        factors: [f32; 2],
        sums: &mut [f32],
    ) {
        let mut delta = values.to_vec();
        subtract::<P>(&mut delta, base);
        if let Some((mask, start)) = masked {
            mask.apply(start, &mut delta);
        }
        factors.iter().for_each(|factor| scale::<P>(&mut delta, *factor));
        add(sums, &delta);
    }

    #[test]
    fn adding_a_delta_gives_what_its_steps_give() {
        let value = |i: usize, step: usize| round_bf16(((i * step) as f32 * 0.37).sin());
        let mask = Mask::drawn(500, Stream::from_id(1, 2), 0, 1 << 31);
        for n in [1, 63, 64, 65, 200] {
            let values: Vec<f32> = (0..n).map(|i| value(i, 3)).collect();
            let base: Vec<f32> = (0..n).map(|i| value(i, 5)).collect();
            for stored in [Float::Bf16, Float::F32] {
                let mut bytes = vec![0; n * stored.size()];
                stored.narrow(&values, &mut bytes);
                for working in [Float::Bf16, Float::F32] {
                    for masked in [None, Some((&mask, 0)), Some((&mask, 192))] {
                        for factors in [[1.0, 1.0], [1.875, 1.0], [1.0, 0.5], [1.875, 0.703_125]] {
                            let (mut sums, mut expected) = (vec![0.25; n], vec![0.25; n]);
                            let done = add_delta(
                                stored, working, &bytes, &base, masked, factors, &mut sums,
                            );
                            let expect = match working {
                                Float::Bf16 => add_in_steps::<Bf16>,
                                _ => add_in_steps::<F32>,
                            };
                            expect(&values, &base, masked, factors, &mut expected);
                            assert!(done.is_none_or(|finite| finite && sums == expected));
                        }
                    }
                }
            }
        }
    }
}
