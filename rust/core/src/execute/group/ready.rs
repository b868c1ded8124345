//! A group method whose statistics are known.

use crate::error::Result;
use crate::execute::group::method::Method;
use crate::execute::group::sweep::{Buffers, Sweep};
use crate::execute::pass::Apply;
use crate::number::Precision;
use crate::work::Segment;

/// Statistics are known: segments can be computed, in any order.
pub(crate) trait Ready: Sync {
    /// The work on one segment.
    fn segment<'s>(&'s self, segment: &Segment) -> Box<dyn Apply + 's>;
}

pub(super) struct GroupPass<'a, P: Precision, M: Method<P>> {
    method: &'a M,
    sweep: Sweep<'a>,
    state: M::State,
}

impl<'a, P: Precision, M: Method<P>> GroupPass<'a, P, M> {
    pub(super) fn new(method: &'a M, sweep: Sweep<'a>) -> Result<Self> {
        Ok(Self { method, sweep, state: method.statistics(&sweep)? })
    }
}

impl<P: Precision, M: Method<P>> Ready for GroupPass<'_, P, M> {
    fn segment<'s>(&'s self, segment: &Segment) -> Box<dyn Apply + 's> {
        let ties = self.method.ties(&self.state, segment);
        Box::new(GroupApply { group: self, buffers: Buffers { ties, ..Buffers::default() } })
    }
}

struct GroupApply<'a, P: Precision, M: Method<P>> {
    group: &'a GroupPass<'a, P, M>,
    buffers: Buffers,
}

impl<P: Precision, M: Method<P>> Apply for GroupApply<'_, P, M> {
    fn chunk(&mut self, start: usize, outs: &mut [Vec<f32>]) -> Result<()> {
        let Some(out) = outs.first_mut() else { return Ok(()) };
        let GroupPass { method, sweep, state } = self.group;
        sweep.read(start..start + out.len(), &mut self.buffers)?;
        method.apply(state, start, &mut self.buffers, out);
        Ok(())
    }
}
