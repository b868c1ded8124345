//! Where input comes from: blocks of a base or of an expert.

use std::ops::Range;

use crate::checkpoint::{Checkpoint, Reader};
use crate::dtype::Float;
use crate::error::{Error, Result};
use crate::kernels::drop::Mask;
use crate::kernels::elementwise::{
    add, add_magnitudes, first_nonfinite, round_all, scale, subtract, with_precision, SUM_LANES,
};
use crate::kernels::fused;
use crate::kernels::linear::accumulate;
use crate::precision::{Bf16, F16, F32};
use crate::segments::is_large;
use crate::statistics::fingerprint::fingerprint;

/// Bytes of a large tensor after which a fingerprint gives the pages behind it back.
const RELEASE: u64 = 1 << 22;

/// A tensor that can be read block by block.
pub trait Source: Sync {
    /// Dtype of the stored elements.
    fn dtype(&self) -> Float;

    /// Elements `start .. start + out.len()`, rounded to `working`. `scratch` is any buffer.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::NonFinite`] for a value that is NaN or infinite in `working`.
    fn read(
        &self,
        working: Float,
        start: usize,
        out: &mut [f32],
        scratch: &mut Vec<u8>,
    ) -> Result<()>;

    /// Those elements minus `base`, rounded to `working`.
    ///
    /// # Errors
    /// As for [`Source::read`].
    fn read_delta(
        &self,
        working: Float,
        start: usize,
        base: &[f32],
        out: &mut [f32],
        scratch: &mut Vec<u8>,
    ) -> Result<()>;

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
    ) -> Result<()>;

    /// Add the L1 norms of those elements minus `base` to `sums`: of all of them, and of those that a
    /// mask keeps, which begin at a place in it.
    ///
    /// # Errors
    /// As for [`Source::read`].
    fn add_norms(
        &self,
        working: Float,
        start: usize,
        base: &[f32],
        masked: (&Mask, usize),
        sums: &mut [[f64; SUM_LANES]; 2],
        scratch: &mut Vec<u8>,
    ) -> Result<()>;

    /// Add those elements minus `base` to `sums`: zero where a mask, which begins at a place in it, does
    /// not keep them, then times each factor, rounded to `working` every time.
    ///
    /// # Errors
    /// As for [`Source::read`].
    #[allow(clippy::too_many_arguments)]
    fn add_delta(
        &self,
        working: Float,
        start: usize,
        base: &[f32],
        masked: Option<(&Mask, usize)>,
        factors: [f32; 2],
        sums: &mut [f32],
        scratch: &mut Vec<u8>,
    ) -> Result<()>;

    /// What tells this tensor, of `length` elements, from other experts': see
    /// [`fingerprint`](crate::statistics::fingerprint).
    ///
    /// # Errors
    /// [`Error::Io`]
    fn fingerprint(&self, length: usize) -> Result<u64>;

    /// Elements that will be read soon, and elements that need not stay resident. Advice only.
    fn will_need(&self, elements: Range<usize>);
    /// See [`Source::will_need`].
    fn release(&self, elements: Range<usize>);
}

/// A tensor in a checkpoint.
#[derive(Debug, Clone, Copy)]
pub struct CheckpointTensor<'a> {
    reader: &'a Reader,
    name: &'a str,
    dtype: Float,
    offset: u64,
    allow_nonfinite: bool,
}

impl<'a> CheckpointTensor<'a> {
    /// Find a floating-point tensor of the expected shape.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::Shape`], [`Error::Dtype`].
    pub fn new(
        checkpoint: &'a Checkpoint,
        name: &'a str,
        shape: &[usize],
        allow_nonfinite: bool,
    ) -> Result<Self> {
        let entry = checkpoint.tensor(name)?;
        let reader = &checkpoint.shards()[entry.shard];
        if entry.shape != shape {
            return Err(Error::Shape {
                path: reader.path().into(),
                tensor: name.into(),
                expected: shape.to_vec(),
                found: entry.shape.clone(),
            });
        }
        let dtype = Float::of(entry.dtype).ok_or_else(|| Error::Dtype {
            path: reader.path().into(),
            tensor: name.into(),
            expected: "F32, BF16 or F16",
            found: entry.dtype.to_string(),
        })?;
        Ok(Self { reader, name, dtype, offset: entry.offset, allow_nonfinite })
    }

    /// Whether this is the same tensor of the same open file.
    pub fn is(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }

    /// What tells it from all other tensors that are open.
    pub fn identity(&self) -> (usize, u64) {
        (std::ptr::from_ref(self.reader) as usize, self.offset)
    }

