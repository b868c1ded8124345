//! Weighted sums of whole tensors, several over the same ones.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::execute::pass::Apply;
use crate::kernels::elementwise::with_precision;
use crate::kernels::linear;
use crate::number::{Bf16, Float, F16, F32};
use crate::plan::{Input, Job, Merge};
use crate::source::{Source, Tensor};
use crate::work::JobControl;

/// A [`Merge::Linear`] bound to its inputs.
pub(super) struct LinearJob<'a> {
    dtype: Float,
    divisor: Option<f32>,
    inputs: Vec<(Tensor<'a>, f32)>,
}

impl<'a> LinearJob<'a> {
    /// # Errors
    /// [`Error::Options`] for weights that cannot be summed or divided by, and what `tensor` gives.
    pub(super) fn new(
        job: &'a Job,
        tensor: impl Fn(usize, &'a str) -> Result<Tensor<'a>>,
    ) -> Result<Self> {
        let Merge::Linear { dtype, normalize, inputs } = &job.merge else {
            return Err(Error::Plan {
                reason: format!("tensor `{}` is no linear merge", job.tensor),
            });
        };
        let sum: f32 = inputs.iter().map(|input| input.weight as f32).sum();
        let refused =
            |reason: &str| Error::Options { tensor: job.tensor.clone(), reason: reason.into() };
        if !sum.is_finite() {
            return Err(refused("the weights are too large for float32"));
        }
        if *normalize && sum == 0.0 {
            return Err(refused("the weights sum to zero and cannot be normalised"));
        }
        // A weight of zero adds nothing: such an input is not read.
        let used = inputs.iter().filter(|input| input.weight != 0.0);
        let bind =
            |input: &'a Input| Ok((tensor(input.model, &input.tensor)?, input.weight as f32));
        Ok(Self {
            dtype: *dtype,
            divisor: normalize.then_some(sum),
            inputs: used.map(bind).collect::<Result<_>>()?,
        })
    }

    /// The tensors that are read.
    pub(super) fn inputs(&self) -> impl Iterator<Item = &Tensor<'a>> {
        self.inputs.iter().map(|(tensor, _)| tensor)
    }
}

/// Some of a bundle's sums. Each reads its inputs for itself: what one of them has read, the cache
/// still holds for the next.
pub(super) struct LinearApply<'a> {
    jobs: &'a [LinearJob<'a>],
    /// For each sum its inputs and weights.
    inputs: Vec<Vec<(&'a Tensor<'a>, f32)>>,
    control: &'a JobControl<'a>,
    scratch: Vec<u8>,
}

impl<'a> LinearApply<'a> {
    /// `inputs` are those of all jobs, each once.
    pub(super) fn new(
        jobs: &'a [LinearJob<'a>],
        some: Range<usize>,
        inputs: &'a [Tensor<'a>],
        control: &'a JobControl<'a>,
    ) -> Self {
        let jobs = &jobs[some];
        let find = |(tensor, weight): &(Tensor, f32)| {
            inputs.iter().find(|input| input.is(tensor)).map(|input| (input, *weight))
        };
        let inputs = jobs.iter().map(|job| job.inputs.iter().filter_map(find).collect()).collect();
        Self { jobs, inputs, control, scratch: vec![] }
    }
}

impl Apply for LinearApply<'_> {
    fn chunk(&mut self, start: usize, outs: &mut [Vec<f32>]) -> Result<()> {
        for ((job, inputs), out) in self.jobs.iter().zip(&self.inputs).zip(outs) {
            out.fill(0.0);
            for (tensor, weight) in inputs {
                tensor.accumulate(job.dtype, start, *weight, out, &mut self.scratch)?;
                self.control.add(out.len() * tensor.dtype().size());
            }
            let divisor = job.divisor.unwrap_or(1.0);
            with_precision!(job.dtype, P => linear::divide::<P>(out, divisor));
        }
        Ok(())
    }
}
