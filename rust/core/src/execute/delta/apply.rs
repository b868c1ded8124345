//! The last pass: thin every delta as its state says, mix, and add to the base.

use std::borrow::Cow;

use crate::error::Result;
use crate::execute::apply::Apply;
use crate::execute::delta::masks::MaskMaker;
use crate::execute::delta::statistics::States;
use crate::execute::delta::DeltaJob;
use crate::execute::JobControl;
use crate::kernels::combine::combine;
use crate::kernels::elementwise::scale;
use crate::precision::Precision;
use crate::segments::Segment;
use crate::source::Source;
use crate::statistics::selection::Cursor;

/// The work on one segment, once the statistics are known.
pub struct DeltaApply<'a, P> {
    job: &'a DeltaJob<'a>,
    scales: &'a [f32],
    cursors: Vec<Cursor<'a>>,
    control: &'a JobControl<'a>,
    deltas: Vec<Vec<f32>>,
    scratch: Vec<u8>,
    precision: std::marker::PhantomData<P>,
}

impl<'a> DeltaJob<'a> {
    /// # Errors
    /// Whatever reading gives: masks that were not kept are made here again.
    pub fn apply<'b, P: Precision>(
        &'b self,
        states: &'b States,
        segment: &Segment,
        chunk: usize,
        control: &'b JobControl<'b>,
    ) -> Result<DeltaApply<'b, P>> {
        let mut maker = MaskMaker::new(self, chunk, control);
        let mut cursors = Vec::with_capacity(self.experts.len());
        for (expert, selection) in states.selections.iter().enumerate() {
            let mask = match states.masks.get(segment.number).map(|masks| &masks[expert]) {
                Some(kept) => kept.as_ref().map(Cow::Borrowed),
                None => maker.mask(expert, selection, segment, None)?.map(Cow::Owned),
            };
            cursors.push(selection.cursor(segment, mask));
        }
        Ok(DeltaApply {
            job: self,
            scales: &states.scales,
            cursors,
            control,
            deltas: vec![Vec::new(); self.experts.len()],
            scratch: Vec::new(),
            precision: std::marker::PhantomData,
        })
    }
}

impl<P: Precision> Apply for DeltaApply<'_, P> {
    fn chunk(&mut self, start: usize, out: &mut [f32]) -> Result<()> {
        let job = self.job;
        let mut read = job.base.dtype().size();
        job.base.read(job.dtype, start, out, &mut self.scratch)?;
        for (number, expert) in job.experts.iter().enumerate() {
            let delta = &mut self.deltas[number];
            delta.resize(out.len(), 0.0);
            expert.tensor.read_delta(job.dtype, start, out, delta, &mut self.scratch)?;
            self.cursors[number].apply(start, delta);
            for factor in [self.scales[number], job.mix.weights[number]] {
                if factor != 1.0 {
                    scale::<P>(delta, factor);
                }
            }
            read += expert.tensor.dtype().size();
        }
        combine::<P>(&job.mix, &self.deltas, out);
        self.control.add(read * out.len());
        Ok(())
    }
}
