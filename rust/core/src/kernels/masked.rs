//! Deltas under a mask, from the bytes of a file in one go, and their L1 norms.
//!
//! ```text
//! d       = round(stored − base)
//! norms   : sums[0] += |d|, sums[1] += |d| where kept     in float64, accumulator index % 16
//! deltas  : out = or += round(round(d · factor) · factor), zero where not kept
//! ```
//! 1. For AVX-512 the loops are written out: the bits of sixteen elements are a mask register, which
//!    masks an addition or a move as it is. The compiler's own version of the plain loops spread each
//!    bit over a lane first, and went through memory for the magnitudes of a row.
//! 2. A row that is short is padded with zeros, whose delta is zero.
//! 3. Where nothing is kept an accumulator stays as it is, and adding zero to it would give the same: it
//!    is never negative.
//!
//! Tried and dropped: norms from a tensor's last block to its first, so that the second read finds the
//! first blocks in the cache (dare_linear of the 0.5B shape 1.80 s for 1.81: two workers' inputs are
//! twice 43 MB).

use multiversion::multiversion;

use crate::kernels::drop::{Mask, LANES};
use crate::kernels::elementwise::SUM_LANES;
use crate::kernels::fused::{prefetch, Stored, StoredBf16, StoredF32, EXPONENT};
use crate::number::{Bf16, Float, Magnitude, Precision, F32};

/// A mask and the place in it where a run begins.
pub(crate) type Masked<'a> = (&'a Mask, usize);

/// Sums of magnitudes, before and after a mask.
type Sums = [[f64; SUM_LANES]; 2];

/// Run `$call` with the types of a file's and of the working dtype; `None` where they are not fused.
macro_rules! fused {
    ($stored:expr, $working:expr, $S:ident, $P:ident => $call:expr) => {
        match ($stored, $working) {
            (Float::Bf16, Float::Bf16) => {
                type $S = StoredBf16;
                type $P = Bf16;
                Some($call)
            }
            (Float::Bf16, Float::F32) => {
                type $S = StoredBf16;
                type $P = F32;
                Some($call)
            }
            (Float::F32, Float::F32) => {
                type $S = StoredF32;
                type $P = F32;
                Some($call)
            }
            _ => None,
        }
    };
}

/// Add `|delta|` of every element to `sums[0]`, and of those that the mask keeps to `sums[1]`, as
/// [`add_magnitudes`](crate::kernels::elementwise::add_magnitudes) does; whether all of it is finite,
/// and `None` where these dtypes are not fused.
pub(crate) fn add_norms(
    stored: Float,
    working: Float,
    bytes: &[u8],
    base: &[f32],
    masked: Masked,
    sums: &mut Sums,
) -> Option<bool> {
    fused!(stored, working, S, P => {
        #[cfg(target_arch = "x86_64")]
        if crate::kernels::avx512::available() {
            // SAFETY: the processor has what the function is compiled for.
            return Some(unsafe { vector::add_norms::<S, P>(bytes, base, masked, sums) });
        }
        add_norms_plain::<S, P>(bytes, base, masked, sums)
    })
}

/// Add every magnitude to `sums[0]`, and those whose bit is set in `rows` to `sums[1]`, as
/// [`add_magnitudes`](crate::kernels::elementwise::add_magnitudes) does.
pub(crate) fn add_kept<M: Magnitude>(magnitudes: &[M], rows: &[u64], sums: &mut Sums) {
    #[cfg(target_arch = "x86_64")]
    if crate::kernels::avx512::available() {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { vector::add_kept(magnitudes, rows, sums) };
    }
    add_kept_plain(magnitudes, rows, sums);
}

/// `out := d`, or `out := out + d` where `ADD`, with `d` as above; whether all of
/// `round(stored − base)` is finite, and `None` where these dtypes are not fused. Without a mask all is
/// kept.
pub(crate) fn deltas<const ADD: bool>(
    stored: Float,
    working: Float,
    bytes: &[u8],
    base: &[f32],
    masked: Option<Masked>,
    factors: [f32; 2],
    out: &mut [f32],
) -> Option<bool> {
    fused!(stored, working, S, P => match factors {
        // Rounding after a factor of 1 is not free.
        [one, factor] | [factor, one] if one == 1.0 => {
            deltas_times::<S, P, ADD, 1>(bytes, base, masked, [factor], out)
        }
        _ => deltas_times::<S, P, ADD, 2>(bytes, base, masked, factors, out),
    })
}

