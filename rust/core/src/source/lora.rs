//! An expert given as a base and a low-rank update: each block is computed when it is read, so that no
//! merged copy of the expert exists anywhere.

use std::ops::Range;

use crate::error::Result;
use crate::kernels::elementwise::round_all;
use crate::number::Float;
use crate::plan::Lora;
use crate::source::{Source, Tensor};
use crate::statistics::content;

/// See [`Lora`].
#[derive(Debug)]
pub(super) struct LoraTensor<'a> {
    tensor: Tensor<'a>,
    a: Tensor<'a>,
    b: Tensor<'a>,
    scale: f32,
    dtype: Float,
    transposed: bool,
    /// Sides of the adapted tensor's rows, and of the update's.
    columns: usize,
    rank: usize,
    rows: usize,
}

/// What a read computes in.
struct Room<'s> {
    /// All of B, where the update is transposed.
    b: Vec<f32>,
    /// One element for each rank.
    factors: Vec<f32>,
    scratch: &'s mut Vec<u8>,
}

impl<'a> LoraTensor<'a> {
    /// `columns` are the elements of the adapted tensor's row.
    pub(super) fn new(
        lora: &Lora,
        tensor: Tensor<'a>,
        a: Tensor<'a>,
        b: Tensor<'a>,
        [rows, columns]: [usize; 2],
        rank: usize,
    ) -> Self {
        let Lora { scale, dtype, transposed, .. } = *lora;
        Self { tensor, a, b, scale: scale as f32, dtype, transposed, columns, rank, rows }
    }

    /// Elements of A and of B.
    fn lengths(&self) -> [usize; 2] {
        let sides = [self.columns, self.rows].map(|side| side * self.rank);
        if self.transposed {
            [sides[1], sides[0]]
        } else {
            sides
        }
    }

    /// `B·A` for some elements of one row, added to `sums`: a row of A for each rank, times one element
    /// of B.
    fn add_row(
        &self,
        row: usize,
        from: usize,
        sums: &mut [f32],
        Room { factors, scratch, .. }: &mut Room,
    ) -> Result<()> {
        self.b.read(Float::F32, row * self.rank, factors, scratch)?;
        for (rank, &factor) in factors.iter().enumerate() {
            let start = rank * self.columns + from;
            self.a.accumulate(Float::F32, start, factor, sums, scratch)?;
        }
        Ok(())
    }

    /// `(B·A)ᵀ` for some elements of one row: a column of A, times the rows of B.
    fn add_transposed_row(
        &self,
        row: usize,
        from: usize,
        sums: &mut [f32],
        Room { b, factors, scratch }: &mut Room,
    ) -> Result<()> {
        for (rank, factor) in factors.iter_mut().enumerate() {
            let one = std::slice::from_mut(factor);
            self.a.read(Float::F32, rank * self.rows + row, one, scratch)?;
        }
        for (sum, b) in sums.iter_mut().zip(b.chunks_exact(self.rank).skip(from)) {
            *sum = factors.iter().zip(b).fold(*sum, |sum, (a, b)| a.mul_add(*b, sum));
        }
        Ok(())
    }
}

impl Source for LoraTensor<'_> {
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
        self.tensor.read(self.dtype, start, out, scratch)?;
        let mut sums = vec![0.0; out.len()];
        let mut room = Room { b: Vec::new(), factors: vec![0.0; self.rank], scratch };
        if self.transposed && self.rank > 0 {
            room.b.resize(self.columns * self.rank, 0.0);
            self.b.read(Float::F32, 0, &mut room.b, room.scratch)?;
        }
        let mut done = 0;
        while done < out.len() && self.rank > 0 {
            let (row, from) = ((start + done) / self.columns, (start + done) % self.columns);
            let length = (self.columns - from).min(out.len() - done);
            let sums = &mut sums[done..done + length];
            if self.transposed {
                self.add_transposed_row(row, from, sums, &mut room)?;
            } else {
                self.add_row(row, from, sums, &mut room)?;
            }
            done += length;
        }
        for (out, sum) in out.iter_mut().zip(&sums) {
            *out += sum * self.scale;
        }
        round_all(self.dtype, out);
        if working != self.dtype {
            round_all(working, out);
        }
        Ok(())
    }

    fn hash(&self, elements: Range<usize>, scratch: &mut Vec<u8>) -> Result<u64> {
        let first = elements.start == 0;
        let mut hashes = vec![self.tensor.hash(elements, scratch)?];
        if first {
            let [a, b] = self.lengths();
            hashes.extend([self.a.hash(0..a, scratch)?, self.b.hash(0..b, scratch)?]);
        }
        Ok(content::combine(&hashes))
    }

    fn scratch_bytes(&self, chunk: usize) -> usize {
        let b = if self.transposed { self.columns * self.rank } else { 0 };
        4 * (chunk + self.rank + b) + self.tensor.scratch_bytes(chunk)
    }

    fn will_need(&self, elements: Range<usize>) {
        self.tensor.will_need(elements);
    }

    fn release(&self, elements: Range<usize>) {
        // The update is read again for every row, until the last.
        if elements.end == self.rows * self.columns {
            let [a, b] = self.lengths();
            self.a.release(0..a);
            self.b.release(0..b);
        }
        self.tensor.release(elements);
    }
}
