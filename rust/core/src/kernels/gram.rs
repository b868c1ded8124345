//! Inner products of many deltas with each other.
//!
//! ```text
//! for each pair of deltas: sums[pair][i % 8] += left[i] · right[i]      in float64
//! ```
//! Products of floats are exact there, so a fused multiply-add rounds as a product and a sum do, and
//! each of the eight sums of a pair has its own order: all processors give the same bits, however
//! pairs are grouped. Zeros at the end of a row change no bit.
//!
//! 1. Pairs are taken in tiles of four deltas by four, or by two without AVX-512, whose sums stay in
//!    registers: a value that was loaded and widened serves four products. On the diagonal a tile is
//!    a triangle.
//! 2. Without AVX-512 the eight sums are two halves, one after the other: eight sums of four lanes,
//!    four left sides and a right one fill 13 of 16 registers.
//! 3. Rows are arrays of eight. Over slices, or with rows of 64 and an inner loop, nothing stays in
//!    registers: 16 products of a position take 4.2 ns instead of 0.28 (AMD EPYC of family 26). The
//!    same holds where a tile's rows are widened by `array::map`: 4 × 4 takes 2.4 ns more.
//!
//! Intrinsics of AVX-512 are as fast as this (0.28 ns). Matrix kernels lose: eight deltas in chunks
//! of 2,048 take 0.67 ns a position here, 3.6 by matrixmultiply 0.3.11 and 3.8 by gemm 0.18.2, both in
//! float64, and 0.68 more to widen the deltas for them; with sums in float32, which are not enough, 6.1
//! and 1.9. An output of 8 × 8 is too small for their packing, and they compute both triangles. The
//! order of matrixmultiply could be relied on (each sum in turn, in blocks of 256), that of gemm is
//! none of blocks of 128 to 2,048.

use multiversion::multiversion;
use multiversion::target::match_target;

/// Sums of one inner product.
pub(crate) const LANES: usize = 8;
/// Deltas of a tile's left side.
const ROWS: usize = 4;

/// Eight elements of a delta.
pub(crate) type Row = [f32; LANES];
type Lanes = [f64; LANES];

/// The inner products of some deltas, the upper triangle.
#[derive(Debug, Clone)]
pub(crate) struct Gram {
    n: usize,
    sums: Vec<Lanes>,
}

impl Gram {
    /// Of `n` deltas.
    pub(crate) fn new(n: usize) -> Self {
        Self { n, sums: vec![[0.0; LANES]; n * n] }
    }

    /// Add the products of a chunk; all deltas are equally long.
    pub(crate) fn add(&mut self, deltas: &[Vec<Row>]) {
        add_all(deltas, &mut self.sums);
    }

