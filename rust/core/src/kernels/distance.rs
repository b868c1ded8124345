//! How far two runs of values are apart: in value, and in units in the last place.
//!
//! ```text
//! ordinal(bits)  = sign ? -magnitude : magnitude      neighbours differ by 1, and -0 is 0
//! |a - b|, (a - b)², a², b², a·b   in float64, added to accumulator index % 16
//! ulps           = |ordinal(a) - ordinal(b)|          an integer, so its sum has no order
//! ```
//! NaN and infinity have no distance from anything else. They are counted, then blanked in both
//! runs, so that the loops over distances need no mask.

use multiversion::multiversion;

use crate::kernels::elementwise::SUM_LANES;
use crate::number::Float;

/// Of each pair `|a − b|`, `(a − b)²`, `a²`, `b²` and `a·b`, which in float64 neither overflow nor
/// vanish.
pub(crate) type Terms<T> = [T; 5];

/// Their sums in lanes; lane by lane, and then block by block, is the one order of additions.
pub(crate) type Sums = Terms<[f64; SUM_LANES]>;

/// What was found in one or more runs, but for the sums.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Tally {
    /// Elements whose values differ. NaN equals NaN, and 0 equals -0.
    pub differing: u64,
    /// Those of them that have no distance: one is NaN or infinite.
    pub unmatched: u64,
    /// Elements that are finite on both sides.
    pub finite: u64,
    /// NaN in the first run.
    pub nan_a: u64,
    /// NaN in the second run.
    pub nan_b: u64,
    /// Largest `|a − b|`.
    pub max_difference: f64,
    /// Largest distance in ULPs.
    pub max_ulp: u32,
    /// Sum of the distances in ULPs.
    pub sum_ulp: u128,
}

impl Tally {
    /// Take in what another run gave; the order does not matter.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.differing += other.differing;
        self.unmatched += other.unmatched;
        self.finite += other.finite;
        self.nan_a += other.nan_a;
        self.nan_b += other.nan_b;
        self.max_difference = self.max_difference.max(other.max_difference);
        self.max_ulp = self.max_ulp.max(other.max_ulp);
        self.sum_ulp += other.sum_ulp;
    }
}

/// Values with their ordinals in the dtype in which ULPs are counted.
#[derive(Debug, Default)]
pub(crate) struct Run {
    /// The values, widened.
    pub values: Vec<f32>,
    /// Their [`ordinals`].
    pub ordinals: Vec<i32>,
}

/// Compare two runs of at most a block. `sums` receives the [`Terms`] of element `i` in lane `i % 16`.
/// Elements without a distance are set to zero in both runs.
pub(crate) fn measure(a: &mut Run, b: &mut Run, sums: &mut Sums) -> Tally {
    let [differing, nonfinite, nan_a, nan_b] = count(&a.values, &b.values);
    let mut tally = Tally {
        differing: differing.into(),
        finite: a.values.len() as u64 - u64::from(nonfinite),
        nan_a: nan_a.into(),
        nan_b: nan_b.into(),
        ..Tally::default()
    };
    if nonfinite > 0 {
        tally.unmatched = blank_nonfinite(a, b);
    }
    tally.max_difference = add_terms(&a.values, &b.values, sums);
    let (max, sum) = ulps(&a.ordinals, &b.ordinals);
    (tally.max_ulp, tally.sum_ulp) = (max, sum.into());
    tally
}

/// The same of a run and itself, whose ordinals nobody needs.
pub(crate) fn measure_same(values: &mut [f32], sums: &mut Sums) -> Tally {
    let [_, nonfinite, nan, _] = count(values, values);
    if nonfinite > 0 {
        values.iter_mut().filter(|value| !value.is_finite()).for_each(|value| *value = 0.0);
    }
    add_terms(values, values, sums);
    let finite = values.len() as u64 - u64::from(nonfinite);
    Tally { finite, nan_a: nan.into(), nan_b: nan.into(), ..Tally::default() }
}

