//! What a group method is to the code that runs it.

use crate::error::Result;
use crate::execute::group::sweep::{Buffers, Inputs, Sweep};
use crate::number::Precision;
use crate::work::Segment;

/// A group method, at one precision.
pub(super) trait Method<P: Precision>: Sync {
    /// What the statistics leave for the elementwise pass.
    type State: Sync;

    /// Sweeps over all inputs that the statistics take at most.
    fn sweeps(&self, inputs: &Inputs) -> u64;
    fn statistics(&self, sweep: &Sweep) -> Result<Self::State>;
    /// Elements equal to a threshold that are taken in a segment.
    fn ties(&self, _state: &Self::State, _segment: &Segment) -> u64 {
        0
    }
    /// Results of the elements from `start` that `buffers` holds.
    fn apply(&self, state: &Self::State, start: usize, buffers: &mut Buffers, out: &mut [f32]);
}
