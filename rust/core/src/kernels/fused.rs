//! Steps that begin at the bytes of a file, fused so that a value passes through memory once.
//!
//! Only dtypes whose loads vectorise stand here; callers take the plain steps for the others.

use multiversion::multiversion;

use crate::dtype::Float;
use crate::kernels::drop::{Mask, LANES};
use crate::kernels::elementwise::SUM_LANES;
use crate::precision::{Bf16, Precision, F32};

const EXPONENT: u32 = 0x7f80_0000;

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
pub fn subtract(
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
    for ((out, base), b) in out.iter_mut().zip(base).zip(bytes.chunks_exact(S::BYTES)) {
        let delta = P::round(S::load(b) - *base);
        largest = largest.max(delta.to_bits() & EXPONENT);
        *out = delta;
    }
    largest < EXPONENT
}

/// Add `|delta|` of every element to `sums[0]`, and of those that the mask keeps to `sums[1]`, as
/// [`add_magnitudes`](crate::kernels::elementwise::add_magnitudes) does; whether all of it is finite,
/// and `None` where these dtypes are not fused. `masked` is a mask and the place in it where `bytes`
/// begin.
pub fn add_norms(
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
        let (mask, bit) = mask.row(start + row * LANES);
        // Where the last row is short, the rest adds nothing.
        let (mut all, mut kept) = ([0.0; LANES], [0.0; LANES]);
        let places = all.iter_mut().zip(&mut kept);
        let inputs = base.iter().zip(bytes.chunks_exact(S::BYTES)).zip(mask);
        for ((all, kept), ((base, bytes), mask)) in places.zip(inputs) {
            let delta = P::round(S::load(bytes) - *base).abs();
            *all = delta;
            *kept = f32::from_bits(delta.to_bits() & 0_u32.wrapping_sub(mask >> bit & 1));
        }
        for (all, kept) in all.chunks_exact(SUM_LANES).zip(kept.chunks_exact(SUM_LANES)) {
            for lane in 0..SUM_LANES {
                largest[lane] = largest[lane].max(all[lane].to_bits());
                before[lane] += f64::from(all[lane]);
                after[lane] += f64::from(kept[lane]);
            }
        }
    }
    *sums = [before, after];
    largest.iter().all(|bits| *bits < EXPONENT)
}

/// `sums := fma(weight, stored, sums)` and whether all that was loaded is finite; `None` where these
/// dtypes are not fused.
pub fn accumulate(
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
