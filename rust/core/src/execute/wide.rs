//! Weighted sums in float64: of float64 tensors, and of complex ones, which are pairs of numbers. The
//! other jobs compute in float32 registers.

use safetensors::Dtype;

use crate::error::{Error, Result};
use crate::execute::blocks::write_block;
use crate::number::Float;
use crate::output::Sink;
use crate::plan::{Input, Job, Merge};
use crate::source::{Models, Tensor, WideTensor};
use crate::work::{pieces, JobControl, Segment};

/// As in mergekit: deltas are not divided by less.
const SMALLEST_DIVISOR: f64 = 1e-8;

/// A [`Merge::Wide`] bound to its inputs.
pub(super) struct WideJob<'a> {
    job: &'a Job,
    base: Option<WideTensor<'a>>,
    inputs: Vec<(WideTensor<'a>, f64)>,
    divisor: f64,
    lambda: f64,
    /// Numbers of an element.
    numbers: usize,
}

impl<'a> WideJob<'a> {
    /// # Errors
    /// [`Error::Options`] for weights that cannot be divided by; what finding a tensor gives;
    /// [`Error::Plan`] where complex and real tensors meet.
    pub(super) fn new(job: &'a Job, models: &'a Models, allow_nonfinite: bool) -> Result<Self> {
        let Merge::Wide { base, normalize, lambda, inputs } = &job.merge else {
            return Err(misfit(job, "is no merge in float64"));
        };
        let find = |model, name: &'a str| models.wide(model, name, &job.shape, allow_nonfinite);
        let bind = |input: &'a Input| Ok((find(input.model, &input.tensor)?, input.weight));
        let inputs = inputs.iter().map(bind).collect::<Result<Vec<_>>>()?;
        let base = base.as_ref().map(|at| find(at.model, &at.tensor)).transpose()?;
        let numbers = if job.out_dtype == Dtype::C64 { 2 } else { 1 };
        let mut all = base.iter().chain(inputs.iter().map(|(tensor, _)| tensor));
        if all.any(|tensor| tensor.numbers() != numbers) {
            return Err(misfit(job, "has complex inputs and others"));
        }
        let sum: f64 = inputs.iter().map(|(_, weight)| weight).sum();
        let divisor = match (normalize, &base) {
            (false, _) => 1.0,
            (true, Some(_)) if sum.abs() < SMALLEST_DIVISOR => 1.0,
            (true, None) if sum == 0.0 => {
                let reason = "the weights sum to zero and cannot be normalised".into();
                return Err(Error::Options { tensor: job.tensor.clone(), reason });
            }
            (true, _) => sum,
        };
        Ok(Self { job, base, inputs, divisor, lambda: *lambda, numbers })
    }

