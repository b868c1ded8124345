//! A tensor that lies in a file.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

use crate::checkpoint::{Checkpoint, Reader};
use crate::error::{Error, Result};
use crate::kernels::elementwise::{first_nonfinite, round_all, SUM_LANES};
use crate::kernels::fused;
use crate::kernels::masked::{self, Masked};
use crate::number::Float;
use crate::source::window::{Bytes, Window};
use crate::source::{DeltaRun, Source};
use crate::statistics::fingerprint::fingerprint;
use crate::work::is_large;

/// Bytes of a large tensor after which a fingerprint gives the pages behind it back.
const RELEASE: u64 = 1 << 22;

/// Elements that are widened at a time, while the bytes after them are asked for.
const PIECE: usize = 512;

/// A tensor in a checkpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoredTensor<'a> {
    reader: &'a Reader,
    name: &'a str,
    dtype: Float,
    offset: u64,
    bytes: u64,
    allow_nonfinite: bool,
    /// Where its bytes are read into, instead of mapped.
    window: Option<&'a Window>,
}

impl<'a> StoredTensor<'a> {
    /// Find a floating-point tensor of the expected shape.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::Shape`], [`Error::Dtype`].
    pub(crate) fn new(
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
                found: entry.shape.to_vec(),
            });
        }
        let dtype = Float::of(entry.dtype).ok_or_else(|| Error::Dtype {
            path: reader.path().into(),
            tensor: name.into(),
            expected: "F32, BF16 or F16",
            found: entry.dtype.to_string(),
        })?;
        let (offset, bytes) = (entry.offset, entry.bytes);
        Ok(Self { reader, name, dtype, offset, bytes, allow_nonfinite, window: None })
    }

    /// The same tensor, read through a window.
    pub(super) fn through(self, window: &'a Window) -> Self {
        Self { window: Some(window), ..self }
    }

    /// What tells it from all other tensors that are open.
    pub(crate) fn identity(&self) -> (usize, u64) {
        (std::ptr::from_ref(self.reader) as usize, self.offset)
    }

    fn bytes<'b>(
        &'b self,
        start: usize,
        length: usize,
        scratch: &'b mut Vec<u8>,
    ) -> Result<Bytes<'b>> {
        let size = self.dtype.size();
        let (offset, length) = (self.offset + (start * size) as u64, length * size);
        match self.window {
            Some(window) => {
                window.read(self.reader, offset, length, self.offset + self.bytes, scratch)
            }
            None => self.reader.read(offset, length, scratch).map(Bytes::Plain),
        }
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
        self.dtype.widen(&bytes, &mut values);
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

impl Source for StoredTensor<'_> {
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
        {
            let bytes = self.bytes(start, out.len(), scratch)?;
            for (bytes, out) in bytes.chunks(PIECE * self.dtype.size()).zip(out.chunks_mut(PIECE)) {
                fused::prefetch(bytes);
                self.dtype.widen(bytes, out);
            }
        }
        if self.dtype != working {
            round_all(working, out);
        }
        match first_nonfinite(out) {
            Some(_) => self.check_finite(working, start, out.len()),
            None => Ok(()),
        }
    }

    fn read_delta(&self, run: DeltaRun, out: &mut [f32], scratch: &mut Vec<u8>) -> Result<()> {
        let DeltaRun { working, start, base } = run;
        // A statement of its own, whose bytes are let go of: what follows may read again.
        let done = fused::subtract(
            self.dtype,
            working,
            &self.bytes(start, out.len(), scratch)?,
            base,
            out,
        );
        match done {
            Some(true) => Ok(()),
            // A delta of finite values can overflow too; that shows in the output.
            Some(false) => self.check_finite(working, start, out.len()),
            None => Plain(self).read_delta(run, out, scratch),
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
        let done = fused::accumulate(
            self.dtype,
            working,
            &self.bytes(start, sums.len(), scratch)?,
            weight,
            sums,
        );
        match done {
            Some(true) => Ok(()),
            Some(false) => self.check_finite(working, start, sums.len()),
            None => Plain(self).accumulate(working, start, weight, sums, scratch),
        }
    }

    fn add_norms(
        &self,
        run: DeltaRun,
        mask: Masked,
        sums: &mut [[f64; SUM_LANES]; 2],
        scratch: &mut Vec<u8>,
    ) -> Result<()> {
        let DeltaRun { working, start, base } = run;
        let done = masked::add_norms(
            self.dtype,
            working,
            &self.bytes(start, base.len(), scratch)?,
            base,
            mask,
            sums,
        );
        match done {
            Some(true) => Ok(()),
            Some(false) => self.check_finite(working, start, base.len()),
            None => Plain(self).add_norms(run, mask, sums, scratch),
        }
    }

    fn add_delta(
        &self,
        run: DeltaRun,
        mask: Option<Masked>,
        factors: [f32; 2],
        sums: &mut [f32],
        scratch: &mut Vec<u8>,
    ) -> Result<()> {
        let DeltaRun { working, start, base } = run;
        let done = masked::deltas::<true>(
            self.dtype,
            working,
            &self.bytes(start, base.len(), scratch)?,
            base,
            mask,
            factors,
            sums,
        );
        match done {
            Some(true) => Ok(()),
            Some(false) => self.check_finite(working, start, base.len()),
            None => Plain(self).add_delta(run, mask, factors, sums, scratch),
        }
    }

    fn kept_delta(
        &self,
        run: DeltaRun,
        mask: Masked,
        factors: [f32; 2],
        out: &mut [f32],
        scratch: &mut Vec<u8>,
    ) -> Result<()> {
        let DeltaRun { working, start, base } = run;
        let done = masked::deltas::<false>(
            self.dtype,
            working,
            &self.bytes(start, base.len(), scratch)?,
            base,
            Some(mask),
            factors,
            out,
        );
        match done {
            Some(true) => Ok(()),
            Some(false) => self.check_finite(working, start, base.len()),
            None => Plain(self).kept_delta(run, mask, factors, out, scratch),
        }
    }

    fn read_bytes(&self, start: usize, out: &mut [u8], _scratch: &mut Vec<u8>) -> Result<()> {
        self.reader.copy(self.offset + (start * self.dtype.size()) as u64, out)
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

    fn hash(&self, elements: Range<usize>, scratch: &mut Vec<u8>) -> Result<u64> {
        Ok(xxh3_64(&self.bytes(elements.start, elements.len(), scratch)?))
    }

    fn is_cached(&self, elements: Range<usize>) -> bool {
        self.reader.is_cached(self.byte_range(elements))
    }

    fn will_need(&self, elements: Range<usize>) {
        self.reader.will_need(self.byte_range(elements));
    }

    fn release(&self, elements: Range<usize>) {
        if self.window.is_none() {
            self.reader.release(self.byte_range(elements));
        }
    }
}

/// The same tensor, for what no fused kernel does: every method but `read` has its plain form.
#[derive(Debug)]
struct Plain<'a>(&'a StoredTensor<'a>);

impl Source for Plain<'_> {
    fn dtype(&self) -> Float {
        self.0.dtype()
    }

    fn read(
        &self,
        working: Float,
        start: usize,
        out: &mut [f32],
        scratch: &mut Vec<u8>,
    ) -> Result<()> {
        self.0.read(working, start, out, scratch)
    }

    fn will_need(&self, elements: Range<usize>) {
        self.0.will_need(elements);
    }

    fn release(&self, elements: Range<usize>) {
        self.0.release(elements);
    }
}