fn deltas_times<S: Stored, P: Precision, const ADD: bool, const N: usize>(
    bytes: &[u8],
    base: &[f32],
    masked: Option<Masked>,
    factors: [f32; N],
    out: &mut [f32],
) -> bool {
    #[cfg(target_arch = "x86_64")]
    if crate::kernels::avx512::available() {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { vector::deltas::<S, P, ADD, N>(bytes, base, masked, factors, out) };
    }
    deltas_plain::<S, P, ADD, N>(bytes, base, masked, factors, out)
}

#[multiversion(targets("x86_64+avx2+fma"))]
fn add_norms_plain<S: Stored, P: Precision>(
    bytes: &[u8],
    base: &[f32],
    (mask, start): Masked,
    sums: &mut Sums,
) -> bool {
    let [mut before, mut after] = *sums;
    // Lane by lane: to fold a maximum at the end of every row took a fifth of the time.
    let mut largest = [0; SUM_LANES];
    for (row, (base, bytes)) in base.chunks(LANES).zip(bytes.chunks(LANES * S::BYTES)).enumerate() {
        prefetch(bytes);
        let bits = mask.row(start + row * LANES);
        let mut deltas = [0.0; LANES];
        for ((delta, base), b) in deltas.iter_mut().zip(base).zip(bytes.chunks_exact(S::BYTES)) {
            *delta = P::round(S::load(b) - *base).abs();
        }
        for (part, deltas) in deltas.chunks_exact(SUM_LANES).enumerate() {
            let bits = (bits >> (part * SUM_LANES)) as u32;
            for lane in 0..SUM_LANES {
                let delta = deltas[lane];
                largest[lane] = largest[lane].max(delta.to_bits());
                before[lane] += f64::from(delta);
                after[lane] += f64::from(if bits & 1 << lane != 0 { delta } else { 0.0 });
            }
        }
    }
    *sums = [before, after];
    largest.iter().all(|bits| *bits < EXPONENT)
}

#[multiversion(targets("x86_64+avx2+fma"))]
fn add_kept_plain<M: Magnitude>(magnitudes: &[M], rows: &[u64], sums: &mut Sums) {
    let [mut before, mut after] = *sums;
    for (part, magnitudes) in magnitudes.chunks(SUM_LANES).enumerate() {
        let bits = (rows[part / 4] >> (part % 4 * SUM_LANES)) as u32;
        let mut values = [0.0; SUM_LANES];
        values.iter_mut().zip(magnitudes).for_each(|(value, m)| *value = m.value());
        for lane in 0..SUM_LANES {
            before[lane] += f64::from(values[lane]);
            after[lane] += f64::from(if bits & 1 << lane != 0 { values[lane] } else { 0.0 });
        }
    }
    *sums = [before, after];
}

#[multiversion(targets("x86_64+avx2+fma"))]
fn deltas_plain<S: Stored, P: Precision, const ADD: bool, const N: usize>(
    bytes: &[u8],
    base: &[f32],
    masked: Option<Masked>,
    factors: [f32; N],
    out: &mut [f32],
) -> bool {
    let mut largest = [0; LANES];
    let rows = out.chunks_mut(LANES).zip(base.chunks(LANES)).zip(bytes.chunks(LANES * S::BYTES));
    for (row, ((out, base), bytes)) in rows.enumerate() {
        prefetch(bytes);
        let bits = masked.map_or(u64::MAX, |(mask, start)| mask.row(start + row * LANES));
        let inputs = base.iter().zip(bytes.chunks_exact(S::BYTES)).enumerate();
        for ((out, largest), (lane, (base, b))) in out.iter_mut().zip(&mut largest).zip(inputs) {
            let delta = P::round(S::load(b) - *base);
            *largest = (delta.to_bits() & EXPONENT).max(*largest);
            let kept = 0_u32.wrapping_sub((bits >> lane) as u32 & 1);
            let mut kept = f32::from_bits(delta.to_bits() & kept);
            for factor in factors {
                kept = P::round(kept * factor);
            }
            *out = if ADD { *out + kept } else { kept };
        }
    }
    largest.iter().all(|bits| *bits < EXPONENT)
}

#[cfg(target_arch = "x86_64")]
#[allow(clippy::needless_range_loop)] // iterators of registers are not always inlined
mod vector {
    use std::arch::x86_64::*;

