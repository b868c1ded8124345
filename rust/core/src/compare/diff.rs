//! Two checkpoints, tensor by tensor: how many elements differ, and by how much.
//!
//! Tensors of float32, bfloat16 and float16 are compared by value, across these dtypes too: values
//! are widened to float32, which is exact, and ULPs are counted after both were rounded to the
//! coarser dtype (bfloat16 before float16 before float32). Everything else is compared by its bytes.

use crate::checkpoint::{Checkpoint, Reader, TensorEntry};
use crate::error::{Error, Result};
use crate::kernels::distance::{measure, measure_same, ordinals, Run, Sums, Tally, Terms};
use crate::number::Float;
use crate::work::{over_runs, pieces, Control, BLOCK, DEFAULT_CHUNK};

/// How far two tensors are apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Distance {
    /// Elements compared; bytes, where an element is smaller than a byte.
    pub elements: u64,
    /// Elements that differ.
    pub differing: u64,
    /// More, where both are floating point.
    pub values: Option<ValueDistance>,
}

/// How far the values of two tensors are apart. Maxima and means are over the elements that have a
/// distance: all but the unmatched ones.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueDistance {
    /// Where ULPs are counted: the coarser dtype of the two.
    pub ulp_dtype: Float,
    /// Differing elements of which one is NaN or infinite.
    pub unmatched: u64,
    /// Elements that are finite on both sides: the sums are over these.
    pub finite: u64,
    /// NaN in the first tensor.
    pub nan_a: u64,
    /// NaN in the second tensor.
    pub nan_b: u64,
    /// Largest `|a − b|`.
    pub max_difference: f64,
    /// Mean `|a − b|`.
    pub mean_difference: f64,
    /// Largest distance in ULPs.
    pub max_ulp: u32,
    /// Mean distance in ULPs.
    pub mean_ulp: f64,
    /// Sums of `(a − b)²`, `a²`, `b²` and `a·b`, over the finite elements.
    pub sums: [f64; 4],
}

/// The distances of the tensors `names`, in that order. Does not depend on `threads`.
///
/// # Errors
/// [`Error::MissingTensor`]; [`Error::Shape`] and [`Error::Dtype`] for tensors that cannot be
/// compared; [`Error::Io`], [`Error::Cancelled`].
pub fn distances(
    a: &Checkpoint,
    b: &Checkpoint,
    names: &[String],
    threads: usize,
    control: &Control,
) -> Result<Vec<Distance>> {
    let pairs = names.iter().map(|name| Pair::new(a, b, name)).collect::<Result<Vec<_>>>()?;
    let mut order: Vec<usize> = (0..pairs.len()).collect();
    order.sort_by_key(|&number| (pairs[number].a.entry.shard, pairs[number].a.entry.offset));
    let lengths: Vec<usize> = order.iter().map(|&number| pairs[number].units).collect();
    let runs = over_runs(&lengths, threads, |place, range| {
        let pair = &pairs[order[place]];
        let mut worker = Worker::default();
        pieces(range, BLOCK)
            .map(|block| {
                control.check()?;
                let found = worker.block(pair, block.clone())?;
                control.add(block.len() * (pair.a.size + pair.b.size));
                Ok(found)
            })
            .collect::<Result<Vec<_>>>()
    })?;
    let mut found: Vec<Option<Distance>> = pairs.iter().map(|_| None).collect();
    for (&number, runs) in order.iter().zip(runs) {
        found[number] = Some(pairs[number].fold(runs.iter().flatten()));
    }
    Ok(found.into_iter().flatten().collect())
}

/// A tensor in a file.
struct Side<'a> {
    reader: &'a Reader,
    entry: TensorEntry<'a>,
    /// Bytes of a unit.
    size: usize,
}

impl Side<'_> {
    fn read<'b>(
        &'b self,
        start: usize,
        units: usize,
        scratch: &'b mut Vec<u8>,
    ) -> Result<&'b [u8]> {
        let offset = self.entry.offset + (start * self.size) as u64;
        self.reader.read(offset, units * self.size, scratch)
    }
}

/// Two tensors that can be compared.
struct Pair<'a> {
    a: Side<'a>,
    b: Side<'a>,
    floats: Option<(Float, Float)>,
    /// Elements; bytes, where an element is smaller.
    units: usize,
}

