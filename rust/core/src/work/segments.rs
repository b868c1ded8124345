//! How a tensor is cut for parallel work.
//!
//! A *block* is 65,536 elements: the unit of writing, hashing and exact sums. A *segment* is a run of
//! whole blocks: the unit of parallel work and of the statistics' counts. A *chunk* is what a kernel
//! sees at a time. None of the three changes a byte of the output.

use std::ops::Range;

/// Elements of a block.
pub(crate) const BLOCK: usize = 1 << 16;
/// Chunks of this many elements keep a kernel's buffers in the second-level cache.
pub const DEFAULT_CHUNK: usize = 4096;
/// Tensors below this many elements are one segment: there are others to keep the cores busy.
const LARGE: usize = 1 << 24;
/// Segments of a large tensor. Each costs up to 256 KiB while its magnitudes are counted.
const SEGMENTS: usize = 32;

/// A run of a tensor's elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Position among the tensor's segments.
    pub number: usize,
    /// The elements.
    pub range: Range<usize>,
}

impl Segment {
    /// The segment's blocks, in order.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        pieces(self.range.clone(), BLOCK)
    }
}

/// Whether a tensor is worth several workers.
pub(crate) fn is_large(len: usize) -> bool {
    len >= LARGE
}

/// Cut a tensor of `len` elements; an empty tensor has one empty segment.
pub(crate) fn segments(len: usize) -> Vec<Segment> {
    let count = if is_large(len) { SEGMENTS } else { 1 };
    let length = len.div_ceil(count).next_multiple_of(BLOCK).max(BLOCK);
    let runs = pieces(0..len.max(1), length);
    runs.enumerate()
        .map(|(number, run)| Segment { number, range: run.start..run.end.min(len) })
        .collect()
}

/// `range` in pieces of `length`.
pub(crate) fn pieces(range: Range<usize>, length: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(length).map(move |start| start..(start + length).min(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_cover_the_tensor_once_and_begin_on_blocks() {
        for len in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, LARGE - 1, LARGE, LARGE + 1, 3 * LARGE + 7] {
            let segments = segments(len);
            assert!(!segments.is_empty() && segments.len() <= SEGMENTS);
            let mut end = 0;
            for (number, segment) in segments.iter().enumerate() {
                assert_eq!((segment.number, segment.range.start), (number, end));
                assert_eq!(segment.range.start % BLOCK, 0);
                end = segment.range.end;
                let covered: usize = segment.blocks().map(|block| block.len()).sum();
                assert_eq!(covered, segment.range.len());
            }
            assert_eq!(end, len);
        }
    }
}
