//! Rows of some tensors in another order: an embedding brought to another vocabulary.

use std::ops::Range;
use std::sync::OnceLock;

use crate::error::Result;
use crate::kernels::elementwise::{round_all, with_precision};
use crate::number::{Bf16, Float, Precision, F16, F32};
use crate::plan::{Rows, MEAN, ZERO};
use crate::source::{Source, Tensor};
use crate::work::pieces;

/// Shorter runs of a file are not worth a call to the system.
const WORTH_ADVICE: usize = 1 << 16;
/// Elements of the rows that are read at a time for the mean of all.
const AT_ONCE: usize = 1 << 14;

/// See [`Rows`].
#[derive(Debug)]
pub(super) struct RowsTensor<'a> {
    rows: &'a Rows,
    tensors: Vec<Tensor<'a>>,
    /// Rows of each tensor.
    counts: Vec<usize>,
    width: usize,
    dtype: Float,
    /// The mean of all rows, for each dtype that it is asked for in: a fingerprint reads in the
    /// tensor's own, a merge in its working dtype.
    means: [OnceLock<Vec<f32>>; 3],
}

impl<'a> RowsTensor<'a> {
    /// `width` are the elements of a row; `counts` the rows of each tensor.
    pub(super) fn new(
        rows: &'a Rows,
        tensors: Vec<Tensor<'a>>,
        counts: &[usize],
        width: usize,
        dtype: Float,
    ) -> Self {
        Self { rows, tensors, counts: counts.into(), width, dtype, means: Default::default() }
    }

    /// The elements of some rows that lie in one piece in a tensor: from `row` on, before `end`.
    fn run(&self, row: usize, end: usize) -> usize {
        let Rows { from, rows, .. } = self.rows;
        let follows =
            |&next: &usize| from[next] == from[row] && rows[next] == rows[row] + (next - row);
        let length = (row + 1..end).take_while(follows).count();
        1 + if from[row] >= 0 { length } else { 0 }
    }

    /// One of the lists of rows, averaged, from an element of the row on.
    fn read_mean(
        &self,
        working: Float,
        list: &[(usize, usize)],
        from: usize,
        out: &mut [f32],
        scratch: &mut Vec<u8>,
    ) -> Result<()> {
        out.fill(0.0);
        let mut values = vec![0.0; out.len()];
        for &(tensor, row) in list {
            let start = row * self.width + from;
            self.tensors[tensor].read(working, start, &mut values, scratch)?;
            with_precision!(working, P => add_rounded::<P>(out, &values));
        }
        let count = list.len() as f32;
        with_precision!(working, P => out.iter_mut().for_each(|sum| *sum = P::round(*sum / count)));
        Ok(())
    }

    /// The mean of all listed rows.
    fn mean_of_all(&self, working: Float, scratch: &mut Vec<u8>) -> Result<&[f32]> {
        let known = &self.means[working as usize];
        if let Some(mean) = known.get() {
            return Ok(mean);
        }
        let all = self.rows.from.len();
        let mut sums = vec![0.0_f64; self.width];
        let mut values = Vec::new();
        for some in pieces(0..all, (AT_ONCE / self.width.max(1)).max(1)) {
            values.resize(some.len() * self.width, 0.0);
            self.read(working, some.start * self.width, &mut values, scratch)?;
            for row in values.chunks_exact(self.width) {
                sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
            }
        }
        let mean = |sum: &f64| (sum / all as f64) as f32;
        let mut means: Vec<f32> = sums.iter().map(mean).collect();
        round_all(working, &mut means);
        Ok(known.get_or_init(|| means))
    }

