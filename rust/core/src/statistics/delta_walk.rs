//! Going over deltas, which statistics leave to whoever has the inputs.

use std::ops::Range;

use crate::error::Result;
use crate::work::Segment;

/// Takes a stream's number, the index of its chunk's first element, and the chunk.
pub(crate) type Visit<'a> = dyn FnMut(usize, usize, &mut [f32]) -> Result<()> + 'a;

/// Reads one or several experts' deltas, chunk after chunk.
pub(crate) trait DeltaWalk: Sync {
    /// How many experts it walks over side by side.
    fn streams(&self) -> usize;

    /// Walk over a segment, as part of a pass: `visit(stream, start, chunk)` for some streams, chunk by
    /// chunk.
    ///
    /// # Errors
    /// Whatever reading the inputs or `visit` gives.
    fn walk(&self, segment: &Segment, streams: &[usize], visit: &mut Visit) -> Result<()>;

    /// The same over a short run, which a pass goes over too: it is not counted as read.
    ///
    /// # Errors
    /// As for [`DeltaWalk::walk`].
    fn sample(&self, run: Range<usize>, streams: &[usize], visit: &mut Visit) -> Result<()>;

    /// Those of some runs that are read, out of turn, without a disk seek.
    fn at_hand(&self, runs: Vec<Range<usize>>) -> Vec<Range<usize>>;

    /// Told of the streams whose magnitudes are counted in tables.
    fn counted_in_tables(&self, streams: usize);
}
