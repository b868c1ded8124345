//! What a method must know of one expert's whole tensor before it can apply: small states that
//! merge in any order and do not depend on which other experts take part, so that a sweep over many
//! subsets computes them once.

pub mod content;
pub mod fingerprint;
pub mod magnitude;
pub mod norm;
pub mod ranks;
pub mod selection;

use crate::error::Result;
use crate::segments::Segment;

/// Takes a stream's number, the index of its chunk's first element, and the chunk.
pub type Visit<'a> = dyn FnMut(usize, usize, &mut [f32]) -> Result<()> + 'a;

/// Reads runs of one or several experts' deltas, chunk after chunk.
pub trait DeltaWalk: Sync {
    /// How many experts it walks over side by side.
    fn streams(&self) -> usize;

    /// Walk over a run of elements: `visit(stream, start, chunk)` for every stream, chunk by chunk.
    ///
    /// # Errors
    /// Whatever reading the inputs or `visit` gives.
    fn walk(&self, segment: &Segment, visit: &mut Visit) -> Result<()>;
}