    /// The tensors that are read.
    fn tensors(&self) -> impl Iterator<Item = &WideTensor<'a>> {
        self.base.iter().chain(self.inputs.iter().map(|(tensor, _)| tensor))
    }

    /// Those that the other jobs read too.
    pub(super) fn narrow_inputs(&self) -> impl Iterator<Item = &Tensor<'a>> {
        self.tensors().filter_map(WideTensor::narrow)
    }

    /// Bytes of one element of the inputs; of those that only these jobs read.
    pub(super) fn element_bytes(&self) -> [usize; 2] {
        let own = self.tensors().filter(|tensor| tensor.narrow().is_none()).map(WideTensor::size);
        [self.tensors().map(WideTensor::size).sum(), own.sum()]
    }

    /// Bytes that one worker's buffers take beside the output's block.
    pub(super) fn worker_bytes(&self, chunk: usize) -> usize {
        chunk * (16 * self.numbers + 8 + 4)
    }

    /// Compute and write one segment; returns the hashes of its blocks.
    pub(super) fn segment(
        &self,
        segment: &Segment,
        (number, sink): (usize, &dyn Sink),
        chunk: usize,
        allow_nonfinite: bool,
        control: &JobControl,
    ) -> Result<Vec<u64>> {
        let size = self.job.out_dtype.bitsize() / 8;
        let mut hashes = Vec::new();
        let (mut bytes, mut room) = (Vec::new(), Room::default());
        for block in segment.blocks() {
            control.check()?;
            bytes.clear();
            for range in pieces(block.clone(), chunk) {
                let start = range.start * self.numbers;
                room.sums.clear();
                room.sums.resize(range.len() * self.numbers, 0.0);
                self.sum(start, &mut room)?;
                self.narrow(start, &room.sums, allow_nonfinite, &mut bytes)?;
                control.add(range.len() * self.element_bytes()[0]);
            }
            hashes.push(write_block(sink, number, block.start, block.start * size, &bytes)?);
        }
        Ok(hashes)
    }

    /// The merge of the numbers from `start` on, as many as there are sums.
    fn sum(&self, start: usize, room: &mut Room) -> Result<()> {
        let Room { sums, base, values, scratch } = room;
        values.resize(sums.len(), 0.0);
        if let Some(tensor) = &self.base {
            base.resize(sums.len(), 0.0);
            tensor.read(start, base, scratch)?;
        }
        for (tensor, weight) in &self.inputs {
            tensor.read(start, values, scratch)?;
            if self.base.is_some() {
                let deltas = values.iter().zip(&*base).map(|(value, base)| (value - base) * weight);
                sums.iter_mut().zip(deltas).for_each(|(sum, delta)| *sum += delta);
            } else {
                // Fused, as torch's `addcmul`.
                let both = sums.iter_mut().zip(&*values);
                both.for_each(|(sum, value)| *sum = weight.mul_add(*value, *sum));
            }
        }
        if self.divisor != 1.0 {
            sums.iter_mut().for_each(|sum| *sum /= self.divisor);
        }
        if self.base.is_some() {
            let both = sums.iter_mut().zip(&*base);
            both.for_each(|(sum, base)| *sum = base + *sum * self.lambda);
        }
        Ok(())
    }

    /// Append the numbers in the output's dtype.
    fn narrow(
        &self,
        start: usize,
        sums: &[f64],
        allow_nonfinite: bool,
        bytes: &mut Vec<u8>,
    ) -> Result<()> {
        let dtype = self.job.out_dtype;
        let from = bytes.len();
        let finite: Box<dyn Fn(f64) -> bool> = match Float::of(dtype) {
            None if dtype == Dtype::F64 => {
                bytes.extend(sums.iter().flat_map(|sum| sum.to_le_bytes()));
                Box::new(f64::is_finite)
            }
            float => {
                // Complex numbers are pairs of float32.
                let float = float.unwrap_or(Float::F32);
                let values: Vec<f32> = sums.iter().map(|sum| *sum as f32).collect();
                bytes.resize(from + values.len() * float.size(), 0);
                float.narrow(&values, &mut bytes[from..]);
                Box::new(move |sum| {
                    let mut one = [sum as f32];
                    crate::kernels::elementwise::round_all(float, &mut one);
                    one[0].is_finite()
                })
            }
        };
        if allow_nonfinite {
            return Ok(());
        }
        match sums.iter().position(|sum| !finite(*sum)) {
            None => Ok(()),
            Some(index) => Err(Error::Overflow {
                tensor: self.job.tensor.clone(),
                index: ((start + index) / self.numbers) as u64,
                dtype: Float::of(dtype).map_or("float64", Float::name),
            }),
        }
    }
}

/// What a segment computes in.
#[derive(Default)]
struct Room {
    sums: Vec<f64>,
    base: Vec<f64>,
    values: Vec<f64>,
    scratch: Vec<u8>,
}

fn misfit(job: &Job, reason: &str) -> Error {
    Error::Plan { reason: format!("tensor `{}` {reason}", job.tensor) }
}