    /// Runs of a file, long enough to be worth it, that hold some elements.
    fn advise(&self, elements: Range<usize>, advise: impl Fn(&Tensor, Range<usize>)) {
        let width = self.width.max(1);
        let end = elements.end.div_ceil(width).min(self.rows.from.len());
        let mut row = elements.start / width;
        while row < end {
            let length = self.run(row, end);
            if let Ok(tensor) = usize::try_from(self.rows.from[row]) {
                let first = self.rows.rows[row];
                if length * width * self.tensors[tensor].dtype().size() >= WORTH_ADVICE {
                    advise(&self.tensors[tensor], first * width..(first + length) * width);
                }
            }
            row += length;
        }
    }
}

impl Source for RowsTensor<'_> {
    fn dtype(&self) -> Float {
        self.dtype
    }

    fn read(
        &self,
        working: Float,
        start: usize,
        out: &mut [f32],
        scratch: &mut Vec<u8>,
    ) -> Result<()> {
        let Rows { from, rows, means, .. } = self.rows;
        let mut done = 0;
        while done < out.len() {
            let (row, at) = ((start + done) / self.width, (start + done) % self.width);
            let left = out.len() - done;
            if row >= from.len() {
                let length = (self.width - at).min(left);
                let mean = self.mean_of_all(working, scratch)?;
                out[done..done + length].copy_from_slice(&mean[at..at + length]);
                done += length;
                continue;
            }
            let last = (start + out.len()).div_ceil(self.width).min(from.len());
            let length = (self.run(row, last) * self.width - at).min(left);
            let out = &mut out[done..done + length];
            match from[row] {
                ZERO => out.fill(0.0),
                MEAN => self.read_mean(working, &means[rows[row]], at, out, scratch)?,
                tensor => {
                    let start = rows[row] * self.width + at;
                    self.tensors[tensor as usize].read(working, start, out, scratch)?;
                }
            }
            done += length;
        }
        Ok(())
    }

    fn scratch_bytes(&self, chunk: usize) -> usize {
        let inner = self.tensors.iter().map(|tensor| tensor.scratch_bytes(chunk)).max();
        // The mean of all rows: what is read for it, its sums, and itself in three dtypes.
        4 * chunk + 4 * AT_ONCE.max(self.width) + 20 * self.width + inner.unwrap_or(0)
    }

    fn will_need(&self, elements: Range<usize>) {
        self.advise(elements, |tensor, run| tensor.will_need(run));
    }

    fn release(&self, elements: Range<usize>) {
        // Rows far apart are only given back at the end.
        if elements.end >= (self.rows.from.len() + self.rows.padding) * self.width {
            for (tensor, count) in self.tensors.iter().zip(&self.counts) {
                tensor.release(0..count * self.width);
            }
        }
        self.advise(elements, |tensor, run| tensor.release(run));
    }
}

fn add_rounded<P: Precision>(sums: &mut [f32], values: &[f32]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum = P::round(*sum + *value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Checkpoint, MemoryTensor};
    use crate::source::Models;

    #[test]
    fn the_mean_of_all_rows_is_as_exact_as_each_reader_asks() {
        // 1 and 1 + 2^-7 in bfloat16, whose mean lies between them.
        let bytes = &[0x80, 0x3f, 0x81, 0x3f];
        let dtype = safetensors::Dtype::BF16;
        let tensor = MemoryTensor { name: "x".into(), dtype, shape: vec![2, 1], bytes };
        let models = Models::over(vec![Checkpoint::over("m", vec![tensor]).unwrap()]);
        let tensor = models.tensor(0, "x", &[2, 1], false).unwrap();
        let (from, rows, means) = (vec![0, 0], vec![0, 1], vec![]);
        let rows = Rows { tensors: vec![], from, rows, means, padding: 1 };
        let rows = RowsTensor::new(&rows, vec![tensor], &[2], 1, Float::Bf16);
        let read = |working| {
            let mut out = [0.0];
            rows.read(working, 2, &mut out, &mut Vec::new()).unwrap();
            out[0]
        };
        let exact = 1.0 + 2.0_f32.powi(-8);
        assert_eq!([read(Float::Bf16), read(Float::F32), read(Float::Bf16)], [1.0, exact, 1.0]);
    }
}
