//! Tensors that are others', rounded or put together.

use std::ops::Range;

use crate::error::Result;
use crate::kernels::elementwise::round_all;
use crate::number::Float;
use crate::source::{Source, Tensor};
use crate::statistics::content;

/// A tensor, rounded to another dtype.
#[derive(Debug)]
pub(super) struct CastTensor<'a> {
    pub tensor: Tensor<'a>,
    pub dtype: Float,
}

impl Source for CastTensor<'_> {
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
        self.tensor.read(self.dtype, start, out, scratch)?;
        if working != self.dtype {
            round_all(working, out);
        }
        Ok(())
    }

    fn hash(&self, elements: Range<usize>, scratch: &mut Vec<u8>) -> Result<u64> {
        self.tensor.hash(elements, scratch)
    }

    fn scratch_bytes(&self, chunk: usize) -> usize {
        self.tensor.scratch_bytes(chunk)
    }

    fn will_need(&self, elements: Range<usize>) {
        self.tensor.will_need(elements);
    }

    fn release(&self, elements: Range<usize>) {
        self.tensor.release(elements);
    }
}

/// Tensors one behind the other.
#[derive(Debug)]
pub(super) struct ConcatTensor<'a> {
    /// Each part with the elements of the whole that it is.
    parts: Vec<(Tensor<'a>, Range<usize>)>,
    dtype: Float,
}

impl<'a> ConcatTensor<'a> {
    /// `lengths` are the parts' elements.
    pub(super) fn new(parts: Vec<Tensor<'a>>, lengths: &[usize], dtype: Float) -> Self {
        let mut end = 0;
        let place = |(part, &length): (_, &usize)| {
            let start = end;
            end += length;
            (part, start..end)
        };
        Self { parts: parts.into_iter().zip(lengths).map(place).collect(), dtype }
    }

    /// The parts that hold some elements: each with its elements, and where they are in the whole.
    fn within(
        &self,
        elements: Range<usize>,
    ) -> impl Iterator<Item = (&Tensor<'a>, Range<usize>, usize)> {
        let first = self.parts.partition_point(|(_, place)| place.end <= elements.start);
        let touched = self.parts[first..].iter();
        let end = elements.end;
        touched.take_while(move |(_, place)| place.start < end).map(move |(part, place)| {
            let (start, end) = (elements.start.max(place.start), elements.end.min(place.end));
            (part, start - place.start..end.max(start) - place.start, start)
        })
    }
}

impl Source for ConcatTensor<'_> {
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
        for (part, own, at) in self.within(start..start + out.len()) {
            let out = &mut out[at - start..][..own.len()];
            part.read(working, own.start, out, scratch)?;
        }
        Ok(())
    }

    fn hash(&self, elements: Range<usize>, scratch: &mut Vec<u8>) -> Result<u64> {
        let parts = self.within(elements).map(|(part, own, _)| part.hash(own, scratch));
        Ok(content::combine(&parts.collect::<Result<Vec<_>>>()?))
    }

    fn scratch_bytes(&self, chunk: usize) -> usize {
        self.parts.iter().map(|(part, _)| part.scratch_bytes(chunk)).max().unwrap_or(0)
    }

    fn will_need(&self, elements: Range<usize>) {
        self.within(elements).for_each(|(part, own, _)| part.will_need(own));
    }

    fn release(&self, elements: Range<usize>) {
        self.within(elements).for_each(|(part, own, _)| part.release(own));
    }
}
