//! Delta merges of one tensor, bound to their inputs.

use crate::error::{Error, Result};
use crate::kernels::combine::Mix;
use crate::kernels::elementwise::round_all;
use crate::number::Float;
use crate::plan::{Input, Job, Merge, Sparsify};
use crate::source::{Source, Tensor};

/// One [`Merge::Delta`], or several that mix experts of the same base after the same treatment, bound
/// to their inputs.
pub(crate) struct DeltaJob<'a> {
    pub(super) name: &'a str,
    pub(super) len: usize,
    pub(super) rows: Rows,
    pub(super) seed: u64,
    pub(super) dtype: Float,
    pub(super) sparsify: Sparsify,
    pub(super) rescale: bool,
    pub(super) base: Tensor<'a>,
    /// The experts of all mixes, each once.
    pub(super) experts: Vec<Expert<'a>>,
    pub(super) mixes: Vec<Mixed>,
}

/// One merge: some of the experts, by number, in the order of its config.
pub(super) struct Mixed {
    pub(super) experts: Vec<usize>,
    pub(super) mix: Mix,
    pub(super) wanted: Wanted,
}

/// What of a mix is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The merge.
    Merge,
    /// Its slope along the weight of one of the experts, by its place among them.
    Along(usize),
    /// Its slope along lambda: the mixed delta.
    Delta,
}

/// An expert and how it is thinned.
#[derive(Clone)]
pub(super) struct Expert<'a> {
    pub(super) tensor: Tensor<'a>,
    pub(super) density: f64,
    pub(super) gamma: f64,
    pub(super) epsilon: f64,
}

impl Expert<'_> {
    fn is(&self, other: &Self) -> bool {
        self.tensor.is(&other.tensor)
            && (self.density, self.gamma, self.epsilon)
                == (other.density, other.gamma, other.epsilon)
    }
}

/// Whether two jobs take and thin their deltas alike, so that one pass can serve both.
pub(crate) fn alike(a: &Job, b: &Job) -> bool {
    fn treatment(job: &Job) -> Option<(&Float, usize, &str, &Sparsify, &bool)> {
        match &job.merge {
            Merge::Delta { dtype, base, sparsify, rescale, .. } => {
                Some((dtype, base.model, &base.tensor, sparsify, rescale))
            }
            _ => None,
        }
    }
    treatment(a) == treatment(b)
}

/// The rows in which ranks are taken: runs of `columns` elements, `stride` apart, as mergekit takes
/// them along the second axis; a tensor with one axis or none is one row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows {
    pub(super) columns: usize,
    pub(super) stride: usize,
}

impl Rows {
    fn of(shape: &[usize]) -> Self {
        match shape {
            [_, columns, inner @ ..] => Self { columns: *columns, stride: inner.iter().product() },
            _ => Self { columns: shape.iter().product(), stride: 1 },
        }
    }

    /// Elements that hold whole rows: one row, or several that interleave.
    pub(super) fn slab(self) -> usize {
        self.columns * self.stride
    }
}

