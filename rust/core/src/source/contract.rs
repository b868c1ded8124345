//! What every source of input can do, and how it is done where nothing faster is known.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

use crate::error::Result;
use crate::kernels::elementwise::{
    add, add_magnitudes, scale, subtract, with_precision, SUM_LANES,
};
use crate::kernels::linear::accumulate;
use crate::kernels::masked::Masked;
use crate::number::{Bf16, Float, F16, F32};
use crate::statistics::fingerprint::fingerprint;
use crate::work::{pieces, BLOCK};

/// Which elements of an expert are taken, and what from: its delta there is what they differ by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeltaRun<'a> {
    /// Dtype to which every step is rounded.
    pub working: Float,
    /// First element.
    pub start: usize,
    /// The base's elements there, rounded to `working`; as many are taken.
    pub base: &'a [f32],
}

/// A tensor that can be read block by block. What is fast depends on where it comes from; what comes
/// out does not, so every method but a few has a plain form in terms of [`Source::read`].
pub(crate) trait Source: Send + Sync + std::fmt::Debug {
    /// Dtype of the elements.
    fn dtype(&self) -> Float;

    /// Elements `start .. start + out.len()`, rounded to `working`. `scratch` is any buffer.
    ///
    /// # Errors
    /// [`crate::Error::Io`]; [`crate::Error::NonFinite`] for a value that is NaN or infinite in `working`.
    fn read(
        &self,
        working: Float,
        start: usize,
        out: &mut [f32],
        scratch: &mut Vec<u8>,
    ) -> Result<()>;

    /// The delta of a run.
    ///
    /// # Errors
    /// As for [`Source::read`].
    fn read_delta(&self, run: DeltaRun, out: &mut [f32], scratch: &mut Vec<u8>) -> Result<()> {
        self.read(run.working, run.start, out, scratch)?;
        with_precision!(run.working, P => subtract::<P>(out, run.base));
        Ok(())
    }

    /// `sums := fma(weight, element, sums)` over those elements.
    ///
    /// # Errors
    /// As for [`Source::read`].
    fn accumulate(
        &self,
        working: Float,
        start: usize,
        weight: f32,
        sums: &mut [f32],
        scratch: &mut Vec<u8>,
    ) -> Result<()> {
        let mut values = vec![0.0; sums.len()];
        self.read(working, start, &mut values, scratch)?;
        accumulate(sums, &values, weight);
        Ok(())
    }

    /// Add the L1 norms of a run's delta to `sums`: of all of it, and of what a mask keeps, in which the
    /// run begins at a place.
    ///
    /// # Errors
    /// As for [`Source::read`].
    fn add_norms(
        &self,
        run: DeltaRun,
        masked: Masked,
        sums: &mut [[f64; SUM_LANES]; 2],
        scratch: &mut Vec<u8>,
    ) -> Result<()> {
        let mut delta = vec![0.0; run.base.len()];
        self.read_delta(run, &mut delta, scratch)?;
        add_magnitudes(&delta, &mut sums[0]);
        masked.0.apply(masked.1, &mut delta);
        add_magnitudes(&delta, &mut sums[1]);
        Ok(())
    }

    /// Add a run's delta to `sums`: zero where a mask does not keep it, then times each factor, rounded
    /// every time.
    ///
    /// # Errors
    /// As for [`Source::read`].
    fn add_delta(
        &self,
        run: DeltaRun,
        masked: Option<Masked>,
        factors: [f32; 2],
        sums: &mut [f32],
        scratch: &mut Vec<u8>,
    ) -> Result<()> {
        let mut delta = vec![0.0; run.base.len()];
        self.read_delta(run, &mut delta, scratch)?;
        finish(run.working, masked, factors, &mut delta);
        add(sums, &delta);
        Ok(())
    }

    /// A run's delta: zero where a mask does not keep it, then times each factor, rounded every time.
    ///
    /// # Errors
    /// As for [`Source::read`].
    fn kept_delta(
        &self,
        run: DeltaRun,
        masked: Masked,
        factors: [f32; 2],
        out: &mut [f32],
        scratch: &mut Vec<u8>,
    ) -> Result<()> {
        self.read_delta(run, out, scratch)?;
        finish(run.working, Some(masked), factors, out);
        Ok(())
    }

    /// Elements from `start` on as bytes of the tensor's own dtype, little-endian; `out` says how many.
    /// A tensor in a file gives what the file holds, NaN too.
    ///
    /// # Errors
    /// As for [`Source::read`].
    fn read_bytes(&self, start: usize, out: &mut [u8], scratch: &mut Vec<u8>) -> Result<()> {
        let dtype = self.dtype();
        let mut values = vec![0.0; out.len() / dtype.size()];
        self.read(dtype, start, &mut values, scratch)?;
        dtype.narrow(&values, out);
        Ok(())
    }

    /// What tells this tensor, of `length` elements, from other experts': see
    /// [`fingerprint`](crate::statistics::fingerprint). It depends on the values alone, so that a tensor
    /// that is computed has the masks of the same tensor in a file.
    ///
    /// # Errors
    /// As for [`Source::read`].
    fn fingerprint(&self, length: usize) -> Result<u64> {
        let (size, mut scratch) = (self.dtype().size(), Vec::new());
        let mut bytes = Vec::new();
        fingerprint((length * size) as u64, |range, visit| {
            let elements = range.start as usize / size..range.end as usize / size;
            for some in pieces(elements, BLOCK) {
                bytes.resize(some.len() * size, 0);
                self.read_bytes(some.start, &mut bytes, &mut scratch)?;
                visit(&bytes);
            }
            Ok(())
        })
    }

    /// A hash of what some elements are read from. Blocks tell whether the content of a tensor has
    /// changed: what all of them share, as the factors of a low-rank update, counts in the first.
    ///
    /// # Errors
    /// As for [`Source::read`].
    fn hash(&self, elements: Range<usize>, scratch: &mut Vec<u8>) -> Result<u64> {
        let mut bytes = vec![0; elements.len() * self.dtype().size()];
        self.read_bytes(elements.start, &mut bytes, scratch)?;
        Ok(xxh3_64(&bytes))
    }

    /// Bytes that reading takes beside the elements themselves.
    fn scratch_bytes(&self, _chunk: usize) -> usize {
        0
    }

    /// Whether some elements can be read without waiting for a disk, as far as that is known.
    fn is_cached(&self, _elements: Range<usize>) -> bool {
        true
    }

    /// Elements that will be read soon, and elements that need not stay resident. Advice only.
    fn will_need(&self, elements: Range<usize>);
    /// See [`Source::will_need`].
    fn release(&self, elements: Range<usize>);
}

/// What is left of deltas under a mask, times each factor, rounded every time.
fn finish(working: Float, masked: Option<Masked>, factors: [f32; 2], deltas: &mut [f32]) {
    if let Some((mask, start)) = masked {
        mask.apply(start, deltas);
    }
    for factor in factors.into_iter().filter(|factor| *factor != 1.0) {
        with_precision!(working, P => scale::<P>(deltas, factor));
    }
}