    fn bytes<'b>(
        &'b self,
        start: usize,
        length: usize,
        scratch: &'b mut Vec<u8>,
    ) -> Result<&'b [u8]> {
        let size = self.dtype.size();
        self.reader.read(self.offset + (start * size) as u64, length * size, scratch)
    }

    fn byte_range(&self, elements: Range<usize>) -> Range<u64> {
        let size = self.dtype.size();
        let at = |element: usize| self.offset + (element * size) as u64;
        at(elements.start)..at(elements.end)
    }

    /// The first of some elements that is not finite in `working`, as an error.
    fn check_finite(&self, working: Float, start: usize, length: usize) -> Result<()> {
        if self.allow_nonfinite {
            return Ok(());
        }
        let mut scratch = Vec::new();
        let bytes = self.bytes(start, length, &mut scratch)?;
        let mut values = vec![0.0; length];
        self.dtype.widen(bytes, &mut values);
        let mut rounded = values.clone();
        round_all(working, &mut rounded);
        match first_nonfinite(&rounded) {
            None => Ok(()),
            Some(index) => Err(Error::NonFinite {
                path: self.reader.path().into(),
                tensor: self.name.into(),
                index: (start + index) as u64,
                value: values[index],
                dtype: working.name(),
            }),
        }
    }
}

impl Source for CheckpointTensor<'_> {
    fn dtype(&self) -> Float {
        self.dtype
    }

    fn read(
        &self,
        working: Float,
        start: usize,
        out: &mut [f32],
        scratch: &mut Vec<u8>,
    ) -> Result<()> {
        self.dtype.widen(self.bytes(start, out.len(), scratch)?, out);
        if self.dtype != working {
            round_all(working, out);
        }
        match first_nonfinite(out) {
            Some(_) => self.check_finite(working, start, out.len()),
            None => Ok(()),
        }
    }

    fn read_delta(
        &self,
        working: Float,
        start: usize,
        base: &[f32],
        out: &mut [f32],
        scratch: &mut Vec<u8>,
    ) -> Result<()> {
        let bytes = self.bytes(start, out.len(), scratch)?;
        match fused::subtract(self.dtype, working, bytes, base, out) {
            Some(true) => Ok(()),
            // A delta of finite values can overflow too; that shows in the output.
            Some(false) => self.check_finite(working, start, out.len()),
            None => {
                self.read(working, start, out, scratch)?;
                with_precision!(working, P => subtract::<P>(out, base));
                Ok(())
            }
        }
    }

    fn accumulate(
        &self,
        working: Float,
        start: usize,
        weight: f32,
        sums: &mut [f32],
        scratch: &mut Vec<u8>,
    ) -> Result<()> {
        let bytes = self.bytes(start, sums.len(), scratch)?;
        match fused::accumulate(self.dtype, working, bytes, weight, sums) {
            Some(true) => Ok(()),
            Some(false) => self.check_finite(working, start, sums.len()),
            None => {
                let mut values = vec![0.0; sums.len()];
                self.read(working, start, &mut values, scratch)?;
                accumulate(sums, &values, weight);
                Ok(())
            }
        }
    }

    fn add_norms(
        &self,
        working: Float,
        start: usize,
        base: &[f32],
        masked: (&Mask, usize),
        sums: &mut [[f64; SUM_LANES]; 2],
        scratch: &mut Vec<u8>,
    ) -> Result<()> {
        let bytes = self.bytes(start, base.len(), scratch)?;
        match fused::add_norms(self.dtype, working, bytes, base, masked, sums) {
            Some(true) => Ok(()),
            Some(false) => self.check_finite(working, start, base.len()),
            None => {
                let mut delta = vec![0.0; base.len()];
                self.read_delta(working, start, base, &mut delta, scratch)?;
                add_magnitudes(&delta, &mut sums[0]);
                masked.0.apply(masked.1, &mut delta);
                add_magnitudes(&delta, &mut sums[1]);
                Ok(())
            }
        }
    }

    fn add_delta(
        &self,
        working: Float,
        start: usize,
        base: &[f32],
        masked: Option<(&Mask, usize)>,
        factors: [f32; 2],
        sums: &mut [f32],
        scratch: &mut Vec<u8>,
    ) -> Result<()> {
        let bytes = self.bytes(start, base.len(), scratch)?;
        match fused::add_delta(self.dtype, working, bytes, base, masked, factors, sums) {
            Some(true) => Ok(()),
            Some(false) => self.check_finite(working, start, base.len()),
            None => {
                let mut delta = vec![0.0; base.len()];
                self.read_delta(working, start, base, &mut delta, scratch)?;
                if let Some((mask, start)) = masked {
                    mask.apply(start, &mut delta);
                }
                for factor in factors {
                    with_precision!(working, P => scale::<P>(&mut delta, factor));
                }
                add(sums, &delta);
                Ok(())
            }
        }
    }

    fn fingerprint(&self, length: usize) -> Result<u64> {
        let mut scratch = Vec::new();
        let mut behind = 0;
        fingerprint((length * self.dtype.size()) as u64, |range, visit| {
            let count = (range.end - range.start) as usize;
            visit(self.reader.read(self.offset + range.start, count, &mut scratch)?);
            // A small tensor's pages stay mapped: the next pass reads them all.
            if is_large(length) && range.end - behind >= RELEASE {
                self.reader.release(self.offset + behind..self.offset + range.end);
                behind = range.end;
            }
            Ok(())
        })
    }

    fn will_need(&self, elements: Range<usize>) {
        self.reader.will_need(self.byte_range(elements));
    }

    fn release(&self, elements: Range<usize>) {
        self.reader.release(self.byte_range(elements));
    }
}