impl<'a> DeltaJob<'a> {
    pub(crate) fn new(
        job: &'a Job,
        seed: u64,
        tensor: impl Fn(usize, &'a str) -> Result<Tensor<'a>>,
    ) -> Result<Self> {
        let Merge::Delta { dtype, base, sparsify, rescale, .. } = &job.merge else {
            return Err(Error::Plan {
                reason: format!("tensor `{}` is no delta merge", job.tensor),
            });
        };
        let mut made = Self {
            name: &job.tensor,
            len: job.len(),
            rows: Rows::of(&job.shape),
            seed,
            dtype: *dtype,
            sparsify: *sparsify,
            rescale: *rescale,
            base: tensor(base.model, &base.tensor)?,
            experts: vec![],
            mixes: vec![],
        };
        made.add(job, tensor)?;
        Ok(made)
    }

    /// One more merge of the same tensor.
    pub(crate) fn add(
        &mut self,
        job: &'a Job,
        tensor: impl Fn(usize, &'a str) -> Result<Tensor<'a>>,
    ) -> Result<()> {
        let Merge::Delta { dtype, consensus, normalize, lambda, inputs, slope, mixed, .. } =
            &job.merge
        else {
            return Ok(());
        };
        let mut experts = Vec::new();
        let mut weights = Vec::new();
        let mut along = None;
        for (place, input) in inputs.iter().enumerate() {
            // A weight of zero changes neither sum nor divisor: such an expert is not read.
            if input.weight == 0.0 && *slope != Some(place) {
                continue;
            }
            if *slope == Some(place) {
                along = Some(experts.len());
            }
            let Input { density, gamma, epsilon, .. } = *input;
            let tensor = tensor(input.model, &input.tensor)?;
            let expert = Expert { tensor, density, gamma, epsilon };
            // One that a config lists twice is two experts.
            let mut known = self.experts.iter().enumerate();
            let number = known.find(|(i, known)| known.is(&expert) && !experts.contains(i));
            let number = number.map(|(i, _)| i);
            experts.push(number.unwrap_or(self.experts.len()));
            if number.is_none() {
                self.experts.push(expert);
            }
            weights.push(input.weight as f32);
        }
        round_all(*dtype, &mut weights);
        if !weights.iter().all(|weight| weight.is_finite()) || !(*lambda as f32).is_finite() {
            return Err(Error::Options {
                tensor: job.tensor.clone(),
                reason: format!("a weight or lambda is too large for `{}`", dtype.name()),
            });
        }
        if slope.is_some() && along.is_none() {
            let reason = format!("tensor `{}`: a slope along no input", job.tensor);
            return Err(Error::Plan { reason });
        }
        let wanted = match along {
            Some(place) => Wanted::Along(place),
            None if *mixed => Wanted::Delta,
            None => Wanted::Merge,
        };
        let (consensus, normalize, lambda) = (*consensus, *normalize, *lambda as f32);
        let mix = Mix { weights, consensus, normalize, lambda };
        self.mixes.push(Mixed { experts, mix, wanted });
        Ok(())
    }

    pub(crate) fn dtype(&self) -> Float {
        self.dtype
    }

    /// Chunks that a worker holds while it computes so many mixes at a time.
    pub(crate) fn buffers(&self, at_once: usize) -> usize {
        let apart = at_once > 1 || self.mixes.iter().any(|mixed| mixed.wanted != Wanted::Merge);
        let weighted = if apart { self.experts.len() } else { 0 };
        self.experts.len() + weighted + 3 + at_once
    }

    /// The tensors that are read.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = &Tensor<'a>> {
        std::iter::once(&self.base).chain(self.experts.iter().map(|expert| &expert.tensor))
    }

    /// Whether some elements of the expert are dropped, and some kept.
    pub(super) fn thins(&self, expert: &Expert) -> bool {
        let (dropped, least) = self.wanted(expert);
        self.sparsify != Sparsify::None
            && expert.density > 0.0
            && expert.density < 1.0
            && self.len > 0
            && dropped < least
    }

    /// The experts that statistics are needed of, by number.
    pub(super) fn thinned(&self) -> Vec<usize> {
        (0..self.experts.len()).filter(|&i| self.thins(&self.experts[i])).collect()
    }

    /// Whether passes come before the one that writes.
    pub(crate) fn has_statistics(&self) -> bool {
        !self.thinned().is_empty()
    }

    pub(super) fn has_low_bits(&self) -> bool {
        self.dtype != Float::Bf16
    }

    pub(super) fn is_random(&self) -> bool {
        matches!(self.sparsify, Sparsify::Random | Sparsify::Ranks)
    }

    /// Bytes that the passes go over for each element: those that every run makes. A pass over
    /// several experts goes over the base once.
    pub(crate) fn bytes_per_element(&self) -> u64 {
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
