//! A tensor that a job reads, of whatever kind, as far as its content is compared.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

use crate::error::Result;
use crate::source::wide::WideStored;
use crate::source::{RawTensor, Source, Tensor};

/// A tensor that a job reads.
pub(crate) enum AnyTensor<'a> {
    /// Of numbers that are merged in float32.
    Narrow(Tensor<'a>),
    /// Of float64 or complex numbers.
    Wide(WideStored<'a>),
    /// Copied as bytes; with the bits of an element.
    Raw(RawTensor<'a>, usize),
}

impl AnyTensor<'_> {
    /// What tells it from all other tensors that are open.
    pub(crate) fn identity(&self) -> (usize, u64) {
        match self {
            Self::Narrow(tensor) => tensor.identity(),
            Self::Wide(tensor) => tensor.identity(),
            Self::Raw(tensor, _) => tensor.identity(),
        }
    }

    /// A hash of what some elements are read from; see [`Source::hash`].
    ///
    /// # Errors
    /// As for [`Source::read`].
    pub(crate) fn hash(&self, elements: Range<usize>, scratch: &mut Vec<u8>) -> Result<u64> {
        match self {
            Self::Narrow(tensor) => tensor.hash(elements, scratch),
            Self::Wide(tensor) => tensor.hash(elements, scratch),
            Self::Raw(tensor, bits) => tensor.hash(elements, *bits, scratch),
        }
    }
}

impl RawTensor<'_> {
    /// What tells it from all other tensors that are open.
    pub(crate) fn identity(&self) -> (usize, u64) {
        (std::ptr::from_ref(self.reader) as usize, self.offset)
    }

    /// A hash of the bytes of some elements, of so many bits each.
    ///
    /// # Errors
    /// [`crate::Error::Io`]
    pub(crate) fn hash(
        &self,
        elements: Range<usize>,
        bits: usize,
        scratch: &mut Vec<u8>,
    ) -> Result<u64> {
        let (offset, length) = (elements.start * bits / 8, (elements.len() * bits).div_ceil(8));
        Ok(xxh3_64(self.reader.read(self.offset + offset as u64, length, scratch)?))
    }
}
