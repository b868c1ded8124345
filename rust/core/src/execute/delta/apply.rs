//! The last pass: thin every delta as its state says, mix, and add to the base.

use std::ops::Range;

use crate::error::Result;
use crate::execute::delta::job::{DeltaJob, Mixed, Wanted};
use crate::execute::delta::masks::MaskMaker;
use crate::execute::delta::states::States;
use crate::execute::pass::{Apply, Resources};
use crate::kernels::combine::{add_sum, combine, Mix};
use crate::kernels::drop::Mask;
use crate::kernels::elementwise::{add, scale};
use crate::kernels::slope::slope_of;
use crate::number::Precision;
use crate::source::{DeltaRun, Source, Tensor};
use crate::statistics::selection::{Cursor, Selection};
use crate::work::{JobControl, Segment};

/// The work on one segment, once the statistics are known.
pub(crate) struct DeltaApply<'a, P> {
    job: &'a DeltaJob<'a>,
    /// The base and the experts, as they are read.
    inputs: &'a [Tensor<'a>],
    mixes: &'a [Mixed],
    scales: &'a [f32],
    /// For each expert what walks over the segment; none where no mix takes it.
    cursors: Vec<Option<Cursor<'a>>>,
    control: &'a JobControl<'a>,
    deltas: Vec<Vec<f32>>,
    weighted: Vec<Vec<f32>>,
    sums: Vec<f32>,
    scratch: Vec<u8>,
    precision: std::marker::PhantomData<P>,
}

impl<'a> DeltaJob<'a> {
    /// Compute `some` of the mixes from `inputs`, the base and the experts. Masks that the states do not hold are made here, into `made`:
    /// those of one segment, by expert, which serve the mixes that come next.
    ///
    /// # Errors
    /// Whatever reading gives.
    pub(crate) fn apply<'b, P: Precision>(
        &'b self,
        inputs: &'b [Tensor<'b>],
        states: &'b States,
        some: Range<usize>,
        segment: &Segment,
        resources: &Resources<'b>,
        made: &'b mut Vec<Option<Mask>>,
    ) -> Result<DeltaApply<'b, P>> {
        let Resources { chunk, control, .. } = *resources;
        let mixes = &self.mixes[some];
        let used = |expert| mixes.iter().any(|mixed| mixed.experts.contains(&expert));
        let mut maker = MaskMaker::new(self, chunk, control);
        made.resize(self.experts.len(), None);
        let selections = states.selections.iter().enumerate();
        let missing = selections
            .filter(|(i, _)| used(*i) && states.masks[*i].is_none() && made[*i].is_none())
            .collect::<Vec<_>>();
        let masks = maker.masks(&missing, segment, &mut [])?;
        for ((expert, _), mask) in missing.into_iter().zip(masks) {
            made[expert] = mask;
        }
        let cursor = |(expert, selection): (usize, &'b Selection)| {
            let kept = states.masks[expert].as_ref().map(|masks| &masks[segment.number]);
            used(expert).then(|| selection.cursor(segment, kept.or(made[expert].as_ref())))
        };
        let cursors = states.selections.iter().enumerate().map(cursor).collect();
        Ok(DeltaApply {
            job: self,
            inputs,
            mixes,
            scales: &states.scales,
            cursors,
            control,
            deltas: vec![Vec::new(); self.experts.len()],
            weighted: vec![Vec::new(); self.experts.len()],
            sums: Vec::new(),
            scratch: Vec::new(),
            precision: std::marker::PhantomData,
        })
    }
}

impl<P: Precision> DeltaApply<'_, P> {
    /// Compute the only mix, which wants nothing but a sum: as far as possible a delta goes from the
    /// file's bytes into it without a buffer.
    fn add_up(&mut self, mixed: &Mixed, start: usize, out: &mut [f32]) -> Result<()> {
        let (job, mix) = (self.job, &mixed.mix);
        let mut read = self.inputs[0].dtype().size();
        let sums = &mut self.sums;
        sums.clear();
        sums.resize(out.len(), 0.0);
        for (&expert, &weight) in mixed.experts.iter().zip(&mix.weights) {
            let tensor = &self.inputs[1 + expert];
            let factors = [self.scales[expert], weight];
            let run = DeltaRun { working: job.dtype, start, base: out };
            let scratch = &mut self.scratch;
            match &mut self.cursors[expert] {
                Some(Cursor::All) => {
                    tensor.add_delta(run, None, factors, sums, scratch)?;
                }
                Some(Cursor::Mask { mask, start: first }) => {
                    let masked = Some((*mask, start - *first));
                    tensor.add_delta(run, masked, factors, sums, scratch)?;
                }
                Some(cursor) => {
                    let delta = &mut self.deltas[expert];
                    delta.resize(out.len(), 0.0);
                    tensor.read_delta(run, delta, scratch)?;
                    cursor.apply(start, delta);
                    factors.iter().for_each(|factor| multiply::<P>(delta, *factor));
                    add(sums, delta);
                }
                None => {}
            }
            read += tensor.dtype().size();
        }
        self.control.add(read * out.len());
        add_sum::<P>(mix, sums, out);
        Ok(())
    }
}

