//! Blocks of one output tensor: computed chunk by chunk, checked, written, hashed.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

use crate::checkpoint::Reader;
use crate::dtype::Float;
use crate::error::{Error, Result};
use crate::execute::apply::Apply;
use crate::execute::JobControl;
use crate::kernels::elementwise::{first_nonfinite, round_all};
use crate::plan::Job;
use crate::segments::{is_large, pieces, Segment, BLOCK};
use crate::sink::{Block, Sink};
use crate::source::{CheckpointTensor, Source};

/// Elements after which the pages behind the cursor are given back.
const RELEASE: usize = 1 << 21;

/// Where a job's blocks go.
pub struct Output<'a> {
    pub job: &'a Job,
    pub number: usize,
    pub sink: &'a dyn Sink,
    pub chunk: usize,
    pub control: &'a JobControl<'a>,
    pub allow_nonfinite: bool,
}

impl Output<'_> {
    /// The hashes of a segment's blocks, if an earlier run has written all of them.
    pub fn written(&self, segment: &Segment) -> Option<Vec<u64>> {
        segment.blocks().map(|block| self.sink.written(self.number, block.start / BLOCK)).collect()
    }

    /// Compute and write one segment; returns the hashes of its blocks.
    pub fn segment<'b>(
        &self,
        segment: &Segment,
        inputs: &[&CheckpointTensor<'b>],
        apply: &mut dyn Apply,
    ) -> Result<Vec<u64>> {
        let dtype = Float::of(self.job.out_dtype).ok_or_else(|| Error::Plan {
            reason: format!("tensor `{}`: cannot write {}", self.job.tensor, self.job.out_dtype),
        })?;
        let mut values = vec![0.0; self.chunk.min(segment.range.len())];
        let mut bytes = Vec::new();
        let mut hashes = Vec::new();
        let mut behind = Behind::new(inputs, segment);
        for block in segment.blocks() {
            self.control.check()?;
            bytes.resize(block.len() * dtype.size(), 0);
            let out = bytes.chunks_mut(self.chunk * dtype.size());
            for (range, out) in pieces(block.clone(), self.chunk).zip(out) {
                let values = &mut values[..range.len()];
                apply.chunk(range.start, values)?;
                if !self.allow_nonfinite {
                    self.check_finite(dtype, range.start, values)?;
                }
                dtype.narrow(values, out);
            }
            hashes.push(self.write(block.start, (block.start * dtype.size()) as u64, &bytes)?);
            behind.passed(block.end);
        }
        behind.finish();
        Ok(hashes)
    }

    fn write(&self, start: usize, offset: u64, bytes: &[u8]) -> Result<u64> {
        let hash = xxh3_64(bytes);
        let block = Block { job: self.number, number: start / BLOCK, offset };
        self.sink.write(block, bytes, hash)?;
        Ok(hash)
    }

    /// Refuse values that are not finite once rounded to the output's dtype.
    fn check_finite(&self, dtype: Float, start: usize, values: &mut [f32]) -> Result<()> {
        // Only float16 has less range than the float32 in which values come.
        if dtype == Float::F16 {
            round_all(dtype, values);
        }
        match first_nonfinite(values) {
            None => Ok(()),
            Some(index) => Err(Error::Overflow {
                tensor: self.job.tensor.clone(),
                index: (start + index) as u64,
                dtype: dtype.name(),
            }),
        }
    }

    /// Copy a segment of a buffer after checking that every input has the same one.
    pub fn copy(&self, segment: &Segment, inputs: &[RawTensor]) -> Result<Vec<u64>> {
        let Some((first, others)) = inputs.split_first() else { return Ok(vec![]) };
        let bits = self.job.out_dtype.bitsize();
        let (mut a, mut b) = (Vec::new(), Vec::new());
        let mut hashes = Vec::new();
        for block in segment.blocks() {
            self.control.check()?;
            let (offset, length) = (block.start * bits / 8, (block.len() * bits).div_ceil(8));
            let bytes = first.reader.read(first.offset + offset as u64, length, &mut a)?;
            for other in others {
                let at = other.offset + offset as u64;
                if other.reader.read(at, length, &mut b)? != bytes {
                    return Err(Error::BufferDiffers {
                        path: other.reader.path().into(),
                        tensor: self.job.tensor.clone(),
                        first: first.reader.path().into(),
                    });
                }
            }
            hashes.push(self.write(block.start, offset as u64, bytes)?);
            self.control.add(length * inputs.len());
        }
        Ok(hashes)
    }
}

/// A tensor as bytes.
pub struct RawTensor<'a> {
    pub reader: &'a Reader,
    pub offset: u64,
    pub bytes: u64,
}

/// Gives the pages behind a cursor back.
pub struct Behind<'a, 'b> {
    inputs: &'a [&'a CheckpointTensor<'b>],
    from: usize,
    end: usize,
}

impl<'a, 'b> Behind<'a, 'b> {
    /// In the last pass over a segment.
    pub fn new(inputs: &'a [&'a CheckpointTensor<'b>], segment: &Segment) -> Self {
        let Range { start, end } = segment.range;
        Self { inputs, from: start, end }
    }

    /// In a pass that others follow. Pages of a small tensor stay mapped until they have passed: to
    /// map them again takes a third of a merge's time.
    pub fn early(
        inputs: &'a [&'a CheckpointTensor<'b>],
        segment: &Segment,
        tensor_len: usize,
    ) -> Self {
        Self::new(if is_large(tensor_len) { inputs } else { &[] }, segment)
    }

    /// Elements before `element` have been read.
    pub fn passed(&mut self, element: usize) {
        if element - self.from >= RELEASE {
            for input in self.inputs {
                input.release(self.from..element);
            }
            self.from = element;
        }
    }

    /// All elements have been read.
    pub fn finish(self) {
        for input in self.inputs {
            input.release(self.from..self.end);
        }
    }
}