/// Differing elements, elements where either is not finite, NaN in `a`, NaN in `b`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn count(a: &[f32], b: &[f32]) -> [u32; 4] {
    let mut counts = [0_u32; 4];
    for (a, b) in a.iter().zip(b) {
        let nan = a.is_nan() & b.is_nan();
        counts[0] += u32::from((a != b) & !nan);
        counts[1] += u32::from(!a.is_finite() | !b.is_finite());
        counts[2] += u32::from(a.is_nan());
        counts[3] += u32::from(b.is_nan());
    }
    counts
}

/// Zero both elements where either is not finite; returns how many of those pairs differ. Rare, so
/// plain.
fn blank_nonfinite(a: &mut Run, b: &mut Run) -> u64 {
    let mut unmatched = 0;
    for i in 0..a.values.len() {
        let (x, y) = (a.values[i], b.values[i]);
        if !x.is_finite() || !y.is_finite() {
            unmatched += u64::from(x != y && !(x.is_nan() && y.is_nan()));
            for run in [&mut *a, &mut *b] {
                (run.values[i], run.ordinals[i]) = (0.0, 0);
            }
        }
    }
    unmatched
}

/// Adds up the terms, and returns the largest `|a − b|`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn add_terms(a: &[f32], b: &[f32], sums: &mut Sums) -> f64 {
    let [mut absolute, mut squared, mut aa, mut bb, mut ab] = *sums;
    let mut largest = [0.0_f64; SUM_LANES];
    let mut add = |lane: usize, a: f32, b: f32| {
        let (a, b) = (f64::from(a), f64::from(b));
        let difference = (a - b).abs();
        absolute[lane] += difference;
        squared[lane] += difference * difference;
        aa[lane] += a * a;
        bb[lane] += b * b;
        ab[lane] += a * b;
        largest[lane] = if difference > largest[lane] { difference } else { largest[lane] };
    };
    let (mut chunks_a, mut chunks_b) = (a.chunks_exact(SUM_LANES), b.chunks_exact(SUM_LANES));
    for (a, b) in (&mut chunks_a).zip(&mut chunks_b) {
        for lane in 0..SUM_LANES {
            add(lane, a[lane], b[lane]);
        }
    }
    for (lane, (a, b)) in chunks_a.remainder().iter().zip(chunks_b.remainder()).enumerate() {
        add(lane, *a, *b);
    }
    *sums = [absolute, squared, aa, bb, ab];
    largest.into_iter().fold(0.0, f64::max)
}

/// Largest distance and sum of the distances.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn ulps(a: &[i32], b: &[i32]) -> (u32, u64) {
    let (mut largest, mut sum) = (0_u32, 0_u64);
    for (a, b) in a.iter().zip(b) {
        let distance = a.abs_diff(*b);
        largest = largest.max(distance);
        sum += u64::from(distance);
    }
    (largest, sum)
}

