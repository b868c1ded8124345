//! The passes that come before: thresholds, fingerprints, norms.

use std::ops::Range;

use crate::error::Result;
use crate::execute::delta::job::{DeltaJob, Expert};
use crate::execute::delta::masks::MaskMaker;
use crate::execute::pass::{Masks, Resources};
use crate::kernels::drop::{limit, Mask};
use crate::kernels::elementwise::{round_all, with_precision};
use crate::number::philox::Stream;
use crate::number::{Bf16, Float, F16, F32};
use crate::plan::Sparsify;
use crate::source::{Behind, DeltaRun, Source, Tensor};
use crate::statistics::magnitude::{thresholds, Threshold, Wanted};
use crate::statistics::norm::{l1_scales, scale_of, Leaves};
use crate::statistics::ranks::RankLimits;
use crate::statistics::selection::{Chance, Selection};
use crate::statistics::{around, magnitude, DeltaWalk, Visit};
use crate::work::{is_large, pieces, segments, Segment};

/// What applying every expert needs to know of its whole tensor.
#[derive(Default)]
pub(crate) struct States {
    /// Which elements of each expert are kept.
    pub selections: Vec<Selection>,
    /// Factor on what is kept; 1 where nothing is rescaled.
    pub scales: Vec<f32>,
    /// Masks of each expert, where they were made and there is room to keep them.
    pub masks: Vec<Option<Masks>>,
}