    /// The products, (n, n); zero below the diagonal.
    pub(crate) fn upper(&self) -> Vec<f64> {
        let upper = |(at, lanes): (usize, &Lanes)| match at % self.n >= at / self.n {
            true => lanes.iter().sum(),
            false => 0.0,
        };
        self.sums.iter().enumerate().map(upper).collect()
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn add_all(deltas: &[Vec<Row>], sums: &mut [Lanes]) {
    match_target! {
        "x86_64+avx512f+avx512bw+avx512vl+avx512dq" => add_tiles::<4, 8, true>(deltas, sums),
        "x86_64+avx2+fma" => add_tiles::<2, 4, true>(deltas, sums),
        // Where there is no such instruction, a call stands for it.
        _ => add_tiles::<2, 4, { cfg!(target_arch = "aarch64") }>(deltas, sums),
    }
}

/// In tiles of at most `COLUMNS` right sides, `W` lanes at a time, by fused operations or not.
#[inline(always)]
fn add_tiles<const COLUMNS: usize, const W: usize, const FUSED: bool>(
    deltas: &[Vec<Row>],
    sums: &mut [Lanes],
) {
    let n = deltas.len();
    let mut begin = 0;
    for left in deltas.chunks(ROWS) {
        let corner = &mut sums[begin * n + begin..];
        match left {
            [a] => add_tile::<1, 1, true, W, FUSED>([a], [a], corner, n),
            [a, b] => add_tile::<2, 2, true, W, FUSED>([a, b], [a, b], corner, n),
            [a, b, c] => add_tile::<3, 3, true, W, FUSED>([a, b, c], [a, b, c], corner, n),
            [a, b, c, d] => {
                let (left, end) = ([&a[..], b, c, d], begin + ROWS);
                add_tile::<4, 4, true, W, FUSED>(left, left, corner, n);
                for (number, right) in deltas[end..].chunks(COLUMNS).enumerate() {
                    let sums = &mut sums[begin * n + end + number * COLUMNS..];
                    match right {
                        [a] => add_tile::<4, 1, false, W, FUSED>(left, [a], sums, n),
                        [a, b] => add_tile::<4, 2, false, W, FUSED>(left, [a, b], sums, n),
                        [a, b, c] => add_tile::<4, 3, false, W, FUSED>(left, [a, b, c], sums, n),
                        [a, b, c, d] => {
                            add_tile::<4, 4, false, W, FUSED>(left, [a, b, c, d], sums, n);
                        }
                        _ => unreachable!("chunks of at most four"),
                    }
                }
            }
            _ => unreachable!("chunks of at most four"),
        }
        begin += ROWS;
    }
}

/// One tile, whose sums stand in `sums` in rows `n` apart; on the diagonal, its upper triangle.
#[inline(always)]
fn add_tile<
    const R: usize,
    const C: usize,
    const DIAGONAL: bool,
    const W: usize,
    const FUSED: bool,
>(
    left: [&[Row]; R],
    right: [&[Row]; C],
    sums: &mut [Lanes],
    n: usize,
) {
    // Equal lengths, said once: no index is checked in the loop.
    let length = left[0].len();
    let (left, right) = (left.map(|rows| &rows[..length]), right.map(|rows| &rows[..length]));
    for part in (0..LANES).step_by(W) {
        let mut tile = [[[0.0; W]; C]; R];
        for row in 0..R {
            for column in 0..C {
                tile[row][column].copy_from_slice(&sums[row * n + column][part..part + W]);
            }
        }
        for at in 0..length {
            let (mut a, mut b) = ([[0.0; W]; R], [[0.0; W]; C]);
            for (wide, rows) in a.iter_mut().zip(left) {
                *wide = widened(&rows[at], part);
            }
            for (wide, rows) in b.iter_mut().zip(right) {
                *wide = widened(&rows[at], part);
            }
            for row in 0..R {
                for column in if DIAGONAL { row } else { 0 }..C {
                    let factors = a[row].iter().zip(&b[column]);
                    for (sum, (a, b)) in tile[row][column].iter_mut().zip(factors) {
                        *sum = if FUSED { a.mul_add(*b, *sum) } else { a * b + *sum };
                    }
                }
            }
        }
        for row in 0..R {
            for column in 0..C {
                sums[row * n + column][part..part + W].copy_from_slice(&tile[row][column]);
            }
        }
    }
}

/// Lanes `part .. part + W`, written out: a loop is not made one conversion.
#[inline(always)]
fn widened<const W: usize>(row: &Row, part: usize) -> [f64; W] {
    let lane = |number: usize| f64::from(row[part + number]);
    let mut lanes = [0.0; W];
    match W {
        4 => lanes.copy_from_slice(&[lane(0), lane(1), lane(2), lane(3)]),
        _ => lanes.copy_from_slice(&std::array::from_fn::<_, LANES, _>(lane)),
    }
    lanes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = f32> {
        prop_oneof![
            Just(0.0_f32),
            Just(-0.0_f32),
            Just(f32::MAX),
            Just(f32::MIN_POSITIVE / 3.0),
            -2.0_f32..2.0,
            -1e-3_f32..1e-3,
            any::<f32>().prop_filter("finite", |value| value.is_finite()),
        ]
    }

    type Form = fn(&[Vec<Row>], &mut [Lanes]);

    /// Up to ten deltas, of any length.
    fn deltas() -> impl Strategy<Value = Vec<Vec<f32>>> {
        (0..60_usize, 0..11_usize).prop_flat_map(|(length, n)| {
            prop::collection::vec(prop::collection::vec(value(), length), n)
        })
    }

    fn rows(delta: &[f32]) -> Vec<Row> {
        let mut rows = vec![[0.0; LANES]; delta.len().div_ceil(LANES)];
        rows.as_flattened_mut()[..delta.len()].copy_from_slice(delta);
        rows
    }

    fn bits(sums: &[Lanes]) -> Vec<u64> {
        sums.iter().flatten().map(|sum| sum.to_bits()).collect()
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn with_avx2(deltas: &[Vec<Row>], sums: &mut [Lanes]) {
        add_tiles::<2, 4, true>(deltas, sums);
    }

    proptest! {
        #[test]
        fn every_form_has_the_bits_of_the_definition(deltas in deltas(), cut in 0..8_usize) {
            let n = deltas.len();
            let rows: Vec<Vec<Row>> = deltas.iter().map(|delta| rows(delta)).collect();
            let mut expected = vec![[0.0; LANES]; n * n];
            for (row, left) in deltas.iter().enumerate() {
                for (column, right) in deltas.iter().enumerate().skip(row) {
                    for (i, (a, b)) in left.iter().zip(right).enumerate() {
                        expected[row * n + column][i % LANES] += f64::from(*a) * f64::from(*b);
                    }
                }
            }
            // The processor's own form, in two chunks.
            let mut gram = Gram::new(n);
            let cut = cut.min(rows.first().map_or(0, Vec::len));
            let part = |of: fn(&[Row], usize) -> &[Row]| -> Vec<Vec<Row>> {
                rows.iter().map(|rows| of(rows, cut).to_vec()).collect()
            };
            gram.add(&part(|rows, cut| &rows[..cut]));
            gram.add(&part(|rows, cut| &rows[cut..]));
            prop_assert_eq!(bits(&gram.sums), bits(&expected));
            let upper = gram.upper();
            for (at, lanes) in expected.iter().enumerate() {
                prop_assert_eq!(upper[at].to_bits(), lanes.iter().sum::<f64>().to_bits());
            }
            let mut forms: Vec<Form> = vec![
                add_tiles::<4, 8, true>,
                add_tiles::<4, 8, false>,
                add_tiles::<2, 4, false>,
            ];
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                // SAFETY: the processor has both.
                forms.push(|deltas, sums| unsafe { with_avx2(deltas, sums) });
            }
            for form in forms {
                let mut sums = vec![[0.0; LANES]; n * n];
                form(&rows, &mut sums);
                prop_assert_eq!(bits(&sums), bits(&expected));
            }
        }
    }
}
