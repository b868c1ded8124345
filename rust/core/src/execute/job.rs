//! One output tensor: its job, bound to open inputs.

use xxhash_rust::xxh3::xxh3_64;

use crate::checkpoint::{Checkpoint, Reader};
use crate::dtype::Float;
use crate::error::{Error, Result};
use crate::execute::apply::Apply;
use crate::execute::delta::DeltaJob;
use crate::execute::group::GroupJob;
use crate::execute::Control;
use crate::kernels::elementwise::{first_nonfinite, round_all, with_precision};
use crate::kernels::linear;
use crate::parallel::Parallel;
use crate::plan::{Input, Job, Merge, Plan, TensorRef};
use crate::precision::{Bf16, F16, F32};
use crate::segments::{pieces, segments, Segment};
use crate::sink::Sink;
use crate::source::{CheckpointTensor, Source};
use crate::statistics::content;

/// A job whose inputs were found and have the right shapes and dtypes.
pub struct BoundJob<'a> {
    job: &'a Job,
    position: (usize, usize, u64),
    kind: Kind<'a>,
    allow_nonfinite: bool,
}

enum Kind<'a> {
    Copy { inputs: Vec<RawTensor<'a>> },
    Linear { dtype: Float, divisor: Option<f32>, inputs: Vec<(CheckpointTensor<'a>, f32)> },
    Delta(DeltaJob<'a>),
    Group(GroupJob<'a>),
}

/// A tensor as bytes.
struct RawTensor<'a> {
    reader: &'a Reader,
    offset: u64,
    bytes: u64,
}

impl<'a> BoundJob<'a> {
    pub fn new(job: &'a Job, plan: &'a Plan, checkpoints: &'a [Checkpoint]) -> Result<Self> {
        let tensor = |model: usize, name: &'a str| {
            CheckpointTensor::new(&checkpoints[model], name, &job.shape, plan.allow_nonfinite)
        };
        let kind = match &job.merge {
            Merge::Copy { inputs } => {
                let bind = |input| RawTensor::new(input, job, checkpoints);
                Kind::Copy { inputs: inputs.iter().map(bind).collect::<Result<_>>()? }
            }
            Merge::Linear { dtype, normalize, inputs } => {
                let sum: f32 = inputs.iter().map(|input| input.weight as f32).sum();
                let refused = |reason: &str| Error::Options {
                    tensor: job.tensor.clone(),
                    reason: reason.into(),
                };
                if !sum.is_finite() {
                    return Err(refused("the weights are too large for float32"));
                }
                if *normalize && sum == 0.0 {
                    return Err(refused("the weights sum to zero and cannot be normalised"));
                }
                // A weight of zero adds nothing: such an input is not read.
                let used = inputs.iter().filter(|input| input.weight != 0.0);
                let bind = |input: &'a Input| {
                    Ok((tensor(input.model, &input.tensor)?, input.weight as f32))
                };
                Kind::Linear {
                    dtype: *dtype,
                    divisor: normalize.then_some(sum),
                    inputs: used.map(bind).collect::<Result<_>>()?,
                }
            }
            Merge::Delta { .. } => Kind::Delta(DeltaJob::new(job, plan.seed, tensor)?),
            Merge::Group { .. } => Kind::Group(GroupJob::new(job, tensor)?),
        };
        let position = match job.merge.tensors().last() {
            Some((model, name)) => {
                let entry = checkpoints[model].tensor(name)?;
                (model, entry.shard, entry.offset)
            }
            None => {
                return Err(Error::Plan { reason: format!("tensor `{}` has no input", job.tensor) })
            }
        };
        Ok(Self { job, position, kind, allow_nonfinite: plan.allow_nonfinite })
    }

    /// Where the input lies that decides the order of work.
    pub fn position(&self) -> (usize, usize, u64) {
        self.position
    }

    pub fn len(&self) -> usize {
        self.job.len()
    }

    /// Bytes that will be read, each as often as it is read.
    pub fn work_bytes(&self) -> u64 {
        let elements = self.len() as u64;
        match &self.kind {
            Kind::Copy { inputs } => inputs.iter().map(|input| input.bytes).sum(),
            Kind::Linear { inputs, .. } => {
                inputs.iter().map(|(tensor, _)| elements * tensor.dtype().size() as u64).sum()
            }
            Kind::Delta(delta) => elements * delta.bytes_per_element(),
            Kind::Group(group) => elements * group.bytes_per_element(),
        }
    }

    /// Merge the tensor into `sink` and return its content hash.
    pub fn run(
        &self,
        number: usize,
        sink: &dyn Sink,
        chunk: usize,
        control: &Control,
        parallel: &Parallel,
    ) -> Result<u64> {
        let segments = segments(self.len());
        let allow_nonfinite = self.allow_nonfinite;
        let out = Output { job: self.job, number, sink, chunk, control, allow_nonfinite };
        let blocks = match &self.kind {
            Kind::Copy { inputs } => vec![out.copy(inputs)?],
            Kind::Linear { dtype, divisor, inputs } => parallel.map(segments.len(), |i| {
                let (dtype, divisor) = (*dtype, *divisor);
                let mut apply = LinearApply {
                    dtype,
                    divisor,
                    inputs,
                    control,
                    values: vec![],
                    scratch: vec![],
                };
                out.segment(&segments[i], &mut apply)
            })?,
            Kind::Delta(delta) => {
                let states = delta.states(&segments, chunk, control, parallel)?;
                parallel.map(segments.len(), |i| {
                    let segment = &segments[i];
                    with_precision!(delta.dtype(), P => {
                        out.segment(segment, &mut delta.apply::<P>(&states, segment, control))
                    })
                })?
            }
            Kind::Group(group) => {
                let ready = group.prepare(chunk, control, parallel)?;
                parallel.map(segments.len(), |i| {
                    out.segment(&segments[i], &mut *ready.segment(&segments[i]))
                })?
            }
        };
        Ok(content::combine(&blocks.concat()))
    }
}

impl<'a> RawTensor<'a> {
    fn new(input: &'a TensorRef, job: &Job, checkpoints: &'a [Checkpoint]) -> Result<Self> {
        let checkpoint = &checkpoints[input.model];
        let entry = checkpoint.tensor(&input.tensor)?;
        let reader = &checkpoint.shards()[entry.shard];
        if entry.shape != job.shape {
            return Err(Error::Shape {
                path: reader.path().into(),
                tensor: input.tensor.clone(),
                expected: job.shape.clone(),
                found: entry.shape.clone(),
            });
        }
        if entry.dtype != job.out_dtype {
            return Err(Error::Dtype {
                path: reader.path().into(),
                tensor: input.tensor.clone(),
                expected: "the dtype that the other inputs have",
                found: entry.dtype.to_string(),
            });
        }
        Ok(Self { reader, offset: entry.offset, bytes: entry.bytes })
    }
}

/// Where a job's blocks go.
struct Output<'a> {
    job: &'a Job,
    number: usize,
    sink: &'a dyn Sink,
    chunk: usize,
    control: &'a Control,
    allow_nonfinite: bool,
}

