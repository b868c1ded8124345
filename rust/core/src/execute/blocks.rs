//! Blocks of one output tensor: computed chunk by chunk, checked, written, hashed.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::execute::input_hashes::InputHashes;
use crate::execute::pass::Apply;
use crate::execute::target::Member;
use crate::kernels::elementwise::{first_nonfinite, round_all};
use crate::number::Float;
use crate::output::{Block, Sink};
use crate::plan::Job;
use crate::source::{Behind, RawTensor, Source, Tensor};
use crate::work::{pieces, JobControl, Segment, BLOCK};

/// Where a bundle's blocks go.
pub(super) struct Output<'a> {
    /// Every member with its sink.
    pub members: Vec<(&'a Member<'a>, &'a dyn Sink)>,
    /// Elements of the tensor.
    pub len: usize,
    pub chunk: usize,
    pub control: &'a JobControl<'a>,
    pub allow_nonfinite: bool,
    /// Takes the hashes of the inputs' blocks, where they are wanted.
    pub noted: Option<&'a InputHashes>,
}

impl Output<'_> {
    /// For each member the hashes of a segment's blocks, if an earlier run has written all of them.
    pub(super) fn written(&self, segment: &Segment) -> Vec<Option<Vec<u64>>> {
        let blocks = |(member, sink): &(&Member, &dyn Sink)| {
            segment.blocks().map(|block| sink.written(member.number, block.start / BLOCK)).collect()
        };
        self.members.iter().map(blocks).collect()
    }

    /// Compute and write one segment of some members; returns the hashes of its blocks.
    pub(super) fn segment<'b>(
        &self,
        segment: &Segment,
        some: Range<usize>,
        inputs: &[&Tensor<'b>],
        apply: &mut dyn Apply,
    ) -> Result<Vec<Vec<u64>>> {
        let members = &self.members[some];
        let dtypes = members.iter().map(|(member, _)| dtype_of(member.job));
        let dtypes = dtypes.collect::<Result<Vec<Float>>>()?;
        let mut values = vec![vec![]; members.len()];
        let mut bytes = vec![vec![]; members.len()];
        let mut hashes = vec![vec![]; members.len()];
        let (mut behind, mut scratch) = (Behind::new(inputs, segment), Vec::new());
        for block in segment.blocks() {
            self.control.check()?;
            for (bytes, dtype) in bytes.iter_mut().zip(&dtypes) {
                bytes.resize(block.len() * dtype.size(), 0);
            }
            for range in pieces(block.clone(), self.chunk) {
                for values in &mut values {
                    values.resize(range.len(), 0.0);
                }
                apply.chunk(range.start, &mut values)?;
                let outs = bytes.iter_mut().zip(&mut values).zip(members).zip(&dtypes);
                for (((bytes, values), (member, _)), dtype) in outs {
                    if !self.allow_nonfinite {
                        check_finite(member.job, *dtype, range.start, values)?;
                    }
                    let place = (range.start - block.start) * dtype.size();
                    dtype.narrow(values, &mut bytes[place..place + values.len() * dtype.size()]);
                }
            }
            for ((((member, sink), bytes), hashes), dtype) in
                members.iter().zip(&bytes).zip(&mut hashes).zip(&dtypes)
            {
                let offset = block.start * dtype.size();
                hashes.push(write_block(*sink, member.number, block.start, offset, bytes)?);
            }
            // While the cache still holds them.
            for (noted, input) in
                self.noted.iter().flat_map(|noted| inputs.iter().map(move |i| (noted, i)))
            {
                let hash = |block| input.hash(block, &mut scratch);
                noted.note(input.identity(), self.len, block.clone(), hash)?;
            }
            behind.passed(block.end);
        }
        behind.finish();
        Ok(hashes)
    }

    /// Copy a segment of a buffer after checking that every input has the same one.
    pub(super) fn copy(&self, segment: &Segment, inputs: &[RawTensor]) -> Result<Vec<u64>> {
        let (Some((first, others)), [member]) = (inputs.split_first(), &self.members[..]) else {
            return Ok(vec![]);
        };
        let job = member.0.job;
        let bits = job.out_dtype.bitsize();
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
                        tensor: job.tensor.clone(),
                        first: first.reader.path().into(),
                    });
                }
            }
            hashes.push(write_block(member.1, member.0.number, block.start, offset, bytes)?);
            self.control.add(length * inputs.len());
        }
        Ok(hashes)
    }
}

fn dtype_of(job: &Job) -> Result<Float> {
    Float::of(job.out_dtype).ok_or_else(|| Error::Plan {
        reason: format!("tensor `{}`: cannot write {}", job.tensor, job.out_dtype),
    })
}

/// Write the block of a job's tensor that begins at element `start` and byte `offset`, unless an
/// earlier run has; returns its hash.
pub(super) fn write_block(
    sink: &dyn Sink,
    job: usize,
    start: usize,
    offset: usize,
    bytes: &[u8],
) -> Result<u64> {
    let number = start / BLOCK;
    if let Some(hash) = sink.written(job, number) {
        return Ok(hash);
    }
    let hash = xxh3_64(bytes);
    sink.write(Block { job, number, offset: offset as u64 }, bytes, hash)?;
    Ok(hash)
}

/// Refuse values that are not finite once rounded to the output's dtype.
fn check_finite(job: &Job, dtype: Float, start: usize, values: &mut [f32]) -> Result<()> {
    // Only float16 has less range than the float32 in which values come.
    if dtype == Float::F16 {
        round_all(dtype, values);
    }
    match first_nonfinite(values) {
        None => Ok(()),
        Some(index) => Err(Error::Overflow {
            tensor: job.tensor.clone(),
            index: (start + index) as u64,
            dtype: dtype.name(),
        }),
    }
}