    use super::{prefetch, Masked, Stored, Sums, EXPONENT, LANES};
    use crate::kernels::avx512::*;
    use crate::number::{Float, Magnitude, Precision};

    /// Elements of a register.
    const PART: usize = 16;
    const PARTS: usize = LANES / PART;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi2,bmi2,popcnt")]
    pub(super) fn add_norms<S: Stored, P: Precision>(
        bytes: &[u8],
        base: &[f32],
        (mask, start): Masked,
        sums: &mut Sums,
    ) -> bool {
        let mut all = load_sums(sums);
        let mut largest = _mm512_setzero_si512();
        let whole = base.len() / LANES;
        for row in 0..base.len().div_ceil(LANES) {
            let (mut last_base, mut last_bytes) = ([0.0; LANES], [0; 4 * LANES]);
            let (mut base, mut bytes) = (&base[row * LANES..], &bytes[row * LANES * S::BYTES..]);
            if row == whole {
                pad(base, bytes, &mut last_base, &mut last_bytes);
                (base, bytes) = (&last_base, &last_bytes);
            }
            let (base, bytes) = (&base[..LANES], &bytes[..LANES * S::BYTES]);
            prefetch(bytes);
            let bits = mask.row(start + row * LANES);
            for part in 0..PARTS {
                let delta = _mm512_abs_ps(delta::<S, P>(base, bytes, part));
                largest = _mm512_max_epu32(largest, _mm512_castps_si512(delta));
                all = add(all, delta, (bits >> (PART * part)) as u16);
            }
        }
        store_sums(sums, all);
        _mm512_reduce_max_epu32(largest) < EXPONENT
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi2,bmi2,popcnt")]
    pub(super) fn add_kept<M: Magnitude>(magnitudes: &[M], rows: &[u64], sums: &mut Sums) {
        let mut all = load_sums(sums);
        let (whole, rest) = magnitudes.as_chunks::<PART>();
        for part in 0..whole.len() {
            // The compiler turns this into one load.
            let mut values = [0.0; PART];
            for lane in 0..PART {
                values[lane] = whole[part][lane].value();
            }
            all = add(all, load_f32(&values), (rows[part / PARTS] >> (part % PARTS * PART)) as u16);
        }
        if !rest.is_empty() {
            let mut values = [0.0; PART];
            for lane in 0..rest.len() {
                values[lane] = rest[lane].value();
            }
            let part = whole.len();
            all = add(all, load_f32(&values), (rows[part / PARTS] >> (part % PARTS * PART)) as u16);
        }
        store_sums(sums, all);
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi2,bmi2,popcnt")]
    pub(super) fn deltas<S: Stored, P: Precision, const ADD: bool, const N: usize>(
        bytes: &[u8],
        base: &[f32],
        masked: Option<Masked>,
        factors: [f32; N],
        out: &mut [f32],
    ) -> bool {
        let mut largest = _mm512_setzero_si512();
        let whole = out.len() / LANES;
        for row in 0..out.len().div_ceil(LANES) {
            let (mut last_base, mut last_bytes) = ([0.0; LANES], [0; 4 * LANES]);
            let mut last_out = [0.0; LANES];
            let (mut base, mut bytes) = (&base[row * LANES..], &bytes[row * LANES * S::BYTES..]);
            let mut out = &mut out[row * LANES..];
            let short = (row == whole).then_some(out.len());
            let mut to = None;
            if let Some(n) = short {
                pad(base, bytes, &mut last_base, &mut last_bytes);
                (base, bytes) = (&last_base, &last_bytes);
                last_out[..n].copy_from_slice(out);
                to = Some(std::mem::replace(&mut out, &mut last_out));
            }
            let (base, bytes) = (&base[..LANES], &bytes[..LANES * S::BYTES]);
            prefetch(bytes);
            let bits = match masked {
                Some((mask, start)) => mask.row(start + row * LANES),
                None => u64::MAX,
            };
            let (parts, _) = out[..LANES].as_chunks_mut::<PART>();
            for part in 0..PARTS {
                let delta = delta::<S, P>(base, bytes, part);
                largest = _mm512_max_epu32(largest, _mm512_castps_si512(_mm512_abs_ps(delta)));
                let mut kept = _mm512_maskz_mov_ps((bits >> (PART * part)) as u16, delta);
                for i in 0..N {
                    kept = round::<P>(_mm512_mul_ps(kept, _mm512_set1_ps(factors[i])));
                }
                if ADD {
                    kept = _mm512_add_ps(load_f32(&parts[part]), kept);
                }
                store_f32(&mut parts[part], kept);
            }
            if let Some(to) = to {
                to.copy_from_slice(&out[..to.len()]);
            }
        }
        _mm512_reduce_max_epu32(largest) < EXPONENT
    }

    /// Eight lanes of sums each: before the mask, and after it.
    type Registers = [__m512d; 4];

    #[target_feature(enable = "avx512f,avx512vl")]
    #[inline]
    fn load_sums(sums: &Sums) -> Registers {
        let (parts, _) = sums.as_flattened().as_chunks::<8>();
        [load_f64(&parts[0]), load_f64(&parts[1]), load_f64(&parts[2]), load_f64(&parts[3])]
    }

    #[target_feature(enable = "avx512f,avx512vl")]
    #[inline]
    fn store_sums(sums: &mut Sums, registers: Registers) {
        let (parts, _) = sums.as_flattened_mut().as_chunks_mut::<8>();
        for i in 0..4 {
            store_f64(&mut parts[i], registers[i]);
        }
    }

    #[target_feature(enable = "avx512f,avx512dq")]
    #[inline]
    fn add(sums: Registers, magnitudes: __m512, bits: u16) -> Registers {
        let low = _mm512_cvtps_pd(_mm512_castps512_ps256(magnitudes));
        let high = _mm512_cvtps_pd(_mm512_extractf32x8_ps::<1>(magnitudes));
        [
            _mm512_add_pd(sums[0], low),
            _mm512_add_pd(sums[1], high),
            _mm512_mask_add_pd(sums[2], bits as u8, sums[2], low),
            _mm512_mask_add_pd(sums[3], (bits >> 8) as u8, sums[3], high),
        ]
    }

    /// `round(stored − base)` of a part of a row.
    #[target_feature(enable = "avx512f,avx512vl")]
    #[inline]
    fn delta<S: Stored, P: Precision>(base: &[f32], bytes: &[u8], part: usize) -> __m512 {
        let (bases, _) = base.as_chunks::<PART>();
        let stored = if S::BYTES == 2 {
            widen(load_half_bytes(&bytes.as_chunks().0[part]))
        } else {
            _mm512_castsi512_ps(load_bytes(&bytes.as_chunks().0[part]))
        };
        round::<P>(_mm512_sub_ps(stored, load_f32(&bases[part])))
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn round<P: Precision>(values: __m512) -> __m512 {
        match P::DTYPE {
            Float::Bf16 => round_bf16(values),
            _ => values,
        }
    }

    /// A row's start, before zeros.
    fn pad(
        base: &[f32],
        bytes: &[u8],
        whole_base: &mut [f32; LANES],
        whole_bytes: &mut [u8; 4 * LANES],
    ) {
        whole_base[..base.len()].copy_from_slice(base);
        whole_bytes[..bytes.len()].copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::elementwise::{add, add_magnitudes, scale, subtract};
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

    /// Values, with some that are not finite where `wild`.
    fn values(n: usize, step: usize, wild: bool) -> Vec<f32> {
        let value = |i: usize| match i % 31 {
            7 if wild => f32::INFINITY,
            11 if wild => f32::NAN,
            13 => 0.0,
            _ => round_bf16(((i * step) as f32 * 0.37).sin()),
        };
        (0..n).map(value).collect()
    }

    fn same(a: &[f32], b: &[f32]) -> bool {
        let equal = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
        a.len() == b.len() && a.iter().zip(b).all(equal)
    }

    const LENGTHS: [usize; 9] = [1, 15, 16, 17, 63, 64, 65, 200, 1000];

    #[test]
    fn deltas_are_what_their_steps_give_on_every_processor() {
        let mask = Mask::drawn(1500, Stream::from_id(1, 2), 0, 1 << 31);
        for (n, wild) in LENGTHS.into_iter().flat_map(|n| [(n, false), (n, true)]) {
            let (values, base) = (values(n, 3, wild), values(n, 5, false));
            let finite = values.iter().all(|value| value.is_finite());
            for stored in [Float::Bf16, Float::F32] {
                let mut bytes = vec![0; n * stored.size()];
                stored.narrow(&values, &mut bytes);
                for masked in [None, Some((&mask, 0)), Some((&mask, 192))] {
                    for factors in [[1.0, 1.0], [1.875, 1.0], [1.0, 0.5], [1.875, 0.703_125]] {
                        check::<Bf16>(stored, &bytes, &values, &base, masked, factors, finite);
                        check::<F32>(stored, &bytes, &values, &base, masked, factors, finite);
                    }
                }
            }
        }
    }

    fn check<P: Precision>(
        stored: Float,
        bytes: &[u8],
        values: &[f32],
        base: &[f32],
        masked: Option<Masked>,
        factors: [f32; 2],
        finite: bool,
    ) {
        let n = values.len();
        let mut expected = vec![0.25; n];
        add_in_steps::<P>(values, base, masked, factors, &mut expected);
        let mut alone = vec![0.0; n];
        add_in_steps::<P>(values, base, masked, factors, &mut alone);
        let (mut sums, mut out) = (vec![0.25; n], vec![9.0; n]);
        let working = P::DTYPE;
        let done = deltas::<true>(stored, working, bytes, base, masked, factors, &mut sums);
        assert!(done.is_none_or(|found| found == finite && same(&sums, &expected)));
        let done = deltas::<false>(stored, working, bytes, base, masked, factors, &mut out);
        // A sum that begins with zero has no negative one.
        out.iter_mut().for_each(|out| *out += 0.0);
        assert!(done.is_none_or(|found| found == finite && same(&out, &alone)));
        let Some(()) = fused!(stored, working, S, Q => {
            let (mut sums, mut out) = (vec![0.25; n], vec![9.0; n]);
            let found = deltas_plain::<S, Q, true, 2>(bytes, base, masked, factors, &mut sums);
            assert!(found == finite && same(&sums, &expected));
            deltas_plain::<S, Q, false, 2>(bytes, base, masked, factors, &mut out);
            out.iter_mut().for_each(|out| *out += 0.0);
            assert!(same(&out, &alone));
        }) else {
            return;
        };
    }

    #[test]
    fn norms_are_the_same_sums_on_every_processor() {
        let mask = Mask::drawn(1500, Stream::from_id(1, 2), 0, 1 << 31);
        for (n, wild) in LENGTHS.into_iter().flat_map(|n| [(n, false), (n, true)]) {
            let (values, base) = (values(n, 3, wild), values(n, 5, false));
            let begun = [std::array::from_fn(|lane| lane as f64), [0.5; SUM_LANES]];
            let mut delta = values.clone();
            subtract::<Bf16>(&mut delta, &base);
            let halves: Vec<u16> = delta.iter().map(|delta| Magnitude::of(*delta)).collect();
            let words: Vec<u32> = delta.iter().map(|delta| Magnitude::of(*delta)).collect();
            let mut expected = begun;
            add_magnitudes(&delta, &mut expected[0]);
            mask.apply(192, &mut delta);
            add_magnitudes(&delta, &mut expected[1]);
            let check = |add: &dyn Fn(&mut Sums) -> bool| {
                let mut sums = begun;
                let finite = add(&mut sums);
                let both = sums.iter().flatten().zip(expected.iter().flatten());
                let same = |(a, b): (&f64, &f64)| a == b || a.is_nan() && b.is_nan();
                assert!(both.into_iter().all(same), "{n}: {sums:?}, not {expected:?}");
                finite
            };
            let rows = mask.rows(192);
            let done = |add: &dyn Fn(&mut Sums)| {
                check(&|sums| {
                    add(sums);
                    true
                })
            };
            done(&|sums| add_kept(&halves, rows, sums));
            done(&|sums| add_kept_plain(&halves, rows, sums));
            done(&|sums| add_kept(&words, rows, sums));
            done(&|sums| add_kept_plain(&words, rows, sums));
            let finite = values.iter().all(|value| value.is_finite());
            let mut bytes = vec![0; n * 2];
            Float::Bf16.narrow(&values, &mut bytes);
            let (kind, masked) = (Float::Bf16, (&mask, 192));
            let best = |sums: &mut _| add_norms(kind, kind, &bytes, &base, masked, sums);
            assert!(check(&|sums| best(sums) == Some(finite)));
            let plain =
                |sums: &mut _| add_norms_plain::<StoredBf16, Bf16>(&bytes, &base, masked, sums);
            assert_eq!(check(&plain), finite);
        }
    }
}