impl<P: Precision> Apply for DeltaApply<'_, P> {
    fn chunk(&mut self, start: usize, outs: &mut [Vec<f32>]) -> Result<()> {
        let Some((base, others)) = outs.split_first_mut() else { return Ok(()) };
        let job = self.job;
        let [base_tensor, experts @ ..] = self.inputs else { return Ok(()) };
        base_tensor.read(job.dtype, start, base, &mut self.scratch)?;
        if let [mixed @ Mixed { wanted: Wanted::Merge, .. }] = self.mixes {
            if !mixed.mix.consensus {
                return self.add_up(mixed, start, base);
            }
        }
        let mut read = base_tensor.dtype().size();
        // Where there is one mix, nobody else wants these deltas without their weights.
        let weight = |number: usize| match self.mixes {
            [Mixed { experts, mix, wanted: Wanted::Merge }] => {
                experts.iter().position(|&expert| expert == number).map_or(1.0, |i| mix.weights[i])
            }
            _ => 1.0,
        };
        for (number, expert) in experts.iter().enumerate() {
            let Some(cursor) = &mut self.cursors[number] else { continue };
            let delta = &mut self.deltas[number];
            delta.resize(base.len(), 0.0);
            let run = DeltaRun { working: job.dtype, start, base };
            let factors = [self.scales[number], weight(number)];
            if let Cursor::Mask { mask, start: first } = cursor {
                let masked = (&**mask, start - *first);
                expert.kept_delta(run, masked, factors, delta, &mut self.scratch)?;
            } else {
                expert.read_delta(run, delta, &mut self.scratch)?;
                cursor.apply(start, delta);
                factors.into_iter().for_each(|factor| multiply::<P>(delta, factor));
            }
            read += expert.dtype().size();
        }
        self.control.add(read * base.len());
        if let [Mixed { experts, mix, wanted: Wanted::Merge }] = self.mixes {
            let deltas: Vec<&[f32]> = experts.iter().map(|&i| &self.deltas[i][..]).collect();
            combine::<P>(mix, &deltas, base);
            return Ok(());
        }
        others.iter_mut().for_each(|out| out.copy_from_slice(base));
        for (Mixed { experts, mix, wanted }, out) in self.mixes.iter().zip(outs) {
            for ((&expert, &weight), weighted) in
                experts.iter().zip(&mix.weights).zip(&mut self.weighted)
            {
                if weight != 1.0 {
                    weighted.clone_from(&self.deltas[expert]);
                    multiply::<P>(weighted, weight);
                }
            }
            let chosen = experts.iter().zip(&mix.weights).zip(&self.weighted);
            let deltas: Vec<&[f32]> = chosen
                .map(
                    |((&expert, &weight), weighted)| {
                        if weight == 1.0 {
                            &self.deltas[expert][..]
                        } else {
                            &weighted[..]
                        }
                    },
                )
                .collect();
            match *wanted {
                Wanted::Merge => combine::<P>(mix, &deltas, out),
                Wanted::Along(place) => {
                    let own = (&self.deltas[experts[place]][..], mix.weights[place]);
                    slope_of::<P>(mix, &deltas, own, out);
                }
                Wanted::Delta => {
                    out.fill(0.0);
                    combine::<P>(&Mix { lambda: 1.0, ..mix.clone() }, &deltas, out);
                }
            }
        }
        Ok(())
    }
}

fn multiply<P: Precision>(values: &mut [f32], factor: f32) {
    if factor != 1.0 {
        scale::<P>(values, factor);
    }
}
