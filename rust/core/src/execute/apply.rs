//! The second pass: what every kind of merge is to the code that walks and writes blocks.

use crate::error::Result;

/// Turns a run of elements into output values, chunk by chunk; one for each segment.
pub trait Apply {
    /// Elements `start .. start + out.len()` of the result.
    fn chunk(&mut self, start: usize, out: &mut [f32]) -> Result<()>;
}