impl DeltaJob<'_> {
    /// Go over the inputs as often as the method needs before it can apply.
    ///
    /// `stay` are experts whose masks are kept in any case, for later runs.
    ///
    /// # Errors
    /// Whatever reading gives.
    pub(crate) fn states(
        &self,
        segments: &[Segment],
        resources: &Resources,
        stay: &[usize],
    ) -> Result<States> {
        let whole = |expert: &Expert| {
            let all = self.sparsify == Sparsify::None || expert.density >= 1.0 || self.len == 0;
            if all {
                Selection::All
            } else {
                Selection::Nothing
            }
        };
        let mut states = States {
            selections: self.experts.iter().map(whole).collect(),
            scales: vec![1.0; self.experts.len()],
            masks: vec![None; self.experts.len()],
        };
        let thinned = self.thinned();
        if thinned.is_empty() {
            return Ok(states);
        }
        if self.is_random() {
            let drawn = resources
                .parallel
                .map(thinned.len(), |i| self.random(&self.experts[thinned[i]]))?;
            for (&expert, selection) in thinned.iter().zip(drawn) {
                states.selections[expert] = selection;
            }
            let masks = thinned.len() * Mask::bytes(self.len);
            let fit = masks + self.norm_bytes(thinned.len()) <= resources.cache_bytes;
            if self.rescale {
                let keep = if fit { &thinned[..] } else { stay };
                self.make_masks(&thinned, keep, segments, resources, &mut states)?;
            } else if !stay.is_empty() {
                self.make_masks(stay, stay, segments, resources, &mut states)?;
            }
            return Ok(states);
        }
        let (_, each) = self.threshold_bytes(segments.len(), resources.parallel.threads());
        let at_once = (resources.cache_bytes / each).max(1);
        // Where not even one expert has the room that it would like, less is set aside.
        let there = each.min(resources.cache_bytes).saturating_sub(around::SAMPLE_BYTES);
        let most = around::aside_bytes(self.len);
        let aside = most.min(there / self.ranks_per_expert());
        for group in thinned.chunks(at_once) {
            let walk = Walk { job: self, experts: group, resources };
            let wanted = group.iter().map(|&i| self.wanted(&self.experts[i])).collect::<Vec<_>>();
            let found = self.thresholds(&walk, segments, &wanted, aside)?;
            for (&expert, selection) in group.iter().zip(found) {
                states.selections[expert] = selection;
            }
            if self.rescale {
                let chosen: Vec<_> = group.iter().map(|&i| &states.selections[i]).collect();
                let rounding = self.rescale_dtype();
                let scales = l1_scales(&walk, segments, &chosen, rounding, resources.parallel)?;
                for (&expert, scale) in group.iter().zip(scales) {
                    states.scales[expert] = scale;
                }
            }
        }
        Ok(states)
    }

    /// Bytes that the statistics take, all experts together: the least, and what serves speed best.
    pub(crate) fn statistics_bytes(&self, threads: usize) -> (usize, usize) {
        let (thinned, segments) = (self.thinned().len(), segments(self.len).len());
        if thinned == 0 {
            return (0, 0);
        }
        if !self.is_random() {
            let (least, most) = self.threshold_bytes(segments, threads);
            return (least, most * thinned);
        }
        let least = self.norm_bytes(thinned);
        (least, least + thinned * Mask::bytes(self.len))
    }

    /// Bytes of the sums and tables of experts that are thinned at random.
    fn norm_bytes(&self, thinned: usize) -> usize {
        let tables = match self.sparsify {
            Sparsify::Ranks => RankLimits::bytes(self.rows.columns),
            _ => 0,
        };
        thinned * (Leaves::bytes(self.len) + tables)
    }

    /// Bytes that finding one expert's thresholds takes: the least, and what serves speed best.
    fn threshold_bytes(&self, segments: usize, threads: usize) -> (usize, usize) {
        let ranks = self.ranks_per_expert();
        let low = if self.has_low_bits() { ranks * magnitude::low_bytes(segments) } else { 0 };
        let least = magnitude::high_bytes(segments, threads) + low;
        (least, least.max(ranks * around::aside_bytes(self.len) + around::SAMPLE_BYTES))
    }

    fn ranks_per_expert(&self) -> usize {
        if self.sparsify == Sparsify::Outliers {
            2
        } else {
            1
        }
    }

    /// How many of the largest are dropped, and how many are there down to the least that is kept.
    pub(super) fn wanted(&self, expert: &Expert) -> (u64, u64) {
        let share = |part: f64| (part * self.len as f64) as u64;
        let (n, kept) = (self.len as u64, share(expert.density));
        match self.sparsify {
            Sparsify::Outliers => {
                let bottom = n.saturating_sub(kept).saturating_sub(share(expert.gamma));
                let dropped = n - bottom - kept;
                (dropped, dropped + kept)
            }
            _ => (0, kept.max(1)),
        }
    }

    fn thresholds(
        &self,
        walk: &Walk,
        segments: &[Segment],
        wanted: &[(u64, u64)],
        aside: usize,
    ) -> Result<Vec<Selection>> {
        let ranks: Vec<Wanted> = wanted
            .iter()
            .enumerate()
            .flat_map(|(stream, &(top, least))| [top, least].map(|rank| Wanted { stream, rank }))
            .filter(|wanted| wanted.rank > 0)
            .collect();
        let parallel = walk.resources.parallel;
        let found = thresholds(walk, segments, &ranks, self.has_low_bits(), aside, parallel)?;
        let mut found = ranks.into_iter().zip(found).peekable();
        let mut selections = Vec::with_capacity(wanted.len());
        for (stream, &(top, least)) in wanted.iter().enumerate() {
            let mut next = |rank: u64| -> Option<Threshold> {
                let expected = Wanted { stream, rank };
                found.next_if(|(wanted, _)| *wanted == expected).map(|(_, threshold)| threshold)
            };
            let top = next(top);
            selections.push(match next(least) {
                Some(least_kept) if Some(&least_kept) != top.as_ref() => {
                    Selection::Magnitude { least: least_kept, top }
                }
                _ => Selection::Nothing,
            });
        }
        Ok(selections)
    }

    fn random(&self, expert: &Expert) -> Result<Selection> {
        let stream = Stream::new(self.seed, self.name, expert.tensor.fingerprint(self.len)?);
        let chance = match self.sparsify {
            Sparsify::Ranks => {
                let columns = self.rows.columns;
                let dtype = if self.dtype == Float::F16 { Float::F32 } else { self.dtype };
                Chance::Ranked(with_precision!(dtype, P => {
                    RankLimits::new::<P>(columns, expert.density, expert.epsilon)
                }))
            }
            _ => Chance::Same(limit(self.probability(expert.density))),
        };
        Ok(Selection::Random { stream, chance })
    }

    /// mergekit draws from a tensor of the delta's dtype, but from float32 for float16 on a CPU.
    fn probability(&self, density: f64) -> f32 {
        let mut probability = [density as f32];
        if self.dtype == Float::Bf16 {
            round_all(Float::Bf16, &mut probability);
        }
        probability[0]
    }

    /// mergekit rescales a randomly thinned float16 delta in float32, everything else in its dtype.
    fn rescale_dtype(&self) -> Float {
        match self.dtype {
            Float::F16 if self.is_random() => Float::F32,
            dtype => dtype,
        }
    }

    /// Make the masks of some experts, and from them the factors where those are wanted.
    fn make_masks(
        &self,
        experts: &[usize],
        keep: &[usize],
        segments: &[Segment],
        resources: &Resources,
        states: &mut States,
    ) -> Result<()> {
        let made = resources.parallel.map(segments.len(), |number| {
            let segment = &segments[number];
            let mut maker = MaskMaker::new(self, resources.chunk, resources.control);
            let mut leaves = vec![Leaves::new(segment); experts.len()];
            let chosen: Vec<_> = experts.iter().map(|&i| (i, &states.selections[i])).collect();
            let noted = if self.rescale { &mut leaves[..] } else { &mut [] };
            let masks = maker.masks(&chosen, segment, noted)?;
            if self.rescale && self.sparsify == Sparsify::Random {
                self.add_norms(experts, segment, &masks, &mut leaves, resources)?;
            } else if self.rescale {
                let sizes = self.base.dtype().size() + self.sizes(experts);
                resources.control.add(segment.range.len() * sizes);
            }
            let kept = experts.iter().zip(masks).filter(|(expert, _)| keep.contains(expert));
            Ok((kept.filter_map(|(_, mask)| mask).collect::<Vec<_>>(), leaves))
        })?;
        if self.rescale {
            for (i, &expert) in experts.iter().enumerate() {
                let leaves = made.iter().map(|(_, leaves)| &leaves[i]);
                states.scales[expert] = scale_of(leaves, self.rescale_dtype());
            }
        }
        let mut kept = vec![Vec::with_capacity(segments.len()); keep.len()];
        for (masks, _) in made {
            kept.iter_mut().zip(masks).for_each(|(kept, mask)| kept.push(mask));
        }
        for (&expert, masks) in keep.iter().zip(kept) {
            states.masks[expert] = Some(masks.into());
        }
        Ok(())
    }

    /// Norms before and after masks that are there already, all experts side by side.
    fn add_norms(
        &self,
        experts: &[usize],
        segment: &Segment,
        masks: &[Option<Mask>],
        leaves: &mut [Leaves],
        resources: &Resources,
    ) -> Result<()> {
        let Resources { chunk, control, .. } = *resources;
        let mut base = vec![0.0; chunk.min(segment.range.len())];
        let mut scratch = Vec::new();
        let inputs = self.inputs_of(experts);
        let mut behind = Behind::early(&inputs, segment, self.len);
        for range in pieces(segment.range.clone(), chunk) {
            behind.passed(range.start);
            control.check()?;
            let base = &mut base[..range.len()];
            self.base.read(self.dtype, range.start, base, &mut scratch)?;
            for ((&expert, mask), leaves) in experts.iter().zip(masks).zip(&mut *leaves) {
                let Some(mask) = mask else { continue };
                let masked = (mask, range.start - segment.range.start);
                let tensor = &self.experts[expert].tensor;
                let sums = leaves.sums(range.start);
                let run = DeltaRun { working: self.dtype, start: range.start, base };
                tensor.add_norms(run, masked, sums, &mut scratch)?;
            }
            control.add(range.len() * (self.base.dtype().size() + self.sizes(experts)));
        }
        behind.finish();
        Ok(())
    }

    /// The base and some experts.
    fn inputs_of(&self, experts: &[usize]) -> Vec<&Tensor<'_>> {
        let tensors = experts.iter().map(|&expert| &self.experts[expert].tensor);
        std::iter::once(&self.base).chain(tensors).collect()
    }

    /// Bytes of one element of each of some experts.
    fn sizes(&self, experts: &[usize]) -> usize {
        experts.iter().map(|&expert| self.experts[expert].tensor.dtype().size()).sum()
    }
}

