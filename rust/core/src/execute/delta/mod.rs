//! Task arithmetic and its kin: statistics of every expert first, then one pass over all of them.

mod apply;
mod masks;
mod statistics;

use crate::dtype::Float;
use crate::error::{Error, Result};
use crate::execute::delta::masks::MaskMaker;
use crate::kernels::combine::Mix;
use crate::kernels::drop::Mask;
use crate::kernels::elementwise::round_all;
use crate::plan::{Input, Job, Merge, Sparsify};
use crate::segments::segments;
use crate::source::{CheckpointTensor, Source};

/// A [`Merge::Delta`] bound to its inputs.
pub struct DeltaJob<'a> {
    name: &'a str,
    len: usize,
    rows: Rows,
    seed: u64,
    dtype: Float,
    sparsify: Sparsify,
    rescale: bool,
    mix: Mix,
    base: CheckpointTensor<'a>,
    experts: Vec<Expert<'a>>,
}

struct Expert<'a> {
    tensor: CheckpointTensor<'a>,
    density: f64,
    gamma: f64,
    epsilon: f64,
}

/// The rows in which ranks are taken: runs of `columns` elements, `stride` apart, as mergekit takes
/// them along the second axis; a tensor with one axis or none is one row.
#[derive(Debug, Clone, Copy)]
struct Rows {
    columns: usize,
    stride: usize,
}

impl Rows {
    fn of(shape: &[usize]) -> Self {
        match shape {
            [_, columns, inner @ ..] => Self { columns: *columns, stride: inner.iter().product() },
            _ => Self { columns: shape.iter().product(), stride: 1 },
        }
    }

    /// Elements that hold whole rows: one row, or several that interleave.
    fn slab(self) -> usize {
        self.columns * self.stride
    }
}

impl<'a> DeltaJob<'a> {
    pub fn new(
        job: &'a Job,
        seed: u64,
        tensor: impl Fn(usize, &'a str) -> Result<CheckpointTensor<'a>>,
    ) -> Result<Self> {
        let Merge::Delta { dtype, base, sparsify, rescale, consensus, normalize, lambda, inputs } =
            &job.merge
        else {
            return Err(Error::Plan {
                reason: format!("tensor `{}` is no delta merge", job.tensor),
            });
        };
        let mut experts = Vec::new();
        let mut weights = Vec::new();
        // A weight of zero changes neither sum nor divisor: such an expert is not read.
        for input in inputs.iter().filter(|input| input.weight != 0.0) {
            let Input { density, gamma, epsilon, .. } = *input;
            let tensor = tensor(input.model, &input.tensor)?;
            experts.push(Expert { tensor, density, gamma, epsilon });
            weights.push(input.weight as f32);
        }
        round_all(*dtype, &mut weights);
        if !weights.iter().all(|weight| weight.is_finite()) || !(*lambda as f32).is_finite() {
            return Err(Error::Options {
                tensor: job.tensor.clone(),
                reason: format!("a weight or lambda is too large for `{}`", dtype.name()),
            });
        }
        Ok(Self {
            name: &job.tensor,
            len: job.len(),
            rows: Rows::of(&job.shape),
            seed,
            dtype: *dtype,
            sparsify: *sparsify,
            rescale: *rescale,
            mix: Mix {
                weights,
                consensus: *consensus,
                normalize: *normalize,
                lambda: *lambda as f32,
            },
            base: tensor(base.model, &base.tensor)?,
            experts,
        })
    }

    pub fn dtype(&self) -> Float {
        self.dtype
    }

    /// The tensors that are read.
    pub fn inputs(&self) -> impl Iterator<Item = &CheckpointTensor<'a>> {
        std::iter::once(&self.base).chain(self.experts.iter().map(|expert| &expert.tensor))
    }

    /// Whether some elements of the expert are dropped, and some kept.
    fn thins(&self, expert: &Expert) -> bool {
        self.sparsify != Sparsify::None
            && expert.density > 0.0
            && expert.density < 1.0
            && self.len > 0
    }

    /// The experts that statistics are needed of, by number.
    fn thinned(&self) -> Vec<usize> {
        (0..self.experts.len()).filter(|&i| self.thins(&self.experts[i])).collect()
    }

    fn has_low_bits(&self) -> bool {
        self.dtype != Float::Bf16
    }

    /// Bytes that a worker's masks take: those of one segment, and the buffers they are made with.
    pub fn mask_bytes(&self, chunk: usize) -> usize {
        if !self.is_random() {
            return 0;
        }
        let longest = segments(self.len).first().map_or(0, |segment| segment.range.len());
        self.thinned().len() * Mask::bytes(longest) + MaskMaker::bytes(self, chunk)
    }

    fn is_random(&self) -> bool {
        matches!(self.sparsify, Sparsify::Random | Sparsify::Ranks)
    }

    /// Bytes that the passes go over for each element: those that every run makes. A pass over
    /// several experts goes over the base once.
    pub fn bytes_per_element(&self) -> u64 {
        let size = |i: &usize| self.experts[*i].tensor.dtype().size();
        let thinned = self.thinned();
        let base = self.base.dtype().size();
        let all = base + (0..self.experts.len()).map(|i| size(&i)).sum::<usize>();
        if thinned.is_empty() {
            return all as u64;
        }
        let some: usize = thinned.iter().map(size).sum();
        // Fingerprints are too small a part to count.
        let walks = match self.sparsify {
            Sparsify::Magnitude | Sparsify::Outliers => base + some,
            Sparsify::None | Sparsify::Random | Sparsify::Ranks => 0,
        };
        let norms = if self.rescale { base + some } else { 0 };
        (all + walks + norms) as u64
    }
}
