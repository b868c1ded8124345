//! A tensor of one of a run's models, wherever it comes from.

use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;
use crate::kernels::elementwise::SUM_LANES;
use crate::kernels::masked::Masked;
use crate::number::Float;
use crate::source::{DeltaRun, Source, StoredTensor};

/// A tensor of one of a run's models.
#[derive(Debug, Clone)]
pub(crate) enum Tensor<'a> {
    /// One that lies in a file.
    Stored(StoredTensor<'a>),
    /// One that is computed, its model, and where that tells how: what tells it from all others.
    Made(Arc<dyn Source + 'a>, (usize, usize)),
}

impl<'a> Tensor<'a> {
    fn source(&self) -> &(dyn Source + 'a) {
        match self {
            Self::Stored(tensor) => tensor,
            Self::Made(tensor, _) => &**tensor,
        }
    }

    /// Whether this is the same tensor of the same model.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }

    /// What tells it from all other tensors that are open.
    pub(crate) fn identity(&self) -> (usize, u64) {
        match self {
            Self::Stored(tensor) => tensor.identity(),
            Self::Made(_, (model, how)) => (*how, u64::MAX - *model as u64),
        }
    }
}

/// Stored tensors, which are most of them, are called without a table.
macro_rules! either {
    ($self:ident, $tensor:ident => $body:expr) => {
        match $self {
            Tensor::Stored($tensor) => $body,
            Tensor::Made($tensor, _) => $body,
        }
    };
}

impl Source for Tensor<'_> {
    fn dtype(&self) -> Float {
        self.source().dtype()
    }

    fn read(
        &self,
        working: Float,
        start: usize,
        out: &mut [f32],
        scratch: &mut Vec<u8>,
    ) -> Result<()> {
        either!(self, tensor => tensor.read(working, start, out, scratch))
    }

    fn read_delta(&self, run: DeltaRun, out: &mut [f32], scratch: &mut Vec<u8>) -> Result<()> {
        either!(self, tensor => tensor.read_delta(run, out, scratch))
    }

    fn accumulate(
        &self,
        working: Float,
        start: usize,
        weight: f32,
        sums: &mut [f32],
        scratch: &mut Vec<u8>,
    ) -> Result<()> {
        either!(self, tensor => tensor.accumulate(working, start, weight, sums, scratch))
    }

    fn add_norms(
        &self,
        run: DeltaRun,
        masked: Masked,
        sums: &mut [[f64; SUM_LANES]; 2],
        scratch: &mut Vec<u8>,
    ) -> Result<()> {
        either!(self, tensor => tensor.add_norms(run, masked, sums, scratch))
    }

    fn add_delta(
        &self,
        run: DeltaRun,
        masked: Option<Masked>,
        factors: [f32; 2],
        sums: &mut [f32],
        scratch: &mut Vec<u8>,
    ) -> Result<()> {
        either!(self, tensor => tensor.add_delta(run, masked, factors, sums, scratch))
    }

    fn kept_delta(
        &self,
        run: DeltaRun,
        masked: Masked,
        factors: [f32; 2],
        out: &mut [f32],
        scratch: &mut Vec<u8>,
    ) -> Result<()> {
        either!(self, tensor => tensor.kept_delta(run, masked, factors, out, scratch))
    }

    fn read_bytes(&self, start: usize, out: &mut [u8], scratch: &mut Vec<u8>) -> Result<()> {
        self.source().read_bytes(start, out, scratch)
    }

    fn fingerprint(&self, length: usize) -> Result<u64> {
        self.source().fingerprint(length)
    }

    fn hash(&self, elements: Range<usize>, scratch: &mut Vec<u8>) -> Result<u64> {
        self.source().hash(elements, scratch)
    }

    fn scratch_bytes(&self, chunk: usize) -> usize {
        self.source().scratch_bytes(chunk)
    }

    fn is_cached(&self, elements: Range<usize>) -> bool {
        self.source().is_cached(elements)
    }

    fn will_need(&self, elements: Range<usize>) {
        self.source().will_need(elements);
    }

    fn release(&self, elements: Range<usize>) {
        self.source().release(elements);
    }
}