impl Output<'_> {
    /// Compute and write one segment; returns the hashes of its blocks.
    fn segment(&self, segment: &Segment, apply: &mut dyn Apply) -> Result<Vec<u64>> {
        let dtype = Float::of(self.job.out_dtype).ok_or_else(|| Error::Plan {
            reason: format!("tensor `{}`: cannot write {}", self.job.tensor, self.job.out_dtype),
        })?;
        let mut values = vec![0.0; self.chunk.min(segment.range.len())];
        let mut bytes = Vec::new();
        let mut hashes = Vec::new();
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
            self.sink.write(self.number, (block.start * dtype.size()) as u64, &bytes)?;
            hashes.push(xxh3_64(&bytes));
        }
        Ok(hashes)
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

    /// Copy a buffer after checking that every input has the same one.
    fn copy(&self, inputs: &[RawTensor]) -> Result<Vec<u64>> {
        const PIECE: usize = 1 << 18;
        let Some((first, others)) = inputs.split_first() else { return Ok(vec![]) };
        let (mut a, mut b) = (Vec::new(), Vec::new());
        let mut hashes = Vec::new();
        for piece in pieces(0..first.bytes as usize, PIECE) {
            self.control.check()?;
            let bytes =
                first.reader.read(first.offset + piece.start as u64, piece.len(), &mut a)?;
            for other in others {
                let at = other.offset + piece.start as u64;
                if other.reader.read(at, piece.len(), &mut b)? != bytes {
                    return Err(Error::BufferDiffers {
                        path: other.reader.path().into(),
                        tensor: self.job.tensor.clone(),
                        first: first.reader.path().into(),
                    });
                }
            }
            self.sink.write(self.number, piece.start as u64, bytes)?;
            self.control.add(piece.len() * inputs.len());
            hashes.push(xxh3_64(bytes));
        }
        Ok(hashes)
    }
}

struct LinearApply<'a> {
    dtype: Float,
    divisor: Option<f32>,
    inputs: &'a [(CheckpointTensor<'a>, f32)],
    control: &'a Control,
    values: Vec<f32>,
    scratch: Vec<u8>,
}

impl Apply for LinearApply<'_> {
    fn chunk(&mut self, start: usize, out: &mut [f32]) -> Result<()> {
        self.values.resize(out.len(), 0.0);
        out.fill(0.0);
        for (tensor, weight) in self.inputs {
            tensor.read(self.dtype, start, &mut self.values, &mut self.scratch)?;
            linear::accumulate(out, &self.values, *weight);
            self.control.add(out.len() * tensor.dtype().size());
        }
        let divisor = self.divisor.unwrap_or(1.0);
        with_precision!(self.dtype, P => linear::divide::<P>(out, divisor));
        Ok(())
    }
}
