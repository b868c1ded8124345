//! Where input comes from: blocks of a base or of an expert.

use xxhash_rust::xxh3::xxh3_64;

use crate::checkpoint::{Checkpoint, Reader};
use crate::dtype::Float;
use crate::error::{Error, Result};
use crate::kernels::elementwise::{first_nonfinite, round_all};

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

    /// xxh3 of the stored bytes of elements `start .. start + length`.
    ///
    /// # Errors
    /// [`Error::Io`]
    fn hash(&self, start: usize, length: usize, scratch: &mut Vec<u8>) -> Result<u64>;
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

    fn bytes<'b>(
        &'b self,
        start: usize,
        length: usize,
        scratch: &'b mut Vec<u8>,
    ) -> Result<&'b [u8]> {
        let size = self.dtype.size();
        self.reader.read(self.offset + (start * size) as u64, length * size, scratch)
    }

    fn nonfinite(&self, working: Float, start: usize, index: usize) -> Error {
        let mut value = [0.0];
        let mut scratch = Vec::new();
        if let Ok(bytes) = self.bytes(start + index, 1, &mut scratch) {
            self.dtype.widen(bytes, &mut value);
        }
        Error::NonFinite {
            path: self.reader.path().into(),
            tensor: self.name.into(),
            index: (start + index) as u64,
            value: value[0],
            dtype: working.name(),
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
            Some(index) if !self.allow_nonfinite => Err(self.nonfinite(working, start, index)),
            _ => Ok(()),
        }
    }

    fn hash(&self, start: usize, length: usize, scratch: &mut Vec<u8>) -> Result<u64> {
        Ok(xxh3_64(self.bytes(start, length, scratch)?))
    }
}