/// Places of little-endian elements of `dtype` among its values: neighbours differ by 1.
///
/// `bytes` holds `out.len()` elements.
pub(crate) fn ordinals(dtype: Float, bytes: &[u8], out: &mut [i32]) {
    debug_assert_eq!(bytes.len(), out.len() * dtype.size());
    match dtype {
        Float::F32 => ordinals_32(bytes, out),
        Float::Bf16 | Float::F16 => ordinals_16(bytes, out),
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn ordinals_32(bytes: &[u8], out: &mut [i32]) {
    for (ordinal, b) in out.iter_mut().zip(bytes.chunks_exact(4)) {
        let bits = i32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        let magnitude = bits & i32::MAX;
        *ordinal = if bits < 0 { -magnitude } else { magnitude };
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn ordinals_16(bytes: &[u8], out: &mut [i32]) {
    for (ordinal, b) in out.iter_mut().zip(bytes.chunks_exact(2)) {
        let bits = i32::from(i16::from_le_bytes([b[0], b[1]]));
        let magnitude = bits & 0x7fff;
        *ordinal = if bits < 0 { -magnitude } else { magnitude };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;
    use proptest::prelude::*;

    fn run(values: &[f32]) -> Run {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let mut found = Run { values: values.to_vec(), ordinals: vec![0; values.len()] };
        ordinals(Float::F32, &bytes, &mut found.ordinals);
        found
    }

    /// The definition, one element after the other.
    fn plain(a: &[f32], b: &[f32]) -> (Tally, Sums) {
        let mut tally = Tally::default();
        let mut sums = Sums::default();
        for (i, (&x, &y)) in a.iter().zip(b).enumerate() {
            tally.nan_a += u64::from(x.is_nan());
            tally.nan_b += u64::from(y.is_nan());
            let differs = x != y && !(x.is_nan() && y.is_nan());
            tally.differing += u64::from(differs);
            if !x.is_finite() || !y.is_finite() {
                tally.unmatched += u64::from(differs);
                continue;
            }
            tally.finite += 1;
            let place = |v: f32| (v.abs().to_bits() as i64) * if v < 0.0 { -1 } else { 1 };
            let ulp = place(x).abs_diff(place(y));
            let (u, v) = (f64::from(x), f64::from(y));
            let difference = (u - v).abs();
            let terms = [difference, difference * difference, u * u, v * v, u * v];
            for (lanes, term) in sums.iter_mut().zip(terms) {
                lanes[i % SUM_LANES] += term;
            }
            tally.max_difference = tally.max_difference.max(difference);
            tally.max_ulp = tally.max_ulp.max(ulp as u32);
            tally.sum_ulp += u128::from(ulp);
        }
        (tally, sums)
    }

    fn any_bits() -> impl Strategy<Value = f32> {
        prop_oneof![
            any::<u32>().prop_map(f32::from_bits),
            prop::sample::select(vec![0.0, -0.0, 1.0, f32::NAN, f32::INFINITY, -f32::INFINITY]),
            prop::sample::select(vec![f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-45]),
        ]
    }

    proptest! {
        #[test]
        fn the_kernel_is_the_definition(
            pairs in prop::collection::vec((any_bits(), any_bits(), any::<bool>()), 0..70),
        ) {
            let a: Vec<f32> = pairs.iter().map(|pair| pair.0).collect();
            let b: Vec<f32> = pairs.iter().map(|p| if p.2 { p.0 } else { p.1 }).collect();
            for (a, b) in [(&a, &b), (&a, &a)] {
                let mut sums = Sums::default();
                let found = measure(&mut run(a), &mut run(b), &mut sums);
                prop_assert_eq!((found, sums), plain(a, b));
            }
            let mut sums = Sums::default();
            let found = measure_same(&mut a.clone(), &mut sums);
            prop_assert_eq!((found, sums), plain(&a, &a));
        }
    }

    #[test]
    fn ordinals_of_16_bit_values_follow_the_values() {
        for dtype in [Float::Bf16, Float::F16] {
            let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
            let (mut places, mut values) = (vec![0; 65_536], vec![0.0; 65_536]);
            ordinals(dtype, &bytes, &mut places);
            dtype.widen(&bytes, &mut values);
            let mut by_value: Vec<(f32, i32)> =
                values.into_iter().zip(places).filter(|(value, _)| !value.is_nan()).collect();
            by_value.sort_by(|a, b| a.0.total_cmp(&b.0));
            for pair in by_value.windows(2) {
                let step = i32::from(pair[0].0 != pair[1].0);
                assert_eq!(pair[1].1 - pair[0].1, step, "{dtype:?}: {pair:?}");
            }
        }
        assert_eq!(f16::from_f32(1.0).to_bits(), 0x3c00);
    }

    #[test]
    fn the_farthest_values_have_a_distance() {
        let mut sums = Sums::default();
        let found = measure(&mut run(&[f32::MAX]), &mut run(&[f32::MIN]), &mut sums);
        assert_eq!(found.max_ulp, 2 * f32::MAX.to_bits());
        assert_eq!(found.max_difference, 2.0 * f64::from(f32::MAX));
        assert!(sums.iter().flatten().all(|sum| sum.is_finite()));
        let mut sums = Sums::default();
        measure(&mut run(&[1e-45]), &mut run(&[-1e-45]), &mut sums);
        assert!(sums.iter().all(|lanes| lanes[0] != 0.0));
    }
}
