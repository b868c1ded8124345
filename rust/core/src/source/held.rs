//! A block of a tensor, copied from its file before it is used.
//!
//! A pass that reads each byte once is faster so: the system copies at the speed of memory, and what
//! was copied lies in the second-level cache. A map's pages are mapped and unmapped one by one, and
//! the loop that subtracts waits for memory.

use std::ops::Range;

use crate::error::Result;
use crate::kernels::elementwise::first_nonfinite;
use crate::kernels::fused;
use crate::number::Float;
use crate::source::{DeltaRun, Source, Tensor};

/// A block of a tensor; nothing where the tensor is computed, or of a dtype that is widened slowly.
#[derive(Debug, Default)]
pub(crate) struct Held {
    start: usize,
    bytes: Vec<u8>,
}

impl Held {
    /// Copy some elements.
    ///
    /// # Errors
    /// [`crate::Error::Io`]
    pub(crate) fn fill(
        &mut self,
        tensor: &Tensor,
        elements: Range<usize>,
        scratch: &mut Vec<u8>,
    ) -> Result<()> {
        let bytes = match (tensor, tensor.dtype()) {
            (Tensor::Stored(_), Float::Bf16 | Float::F32) => elements.len() * tensor.dtype().size(),
            _ => 0,
        };
        self.start = elements.start;
        self.bytes.resize(bytes, 0);
        match bytes {
            0 => Ok(()),
            _ => tensor.read_bytes(elements.start, &mut self.bytes, scratch),
        }
    }

    fn bytes(&self, dtype: Float, start: usize, length: usize) -> Option<&[u8]> {
        let (at, size) = (start - self.start, dtype.size());
        self.bytes.get(at * size..(at + length) * size)
    }

    /// As [`Source::read`] in float32 of the tensor that it was filled from, within the block.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn read(
        &self,
        tensor: &Tensor,
        start: usize,
        out: &mut [f32],
        scratch: &mut Vec<u8>,
    ) -> Result<()> {
        if let Some(bytes) = self.bytes(tensor.dtype(), start, out.len()) {
            tensor.dtype().widen(bytes, out);
            if first_nonfinite(out).is_none() {
                return Ok(());
            }
        }
        tensor.read(Float::F32, start, out, scratch)
    }

    /// As [`Source::read_delta`] in float32.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn read_delta(
        &self,
        tensor: &Tensor,
        run: DeltaRun,
        out: &mut [f32],
        scratch: &mut Vec<u8>,
    ) -> Result<()> {
        let dtype = tensor.dtype();
        if let Some(bytes) = self.bytes(dtype, run.start, out.len()) {
            if fused::subtract(dtype, Float::F32, bytes, run.base, out) == Some(true) {
                return Ok(());
            }
        }
        // What is not finite, the tensor's own way tells.
        tensor.read_delta(run, out, scratch)
    }
}
