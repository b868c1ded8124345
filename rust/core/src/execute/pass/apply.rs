//! The second pass: what every kind of merge is to the code that walks and writes blocks.

use crate::error::Result;

/// Turns a run of elements into output values, chunk by chunk; one for each segment.
pub(crate) trait Apply {
    /// Elements `start .. start + len` of every result, where `len` is the length of each of `outs`.
    fn chunk(&mut self, start: usize, outs: &mut [Vec<f32>]) -> Result<()>;
}
