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

impl<'a> Output<'a> {
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
        let writer = |(member, sink): &(&Member, &'a dyn Sink)| Writer::new(*sink, member.number);
        let mut writers: Vec<Writer> = members.iter().map(writer).collect();
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
            for (((writer, bytes), hashes), dtype) in
                writers.iter_mut().zip(&mut bytes).zip(&mut hashes).zip(&dtypes)
            {
                hashes.push(writer.put(block.start, block.start * dtype.size(), bytes)?);
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
        writers.iter_mut().try_for_each(Writer::finish)?;
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

/// One job's blocks on their way to its sink. A block whose turn it is not yet waits here while the
/// next is computed, so that no worker stands still for another's write.
///
/// A file system lets one thread at a time write into a file, and has the others spin: 9 % of the
/// processor time of a TIES merge by two threads. Tried and dropped: to leave the block to the thread
/// that is writing. With 48 threads on 2 cores that thread is seldom running, so that what may wait
/// is soon full and every block wakes a thread: `linear` took 0.92 s instead of 0.78.
struct Writer<'a> {
    sink: &'a dyn Sink,
    job: usize,
    /// Waits, with its hash; its bytes are in `kept`.
    late: Option<(Block, u64)>,
    kept: Vec<u8>,
}

impl<'a> Writer<'a> {
    fn new(sink: &'a dyn Sink, job: usize) -> Self {
        Self { sink, job, late: None, kept: vec![] }
    }

    /// As [`write_block`]; `bytes` may come back with others in it.
    fn put(&mut self, start: usize, offset: usize, bytes: &mut Vec<u8>) -> Result<u64> {
        let number = start / BLOCK;
        if let Some(hash) = self.sink.written(self.job, number) {
            return Ok(hash);
        }
        self.finish()?;
        let hash = xxh3_64(bytes);
        let block = Block { job: self.job, number, offset: offset as u64 };
        if !self.sink.try_write(block, bytes, hash)? {
            std::mem::swap(bytes, &mut self.kept);
            self.late = Some((block, hash));
        }
        Ok(hash)
    }

    /// Write what waits.
    fn finish(&mut self) -> Result<()> {
        match self.late.take() {
            Some((block, hash)) => self.sink.write(block, &self.kept, hash),
            None => Ok(()),
        }
    }
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Somebody else is always writing.
    #[derive(Default)]
    struct Busy(Mutex<Vec<(usize, Vec<u8>, u64)>>);

    impl Sink for Busy {
        fn write(&self, block: Block, bytes: &[u8], hash: u64) -> Result<()> {
            self.0.lock().unwrap().push((block.number, bytes.to_vec(), hash));
            Ok(())
        }

        fn try_write(&self, _: Block, _: &[u8], _: u64) -> Result<bool> {
            Ok(false)
        }

        fn finish(&self) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_block_whose_turn_it_is_not_yet_is_written_later_and_once() {
        let sink = Busy::default();
        let mut writer = Writer::new(&sink, 0);
        let mut bytes = Vec::new();
        let mut hashes = Vec::new();
        for number in 0..3_usize {
            bytes.resize(2, 0);
            bytes.copy_from_slice(&[number as u8, 7]);
            hashes.push(writer.put(number * BLOCK, 2 * number, &mut bytes).unwrap());
            assert_eq!(sink.0.lock().unwrap().len(), number, "one waits");
        }
        writer.finish().unwrap();
        let expected = hashes.iter().enumerate().map(|(i, hash)| (i, vec![i as u8, 7], *hash));
        assert_eq!(*sink.0.lock().unwrap(), expected.collect::<Vec<_>>());
    }
}