impl<'a> Pair<'a> {
    fn new(a: &'a Checkpoint, b: &'a Checkpoint, name: &str) -> Result<Self> {
        let (first, second) = (a.tensor(name)?, b.tensor(name)?);
        let reader = &b.shards()[second.shard];
        if first.shape != second.shape {
            return Err(Error::Shape {
                path: reader.path().into(),
                tensor: name.into(),
                expected: first.shape.to_vec(),
                found: second.shape.to_vec(),
            });
        }
        let floats = Float::of(first.dtype).zip(Float::of(second.dtype));
        if floats.is_none() && first.dtype != second.dtype {
            return Err(Error::Dtype {
                path: reader.path().into(),
                tensor: name.into(),
                expected: "the dtype that it has in the other checkpoint",
                found: second.dtype.to_string(),
            });
        }
        let side = |checkpoint: &'a Checkpoint, entry: TensorEntry<'a>| Side {
            reader: &checkpoint.shards()[entry.shard],
            entry,
            size: (entry.dtype.bitsize() / 8).max(1),
        };
        let (a, b) = (side(a, first), side(b, second));
        let units = a.entry.bytes as usize / a.size;
        Ok(Self { a, b, floats, units })
    }

    /// The blocks' results in one; sums are added in the order of the blocks.
    fn fold<'t>(&self, blocks: impl Iterator<Item = &'t Block>) -> Distance {
        let mut total = Tally::default();
        let mut sums = Terms::default();
        for (tally, terms) in blocks {
            total.merge(tally);
            for (sum, term) in sums.iter_mut().zip(terms) {
                *sum += term;
            }
        }
        let [sum_difference, sums @ ..] = sums;
        let elements = self.units as u64;
        let measured = (elements - total.unmatched).max(1) as f64;
        let values = self.floats.map(|(a, b)| ValueDistance {
            ulp_dtype: coarser(a, b),
            unmatched: total.unmatched,
            finite: total.finite,
            nan_a: total.nan_a,
            nan_b: total.nan_b,
            max_difference: total.max_difference,
            mean_difference: sum_difference / measured,
            max_ulp: total.max_ulp,
            mean_ulp: total.sum_ulp as f64 / measured,
            sums,
        });
        Distance { elements, differing: total.differing, values }
    }
}

/// The dtype with fewer bits in its mantissa.
fn coarser(a: Float, b: Float) -> Float {
    let mantissa = |dtype: &Float| match dtype {
        Float::Bf16 => 7,
        Float::F16 => 10,
        Float::F32 => 23,
    };
    if mantissa(&b) < mantissa(&a) {
        b
    } else {
        a
    }
}

/// What was found in a block, and its sums.
type Block = (Tally, Terms<f64>);

/// A worker's buffers.
#[derive(Default)]
struct Worker {
    scratch: [Vec<u8>; 2],
    rounded: Vec<u8>,
    runs: [Run; 2],
}

impl Worker {
    fn block(&mut self, pair: &Pair, block: std::ops::Range<usize>) -> Result<Block> {
        let [scratch_a, scratch_b] = &mut self.scratch;
        let bytes_a = pair.a.read(block.start, block.len(), scratch_a)?;
        let bytes_b = pair.b.read(block.start, block.len(), scratch_b)?;
        let Some((dtype_a, dtype_b)) = pair.floats else {
            let differing = if bytes_a == bytes_b {
                0
            } else {
                let units = bytes_a.chunks(pair.a.size).zip(bytes_b.chunks(pair.b.size));
                units.filter(|(a, b)| a != b).count() as u64
            };
            return Ok((Tally { differing, ..Tally::default() }, Terms::default()));
        };
        let ulp_dtype = coarser(dtype_a, dtype_b);
        let same = dtype_a == dtype_b && bytes_a == bytes_b;
        let mut total = Tally::default();
        let mut sums = Sums::default();
        let chunks_a = bytes_a.chunks(DEFAULT_CHUNK * pair.a.size);
        let chunks_b = bytes_b.chunks(DEFAULT_CHUNK * pair.b.size);
        let [a, b] = &mut self.runs;
        for (bytes_a, bytes_b) in chunks_a.zip(chunks_b) {
            widen(dtype_a, bytes_a, &mut a.values);
            if same {
                total.merge(&measure_same(&mut a.values, &mut sums));
                continue;
            }
            widen(dtype_b, bytes_b, &mut b.values);
            for (run, dtype, bytes) in [(&mut *a, dtype_a, bytes_a), (&mut *b, dtype_b, bytes_b)] {
                run.ordinals.resize(run.values.len(), 0);
                if dtype == ulp_dtype {
                    ordinals(ulp_dtype, bytes, &mut run.ordinals);
                } else {
                    self.rounded.resize(run.values.len() * ulp_dtype.size(), 0);
                    ulp_dtype.narrow(&run.values, &mut self.rounded);
                    ordinals(ulp_dtype, &self.rounded, &mut run.ordinals);
                    set_apart(ulp_dtype, run);
                }
            }
            total.merge(&measure(a, b, &mut sums));
        }
        Ok((total, sums.map(|lanes| lanes.iter().sum())))
    }
}