/// The deltas of some experts, side by side.
struct Walk<'a> {
    job: &'a DeltaJob<'a>,
    experts: &'a [usize],
    resources: &'a Resources<'a>,
}

impl Walk<'_> {
    /// Go over a run of elements; `is_pass` counts it as read.
    fn go(
        &self,
        segment: &Segment,
        is_pass: bool,
        streams: &[usize],
        visit: &mut Visit,
    ) -> Result<()> {
        let Resources { chunk, control, .. } = *self.resources;
        let length = chunk.min(segment.range.len());
        let (mut base, mut delta) = (vec![0.0; length], vec![0.0; length]);
        let mut scratch = Vec::new();
        let experts: Vec<usize> = streams.iter().map(|&stream| self.experts[stream]).collect();
        let inputs = self.job.inputs_of(&experts);
        let mut behind = Behind::early(&inputs, segment, self.job.len);
        for range in pieces(segment.range.clone(), chunk) {
            behind.passed(range.start);
            control.check()?;
            let (base, delta) = (&mut base[..range.len()], &mut delta[..range.len()]);
            self.job.base.read(self.job.dtype, range.start, base, &mut scratch)?;
            let mut read = self.job.base.dtype().size();
            for (&stream, &expert) in streams.iter().zip(&experts) {
                let tensor = &self.job.experts[expert].tensor;
                let run = DeltaRun { working: self.job.dtype, start: range.start, base };
                tensor.read_delta(run, delta, &mut scratch)?;
                visit(stream, range.start, delta)?;
                read += tensor.dtype().size();
            }
            if is_pass {
                control.add(range.len() * read);
            }
        }
        behind.finish();
        Ok(())
    }
}

impl DeltaWalk for Walk<'_> {
    fn streams(&self) -> usize {
        self.experts.len()
    }

    fn walk(&self, segment: &Segment, streams: &[usize], visit: &mut Visit) -> Result<()> {
        self.go(segment, true, streams, visit)
    }

    fn sample(&self, run: Range<usize>, streams: &[usize], visit: &mut Visit) -> Result<()> {
        self.go(&Segment { number: 0, range: run }, false, streams, visit)
    }

    fn at_hand(&self, mut runs: Vec<Range<usize>>) -> Vec<Range<usize>> {
        // Small tensors are read ahead of the work, and are there soon in any case.
        if is_large(self.job.len) {
            let inputs = self.job.inputs_of(self.experts);
            runs.retain(|run| inputs.iter().all(|input| input.is_cached(run.clone())));
        }
        runs
    }

    fn counted_in_tables(&self, streams: usize) {
        self.resources.control.add_tables(streams, self.job.len);
    }
}
