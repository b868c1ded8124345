//! Group merges of one tensor, bound to their inputs.

use crate::error::{Error, Result};
use crate::execute::group::method::Method;
use crate::execute::group::ready::{GroupPass, Ready};
use crate::execute::group::sweep::{Inputs, Sweep};
use crate::execute::group::{
    arcee_fusion, karcher, model_stock, multislerp, nearswap, nuslerp, order, passthrough, ram,
    sce, slerp, vectors,
};
use crate::execute::pass::Resources;
use crate::kernels::elementwise::{with_precision, SUM_LANES};
use crate::number::{Bf16, Float, F16, F32};
use crate::plan::{GroupMethod, Job, Merge};
use crate::source::{Source, Tensor};
use crate::work::{segments, BLOCK};

/// A [`Merge::Group`] bound to its inputs.
pub(crate) struct GroupJob<'a> {
    inputs: Inputs<'a>,
    method: Bound,
}

enum Bound {
    Slerp(slerp::Slerp),
    Nuslerp(nuslerp::Nuslerp),
    Multislerp(multislerp::Multislerp),
    ModelStock(model_stock::ModelStock),
    Sce(sce::Sce),
    Karcher(karcher::Karcher),
    Nearswap(nearswap::Nearswap),
    ArceeFusion(arcee_fusion::ArceeFusion),
    Ram(ram::Ram),
    Passthrough(passthrough::Passthrough),
}

/// Run `$body` with `$precision` the type of the group's dtype and `$method` its method.
macro_rules! with_method {
    ($job:expr, $precision:ident, $method:ident => $body:expr) => {
        with_precision!($job.inputs.dtype, $precision => match &$job.method {
            Bound::Slerp($method) => $body,
            Bound::Nuslerp($method) => $body,
            Bound::Multislerp($method) => $body,
            Bound::ModelStock($method) => $body,
            Bound::Sce($method) => $body,
            Bound::Karcher($method) => $body,
            Bound::Nearswap($method) => $body,
            Bound::ArceeFusion($method) => $body,
            Bound::Ram($method) => $body,
            Bound::Passthrough($method) => $body,
        })
    };
}