/// Finite values beyond the range of `dtype`, in which they became infinite, are some 2^30 ULPs from
/// all others: they are not next to its largest value, however large they are.
fn set_apart(dtype: Float, run: &mut Run) {
    const FAR: i32 = 1 << 30;
    let infinity = match dtype {
        Float::F32 => 0x7f80_0000,
        Float::Bf16 => 0x7f80,
        Float::F16 => 0x7c00,
    };
    for (ordinal, value) in run.ordinals.iter_mut().zip(&run.values) {
        if ordinal.abs() >= infinity && value.is_finite() {
            *ordinal = FAR * ordinal.signum();
        }
    }
}

fn widen(dtype: Float, bytes: &[u8], values: &mut Vec<f32>) {
    values.resize(bytes.len() / dtype.size(), 0.0);
    dtype.widen(bytes, values);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(dtype: Float, values: &[f32]) -> (tempfile::TempDir, Checkpoint) {
        let mut data = vec![0; values.len() * dtype.size()];
        dtype.narrow(values, &mut data);
        let header = format!(
            r#"{{"x":{{"dtype":"{}","shape":[{}],"data_offsets":[0,{}]}}}}"#,
            dtype.stored(),
            values.len(),
            data.len()
        );
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(&data);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
        let opened = Checkpoint::open(folder.path()).unwrap();
        (folder, opened)
    }

    fn compare(a: (Float, &[f32]), b: (Float, &[f32]), threads: usize) -> Distance {
        let (_keep_a, a) = checkpoint(a.0, a.1);
        let (_keep_b, b) = checkpoint(b.0, b.1);
        let control = Control::default();
        distances(&a, &b, &["x".to_owned()], threads, &control).unwrap().remove(0)
    }

    #[test]
    fn nothing_depends_on_threads() {
        let length = 40 * BLOCK + 3;
        let a: Vec<f32> = (0..length).map(|i| ((i * 7919) % 1009) as f32 * 1e-3).collect();
        let b: Vec<f32> = a.iter().map(|value| value * 1.000_01).collect();
        let one = compare((Float::F32, &a), (Float::F32, &b), 1);
        assert_eq!(one, compare((Float::F32, &a), (Float::F32, &b), 5));
        let values = one.values.unwrap();
        let exact: f64 = a.iter().zip(&b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs()).sum();
        assert!((values.mean_difference * length as f64 / exact - 1.0).abs() < 1e-12);
        let dot: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        assert!((values.sums[3] / dot - 1.0).abs() < 1e-12);
        assert_eq!(one.elements, length as u64);
    }

    #[test]
    fn across_dtypes_ulps_are_those_of_the_coarser() {
        let exact = [1.0_f32, 1.001, -3.3, 0.0];
        let found = compare((Float::F32, &exact), (Float::Bf16, &exact), 1);
        let values = found.values.unwrap();
        assert_eq!((values.ulp_dtype, values.max_ulp), (Float::Bf16, 0));
        assert_eq!(found.differing, 2);
        assert!(values.max_difference > 0.0);
        let found = compare((Float::Bf16, &[1.0]), (Float::F16, &[1.0 + 1.0 / 128.0]), 1);
        let values = found.values.unwrap();
        assert_eq!((values.ulp_dtype, values.max_ulp), (Float::Bf16, 1));
        let found = compare((Float::F32, &[1e30]), (Float::F16, &[65_504.0]), 1);
        assert!(found.values.unwrap().max_ulp > 1_000_000_000);
    }

    #[test]
    fn nan_equals_nan_and_matches_nothing_else() {
        let a = [f32::NAN, f32::NAN, 1.0, f32::INFINITY, f32::INFINITY];
        let b = [f32::NAN, 1.0, 1.0, f32::INFINITY, 2.0];
        for dtype in [Float::F32, Float::Bf16, Float::F16] {
            let found = compare((dtype, &a), (dtype, &b), 1);
            let values = found.values.unwrap();
            assert_eq!(found.differing, 2);
            assert_eq!((values.unmatched, values.nan_a, values.nan_b), (2, 2, 1));
            assert_eq!((values.max_ulp, values.max_difference), (0, 0.0));
            let same = compare((dtype, &a), (dtype, &a), 1);
            let values = same.values.unwrap();
            assert_eq!((same.differing, values.nan_a, values.nan_b), (0, 2, 2));
        }
    }
}
