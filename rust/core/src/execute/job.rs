//! One output tensor: its job, bound to open inputs.

use crate::checkpoint::Checkpoint;
use crate::dtype::Float;
use crate::error::{Error, Result};
use crate::execute::apply::Apply;
use crate::execute::delta::DeltaJob;
use crate::execute::group::GroupJob;
use crate::execute::output::{Output, RawTensor};
use crate::execute::{JobControl, Resources};
use crate::kernels::elementwise::with_precision;
use crate::kernels::linear;
use crate::plan::{Input, Job, Merge, Plan, TensorRef};
use crate::precision::{Bf16, F16, F32};
use crate::segments::{segments, Segment, BLOCK};
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

    /// The floating-point tensors that are read.
    pub fn inputs(&self) -> Vec<&CheckpointTensor<'a>> {
        match &self.kind {
            Kind::Copy { .. } => vec![],
            Kind::Linear { inputs, .. } => inputs.iter().map(|(tensor, _)| tensor).collect(),
            Kind::Delta(delta) => delta.inputs().collect(),
            Kind::Group(group) => group.inputs().collect(),
        }
    }

    /// Bytes of the inputs, each read once.
    pub fn input_bytes(&self) -> u64 {
        let each = |tensor: &&CheckpointTensor| tensor.dtype().size() as u64;
        let raw: u64 = match &self.kind {
            Kind::Copy { inputs } => inputs.iter().map(|input| input.bytes).sum(),
            _ => 0,
        };
        raw + self.inputs().iter().map(each).sum::<u64>() * self.len() as u64
    }

    /// Bytes that the passes go over which every run makes.
    pub fn work_bytes(&self) -> u64 {
        match &self.kind {
            Kind::Delta(delta) => self.len() as u64 * delta.bytes_per_element(),
            Kind::Group(group) => self.len() as u64 * group.bytes_per_element(),
            _ => self.input_bytes(),
        }
    }

    /// Bytes that one worker's buffers take at the most.
    pub fn worker_bytes(&self, chunk: usize) -> usize {
        let block = BLOCK.min(self.len().max(1));
        let out = block * self.job.out_dtype.bitsize().div_ceil(8);
        let values = |n: usize| 4 * chunk * n;
        out + match &self.kind {
            // Two blocks are compared where the files cannot be mapped.
            Kind::Copy { .. } => 2 * out,
            Kind::Linear { .. } => values(3),
            Kind::Delta(delta) => values(delta.inputs().count() + 3) + delta.mask_bytes(chunk),
            Kind::Group(group) => group.worker_bytes(chunk),
        }
    }

    /// Bytes that the statistics of the tensor take: the least, and what serves speed best.
    pub fn statistics_bytes(&self, threads: usize) -> (usize, usize) {
        match &self.kind {
            Kind::Delta(delta) => delta.statistics_bytes(threads),
            Kind::Group(group) => (group.statistics_bytes(), group.statistics_bytes()),
            _ => (0, 0),
        }
    }

    /// Merge the tensor into `sink` and return its content hash.
    pub fn run(&self, number: usize, sink: &dyn Sink, resources: &Resources) -> Result<u64> {
        let Resources { chunk, control, parallel, .. } = *resources;
        let segments = segments(self.len());
        let allow_nonfinite = self.allow_nonfinite;
        let out = Output { job: self.job, number, sink, chunk, control, allow_nonfinite };
        let written: Vec<_> = segments.iter().map(|segment| out.written(segment)).collect();
        if written.iter().all(Option::is_some) {
            return Ok(content::combine(
                &written.into_iter().flatten().flatten().collect::<Vec<_>>(),
            ));
        }
        let inputs = self.inputs();
        let each = |work: &(dyn Fn(&Segment) -> Result<Vec<u64>> + Sync)| {
            parallel.map(segments.len(), |i| match &written[i] {
                Some(hashes) => Ok(hashes.clone()),
                None => work(&segments[i]),
            })
        };
        let blocks = match &self.kind {
            Kind::Copy { inputs } => each(&|segment| out.copy(segment, inputs))?,
            Kind::Linear { dtype, divisor, inputs: weighted } => each(&|segment| {
                let (dtype, divisor) = (*dtype, *divisor);
                let scratch = vec![];
                let mut apply = LinearApply { dtype, divisor, inputs: weighted, control, scratch };
                out.segment(segment, &inputs, &mut apply)
            })?,
            Kind::Delta(delta) => {
                self.pass("statistics")?;
                let states = delta.states(&segments, resources)?;
                self.pass("apply")?;
                each(&|segment| {
                    with_precision!(delta.dtype(), P => {
                        let mut apply = delta.apply::<P>(&states, segment, chunk, control)?;
                        out.segment(segment, &inputs, &mut apply)
                    })
                })?
            }
            Kind::Group(group) => {
                self.pass("statistics")?;
                let ready = group.prepare(resources)?;
                self.pass("apply")?;
                each(&|segment| out.segment(segment, &inputs, &mut *ready.segment(segment)))?
            }
        };
        Ok(content::combine(&blocks.concat()))
    }

    /// Pass a point of `fault`.
    fn pass(&self, point: &str) -> Result<()> {
        crate::fault::hit(point).map_err(|source| Error::Io {
            path: self.job.tensor.clone().into(),
            action: "merge",
            source,
        })
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

struct LinearApply<'a> {
    dtype: Float,
    divisor: Option<f32>,
    inputs: &'a [(CheckpointTensor<'a>, f32)],
    control: &'a JobControl<'a>,
    scratch: Vec<u8>,
}

impl Apply for LinearApply<'_> {
    fn chunk(&mut self, start: usize, out: &mut [f32]) -> Result<()> {
        out.fill(0.0);
        for (tensor, weight) in self.inputs {
            tensor.accumulate(self.dtype, start, *weight, out, &mut self.scratch)?;
            self.control.add(out.len() * tensor.dtype().size());
        }
        let divisor = self.divisor.unwrap_or(1.0);
        with_precision!(self.dtype, P => linear::divide::<P>(out, divisor));
        Ok(())
    }
}