impl<'a> GroupJob<'a> {
    pub(crate) fn new(
        job: &'a Job,
        tensor: impl Fn(usize, &'a str) -> Result<Tensor<'a>>,
    ) -> Result<Self> {
        let Merge::Group { dtype, method, base, inputs } = &job.merge else {
            return Err(Error::Plan {
                reason: format!("tensor `{}` is no group merge", job.tensor),
            });
        };
        let base = base.as_ref().map(|base| tensor(base.model, &base.tensor)).transpose()?;
        let tensors = inputs.iter().map(|input| tensor(input.model, &input.tensor));
        let tensors = tensors.collect::<Result<Vec<_>>>()?;
        let mut inputs =
            Inputs { name: &job.tensor, shape: &job.shape, dtype: *dtype, base, tensors };
        let method = match method {
            // Nothing to interpolate with: the result is the one input, or the base.
            GroupMethod::Multislerp { .. } | GroupMethod::Karcher { .. }
                if inputs.tensors.len() == 1 =>
            {
                inputs.base = None;
                Bound::Passthrough(passthrough::Passthrough { scale: None })
            }
            _ if inputs.tensors.is_empty() => {
                inputs.tensors.extend(inputs.base.take());
                Bound::Passthrough(passthrough::Passthrough { scale: None })
            }
            GroupMethod::Slerp { t } => Bound::Slerp(slerp::Slerp { t: *t as f32 }),
            GroupMethod::Nuslerp { t, along } => {
                Bound::Nuslerp(nuslerp::Nuslerp { t: *t, along: *along })
            }
            GroupMethod::Multislerp { weights, normalize, eps } => {
                Bound::Multislerp(multislerp::Multislerp::new(&inputs, weights, *normalize, *eps)?)
            }
            GroupMethod::ModelStock { filter_wise } => {
                let count = inputs.tensors.len();
                Bound::ModelStock(model_stock::ModelStock { filter_wise: *filter_wise, count })
            }
            GroupMethod::Sce { density } => Bound::Sce(sce::Sce { density: *density }),
            GroupMethod::Karcher { max_iter, tol } => {
                Bound::Karcher(karcher::Karcher { max_iter: *max_iter, tol: *tol })
            }
            GroupMethod::Nearswap { t } => Bound::Nearswap(nearswap::Nearswap { t: *t as f32 }),
            GroupMethod::ArceeFusion {} => Bound::ArceeFusion(arcee_fusion::ArceeFusion),
            GroupMethod::Ram { epsilon } => {
                Bound::Ram(ram::Ram { epsilon: *epsilon as f32, plus: None })
            }
            GroupMethod::RamplusTl { r, alpha, epsilon } => Bound::Ram(ram::Ram {
                epsilon: *epsilon as f32,
                plus: Some(ram::Plus { r: *r as f32, alpha: *alpha as f32 }),
            }),
            GroupMethod::Custom(_) => {
                return Err(Error::Plan {
                    reason: format!("tensor `{}` is no merge of ours", job.tensor),
                })
            }
            GroupMethod::Passthrough { scale } => {
                let scale = scale.map(|scale| scale as f32);
                Bound::Passthrough(passthrough::Passthrough { scale })
            }
        };
        Ok(Self { inputs, method })
    }

    /// One tensor as it is.
    pub(crate) fn copy(job: &'a Job, tensor: Tensor<'a>) -> Self {
        let (name, shape, dtype) = (&job.tensor, &job.shape, tensor.dtype());
        let inputs = Inputs { name, shape, dtype, base: None, tensors: vec![tensor] };
        Self { inputs, method: Bound::Passthrough(passthrough::Passthrough { scale: None }) }
    }

    /// The tensors that are read.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = &Tensor<'a>> {
        self.inputs.base.iter().chain(&self.inputs.tensors)
    }

    /// Bytes of one worker's buffers at the most.
    pub(crate) fn worker_bytes(&self, chunk: usize) -> usize {
        // Runs of every input, read and gathered, and the scratch of `Buffers`.
        let runs = 2 * self.inputs().count() + 7;
        4 * runs * vectors::longest_run(self.inputs.shape).max(chunk)
    }

    /// Bytes that the statistics hold: counts, partial sums, and what is kept of each vector.
    pub(crate) fn statistics_bytes(&self) -> usize {
        let (len, count) = (self.inputs.len(), self.inputs().count());
        let counts = match self.method {
            Bound::ArceeFusion(_) => 3,
            Bound::Sce(_) => 1,
            _ => 0,
        } * order::bytes(segments(len).len());
        let sums = len.div_ceil(BLOCK) * 8 * ((count + 2) * (count + 2) + SUM_LANES * count);
        let vectors = match &self.method {
            Bound::Nuslerp(nuslerp) => nuslerp.vectors(self.inputs.shape).count(len),
            Bound::ModelStock(stock) => stock.vectors(self.inputs.shape).count(len),
            Bound::ArceeFusion(_) => vectors::Vectors::last(self.inputs.shape).count(len),
            _ => 0,
        };
        counts + sums + 2 * 12 * vectors
    }

    /// Bytes read for each element, over all passes.
    pub(crate) fn bytes_per_element(&self) -> u64 {
        let sweeps = with_method!(self, P, method => Method::<P>::sweeps(method, &self.inputs));
        (sweeps + 1) * self.inputs.bytes_per_element() as u64
    }

    /// Compute the statistics.
    pub(crate) fn prepare<'s>(
        &'s self,
        resources: &'s Resources<'s>,
    ) -> Result<Box<dyn Ready + 's>> {
        let Resources { chunk, control, parallel, .. } = *resources;
        let sweep = Sweep { inputs: &self.inputs, chunk, control, parallel };
        with_method!(self, P, method => {
            Ok(Box::new(GroupPass::<P, _>::new(method, sweep)?))
        })
    }
}
