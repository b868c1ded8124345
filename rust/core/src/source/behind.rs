//! Giving back the pages of inputs that a pass has read.

use std::ops::Range;

use crate::source::{Source, Tensor};
use crate::work::{is_large, Segment};

/// Elements after which the pages behind the cursor are given back.
const RELEASE: usize = 1 << 21;

/// Gives the pages behind a cursor back.
pub(crate) struct Behind<'a, 'b> {
    inputs: &'a [&'a Tensor<'b>],
    from: usize,
    end: usize,
}

impl<'a, 'b> Behind<'a, 'b> {
    /// In the last pass over a segment.
    pub(crate) fn new(inputs: &'a [&'a Tensor<'b>], segment: &Segment) -> Self {
        let Range { start, end } = segment.range;
        Self { inputs, from: start, end }
    }

    /// In a pass that others follow. Pages of a small tensor stay mapped until they have passed: to
    /// map them again takes a third of a merge's time.
    pub(crate) fn early(
        inputs: &'a [&'a Tensor<'b>],
        segment: &Segment,
        tensor_len: usize,
    ) -> Self {
        Self::new(if is_large(tensor_len) { inputs } else { &[] }, segment)
    }

    /// Elements before `element` have been read.
    pub(crate) fn passed(&mut self, element: usize) {
        if element - self.from >= RELEASE {
            for input in self.inputs {
                input.release(self.from..element);
            }
            self.from = element;
        }
    }

    /// All elements have been read.
    pub(crate) fn finish(self) {
        for input in self.inputs {
            input.release(self.from..self.end);
        }
    }
}
